"""`noahnas space import`: files of other people's code as ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def space_import(
    file: Annotated[Path, typer.Argument(help="A supernet or subnet YAML of NOAH's own code.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; never one that exists. [default: stdout]"),
    ] = None,
) -> None:
    """Turn a NOAH supernet file into a space file, a NOAH subnet file into an architecture file.

    A file with RETRAIN is a subnet: `noahnas space import subnet.yaml --out arch.yaml`, then
    `noahnas retrain --arch arch.yaml`. Any other is a supernet, for `noahnas search --space FILE`.
    """
    from noahnas.errors import NoahnasError
    from noahnas.files import write_atomic
    from noahnas.interop.noah_yaml import load_noah
    from noahnas.space import Arch, format_space

    found = load_noah(file)
    arch = isinstance(found, Arch)
    text = found.to_yaml() if isinstance(found, Arch) else format_space(found)
    if out is None:
        typer.echo(text, nl=False)
    elif out.exists():
        raise NoahnasError(f"{out} exists; choose another --out")
    else:
        try:
            write_atomic(out, text.encode())
        except OSError as e:
            raise NoahnasError(f"{out} cannot be written: {e.strerror}") from e
    if arch:
        sys.stderr.write("an architecture, for noahnas retrain --arch FILE\n")
    else:
        sys.stderr.write(
            "a space without a budget, which NOAH's code takes as an option: its default is "
            "--budget 0.64M\n"
        )
