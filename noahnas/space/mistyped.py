"""What of the wrong kind a space was made of, mostly what Python hands over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from noahnas.space.budget import Budget
from noahnas.space.declaration import ModuleSpace
from noahnas.space.document import unprintable
from noahnas.space.rules import Rule

if TYPE_CHECKING:
    from noahnas.space.spec import Spec

MAX_BLOCKS = 256  # the deepest ViT in timm has 64
MAX_WIDTH = 1_000_000


def mistyped(spec: Spec) -> Iterator[tuple[str, str]]:
    """What is of the wrong kind, mostly what Python hands over: of which key, and why."""
    for what in ("name", "description"):
        text: Any = getattr(spec, what)
        if not isinstance(text, str):
            yield what, f"{what} must be text, not {text!r}"
        elif wrong := unprintable(text, ("Cs", "Cc")):
            yield what, f"{what}: {wrong}"
    modules: Any = spec.modules
    budget: Any = spec.budget
    rules: Any = spec.rules
    if not isinstance(modules, Mapping):
        yield "", f"modules must map names to ModuleSpace, not {spec.modules!r}"
    else:
        for name, declared in modules.items():
            if not isinstance(name, str) or not isinstance(declared, ModuleSpace):
                yield (
                    "",
                    f"{name!r} must be a name with a ModuleSpace, not {declared!r}",
                )
    if budget is not None and not isinstance(budget, Budget):
        yield "", f"budget must be a Budget, such as Budget('0.64M'), not {spec.budget!r}"
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        yield "", f"rules must be a list of rules: [{spec.rules!r}]"
    else:
        for rule in rules:
            if not isinstance(rule, (str, *get_args(Rule))):
                yield "", f"a rule must be text, not {rule!r}"
    sizes = {"blocks": (1, MAX_BLOCKS), "width": (1, MAX_WIDTH), "tokens": (1, MAX_WIDTH)}
    sizes |= {"hidden": (0, MAX_WIDTH), "classes": (1, MAX_WIDTH), "weights": (0, 10**15)}
    for what, (least, most) in sizes.items():
        size = getattr(spec, what)
        if what == "classes" and size is None:
            continue
        if type(size) is not int:
            yield "", f"{what} must be a whole number, not {size!r}"
        elif not least <= size <= most:
            yield "", f"{what} must be at least {least} and at most {most}, not {size}"
