"""A real PostgreSQL of a test's own: Debian's, run as the user postgres."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACE = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "s3cret%40pw"  # as a URL writes s3cret@pw  # pragma: allowlist secret


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Postgres:
    """A server that can be ended and begun again."""

    def __init__(self, place: Path) -> None:
        self.place, self.port = place, free_port()
        self.url = f"postgresql://nas:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        secret = place / "password"
        secret.write_text("s3cret@pw\n")
        secret.chmod(0o644)
        subprocess.run(
            [str(PLACE / "initdb"), "-D", str(place / "data"), "-A", "scram-sha-256", "-U", "nas",
             f"--pwfile={secret}", "--no-sync"],
            check=True, user="postgres", cwd=place, capture_output=True,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Begin, and wait until it answers."""
        self._process = subprocess.Popen(
            [str(PLACE / "postgres"), "-D", str(self.place / "data"), "-p", str(self.port),
             "-k", str(self.place), "-h", "127.0.0.1"],
            user="postgres", cwd=self.place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ready = [str(PLACE / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            assert self._process.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        """End; connections are cut, what is committed stays."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


@contextmanager
def server() -> Iterator[Postgres]:
    """One in a directory of its own, removed afterwards."""
    if not (PLACE / "initdb").exists():
        pytest.skip("Debian's PostgreSQL 15 is not installed")
    if os.getuid() != 0 or "postgres" not in {p.pw_name for p in pwd.getpwall()}:
        pytest.skip("only root can run PostgreSQL as the user postgres")
    made = ["mktemp", "-d", "/tmp/noahnas-pg-XXXXXX"]
    place = Path(subprocess.check_output(made, text=True).strip())
    shutil.chown(place, "postgres", "postgres")
    found = Postgres(place)
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(place)
