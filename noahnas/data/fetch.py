"""Packages of public registries, fetched by the registries' own clients and pinned by sha256.

pip, npm and apt-get know the index, mirror, proxy and certificates that the user has set up, so
they download; what they bring is taken only if its digest is the pinned one. Where a client is
missing, the file can be put into a folder by hand.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from noahnas.errors import DataError
from noahnas.files import process_name, running
from noahnas.progress import Progress, Report

MIRROR = "NOAHNAS_DEBIAN_MIRROR"  # environment: the address of a Debian mirror, for want of apt-get
PART = ".part"  # prefix of the folders of downloads that go on
POLL = 0.2  # seconds between looks at how far a download is
MB = 1_000_000


@dataclass(frozen=True)
class Package:
    """One file of a registry, in one exact version."""

    registry: Literal["PyPI", "npm", "Debian"]
    name: str
    version: str
    file: str
    size: int  # bytes
    sha256: str
    pool: str = ""  # Debian: the file's folder on a mirror

    def __str__(self) -> str:
        return f"{self.name} {self.version} of {self.registry}"


def obtain(package: Package, folder: Path, report: Report) -> Path:
    """The verified file of a package in `folder`, downloaded unless it is there.

    A file with another digest is not used: it is downloaded anew and replaced. Nothing that was
    not verified ever stands under the package's file name.

    Args:
        package: what to fetch.
        folder: where the file is looked for and kept; made if missing.
        report: told megabytes done; the stage is the package's name.

    Raises:
        DataError: if it cannot be downloaded, or what came has another digest.
    """
    path = folder / package.file
    note = f"MB from {package.registry}"
    if path.exists():
        if sha256(path) == package.sha256:
            return path
        note += f" · {path} has another digest than the pinned one, so it is fetched anew"
    folder.mkdir(parents=True, exist_ok=True)
    total = max(1, round(package.size / MB))
    with _part(folder) as part:
        for size in _downloading(package, part):
            done = min(size // MB, total - 1)
            report(Progress(package.name, done, total, note))
        found = part / package.file
        if not found.exists():
            there = ", ".join(sorted(p.name for p in part.iterdir() if p.is_file())) or "nothing"
            raise DataError(f"{package}: expected the file {package.file}, got {there}")
        if (size := found.stat().st_size) < package.size:
            raise DataError(
                f"{package}: only {size:,} of {package.size:,} bytes of {package.file} came: "
                "try again"
            )
        digest = sha256(found)
        if digest != package.sha256:
            raise DataError(
                f"{package}: {package.file} has sha256 {digest}, not the pinned {package.sha256}: "
                "it was changed on the way or in the registry, and is not used"
            )
        found.replace(path)
    report(Progress(package.name, total, total, note))
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _downloading(package: Package, part: Path) -> Iterator[int]:
    """Download into `part`; yield the bytes that have come so far, now and then."""
    address = _address(package)
    if address is not None:
        yield from _read(address, part / package.file, package)
        return
    command = _command(package, part)
    environment = os.environ | {"TMPDIR": str(part), "npm_config_cache": str(part / "cache")}
    with (part / "log").open("w+") as log, subprocess.Popen(
        command, cwd=part, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            while process.poll() is None:
                yield _bytes_in(part)
                time.sleep(POLL)
        finally:
            process.kill()  # no effect on one that has ended
        if process.returncode:
            log.seek(0)
            said = " ".join(log.read().split())[-300:] or f"exit status {process.returncode}"
            hint = "; or run `apt-get update` first" if package.registry == "Debian" else ""
            raise DataError(
                f"{package} could not be downloaded; `{' '.join(command)}` says: {said}\n"
                f"check the network and that program's settings{hint}; or {_by_hand(package)}"
            )


def _address(package: Package) -> str | None:
    """Where to read the file without a client, if the user said so."""
    if package.registry == "Debian" and os.environ.get(MIRROR):
        return f"{os.environ[MIRROR].rstrip('/')}/{package.pool}/{package.file}"
    return None


def _command(package: Package, part: Path) -> list[str]:
    """The client's command, to be run in `part`.

    Raises:
        DataError: if the client is not installed.
    """
    if package.registry == "PyPI":
        if importlib.util.find_spec("pip") is None:
            raise _missing("pip", "run `python -m ensurepip`", package)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        wanted = f"{package.name}=={package.version}"
        return [*pip, "--only-binary", ":all:", "--dest", str(part), wanted]
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise _missing("npm", "install Node.js", package)
        return [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    apt = shutil.which("apt-get")
    if apt is None:
        fix = f"set {MIRROR} to the address of a Debian mirror"
        raise _missing("apt-get", fix, package)
    return [apt, "download", f"{package.name}={package.version}"]


def _missing(client: str, fix: str, package: Package) -> DataError:
    return DataError(f"{package} needs {client}, which is missing: {fix}; or {_by_hand(package)}")


def _by_hand(package: Package) -> str:
    return f"put {package.file} (sha256 {package.sha256}) into a folder and name it with --packages"


def _read(address: str, path: Path, package: Package) -> Iterator[int]:
    done = 0
    try:
        with urllib.request.urlopen(address, timeout=60) as response, path.open("wb") as file:
            while block := response.read(MB):
                file.write(block)
                done += len(block)
                if done > package.size:  # a mirror that never ends
                    break
                yield done
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise DataError(
            f"{package} could not be downloaded from {address}: {e}\n"
            f"check {MIRROR} and the network; or {_by_hand(package)}"
        ) from e


def _bytes_in(folder: Path) -> int:
    """Bytes of all files below, as far as they can be seen while others write."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).stat().st_size
            except OSError:
                continue  # gone since it was listed
    return total


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A fresh folder for a download; what killed processes of this machine left is removed."""
    for old in folder.glob(f"{PART}-*"):
        owner, _, _ = old.name.removeprefix(f"{PART}-").rpartition("-")
        if running(owner) is False:
            shutil.rmtree(old, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{PART}-{process_name()}-", dir=folder))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
