"""Prompt modules, one file each; each registers under the entry-point group `noahnas.modules`."""

from noahnas.modules.base import PromptModule

__all__ = ["PromptModule"]
