"""Where a study may be kept beside the run directory: any Optuna storage, named by a URL.

`postgresql://…`, `mysql://…`, `sqlite:///FILE`, `journal:FILE`, `redis://…`, `grpc://HOST:PORT`.
A lost connection is tried again; a password is neither written nor shown.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, get_storage
from optuna.storages.journal import BaseJournalBackend, JournalRedisBackend

from noahnas.errors import NoahnasError, StorageError, unknown
from noahnas.journal import Journal, SharedLock

SCHEMES = ("grpc", "journal", "mysql", "postgresql", "redis", "rediss", "sqlite")
DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}  # modules that SQLAlchemy is told to use
NEEDS = {"grpc": "grpc", "redis": "redis", "rediss": "redis"} | DRIVERS
HIDDEN = "***"  # in place of a password
WAITS = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between tries
READY = 10.0  # seconds in which a server has to answer
T = TypeVar("T")
PARAMETER = re.compile(r"[?&]([^=&]*)=([^&]*)")  # of a URL: its name and value
SECRET = re.compile(r"(?i)pass|pwd|secret|token")  # in the name of a parameter


def masked(url: str) -> str:
    """The URL without what is secret in it.

    Programs differ in where a password ends that holds a plain `/`, `?` or `@`. All that may be
    part of it is hidden: from the first `:` to the last `@`.
    """
    told, end = "", 0
    for first, last in sorted(_secrets(url)):
        if first >= end:
            told += url[end:first] + HIDDEN
        end = max(end, last)
    return told + url[end:]


def _secrets(url: str) -> list[tuple[int, int]]:
    """Where secrets begin and end in a URL; they may overlap."""
    scheme, there, rest = url.partition("://")
    begin = len(scheme) + len(there)
    who, at, _ = url.rpartition("@")
    colon = url.find(":", begin, len(url.partition("?")[0]))
    found = []
    if there and at and begin <= colon < len(who) and not rest.startswith("/"):
        found.append((colon + 1, len(who)))
    parameters = PARAMETER.finditer(url, begin) if there else ()
    return found + [p.span(2) for p in parameters if SECRET.search(unquote(p[1]))]


def unmasked(recorded: str, given: str) -> str:
    """The URL to use for a run that was begun with `recorded`: `given`, if it is the same place.

    Without one, what was hidden is left to the driver's own means (PGPASSWORD, ~/.pgpass).

    Raises:
        StorageError: if `given` is another place, or is missing where the place itself was hidden.
    """
    if given:
        given = absolute(given)
        if _place(given) != _place(recorded):
            raise StorageError(
                f"the run was begun on {recorded}, not on {masked(given)}; start a new run"
            )
        return given
    place, _, query = recorded.partition("?")
    place = place.replace(f":{HIDDEN}@", "@").replace("://@", "://")
    if HIDDEN in place:
        raise StorageError(f"{recorded} does not tell the whole place; name it: --storage URL")
    kept = [part for part in query.split("&") if not part.endswith(f"={HIDDEN}")]
    return place + (f"?{'&'.join(kept)}" if any(kept) else "")


def _place(url: str) -> tuple[str, str]:
    """What a URL leads to: its kind, then its host and path."""
    kind, _, rest = masked(url).partition(":")
    host, slash, path = rest.partition("?")[0].removeprefix("//").partition("/")
    return kind.partition("+")[0], host.rpartition("@")[2] + slash + path


def absolute(url: str) -> str:
    """The URL, its file by its absolute path: a run can go on from anywhere.

    Raises:
        StorageError: if it is of no known kind.
    """
    scheme, colon, rest = url.partition(":")
    kind = scheme.partition("+")[0]
    if not colon or kind not in SCHEMES:
        raise StorageError(f"{unknown('storage', kind, SCHEMES)}; such as sqlite:///study.db")
    if kind == "journal":
        return f"journal:{Path(rest.removeprefix('//')).resolve()}"
    if kind == "sqlite":
        file, mark, query = rest.removeprefix("///").partition("?")
        if not rest.startswith("///") or not file or file.startswith(":memory:"):
            raise StorageError(f"{masked(url)} names no file; write sqlite:///FILE")
        return f"{scheme}:///{Path(file).resolve()}{mark}{query}"
    if _place(url)[1].startswith((":", "/")) or not _place(url)[1]:
        raise StorageError(f"{masked(url)} names no host; write {kind}://HOST")
    return url


def file_of(url: str) -> Path | None:
    """The file that a URL names; None for a server."""
    kind, _, rest = url.partition(":")
    if kind == "journal":
        return Path(rest)
    return Path(rest.removeprefix("///").partition("?")[0]) if kind.startswith("sqlite") else None


@contextmanager
def opened(url: str) -> Iterator[BaseStorage]:
    """The storage that a URL names, reached; what is lost later is tried again.

    Raises:
        StorageError: if its kind is unknown, its driver is not installed or it cannot be reached.
    """
    url = absolute(url)
    kind = url.partition(":")[0].partition("+")[0]
    needed = NEEDS.get(kind)
    if needed and "+" not in url.partition(":")[0] and not find_spec(needed):
        raise StorageError(f"{kind}:// needs the package {needed}: pip install 'noahnas[storage]'")
    try:
        inner = again(lambda: _inner(kind, url), url, WAITS[:2])
    except ImportError as e:
        raise StorageError(
            f"the driver of {masked(url)} is not installed: pip install 'noahnas[storage]'"
        ) from e
    except ValueError as e:
        raise StorageError(f"{masked(url)} cannot be used: {_told(e, url)}") from e
    storage = _Reconnecting(inner, url)
    try:
        yield cast(BaseStorage, storage)
    finally:
        storage.close()


def _inner(kind: str, url: str) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if kind == "journal":
            path = Path(url.partition(":")[2])
            return JournalStorage(Journal(path, SharedLock(path)))
        if kind in ("redis", "rediss"):
            backend = _Plain(JournalRedisBackend(url, prefix="noahnas"))
            return JournalStorage(backend)
        if kind == "grpc":
            parts = urlsplit(url)
            proxy = GrpcStorageProxy(host=parts.hostname or "", port=parts.port or 13000)
            proxy.wait_server_ready(READY)
            return proxy
        name, _, rest = url.partition("://")
        driver = DRIVERS.get(name)
        return get_storage(f"{name}+{driver}://{rest}" if driver else url)


class _Plain(BaseJournalBackend):
    """A journal without snapshots: those are pickles, and a server's are not to be trusted."""

    def __init__(self, backend: BaseJournalBackend) -> None:
        self._backend = backend

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self._backend.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._backend.append_logs(logs)


class _Reconnecting:
    """A storage whose every operation is tried again after a lost connection.

    What was written but not acknowledged may be written twice: a trial then stands there twice,
    and the second one is a repeat of the first.
    """

    def __init__(self, inner: BaseStorage, url: str) -> None:
        self._inner, self._url = inner, url

    def close(self) -> None:
        """Let go of its connections."""
        backend = getattr(self._inner, "_backend", None)
        if isinstance(backend, Journal):
            backend.close()
        elif engine := getattr(backend, "engine", None):
            engine.dispose()
        elif isinstance(self._inner, GrpcStorageProxy):
            self._inner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        work = getattr(self._inner, name)
        return lambda *args, **named: again(lambda: work(*args, **named), self._url)


def again(work: Callable[[], T], url: str, waits: tuple[float, ...] = WAITS) -> T:
    """Do `work`, and again after each wait as long as the connection fails.

    Raises:
        StorageError: if it still fails.
    """
    for wait in (*waits, None):
        try:
            return work()
        except Exception as e:
            if not _lost(e):
                raise
            if wait is None:
                raise StorageError(f"{masked(url)} cannot be reached: {_told(e, url)}") from e
            time.sleep(wait)
    raise AssertionError  # the last wait is None


def _lost(error: Exception) -> bool:
    """Whether an error is one of the connection, or of the server, not of what was asked."""
    if isinstance(error, NoahnasError):
        return False
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (StorageInternalError, OSError)) or bool(
        kinds & {"sqlalchemy", "redis", "grpc", "psycopg"}
    )


def _told(error: BaseException, url: str) -> str:
    """The cause, in one line, without the password."""
    while isinstance(error, StorageInternalError) and error.__cause__:
        error = error.__cause__
    details = getattr(error, "details", None)
    text = str(details() if callable(details) else getattr(error, "orig", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    for first, last in _secrets(url):
        secret = url[first:last]
        for word in (secret, unquote(secret), unquote_plus(secret), quote(unquote(secret), "")):
            line = line.replace(word, HIDDEN) if word else line
        pieces = re.split(r"[][/?#@]", secret)  # a server's name or port, to some programs
        if len(pieces) > 1 and any(piece and piece in line for piece in pieces):
            return "why is not told, as it holds part of the password; write / as %2F, @ as %40"
    return line
