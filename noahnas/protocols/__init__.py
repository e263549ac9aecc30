"""Protocols of papers: which runs stand for a table, and the table."""
