"""Files and arguments as a stranger might hand them over, by seed; and what the command line does.

`Sandbox` holds a finished run, a data set of a few images and a file that is none of the run's.
`Sandbox.case(kind, seed)` makes one case in a folder of its own and does it in this process.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import tarfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from noahnas.cli import app
from noahnas.files import SEAL, sealed, sealed_json
from noahnas.journal import _digest_of, _text
from noahnas.stopping import _message

ROOT = Path(__file__).parent.parent
LIMIT = 30.0  # seconds of a case
CLASSES = ("ant", "bee")
DEEP = "[" * 100_000
BOMB = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n"
WORDS = (
    "", "0", "-1", "nan", "inf", "1e400", "9" * 30, "1e-400", "None", "../x",
    "/", ".", "~", "a" * 5000,
    "[red]", "[/]", "\x1b[31mred", "\x1b]0;title\x07", "💥", "\udcff", "a\nb", "{}", "[]", ":", "=",
    "a=b", "*", "%s", "$(id)", "digits", "tiny", "vit-digits", "evolution", "paper",
    "\u202egnp.exe",
)  # fmt: skip
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
ODD = (b"\xff", b"\x1b[31m", b"[red]", b"[b]", b"a\nb", b"..x", b"-x", b"%s")  # names
AMOUNTS = ("epochs", "trials", "archs", "devices", "nodes", "count", "-n", "seeds")  # take time
FEW = ("epochs", "trials", "batch", "warmup_epochs", "passes", "threads")  # what costs time


class HangError(BaseException):
    """A case took longer than its limit."""


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@dataclass(frozen=True)
class Outcome:
    """What a case came to."""

    kind: str
    seed: int
    args: tuple[str, ...]
    code: int | None  # exit code; None if it ended in a traceback or was stopped
    seconds: float
    fault: str  # what should not have been; "" if all is well
    told: str  # the error


def seed_of(kind: str, seed: int) -> random.Random:
    """The generator of one case."""
    return random.Random(f"{kind}/{seed}")


# --- bytes and values ------------------------------------------------------------------------


def mangled(rng: random.Random, content: bytes) -> bytes:
    """A file's contents, damaged."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = _once(rng, content)
    return content


def _once(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 4, 40)))
    before, part, after = content[:at], content[at:end], content[end:]
    return rng.choice((
        before, before + after, before + part * 3 + after,
        before + bytes([rng.randrange(256)]) + content[at + 1 :],
        before + rng.choice((b"\0", b"\xff\xfe", b"\x1b[31m", b"9" * 30, b"1e400")) + part + after,
        before + rng.choice(WORDS).encode(errors="surrogateescape") + after,
    ))  # fmt: skip


def written(rng: random.Random, text: str) -> bytes:
    """A text file with other words and numbers in it, or what a parser may choke on."""
    special: tuple[Callable[[], bytes], ...] = (
        lambda: DEEP.encode(), lambda: BOMB.encode(), lambda: b"", lambda: b"\0" * 50,
        lambda: text.encode("utf-16"), lambda: ("{a: " * 5000).encode(), lambda: b"- " * 5000,
        lambda: text.encode() * 200,
    )  # fmt: skip
    if rng.random() < 0.15:
        return rng.choice(special)()
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines)) if lines else 0
        if not lines or rng.random() < 0.1:
            lines.insert(
                at, rng.choice((BOMB, "? [a, b]", "<<: {a: 1}", "!!python/object:os.system"))
            )
        elif rng.random() < 0.2:
            del lines[at]
        elif rng.random() < 0.2:
            lines.insert(at, rng.choice(lines))
        else:
            words = lines[at].split(" ")
            new = rng.choice(
                (*WORDS, "1000000000000000000", "[1, 2]", "{from: 1, to: 10, step: 1}")
            )
            words[rng.randrange(len(words))] = new
            lines[at] = " ".join(words)
    content = "\n".join(lines).encode(errors="surrogateescape")
    return mangled(rng, content) if rng.random() < 0.3 else content


def changed(rng: random.Random, value: Any, sandbox: Path, key: str = "") -> Any:
    """A JSON value in which one place, at random, holds another value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: changed(rng, value[name], sandbox, name)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], changed(rng, value[at], sandbox, key), *value[at + 1 :]]
    few = (0, -1, 1, 2, None, "x", 1.5, [], True)
    if key in FEW:
        return rng.choice(few)
    out = sandbox / "victim"
    return rng.choice((
        *few, *WORDS, 10**18, 10**30, -(10**18), 1e308, {}, {"a": 1}, [[]], ["x"] * 3, [10**9] * 4,
        f"sqlite:///{out}/new.db", f"journal:{out}/new", f"journal:{out}/canary",
        f"wds/x:pipe:touch {out}/sprung #", f"wds/x:{out}", f"folder:{out}", f"{out}/canary",
        "redis://localhost:1/0", f"{out}/x.pth", "torch/cifar10:" + str(out), "../../victim",
    ))  # fmt: skip


# --- what stands ready -----------------------------------------------------------------------


def pictures(folder: Path, count: int = 10) -> None:
    """Images of two classes."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            image[:, label * 8 : label * 8 + 8] += 150
            Image.fromarray(image).save(folder / name / f"{i}.png")


class Sandbox:
    """A folder in which cases are done, one after another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data, self.whole, self.victim = root / "data", root / "whole", root / "victim"
        self.place = root / "case"
        for folder in (self.victim, root / "home", self.place):
            folder.mkdir(parents=True)
        pictures(self.data)
        (self.victim / "canary").write_text("not the run's\n")
        quick = ["--trials", "4", "--supernet-epochs", "1", "--retrain-epochs", "1"]
        with self._inside():
            done = CliRunner().invoke(
                app,
                ["search", "--data", str(self.data), "--backbone", "vit-digits", "--space", "tiny",
                 *quick, "--threads", "1", "--out", str(self.whole)],
            )  # fmt: skip
        assert done.exit_code == 0, done.output
        self.files = sorted(p.name for p in self.whole.iterdir() if p.name != "run.lock")

    def case(self, kind: str, seed: int) -> Outcome:
        """Make a case, do it, and say what is wrong with what came of it."""
        rng = seed_of(kind, seed)
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        args = tuple(KINDS[kind](rng, self))
        before, began = self._outside(), time.monotonic()
        code, fault, told = self._done(args)
        if not fault and self._outside() != before:
            fault = "a file outside of the run was made, changed or removed"
        seconds = time.monotonic() - began
        shown = tuple(a if len(a) < 200 else f"{a[:50]}… ({len(a)})" for a in args)
        return Outcome(kind, seed, shown, code, round(seconds, 2), fault, told)

    def _done(self, args: tuple[str, ...]) -> tuple[int | None, str, str]:
        try:
            with self._inside():
                done = CliRunner().invoke(app, list(args))
        except HangError:
            return None, f"no end within {LIMIT:g} s", ""
        error = done.exception
        if isinstance(error, HangError):
            return None, f"no end within {LIMIT:g} s", ""
        if "\x1b" in done.output:
            return done.exit_code, "an escape sequence was printed", ""
        if error is None or isinstance(error, SystemExit):
            bad = done.exit_code not in (0, 2, 130)
            return done.exit_code, f"exit code {done.exit_code}" if bad else "", done.output[-200:]
        message = _message(error)
        if message is None:
            return None, f"traceback: {type(error).__name__}: {str(error)[:200]}{_where(error)}", ""
        return 2, "" if message.strip() else "an error without words", message

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """In the case's folder, with a home and a cache in the sandbox, for a limited time."""
        caches = dict.fromkeys(("NOAHNAS_CACHE", "MPLCONFIGDIR", "XDG_CACHE_HOME"), "cache")
        places = {key: str(self.root / place) for key, place in (caches | {"HOME": "home"}).items()}
        given = places | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        kept = {key: os.environ.get(key) for key in given}
        os.environ |= given
        here, threads = Path.cwd(), torch.get_num_threads()
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        os.chdir(self.place)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            os.chdir(here)
            torch.set_num_threads(threads)
            for key, value in kept.items():
                os.environ.pop(key, None)
                os.environ |= {key: value} if value is not None else {}

    def _outside(self) -> list[tuple[str, int, int]]:
        """All that stands beside the case's folder and the cache."""
        found = []
        for top in ("data", "whole", "victim", "home"):
            for path in sorted((self.root / top).rglob("*")):
                about = path.lstat()
                found.append((str(path), about.st_size, about.st_mtime_ns))
        return found + [(p.name, 0, 0) for p in sorted(self.root.iterdir()) if p.name != "cache"]


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def _where(error: BaseException) -> str:
    """The last line of ours in a traceback."""
    at, found = error.__traceback__, ""
    while at:
        name = at.tb_frame.f_code.co_filename
        if f"{os.sep}noahnas{os.sep}" in name or f"{os.sep}strategies{os.sep}" in name:
            found = f" ({Path(name).name}:{at.tb_lineno})"
        at = at.tb_next
    return found


# --- kinds of cases --------------------------------------------------------------------------

Args = list[str]


def _arguments(rng: random.Random, box: Sandbox) -> Args:
    data, run = str(box.data), str(box.whole)
    quick = [
        "--data",
        data,
        "--backbone",
        "vit-digits",
        "--threads",
        "1",
        "--out",
        str(box.place / "run"),
    ]
    base: Args = list(rng.choice((
        ["search", *quick, "--trials", "2", "--supernet-epochs", "1", "--retrain-epochs", "1",
         "--space", "tiny"],
        ["retrain", run, "--retrain-epochs", "1", "--threads", "1",
         "--out", str(box.place / "run")],
        ["compare", "--data", "nosuch"], ["diagnose", run + "-none"],
        ["predict", run, f"{data}/ant/0.png"],
        ["reproduce", "vtab-1k", "--dry-run"], ["reproduce", "micro-vtab", "--dry-run"],
        ["plugins"],
        ["space", "check", "tiny"], ["space", "show", "tiny"], ["space", "sample", "tiny"],
        ["space", "diff", "tiny", "noah-vtab"], ["space", "import", "none.yaml"], ["strategies"],
        ["data", "check", data, "--backbone", "vit-digits", "--no-sheet"], ["data"],
    )))  # fmt: skip
    options = options_of(base)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.3 and len(base) > 1:
            base[rng.randrange(1, len(base))] = rng.choice(WORDS)
        else:
            option = rng.choice(options)
            few = any(word in option for word in AMOUNTS)
            base += [option, rng.choice(("", "0", "-1", "nan", "x", "1") if few else WORDS)]
    return [word.replace("\0", "") for word in base]


def options_of(words: Args) -> list[str]:
    """The options of the command that an invocation names."""
    command: Any = get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return sorted(option for parameter in command.params for option in parameter.opts)


def _space(rng: random.Random, box: Sandbox) -> Args:
    files = sorted((ROOT / "search_spaces").glob("*.yaml"))
    files += sorted((ROOT / "tests/broken_spaces").glob("*.yaml"))
    file = box.place / "space.yaml"
    file.write_bytes(written(rng, rng.choice(files).read_text()))
    how = rng.choice(
        (["check"], ["check", "--json"], ["show"], ["sample"], ["diff", "tiny"], ["import"])
    )
    return ["space", how[0], *how[1:], str(file)]


def _arch(rng: random.Random, box: Sandbox) -> Args:
    file = box.place / "arch.yaml"
    file.write_bytes(written(rng, (box.whole / "best.yaml").read_text()))
    return ["retrain", "--arch", str(file), "--data", str(box.data), "--backbone", "vit-digits",
            "--retrain-epochs", "1", "--threads", "1", "--out", str(box.place / "run")]  # fmt: skip


def _recipe(rng: random.Random, box: Sandbox) -> Args:
    files = sorted((ROOT / "noahnas/recipes").glob("*.yaml"))
    file = box.place / "recipe.yaml"
    file.write_bytes(written(rng, rng.choice(files).read_text()))
    if rng.random() < 0.5:
        return ["reproduce", "vtab-1k", "--dry-run", "--recipe", str(file)]
    return ["search", "--recipe", str(file), "--data", "nosuch", "--backbone", "vit-digits"]


def _run(rng: random.Random, box: Sandbox) -> Args:
    run = box.place / "run"
    shutil.copytree(box.whole, run)
    (run / "run.lock").unlink()
    if rng.random() < 0.5:
        (run / "result.json").unlink()
        stages = json.loads((run / "stages.json").read_bytes())
        for name in rng.choice(((), ("retrain",), ("search", "retrain"), ("supernet",))):
            stages.pop(name, None)
        (run / "stages.json").write_bytes(sealed_json(stages))
    for name in rng.sample(box.files, rng.choice((1, 1, 2))):
        with suppress(FileExistsError):  # a link that stands there already
            _spoil(rng, run / name, box)
    image = str(box.data / "ant" / "0.png")
    again = str(box.place / "again")
    return rng.choice((
        ["predict", str(run), image], ["predict", str(run), image, "--json"],
        ["search", "--resume", str(run)], ["search", "--resume", str(run), "--json"],
        ["retrain", str(run), "--retrain-epochs", "1", "--threads", "1", "--out", again],
        ["diagnose", str(run), "--archs", "3", "--epochs", "1"],
        ["compare", "--resume", str(run)],
        ["search", "--supernet", str(run), "--data", str(box.data), "--backbone", "vit-digits",
         "--space", "tiny", "--trials", "2", "--retrain-epochs", "1", "--threads", "1",
         "--out", again],
    ))  # fmt: skip


def _spoil(rng: random.Random, path: Path, box: Sandbox) -> None:
    """One file of a run, made a stranger's."""
    content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    if path.suffix == ".json" and content and rng.random() < 0.7:
        value = json.loads(content)
        value.pop(SEAL, None)
        with_it = changed(rng, value, box.root)
        text = json.dumps(with_it) if isinstance(with_it, dict) else "[]"
        fine = isinstance(with_it, dict) and not text.count("\\ud")
        path.write_bytes(sealed_json(with_it) if fine else text.encode())
    elif path.suffix == ".journal" and content and rng.random() < 0.6:
        lines = content.splitlines()
        at = rng.randrange(len(lines))
        log = json.loads(lines[at])
        log.pop(SEAL, None)
        log = changed(rng, log, box.root)
        if isinstance(log, dict):
            log = log | {SEAL: _digest_of(log)}
        lines[at] = _text(log).encode()
        path.write_bytes(b"\n".join(lines) + b"\n")
    elif path.exists() and rng.random() < 0.35:
        path.unlink()
        special: tuple[Callable[[], object], ...] = (
            lambda: path.symlink_to(box.victim / "canary"), lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to(path), lambda: os.mkfifo(path), path.mkdir,
            lambda: path.with_name("run.lock").symlink_to(box.victim / "canary"),
            lambda: path.write_text(DEEP), lambda: None,
        )  # fmt: skip
        rng.choice(special)()
    elif rng.random() < 0.2:
        other = rng.choice([p for p in sorted(box.whole.iterdir()) if p.is_file()])
        shutil.copy(other, path)
    else:
        buffer = io.BytesIO()
        torch.save({"key": "x", "weights": Trap(box.victim / "sprung")}, buffer)
        trap = sealed(buffer.getvalue())
        for name in ("supernet.ckpt", "retrain.ckpt", "search.ckpt"):
            path.with_name(name).write_bytes(trap)
        path.write_bytes(rng.choice((mangled(rng, content), trap, buffer.getvalue())))


def _data(rng: random.Random, box: Sandbox) -> Args:
    folder = box.place / "data"
    shutil.copytree(box.data, folder)
    spec = rng.choice((_folder, _csv, _npz, _shards))(rng, folder)
    more = rng.choice(
        ([], ["--on-error", "skip"], ["--json"], ["--sheet", str(box.place / "s.png")])
    )
    return ["data", "check", spec, "--backbone", "vit-digits", *more] + (
        [] if "--sheet" in more else ["--no-sheet"]
    )


def _folder(rng: random.Random, folder: Path) -> str:
    for _ in range(rng.choice((1, 2, 4))):
        images = sorted(p for p in folder.rglob("*.png") if p.is_file() and not p.is_symlink())
        path = rng.choice(images or [folder / "none"])
        if images and rng.random() < 0.6:
            path.write_bytes(_picture(rng))
        else:
            with suppress(OSError):  # it has been done already
                _odd_file(rng, folder, path)
    return str(folder)


def _odd_file(rng: random.Random, folder: Path, path: Path) -> None:
    odd = os.fsdecode(rng.choice(ODD))
    what = rng.choice(("name", "class", "pipe", "folder", "device", "circle", "loop", "split"))
    if what in ("pipe", "folder", "device", "circle"):
        path.unlink()
    special: dict[str, Callable[[], object]] = {
        "name": lambda: path.rename(path.with_name(f"{odd}.png")),
        "class": lambda: path.parent.rename(path.parent.with_name(odd)),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "circle": lambda: path.symlink_to(path),
        "loop": lambda: (folder / "loop").symlink_to(folder),
        "split": lambda: (folder / "train").mkdir(),
    }
    special[what]()


def _picture(rng: random.Random) -> bytes:
    image = Image.fromarray(rng_pixels(rng))
    kinds = ("png", "jpeg", "gif", "tiff", "webp", "bmp", "ppm", "jpeg2000", "eps", "huge")
    kind = rng.choice(kinds)
    if kind == "eps":
        return EPS
    buffer = io.BytesIO()
    image.save(buffer, "png" if kind == "huge" else kind)
    content = buffer.getvalue()
    if kind == "huge":
        side = rng.choice((20_000, 100_000, 2**31 - 1)).to_bytes(4, "big")
        header = b"IHDR" + side + side + content[24:29]
        return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    return mangled(rng, content)


def rng_pixels(rng: random.Random) -> NDArray[np.uint8]:
    """(16, 16, 3), drawn."""
    return np.frombuffer(rng.randbytes(16 * 16 * 3), np.uint8).reshape(16, 16, 3)


def _csv(rng: random.Random, folder: Path) -> str:
    rows = [f"{name}/{i}.png,{name}" for name in CLASSES for i in range(10)]
    file = folder / "list.csv"
    file.write_bytes(written(rng, "\n".join(["path,label", *rows]).replace(",", " ,")))
    return str(file)


def _npz(rng: random.Random, folder: Path) -> str:
    images = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), np.uint8)
    arrays: dict[str, Any] = {"images": images}
    arrays["classes"] = rng.choice((
        np.array(CLASSES), np.array(["[red]", "\x1b[31m"]), np.array([1, 2]),
        np.array([Trap(folder.parent.parent / "victim" / "sprung")] * 2, dtype=object),
    ))  # fmt: skip
    labels = np.arange(20) % 2
    arrays["labels"] = rng.choice((labels, labels - 1, labels * 10**12, np.array(3), np.ones(20)))
    file = folder / "set.npz"
    np.savez_compressed(file, **arrays)
    file.write_bytes(mangled(rng, file.read_bytes()) if rng.random() < 0.7 else file.read_bytes())
    return str(file)


def _shards(rng: random.Random, folder: Path) -> str:
    lengths = {}
    for split in ("train", "validation"):
        name = f"pets-{split}-0.tar"
        with tarfile.open(folder / name, "w") as tar:
            for label, word in enumerate(CLASSES):
                for i in range(4):
                    _add(tar, f"{word}{i}.png", (folder / word / f"{i}.png").read_bytes())
                    _add(tar, f"{word}{i}.cls", str(label).encode())
        lengths[split] = {
            "name": split, "filenames": [name], "shard_lengths": [8], "num_samples": 8,
        }  # fmt: skip
        if rng.random() < 0.4:
            (folder / name).write_bytes(mangled(rng, (folder / name).read_bytes()))
    about = {"splits": lengths}
    told = changed(rng, about, folder.parent.parent) if rng.random() < 0.5 else about
    (folder / "_info.json").write_text(json.dumps(told))
    shell = f"pipe:touch {folder.parent.parent}/victim/sprung #"
    place = shell if rng.random() < 0.1 else str(folder)
    return f"wds/pets:{place}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _weights(rng: random.Random, box: Sandbox) -> Args:
    asset = ROOT / "noahnas/assets/vit_digits.safetensors"
    kind = rng.choice(("safetensors", "pth", "npz"))
    file = box.place / f"weights.{kind}"
    if kind == "safetensors":
        content = asset.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        if rng.random() < 0.6:
            about = header["__metadata__"]
            timm = changed(rng, json.loads(about["timm"]), box.root)
            header["__metadata__"] = about | {"timm": json.dumps(timm)}
            if rng.random() < 0.2:
                name = rng.choice([key for key in header if key != "__metadata__"])
                header[name] = changed(rng, header[name], box.root)
            told = json.dumps(header).encode()
            content = len(told).to_bytes(8, "little") + told + content[8 + size :]
        else:
            content = mangled(rng, content)
    else:
        content = _others(rng, kind, box)
    file.write_bytes(content)
    spec = rng.choice((str(file), f"vit_tiny_patch16_224@{file}"))
    return ["data", "check", str(box.data), "--backbone", spec, "--no-sheet"]


def _others(rng: random.Random, kind: str, box: Sandbox) -> bytes:
    buffer = io.BytesIO()
    depth, first = rng.choice((0, 3, 10**9)), "Transformer/encoderblock_0"
    if kind == "pth":
        odd = rng.choice((Trap(box.victim / "sprung"), torch.ones(1), [], "x"))
        state = {"pos_embed": torch.ones(1, 5, 64), "cls_token": torch.ones(1, 1, 64), "x": odd,
                 "patch_embed.proj.weight": torch.ones(64, 3, 4, 4),
                 f"blocks.{depth}.mlp.fc1.weight": torch.ones(128, 64),
                 "blocks.0.mlp.fc1.weight": torch.ones(128, 64)}  # fmt: skip
        torch.save(rng.choice((state, odd, {"model": odd}, [state])), buffer)
    else:
        np.savez_compressed(buffer, **{
            "embedding/kernel": np.ones((4, 4, 3, 64)), "cls": np.ones((1, 1, 64)),
            f"Transformer/encoderblock_{depth}/x": np.ones(1),
            f"{first}/MultiHeadDotProductAttention_1/query/kernel": np.ones((64, 2, 32)),
            f"{first}/MlpBlock_3/Dense_0/kernel": np.ones((64, 128)),
            "Transformer/posembed_input/pos_embedding": np.ones((1, 5, 64)),
            "o": rng.choice((np.ones(1), np.array([Trap(box.victim / "sprung")], dtype=object))),
        })  # fmt: skip
    content = buffer.getvalue()
    return mangled(rng, content) if rng.random() < 0.5 else content


KINDS: dict[str, Callable[[random.Random, Sandbox], Args]] = {
    "arguments": _arguments,
    "space": _space,
    "arch": _arch,
    "recipe": _recipe,
    "run": _run,
    "data": _data,
    "weights": _weights,
}
