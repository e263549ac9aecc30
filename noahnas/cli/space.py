"""`noahnas space`: list and check search spaces."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from noahnas.cli.options import Json

space_app = typer.Typer(no_args_is_help=True, help="List and check search spaces.")


@space_app.command("list")
def space_list(as_json: Json = False) -> None:
    """List the spaces that come with noahnas."""
    from noahnas.space import Space, shipped

    spaces = [Space.load(name) for name in shipped()]
    if as_json:
        typer.echo(json.dumps([s.to_dict() | {"size": s.size} for s in spaces], indent=2))
        return
    from rich.console import Console

    from noahnas.report.tables import space_table

    rows = [(s.name, f"{s.size:.3g}", _limit(s), s.description) for s in spaces]
    Console().print(space_table(rows))


@space_app.command("check")
def space_check(
    file: Annotated[str, typer.Argument(help="A space file, or the name of a shipped space.")],
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of the backbone.")] = 12,
    width: Annotated[int, typer.Option(min=1, help="Token width of the backbone.")] = 768,
    as_json: Json = False,
) -> None:
    """Check a space file: every fault with line, column and fix; then size and cost."""
    from noahnas.diagnose import binding
    from noahnas.space import Space

    space = Space.load(file).bind(blocks=blocks, width=width)
    space.check_budget()
    bound = binding(space)
    found: dict[str, Any] = {
        "name": space.name,
        "blocks": blocks,
        "width": width,
        "genes": len(space.genes),
        "size": space.size,
        "cheapest": space.params(space.smallest),
        "dearest": space.params(space.largest),
        "budget": space.budget.params if space.budget else None,
        "feasible": space.count(),
        "feasible_share_of_paper_prior": bound.share,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from noahnas.report.tables import checked_table

    Console().print(checked_table(file, found))


def _limit(space: Any) -> str:
    return f"{space.budget.params:,}" if space.budget else "none"
