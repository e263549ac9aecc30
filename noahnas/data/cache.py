"""Where decoded images and fetched files are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache's directory: `$NOAHNAS_CACHE`, else `noahnas` in the user's cache directory."""
    given = os.environ.get("NOAHNAS_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "noahnas"
