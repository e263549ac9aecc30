"""What `noahnas data check` says of broken data: makes each kind, runs it, writes what came.

    python benchmarks/broken_data.py

Writes results/broken_data.json and prints it as a Markdown table. No argument, a minute on a core.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RESULT = Path(__file__).parent / "results" / "broken_data.json"
Make = Callable[[Path], str]  # builds it in a directory and returns the arguments of the check


def draw(root: Path, count: int, seed: int = 0) -> None:
    """Different images, 12×12."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *str(root).encode()[-20:]])
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(root / f"{i}.png")


def pets(root: Path, *classes: str, count: int = 8) -> Path:
    """DIR/CLASS folders."""
    for name in classes or ("cat", "dog"):
        draw(root / "pets" / name, count)
    return root / "pets"


def given(root: Path) -> Path:
    """DIR/SPLIT/CLASS folders."""
    for seed, split in enumerate(("train", "val", "test")):
        for name in ("cat", "dog"):
            draw(root / "pets" / split / name, 4, seed)
    return root / "pets"


def absent(root: Path) -> str:
    """No such directory or source."""
    return "pest"


def text_file(root: Path) -> str:
    """A file that is neither .csv nor .npz."""
    (root / "notes.txt").write_text("no images")
    return "notes.txt"


def one_class(root: Path) -> str:
    """One class alone."""
    pets(root, "cat")
    return "pets"


def no_images(root: Path) -> str:
    """Folders without images."""
    (root / "pets" / "cat").mkdir(parents=True)
    (root / "pets" / "dog").mkdir()
    return "pets"


def unreadable(root: Path) -> str:
    """Two unreadable images: text, and a picture cut short."""
    folder = pets(root)
    (folder / "cat" / "3.png").write_text("no picture")
    (folder / "dog" / "5.png").write_bytes((folder / "dog" / "5.png").read_bytes()[:200])
    return "pets"


def unreadable_skipped(root: Path) -> str:
    """The same, with --on-error skip."""
    return f"{unreadable(root)} --on-error skip"


def all_unreadable(root: Path) -> str:
    """Every image of a class unreadable, with --on-error skip."""
    for path in (pets(root) / "dog").iterdir():
        path.write_bytes(b"")
    return "pets --on-error skip"


def too_few(root: Path) -> str:
    """Two images of a class, and no split given."""
    pets(root, "cat")
    pets(root, "dog", count=2)
    return "pets"


def absent_from_train(root: Path) -> str:
    """A class that has val and test images alone."""
    shutil.rmtree(given(root) / "train" / "dog")
    return "pets"


def empty_in_train(root: Path) -> str:
    """A class whose train folder is empty."""
    folder = given(root)
    for split in ("train", "val", "test"):
        draw(folder / split / "eel", 3, len(split))
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()
    return "pets"


def empty_split(root: Path) -> str:
    """A val folder without images."""
    folder = given(root)
    for path in (folder / "val").rglob("*.png"):
        path.unlink()
    return "pets"


def no_train(root: Path) -> str:
    """No train folder, but val and test."""
    shutil.rmtree(given(root) / "train")
    return "pets"


def overlap(root: Path) -> str:
    """A test picture that stands in train, too, under another name."""
    folder = given(root)
    shutil.copy(folder / "test" / "cat" / "1.png", folder / "train" / "cat" / "copy.png")
    return "pets"


def overlap_skipped(root: Path) -> str:
    """The same, with --on-error skip."""
    return f"{overlap(root)} --on-error skip"


def csv_column(root: Path) -> str:
    """A CSV without the columns needed."""
    (root / "list.csv").write_text("name,kind\na.png,cat\n")
    return "list.csv"


def csv_lines(root: Path) -> str:
    """A CSV with an empty label and an unknown split."""
    (root / "list.csv").write_text("path,label,split\na.png,,train\nb.png,cat,dev\n")
    return "list.csv"


def csv_absent(root: Path) -> str:
    """A CSV that lists files that are not there."""
    pets(root)
    rows = [f"pets/{c}/{i}.png,{c}" for c in ("cat", "dog") for i in range(9)]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    return "list.csv"


def label_range(root: Path) -> str:
    """An archive with a label beyond its classes."""
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 9), np.uint8)
    names = np.array(["ash", "fir", "oak"])
    np.savez(root / "leaves.npz", images=images, labels=np.arange(40) % 4, classes=names)
    return "leaves.npz"


def pickled(root: Path) -> str:
    """An archive that holds pickled objects."""
    np.savez(root / "leaves.npz", images=np.array([{}], object), labels=np.arange(1))
    return "leaves.npz"


def floats(root: Path) -> str:
    """An archive of floats."""
    np.savez(root / "leaves.npz", images=np.zeros((9, 9, 9)), labels=np.arange(9))
    return "leaves.npz"


def no_reader(root: Path) -> str:
    """A reader of timm without its files."""
    return "torch/mnist:nowhere"


def bad_option(root: Path) -> str:
    """An unknown way to go on."""
    pets(root)
    return "pets --on-error ignore"


CASES: list[Make] = [
    absent, text_file, one_class, no_images, unreadable, unreadable_skipped, all_unreadable,
    too_few, absent_from_train, empty_in_train, empty_split, no_train, overlap, overlap_skipped,
    csv_column, csv_lines, csv_absent, label_range, pickled, floats, no_reader, bad_option,
]  # fmt: skip


def attempt(make: Make) -> dict[str, object]:
    """Exit code and message of one case."""
    with tempfile.TemporaryDirectory() as folder:
        args = make(Path(folder))
        command = ["data", "check", *args.split(), "--backbone", "vit-digits", "--no-sheet"]
        done = subprocess.run(
            [sys.executable, "-m", "noahnas", *command], cwd=folder, capture_output=True, text=True,
            check=False, env=os.environ | {"NOAHNAS_CACHE": f"{folder}/cache", "COLUMNS": "200"},
        )  # fmt: skip
    error = done.stderr[done.stderr.find("error: ") :].strip()  # progress stands before it
    said = error if done.returncode else told(done.stdout)
    return {
        "input": (make.__doc__ or "").rstrip("."),
        "arguments": args,
        "exit": done.returncode,
        "said": said,
        "traceback": "Traceback" in done.stderr,
    }


def told(table: str) -> str:
    """The rows of a table that tell what was left out."""
    rows = [line.strip("│ ") for line in table.splitlines() if "left out" in line]
    return "; ".join(" ".join(row.replace("│", ":").split()) for row in rows)


def main() -> None:
    """Run all cases."""
    found = [attempt(make) for make in CASES]
    RESULT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print("| input | exit | what it gets |\n|---|---|---|")
    for case in found:
        said = str(case["said"]).replace("\n", "<br>").replace("|", "\\|")
        print(f"| {case['input']} | {case['exit']} | {said} |")


if __name__ == "__main__":
    main()
