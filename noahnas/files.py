"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from noahnas.errors import WriteError


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then rename over it.

    Raises:
        WriteError: if the disk is full, read-only or broken; `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        beside.replace(path)
    except BaseException as e:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise WriteError(e.errno, e.strerror, str(path)) from e
        raise
