"""Strategies head-to-head: the same supernets, splits, seeds and budgets; intervals and tests."""
