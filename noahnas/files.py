"""Files that are whole or not there at all, and that tell when they have changed; and JSON."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from noahnas.errors import WriteError

SEAL = "sha256"  # the key of a JSON file, and the word before a digest in a binary one
_MARK = b"noahnas sha256 "
_BESIDE = re.compile(r"\..+\.(\w*-\d+)\.tmp", re.ASCII)  # what `write_atomic` writes to first


def process_name() -> str:
    """This process, among those of all machines that share a disk: HOST-PID, without dots."""
    host = re.sub(r"\W", "_", socket.gethostname(), flags=re.ASCII)
    return f"{host}-{os.getpid()}"


def running(name: str) -> bool | None:
    """Whether the process of a `process_name` runs; None = another machine's: nobody can tell."""
    host, _, pid = name.rpartition("-")
    if host != process_name().rpartition("-")[0] or not pid.isdecimal():
        return None
    if os.name == "nt":
        return True  # there, signal 0 would end the process
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def left_over(path: Path) -> bool:
    """Whether a file is what `write_atomic` leaves beside its place if it is killed."""
    found = _BESIDE.fullmatch(path.name)
    return found is not None and (found[1] == process_name() or not running(found[1]))


def sweep(folder: Path) -> None:
    """Remove what kills left of `write_atomic` in a folder in which no other machine writes."""
    for path in folder.glob(".*.tmp"):
        if left_over(path):
            with suppress(OSError):
                path.unlink()


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then rename over it.

    Raises:
        WriteError: if the disk is full, read-only or broken; `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{process_name()}.tmp")
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


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Plain values as JSON; a number that is not finite is null, since JSON has no NaN."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def own_bytes(path: Path) -> bytes:
    """The contents of a regular file; no link is followed, no pipe waited for.

    Raises:
        OSError: if it is none, or cannot be read.
    """
    check_own(path)
    return path.read_bytes()


def check_own(path: Path) -> None:
    """Raise OSError if a path is a link, a pipe or a device."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.ELOOP, "is a link, or no regular file", str(path))


def digest(content: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def sealed_json(value: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """A JSON object whose last key is the digest of the others."""
    plain = {key: _finite(found) for key, found in value.items() if key != SEAL}
    return (json_text(plain | {SEAL: _digest_of(plain)}, indent=indent) + "\n").encode()


def read_sealed_json(content: bytes) -> dict[str, Any]:
    """What `sealed_json` wrote, without its digest.

    Raises:
        ValueError: if it is no such JSON, or not what was written.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - of the file, not of an argument
    if value.pop(SEAL, None) != _digest_of(value):
        raise ValueError("its digest is not that of its contents: it has changed since it was made")
    return value


def sealed(content: bytes) -> bytes:
    """Bytes with their digest in a first line."""
    return _MARK + digest(content).encode() + b"\n" + content


def unsealed(content: bytes) -> bytes:
    """What was given to `sealed`.

    Raises:
        ValueError: if it is not what was written.
    """
    head, _, rest = content.partition(b"\n")
    if head != _MARK + digest(rest).encode():
        raise ValueError("its digest is not that of its contents: it has changed since it was made")
    return rest


def _digest_of(value: Mapping[str, Any]) -> str:
    return digest(json.dumps(value, ensure_ascii=False).encode())
