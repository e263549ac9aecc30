"""Prompt modules, one file each; each registers under the entry-point group `noahnas.modules`."""

from noahnas.modules.base import Layout, PromptModule, Site, Values

__all__ = ["Layout", "PromptModule", "Site", "Values"]
