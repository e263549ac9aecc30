"""Options that several commands share, declared once: as the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints


def takes(shared: type[Any], after: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose parameter `asked` is to be an instance of `shared`.

    Typer sees each of the fields as an option of its own, behind the command's own parameter
    `after`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(shared, include_extras=True)
        options = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if f.default is MISSING else f.default,
                annotation=hints[f.name],
            )
            for f in fields(shared)
        ]
        own_hints = get_type_hints(command, include_extras=True)
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[name])
            for name, p in inspect.signature(command).parameters.items()
            if name != "asked"
        ]
        at = 1 + [p.name for p in own].index(after) if after else 0
        names = {option.name for option in options}

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(asked=shared(**given), **values)

        parameters = [*own[:at], *options, *own[at:]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__module__ = command.__module__
        return run

    return decorate
