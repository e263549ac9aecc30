"""Members of packages, read one by one into memory: wheels, npm tarballs, Debian packages.

Nothing is written by the name it has in an archive, and a member larger than the limit is refused.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from noahnas.errors import DataError

LIMIT = 256 << 20  # bytes of one member
AR_MAGIC, AR_HEADER = b"!<arch>\n", 60  # bytes; see ar(5)


def members(
    path: Path, wanted: Callable[[str], bool], limit: int = LIMIT
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files whose name is `wanted`, in the archive's order.

    Args:
        path: a `.whl` or `.zip`, `.tgz` or `.tar.gz`, or `.deb` file.
        wanted: tells by the name inside the archive, without a leading `./`.
        limit: the most bytes that one member may have.

    Raises:
        DataError: if the archive cannot be read, or a member is larger than `limit`.
    """
    try:
        if path.suffix in (".whl", ".zip"):
            yield from _zipped(path, wanted, limit)
        elif path.suffix == ".deb":
            with path.open("rb") as file:
                yield from _tarred(io.BufferedReader(_data_of(file, path)), wanted, limit, path)
        else:
            with path.open("rb") as file:
                yield from _tarred(file, wanted, limit, path)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as e:
        raise DataError(f"{path}: cannot be unpacked: {e}") from e


def _zipped(path: Path, wanted: Callable[[str], bool], limit: int) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and wanted(info.filename):
                _check(info.file_size, limit, info.filename, path)
                with archive.open(info) as member:
                    yield info.filename, member.read(limit)


def _tarred(
    file: Any, wanted: Callable[[str], bool], limit: int, path: Path
) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if info.isreg() and wanted(name):
                _check(info.size, limit, name, path)
                member = archive.extractfile(info)
                assert member is not None  # a regular file
                yield name, member.read()


def _check(size: int, limit: int, name: str, path: Path) -> None:
    if size > limit:
        raise DataError(f"{path}: {name} has {size:,} bytes; at most {limit:,} are read")


def _data_of(file: IO[bytes], path: Path) -> _Slice:
    """The member `data.tar.*` of a Debian package, which is an ar archive (deb(5))."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise DataError(f"{path}: not a Debian package")
    while header := file.read(AR_HEADER):
        if len(header) < AR_HEADER or not header[48:58].strip().isdigit():
            break
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return _Slice(file, size)
        file.seek(size + size % 2, io.SEEK_CUR)  # members start at even places
    raise DataError(f"{path}: a Debian package without data.tar: damaged")


class _Slice(io.RawIOBase):
    """The next `size` bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)
