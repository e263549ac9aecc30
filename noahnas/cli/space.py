"""`noahnas space`: list, check, show, sample and compare search spaces."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from noahnas.cli.options import Json, Prior
from noahnas.cli.screen import BadParameter, print_json
from noahnas.errors import SpaceError

space_app = typer.Typer(
    no_args_is_help=True,
    help="List, check, show, sample and compare search spaces. A SPACE is a file, or the name of "
    "a shipped one; it is bound to ViT-B/16 unless you say otherwise.",
)
File = Annotated[str, typer.Argument(metavar="SPACE", help="A space file, or a shipped name.")]
Blocks = Annotated[int | None, typer.Option(min=1, help="Blocks of the backbone. [default: 12]")]
Width = Annotated[int | None, typer.Option(min=1, help="Its token width. [default: 768]")]
Backbone = Annotated[
    str | None, typer.Option(help="A backbone to bind to, instead: timm name, file or embedded.")
]
Classes = Annotated[
    int | None, typer.Option(min=1, help="Classes, for a budget that counts the head.")
]


@space_app.command("list")
def space_list(
    blocks: Blocks = None,
    width: Width = None,
    backbone: Backbone = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """List the spaces that come with noahnas, and their sizes."""
    from noahnas.report.spaces import spaces_table
    from noahnas.space import Space, shipped

    on = _binding(blocks, width, backbone, classes)
    spaces = [Space.load(name) for name in shipped()]
    sizes = [_size(s, on) for s in spaces]
    if as_json:
        found = [s.to_dict() | {"size": size} for s, size in zip(spaces, sizes, strict=True)]
        print_json(found)
        return
    rows = [
        (s.name, "does not fit" if size is None else f"{size:.3g}", _limits(s), s.description)
        for s, size in zip(spaces, sizes, strict=True)
    ]
    _print(spaces_table(rows, _told_of(on)))


@space_app.command("check")
def space_check(
    file: File,
    blocks: Blocks = None,
    width: Width = None,
    backbone: Backbone = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Check a space: every fault with line, column and fix; then size, cost and feasible share.

    A warning says when the budget hardly binds, or hardly anything meets it.
    """
    from noahnas.report.spaces import budget_line, checked_table
    from noahnas.space.check import check

    space = _bound(file, blocks, width, backbone, classes)
    checked = check(space)
    archs = {"cheapest": checked.cheapest, "dearest": checked.dearest}
    found: dict[str, Any] = {
        "name": space.name,
        "blocks": space.blocks,
        "width": space.width,
        "genes": len(space.genes),
        "size": checked.size,
    }
    for which, arch in archs.items():
        found[which] = None if arch is None else space.params(arch)
        found[f"{which}_arch"] = None if arch is None else arch.to_dict()
    found |= {
        "budget": space.to_dict().get("budget"),
        "at_least": space.limits[0],
        "at_most": space.limits[1],
        "feasible": checked.feasible,
        "reason": checked.reason,
        "feasible_share_of_exact_prior": checked.share,
        "draws_of_exact_prior": checked.draws,
        "feasible_share_of_paper_prior": checked.binding.share,
        "draws_of_paper_prior": checked.binding.draws,
        "warnings": list(checked.warnings),
    }
    if as_json:
        print_json(found)
    else:
        _print(checked_table(file, found | {"budget_told": budget_line(space)}))


@space_app.command("show")
def space_show(
    file: File,
    blocks: Blocks = None,
    width: Width = None,
    backbone: Backbone = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Show a space as a picture: blocks down, modules across, what each block may have."""
    from noahnas.report.spaces import notes, picture

    space = _bound(file, blocks, width, backbone, classes)
    if as_json:
        genes = [
            {"name": g.name, "choices": list(g.choices), "blocks": list(g.blocks)}
            for g in space.genes
        ]
        print_json(space.to_dict() | {"genes": genes})
        return
    lines = notes(space)
    _print(picture(space))
    for line in lines:
        typer.echo(line)


@space_app.command("sample")
def space_sample(
    file: File,
    archs: Annotated[
        int,
        typer.Option("--archs", "-n", min=1, max=1_000_000, help="How many architectures to draw."),
    ] = 1,
    prior: Annotated[
        Prior,
        typer.Option(
            help="How they are drawn: paper (each depth uniform, then each dim) or exact (uniform "
            "over feasible architectures)."
        ),
    ] = "exact",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    blocks: Blocks = None,
    width: Width = None,
    backbone: Backbone = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Draw architectures that meet the budget; printed as YAML documents."""
    import numpy as np

    space = _bound(file, blocks, width, backbone, classes)
    drawn = space.sample(np.random.default_rng(seed), archs, prior=prior)
    if as_json:
        found = [
            {"arch": a.to_dict(), "digest": a.digest, "params": space.params(a)} for a in drawn
        ]
        print_json(found)
    else:
        documents = (
            f"# {arch.digest} · {space.params(arch):,} parameters\n{arch.to_yaml()}"
            for arch in drawn
        )
        typer.echo("---\n".join(documents), nl=False)
    if prior == "exact" and space.exact.reason:
        rate = space.exact.acceptance
        typer.echo(f"drawn by rejection: {space.exact.reason}; {rate:.2%} passed", err=True)


@space_app.command("diff")
def space_diff(
    first: File,
    second: File,
    blocks: Blocks = None,
    width: Width = None,
    backbone: Backbone = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Tell what two spaces declare differently, and how large each is on a backbone."""
    from noahnas.report.spaces import diff_table
    from noahnas.space import Space

    on = _binding(blocks, width, backbone, classes)
    sides = [Space.load(first), Space.load(second)]
    flat = [_flat(s.to_dict() | {"size": _size(s, on)}) for s in sides]
    keys = list(dict.fromkeys([*flat[0], *flat[1]]))
    found = {key: (flat[0].get(key), flat[1].get(key)) for key in keys}
    found = {key: pair for key, pair in found.items() if pair[0] != pair[1]}
    if as_json:
        print_json(found)
    elif found:
        _print(diff_table(first, second, found))
    else:
        typer.echo("no difference")


@space_app.command("schema")
def space_schema() -> None:
    """Print the JSON Schema of space files, with which editors complete and check them.

    It holds the attributes of every installed module. A file names it in its first line:

    # yaml-language-server: $schema=space.schema.json
    """
    from noahnas.space.editor import json_schema

    print_json(json_schema())


def _bound(
    file: str, blocks: int | None, width: int | None, backbone: str | None, classes: int | None
) -> Any:
    from noahnas.space import Space

    space = Space.load(file)
    return space.bind(**_binding(blocks, width, backbone, classes))


def _binding(
    blocks: int | None, width: int | None, backbone: str | None, classes: int | None
) -> dict[str, Any]:
    """What to bind a space to, as `Space.bind` takes it."""
    if not backbone:
        return {"blocks": blocks, "width": width, "classes": classes}
    if blocks or width:
        raise BadParameter("the backbone tells its blocks and width", param_hint="--backbone")
    return {"backbone": _model(backbone), "classes": classes}


def _told_of(on: dict[str, Any]) -> str:
    """What sizes are told of."""
    if "backbone" in on:
        return f"{len(on['backbone'].blocks)} blocks"
    return f"{on['blocks'] or 12} blocks"


def _model(name: str) -> Any:
    """A backbone's network; where only its shape is asked for, timm needs no weights."""
    import timm
    import torch

    from noahnas.backbone import load_backbone
    from noahnas.backbone.backbone import EMBEDDED

    if name in EMBEDDED or not timm.is_model(name.partition(".")[0]):
        return load_backbone(name).model
    with torch.device("meta"):
        return timm.create_model(name.partition(".")[0], pretrained=False)


def _size(space: Any, on: dict[str, Any]) -> int | None:
    """The number of architectures on a backbone; None if it does not fit, or is not counted."""
    try:
        size: int = space.bind(**on).size
    except SpaceError:
        return None
    return size


def _limits(space: Any) -> str:
    limits = space.budget.limits if space.budget else {}
    told = [f"{int(v.value):,}" if not v.unit else str(v) for v in limits.values()]
    return " · ".join(told) or "none"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, part in value.items():
        found |= _flat(part, f"{key}.{name}" if key else str(name))
    return found


def _print(table: Any) -> None:
    from noahnas.report.console import Console

    Console().print(table)
