"""`noahnas data`: list the sources, check a data set, fetch one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noahnas.cli.fetch import fetch
from noahnas.cli.options import Backbone, Json, OnError, SplitSeed
from noahnas.cli.screen import print_json, working

if TYPE_CHECKING:
    from noahnas.data import Dataset

data_app = typer.Typer(
    invoke_without_command=True, help="Data sources: list them, check a data set, fetch one."
)
data_app.command()(fetch)


@data_app.callback()
def sources(context: typer.Context, as_json: Json = False) -> None:
    """List the installed data sources; `noahnas data check SPEC` looks into one."""
    if context.invoked_subcommand:
        return
    from noahnas import registry
    from noahnas.data.cache import cache_dir
    from noahnas.data.dataset import GROUP

    rows: list[dict[str, str]] = []
    for name in registry.installed(GROUP):
        source: Any = registry.resolve(GROUP, name, "data source")
        summary = (source.__doc__ or "").strip().splitlines()[0]
        rows.append({"name": name, "summary": summary, "from": registry.origin(GROUP, name)})
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    from noahnas.report.console import Console

    caption = f"as --data NAME or NAME:ARGUMENT; decoded images are kept in {cache_dir()}"
    table = Table("source", "what it gives", "from", caption=caption)
    for row in rows:
        table.add_row(row["name"], row["summary"], row["from"])
    Console().print(table)


@data_app.command()
def check(
    spec: Annotated[
        str,
        typer.Argument(
            help="What you would give to --data: a directory, a .csv or .npz file, a source's name."
        ),
    ],
    backbone: Backbone = "vit-nano",
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of a side, instead of the backbone's.")
    ] = None,
    split_seed: SplitSeed = 0,
    on_error: OnError = "stop",
    sheet: Annotated[
        Path | None,
        typer.Option(help="Where the contact sheet goes. [default: contact-sheet-NAME.png]"),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Draw no contact sheet.")] = False,
    as_json: Json = False,
) -> None:
    """Read a data set as a search would; print what was found, draw some images of each class.

    Exit code 2 and the reason if it cannot be used.
    """
    from noahnas.data import LoadOptions, load_data
    from noahnas.data.dataset import SPLITS
    from noahnas.report.console import Console
    from noahnas.report.data import data_table
    from noahnas.report.sheet import contact_sheet

    began = time.perf_counter()
    with working(lambda: "nothing was kept of this reading") as report:
        resize = _resize(backbone, size)
        options = LoadOptions(resize[0], split_seed, on_error, report, resize[1])
        data = load_data(spec, options)
        found: dict[str, Any] = {
            "data": data.name,
            "size": list(options.size),
            "classes": {c: _counts(data, i) for i, c in enumerate(data.classes)},
            "images": {split: len(data.split(split)) for split in SPLITS},
            "digest": data.digest,
            "skipped": list(data.notes.skipped),
            "ignored": list(data.notes.ignored),
            "overlap": data.notes.overlap,
            "overlap_kept": data.notes.kept,
            "cache": data.notes.cache,
            "decoded_now": data.notes.decoded,
        }
    found["seconds"] = round(time.perf_counter() - began, 2)
    if not no_sheet:
        place = sheet or Path(f"contact-sheet-{_file_name(data.name)}.png")
        _write_sheet(place, contact_sheet(data))
        found["contact_sheet"] = str(place)
    if as_json:
        print_json(found)
    else:
        Console().print(data_table(found))


def _write_sheet(place: Path, content: bytes) -> None:
    """Write a PNG, over another PNG at most."""
    from noahnas.errors import DataError
    from noahnas.files import write_atomic

    if place.suffix.lower() != ".png":
        raise DataError(f"--sheet {place}: a contact sheet is a .png file")
    try:
        write_atomic(place, content)
    except OSError as e:
        raise DataError(f"--sheet {place} cannot be written: {e.strerror or e}") from e


def _resize(backbone: str, size: int | None) -> tuple[tuple[int, int], str]:
    """Size and interpolation of the backbone; of a size that is given, bicubic."""
    if size:
        return (size, size), "bicubic"
    from noahnas.backbone import load_backbone

    fed = load_backbone(backbone).preprocess
    return fed.size, fed.interpolation


def _counts(data: Dataset, label: int) -> dict[str, int]:
    return {s: int((data.split(s).labels == label).sum()) for s in ("train", "val", "test")}


def _file_name(name: str) -> str:
    """A data set's name without what a file name cannot hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "data"
