"""One study, many processes: real storages, real processes, a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis.strategies import sampled_from, text
from optuna.storages import JournalStorage

from noahnas.errors import StorageError
from noahnas.evaluate import Result
from noahnas.journal import Journal, SharedLock, SoleWriter, mend
from noahnas.search import Outcome, search
from noahnas.shared import _signs_of_life, join, search_shared
from noahnas.storage import absolute, masked, opened, unmasked
from noahnas.strategy import Proposal, make_strategy
from noahnas.study import ALIVE, Entry, Study

from .postgres import PASSWORD, Postgres, free_port, server
from .processes import PATIENCE, begun
from .test_strategies import bound, score
from .twin import BATCH, TRIALS

SIZES = [
    "--backbone", "vit-digits", "--data", "digits", "--trials", "30", "--supernet-epochs", "1",
    "--retrain-epochs", "1", "--json",
]  # fmt: skip


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with server() as found:
        yield found


@pytest.fixture
def postgres(database: Postgres) -> str:
    """A PostgreSQL's URL, with a password."""
    return database.url


@pytest.fixture
def redis() -> Iterator[str]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    port = free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
    )
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait()


@pytest.fixture
def grpc(tmp_path: Path) -> Iterator[str]:
    """Optuna's proxy before an SQLite database, in a process of its own."""
    port = free_port()
    code = (
        "from optuna.storages import get_storage, run_grpc_proxy_server as run; "
        f"run(get_storage('sqlite:///{tmp_path}/proxied.db'), host='127.0.0.1', port={port})"
    )
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stderr=subprocess.DEVNULL
    )
    yield f"grpc://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture(params=["sqlite", "journal", "postgres", "redis", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    if request.param == "journal":
        return f"journal:{tmp_path}/s.journal"
    found: str = request.getfixturevalue(request.param)
    return found


def member(
    url: str, name: str, worker: str, evaluated: list[str], patience: float = 60.0,
    seconds: float = 0.0, strategy: str = "random",
) -> tuple[Outcome, list[Entry]]:  # fmt: skip
    """A whole search by one of those that share a study."""
    space = bound()

    def evaluate(proposals: Sequence[Proposal]) -> Iterator[Result]:
        for proposal in proposals:
            time.sleep(seconds)
            evaluated.append(proposal.arch.digest)
            yield score(space, proposal).result

    with opened(url) as storage:
        study = Study(storage, space, name, worker, {"space": "same"})
        outcome = search_shared(
            make_strategy(strategy, space, join(study, 1), {}), evaluate, study,
            trials=TRIALS, batch=BATCH, patience=patience,
        )  # fmt: skip
        return outcome, study.entries()


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Studies whose connections are closed at the end."""
    with ExitStack() as stack:
        yield lambda url, *more: Study(stack.enter_context(opened(url)), bound(), *more)


def told(entries: Sequence[Entry]) -> list[tuple[int, str, float]]:
    return [(e.number, e.proposal.arch.digest, e.result.accuracy) for e in entries if e.result]


def test_on_any_storage_two_share_the_budget_and_evaluate_nothing_twice(url: str) -> None:
    evaluated: list[str] = []
    with opened(url):  # makes the tables
        pass
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda worker: member(url, "two", worker, evaluated, seconds=0.02), ("a", "b")
        )
    assert len(evaluated) == len(set(evaluated)) == TRIALS
    assert told(first[1]) == told(second[1])
    assert (first[0].best, first[0].evaluations) == (second[0].best, TRIALS)
    assert {e.worker for e in first[1]} == {"a", "b"}


@pytest.mark.parametrize("strategy", ["random", "evolution", "local"])
def test_alone_on_a_storage_the_trials_are_those_of_the_journal_in_the_run(
    strategy: str, tmp_path: Path
) -> None:
    space = bound()
    journal = Study.journal(tmp_path / "own", space)
    whole = search(
        make_strategy(strategy, space, 1, {}),
        lambda proposals: [score(space, p).result for p in proposals],
        journal, trials=TRIALS, batch=BATCH,
    )  # fmt: skip
    outcome, entries = member(f"sqlite:///{tmp_path}/s.db", "alone", "a", [], strategy=strategy)
    assert told(entries) == told(journal.entries())
    assert (outcome.best, outcome.passes) == (whole.best, whole.passes)


@pytest.mark.parametrize("die_at", [1, 3, 5, 6, 11])
def test_alone_it_goes_on_after_its_death_as_if_undisturbed(die_at: int, tmp_path: Path) -> None:
    class Evaluated(list[str]):
        def append(self, digest: str) -> None:
            super().append(digest)
            if len(self) == die_at:
                raise KeyboardInterrupt

    url = f"sqlite:///{tmp_path}/s.db"
    whole = member(url, "whole", "a", [], strategy="evolution")
    with pytest.raises(KeyboardInterrupt):
        member(url, "cut", "a", Evaluated(), strategy="evolution")
    assert told(member(url, "cut", "a", [], strategy="evolution")[1]) == told(whole[1])


def test_a_silent_process_loses_its_trials_and_its_late_result_is_dropped(
    at: Callable[..., Study], tmp_path: Path
) -> None:
    space, url = bound(), f"sqlite:///{tmp_path}/s.db"
    silent = at(url, "late", "silent", {"space": "same"})
    seed = join(silent, 1)
    silent.note(ALIVE + "silent", 0)
    proposal = make_strategy("random", space, seed, {}).ask(1)[0]
    entry = silent.start(proposal, 0, 1, 1)
    evaluated: list[str] = []
    _, entries = member(url, "late", "b", evaluated, patience=0.3)
    assert len(evaluated) == TRIALS
    assert entry.number not in {e.number for e in entries}
    late = silent.finish(entry, score(space, proposal).result, 1.0)
    assert late.failed
    assert told(silent.entries()) == told(entries)


def test_a_study_of_another_search_is_refused_with_what_differs(
    at: Callable[..., Study], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    join(at(url, "mine", "a", {"data": "d1", "seed": 0}), 0)
    with pytest.raises(StorageError, match="'mine' is of another search: its data is d1, not d2"):
        join(at(url, "mine", "b", {"data": "d2", "seed": 0}), 0)


def test_half_a_line_of_a_killed_writer_is_removed_from_a_shared_journal(
    at: Callable[..., Study], tmp_path: Path
) -> None:
    url = f"journal:{tmp_path}/s"
    study = at(url, "s", "a")
    with (tmp_path / "s").open("ab") as f:
        f.write(b'{"op_code":2,"half')
    study.note("whole", 1)
    assert at(url, "s", "b").notes == {"whole": 1}


def test_a_changed_digit_in_a_shared_journal_is_found_with_its_line_by_all_who_read_it(
    at: Callable[..., Study], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    first = at(f"journal:{path}", "s", "a")
    second = at(f"journal:{path}", "s", "b")
    second.note("score", 0.5)
    second.note("last", 1)
    assert first.notes == {"score": 0.5, "last": 1}
    second.note("score", 0.25)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.25", b"0.75"))
    line = whole[: whole.index(b"0.25")].count(b"\n") + 1
    told = rf"{path}:{line} is damaged: its digest is not that of its contents; end all searches"
    for read in (lambda: first.notes, lambda: at(f"journal:{path}", "s", "c")):
        with pytest.raises(StorageError, match=told):
            read()
    cut = b"".join(whole.splitlines(keepends=True)[: line - 1])
    path.write_bytes(cut)
    assert at(f"journal:{path}", "s", "d").notes == {"score": 0.5, "last": 1}


@pytest.mark.parametrize("torn", [b'{"op_code":2,"half', b'{"op_code":2,\0\0\0\0\n'])
def test_a_line_that_another_process_is_writing_is_read_when_it_is_whole(
    torn: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    writer, reader = (Journal(path, SharedLock(path)) for _ in range(2))
    writer.append_logs([{"op_code": 2, "note": 1}])
    with path.open("ab") as f:
        f.write(torn)
    assert [log["note"] for log in reader.read_logs(0)] == [1]
    path.write_bytes(path.read_bytes().removesuffix(torn))
    writer.append_logs([{"op_code": 2, "note": 2}])
    assert [log["note"] for log in reader.read_logs(1)] == [2]


def test_an_interrupt_leaves_a_shared_journal_free_or_to_its_holder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, link = tmp_path / "s", tmp_path / "s.lock"
    journal, other = Journal(path, SharedLock(path)), SharedLock(path)
    real = SharedLock.acquire

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted_when_it_has_it(lock: SharedLock) -> None:
        real(lock)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SharedLock, "acquire", interrupted_when_it_has_it)
        with pytest.raises(KeyboardInterrupt):
            journal.append_logs([{"op_code": 2}])
    assert not link.is_symlink()
    other.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append_logs([{"op_code": 2}])
    assert link.is_symlink()
    other.release()
    assert not link.is_symlink()


def test_a_lock_that_a_killed_process_left_is_taken_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("noahnas.journal.GRACE", 0.1)
    killed, next_one = SharedLock(tmp_path / "s"), SharedLock(tmp_path / "s")
    killed.acquire()
    next_one.acquire()
    killed.release()  # should it live after all
    assert (tmp_path / "s.lock").is_symlink()
    next_one.release()
    assert not (tmp_path / "s.lock").is_symlink()


def test_of_many_that_wait_for_a_killed_process_one_takes_its_lock_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("noahnas.journal.GRACE", 1.0)
    monkeypatch.setattr("noahnas.journal.SETTLE", 0.2)
    path, count = tmp_path / "s", 12
    holders: list[int] = []
    most = []
    real = SharedLock._holder

    def slowly(lock: SharedLock) -> str:  # as on a file system of many machines
        found = real(lock)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(SharedLock, "_holder", slowly)

    def hold(number: int) -> None:
        lock = SharedLock(path)
        lock.acquire()
        holders.append(number)
        time.sleep(0.02)
        most.append(len(holders))
        holders.remove(number)
        lock.release()

    for _ in range(2):
        SharedLock(path).acquire()  # and is never heard of again
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(hold, range(count)))
    assert most == [1] * (2 * count)
    assert [each.name for each in tmp_path.iterdir()] == []


def test_no_error_ends_the_signs_of_life(tmp_path: Path) -> None:
    class Troubled(Study):
        noted = 0

        def note(self, key: str, value: object) -> None:
            self.noted += 1
            if self.noted == 3:
                raise RuntimeError("did not possess lock")
            super().note(key, value)

    study = Troubled(JournalStorage(Journal(tmp_path / "s", SoleWriter())), bound(), worker="a")
    with _signs_of_life(study, 0.01):
        until(lambda: study.noted > 5)


def test_a_masked_url_has_no_password_and_takes_one_of_the_same_place() -> None:
    url = "postgresql://me:pw@host:5432/db?sslmode=on&sslpassword=x"  # pragma: allowlist secret
    recorded = masked(url)
    assert recorded == "postgresql://me:***@host:5432/db?sslmode=on&sslpassword=***"
    assert unmasked(recorded, url) == url
    assert unmasked(recorded, "") == "postgresql://me@host:5432/db?sslmode=on"
    assert masked("redis://:pw@host") == "redis://:***@host"
    assert unmasked("redis://:***@host", "") == "redis://host"
    first = "postgresql://me@host/db?password=x&sslmode=on"  # pragma: allowlist secret
    assert unmasked(masked(first), "") == "postgresql://me@host/db?sslmode=on"
    with pytest.raises(StorageError, match="not on postgresql://me:\\*\\*\\*@other/db"):
        unmasked(recorded, "postgresql://me:pw@other/db")  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("postgresql://me:hid/den@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hid?den@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hid@den@h/db", "postgresql://me:***@h/db"),  # pragma: allowlist secret
        ("mysql://me:hid?a=1&den@host/db?x=1", "mysql://me:***@host/db?x=1"),
        ("redis://:hid/den#@host:6379/0", "redis://:***@host:6379/0"),
        ("grpc://me:hid/den@host:13000", "grpc://me:***@host:13000"),
        ("redis://host/0?Pass%77ord=hidden&x=1", "redis://host/0?Pass%77ord=***&x=1"),
        ("redis://host/0?password=hid@den", "redis://host/0?password=***"),
        ("redis://host:1/0?password=hid@den", "redis://host:***"),
        ("postgresql://me@host/db?sslmode=on", "postgresql://me@host/db?sslmode=on"),
        ("sqlite:////runs/a:b/c@d.db", "sqlite:////runs/a:b/c@d.db"),
        ("journal:/runs/a:b/c@d", "journal:/runs/a:b/c@d"),
    ],
)
def test_a_password_is_masked_however_it_is_written(url: str, recorded: str) -> None:
    assert masked(url) == recorded
    assert masked(recorded) == recorded
    assert unmasked(recorded, url) == url


@given(text("ab1:/?#@&=%[]"), text("ab:@"), sampled_from(["", "/db", "/db?x=y", "?x=y"]))
def test_no_letter_of_a_password_is_left(password: str, user: str, rest: str) -> None:
    told = masked(f"postgresql://{user}:«{password}»@host{rest}")
    assert "«" not in told
    assert "»" not in told


def test_a_run_whose_host_was_hidden_asks_for_its_url() -> None:
    with pytest.raises(StorageError, match="name it: --storage"):
        unmasked("redis://host:***", "")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("sqllite:///x.db", "did you mean 'sqlite'"),
        ("study.db", "unknown storage"),
        ("sqlite:///", "names no file"),
        ("redis://", "names no host"),
        ("sqlite:////nowhere/at/all/x.db", "cannot be reached: unable to open database file"),
        ("journal:/nowhere/at/all/x", "cannot be reached"),
        ("postgresql://me:hidden@127.0.0.1:1/db", "cannot be reached"),  # pragma: allowlist secret
        ("redis://:hidden@127.0.0.1:1", "cannot be reached"),
        ("sqlite+nodriver:///x.db", "x.db"),
        ("postgresql://me:hidden@127.0.0.1:port/db", "cannot be used"),  # pragma: allowlist secret
        ("postgresql://me:hidden/1@127.0.0.1:1/db", "cannot be reached"),
        ("postgresql://me:1@hidden@127.0.0.1:1/db", "write / as %2F, @ as %40"),
        ("redis://:hidden/1@127.0.0.1:1", "write / as %2F, @ as %40"),
        ("grpc://me:hidden/1@127.0.0.1:1", "write / as %2F, @ as %40"),
        ("redis://127.0.0.1:1/0?password=hidden", "cannot be reached"),
        ("sqlite://me:hidden@127.0.0.1/db", "names no file"),  # pragma: allowlist secret
        ("mysql://:hidden/1@", "names no host"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_in_one_sentence(url: str, fault: str) -> None:
    with pytest.raises(StorageError) as caught, opened(url):
        pass
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noahnas.storage.find_spec", lambda name: None)
    needs = r"needs the package psycopg: .*noahnas\[storage\]"
    with pytest.raises(StorageError, match=needs), opened("postgresql://host/db"):
        pass


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose supernet is searched, and whose trials are those of one alone."""
    run = tmp_path_factory.mktemp("supernet") / "run"
    assert begun("-m", "noahnas", "search", "--out", str(run), *SIZES).communicate()
    return run


def trials_of(db: Path) -> list[tuple[str, dict, dict]]:
    rows = sqlite3.connect(f"file:{db}?mode=ro", uri=True).execute(
        "select t.number, t.state, a.key, a.value_json from trials t "
        "join trial_user_attributes a on a.trial_id = t.trial_id order by t.number"
    )
    found: dict[int, dict] = {}
    for number, state, key, value in rows.fetchall():
        found.setdefault(number, {"state": state})[key] = json.loads(value)
    return [(t["state"], t["noahnas"], t.get("result", {})) for t in found.values()]


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.01)


def test_of_two_processes_one_is_killed_and_the_other_takes_over(
    supernet: Path, tmp_path: Path
) -> None:
    db, runs = tmp_path / "s.db", [tmp_path / "one", tmp_path / "two"]
    args = [*SIZES, "--supernet", str(supernet), "--storage", f"sqlite:///{db}", "--patience", "2"]

    def some() -> bool:
        try:
            return len([state for state, _, _ in trials_of(db) if state == "COMPLETE"]) > 3
        except sqlite3.OperationalError:
            return False

    first = begun("-m", "noahnas", "search", "--out", str(runs[0]), *args)
    until(some)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = begun("-m", "noahnas", "search", "--out", str(runs[1]), *args).communicate()
    result = json.loads(out)
    trials = trials_of(db)
    fresh = [
        asked["digest"] for state, asked, got in trials if state == "COMPLETE" and not got["repeat"]
    ]
    assert len(fresh) == len(set(fresh)) == result["evaluations"] == 30, err
    assert len({asked["worker"] for _, asked, _ in trials}) == 2
    assert Counter(state for state, _, _ in trials)["RUNNING"] == 0
    out, _ = begun("-m", "noahnas", "search", "--resume", str(runs[0]), "--json").communicate()
    resumed = json.loads(out)
    assert (resumed["digest"], resumed["val"], resumed["test"]) == (
        result["digest"], result["val"], result["test"],
    )  # fmt: skip


def shared_by_two(args: Sequence[str], study: Callable[[], Study], folder: Path) -> list[Path]:
    """Two searches at once on one study, of whose 30 architectures each is evaluated once."""
    runs = [folder / "one", folder / "two"]
    processes = [begun("-m", "noahnas", "search", "--out", str(run), *args) for run in runs]
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    results = [json.loads(out) for out, _ in told]
    assert results[0]["evaluations"] == results[1]["evaluations"] == 30
    assert results[0]["digest"] == results[1]["digest"]
    fresh = [e.proposal.arch.digest for e in study().entries() if e.result and not e.repeat]
    assert len(fresh) == len(set(fresh)) == 30
    return runs


def test_two_processes_share_a_study_on_postgresql_and_keep_its_password_to_themselves(
    supernet: Path, postgres: str, at: Callable[..., Study], tmp_path: Path
) -> None:
    args = [*SIZES, "--supernet", str(supernet), "--storage", postgres, "--study", "ours"]
    runs = shared_by_two(args, lambda: at(postgres, "ours"), tmp_path)
    for file in (f for run in runs for f in run.rglob("*") if f.is_file()):
        assert b"s3cret" not in file.read_bytes(), file
    refused = begun("-m", "noahnas", "search", "--out", str(tmp_path / "x"), *args, "--seed", "1")
    _, err = refused.communicate()
    assert refused.returncode == 2
    assert "the study 'ours' is of another search: its seed is 0, not 1" in err
    assert not (tmp_path / "x").exists()


def test_two_processes_search_on_one_shared_journal_and_evaluate_nothing_twice(
    supernet: Path, at: Callable[..., Study], tmp_path: Path
) -> None:
    url = f"journal:{tmp_path}/shared"
    args = [*SIZES, "--supernet", str(supernet), "--storage", url, "--study", "ours"]
    shared_by_two(args, lambda: at(url, "ours"), tmp_path)
    mend(tmp_path / "shared")  # raises if a line is not as it was written
    assert not (tmp_path / "shared.lock").is_symlink()


@pytest.mark.parametrize("url", ["journal", "postgres"], indirect=True)
def test_two_processes_that_propose_the_same_evaluate_nothing_twice(
    url: str, tmp_path: Path
) -> None:
    with opened(url):  # makes the tables
        pass
    names = ("a", "b")
    processes = [
        begun("-m", "tests.twin", url, str(tmp_path), name, other)
        for name, other in (names, names[::-1])
    ]
    told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    logs = [(tmp_path / f"{name}.evaluated").read_text().split() for name in names]
    assert len({*logs[0], *logs[1]}) == len(logs[0]) + len(logs[1]) == TRIALS
    seen = [json.loads((tmp_path / f"{name}.json").read_text()) for name in names]
    assert seen[0] == seen[1]
    assert seen[0]["evaluations"] == TRIALS
    entries = seen[0]["entries"]
    of = {name: {digest for _, digest, worker, _ in entries if worker == name} for name in names}
    assert len(of["a"] & of["b"]) >= BATCH  # the first ask, at least
    assert sum(repeat for *_, repeat in entries) == len(entries) - TRIALS


def test_postgresql_goes_away_for_a_moment_and_for_good(
    supernet: Path, database: Postgres, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    args = [*SIZES, "--supernet", str(supernet)]
    with opened(database.url):  # makes the tables
        pass
    process = begun(
        "-m", "noahnas", "search", *args, "--storage", database.url, "--study", "gone",
        "--out", str(run),
    )  # fmt: skip

    def complete() -> int:
        with psycopg.connect(database.url) as connection:
            (count,) = connection.execute(
                "select count(*) from trials join studies using (study_id) "
                "where study_name = 'gone' and state = 'COMPLETE'"
            ).fetchone()
        assert process.poll() is None, "the search ended before its database went away"
        return int(count)

    until(lambda: complete() > 3)
    database.stop()
    time.sleep(0.5)
    database.start()
    until(lambda: complete() > 10)
    database.stop()
    _, err = process.communicate(timeout=60)
    database.start()
    assert process.returncode == 2, err
    assert "cannot be reached" in err
    assert "noahnas search --resume" in err
    assert "s3cret" not in err
    assert "Traceback" not in err
    resumed = ["--resume", str(run), "--storage", database.url, "--json"]
    out, err = begun("-m", "noahnas", "search", *resumed).communicate()
    found, wanted = json.loads(out), json.loads((supernet / "result.json").read_text())
    for key in ("digest", "evaluations", "val", "test"):
        assert found[key] == wanted[key]
    journals = [Study.journal(place / "study.journal", bound()) for place in (run, supernet)]
    assert told(journals[0].entries()) == told(journals[1].entries())


def test_a_wrong_password_ends_with_2_before_anything_is_made(
    postgres: str, tmp_path: Path
) -> None:
    wrong = postgres.replace(PASSWORD, "wr0ng")
    process = begun("-m", "noahnas", "search", "--out", str(tmp_path / "x"), "--storage", wrong)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "password authentication failed" in err
    assert "wr0ng" not in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_files_of_a_url_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert absolute("journal:b") == f"journal:{tmp_path}/b"
