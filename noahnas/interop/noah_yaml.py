"""Supernet and subnet files of NOAH's original code (experiments/**/*.yaml in its repository)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from noahnas.errors import Fault, FileError
from noahnas.space import Arch, ModuleSpace, Space
from noahnas.space.document import Checker, Node, parse, read

MODULES = {"vpt": "VISUAL_PROMPT", "lora": "LORA", "adapter": "ADAPTER"}
PREFIX = "PREFIX"  # prefix tuning, which its published files never use
PARTS = (*MODULES.values(), PREFIX)
TOP = ("MODEL_NAME", "SUPERNET", "SEARCH_SPACE", "RETRAIN")
SUPERNET = ("DEPTH", "PROMPT_DEPTH", *(f"{part}_DIM" for part in PARTS))
CHOICES = tuple(f"{part}_{what}" for part in PARTS for what in ("DIM", "DEPTH"))
DIMS = tuple(f"{part}_DIM" for part in PARTS)


def load_noah(path: Path) -> Space | Arch:
    """A Space from a supernet file, an Arch from a subnet file (one with RETRAIN).

    Raises:
        FileError: with every fault's line and column.
    """
    return parse_noah(read(path), str(path), path.stem)


def parse_noah(text: str, source: str, name: str) -> Space | Arch:
    """The same from text; `name` is what the space will be called.

    A subnet file holds a SEARCH_SPACE, too, but often that of another supernet: it is not read.

    Raises:
        FileError: with every fault's line and column.
    """
    root = parse(text, source)
    check = Checker()
    top = check.mapping(root, "a NOAH file", TOP)
    blocks, most = _supernet(check, root, top)
    found: Space | Arch | None = None
    if "RETRAIN" in top:
        found = _arch(check, top["RETRAIN"], blocks, most)
    elif "SEARCH_SPACE" in top:
        model = check.text(top["MODEL_NAME"], "MODEL_NAME") if "MODEL_NAME" in top else "a ViT"
        found = _space(check, top["SEARCH_SPACE"], blocks, most, name, model)
    elif isinstance(root.value, dict):
        check.fault(root, "neither SEARCH_SPACE (a supernet file) nor RETRAIN (a subnet file)")
    if check.faults or found is None:
        raise FileError(source, check.faults or [Fault(1, 1, "holds no prompt module")])
    return found


def _supernet(check: Checker, root: Node, top: Mapping[str, Node]) -> tuple[int, Mapping[str, int]]:
    """The number of blocks, and how wide the supernet's weights are."""
    if "SUPERNET" not in top:
        if isinstance(root.value, dict):
            check.fault(root, "'SUPERNET' is missing; its DEPTH is the number of blocks")
        return 0, {}
    keys = check.mapping(top["SUPERNET"], "SUPERNET", SUPERNET)
    if "DEPTH" not in keys:
        check.fault(top["SUPERNET"], "SUPERNET: 'DEPTH' is missing, the number of blocks")
    found = {key: check.integer(node, f"SUPERNET.{key}") for key, node in keys.items()}
    return found.get("DEPTH", 0), found


def _space(
    check: Checker, node: Node, blocks: int, most: Mapping[str, int], name: str, model: str
) -> Space | None:
    keys = check.mapping(node, "SEARCH_SPACE", CHOICES)
    found = {key: check.integers(value, f"SEARCH_SPACE.{key}") for key, value in keys.items()}
    for key, values in found.items():
        limit = blocks if key.endswith("_DEPTH") else most.get(key)
        if limit is not None and values and values[-1] > limit:
            what = "DEPTH" if key.endswith("_DEPTH") else key
            check.fault(keys[key], f"SEARCH_SPACE.{key} exceeds SUPERNET.{what}, {limit}")
    if any(found.get(f"{PREFIX}_DIM", ())) and any(found.get(f"{PREFIX}_DEPTH", (1,))):
        check.fault(keys[f"{PREFIX}_DIM"], _no_prefix(f"SEARCH_SPACE.{PREFIX}_DIM"))
    modules = {}
    for module, part in MODULES.items():
        dims, depths = found.get(f"{part}_DIM", ()), found.get(f"{part}_DEPTH", ())
        if any(dims) and (any(depths) or not depths):
            modules[module] = ModuleSpace(dims, depths)
    if check.faults or not modules:
        return None
    return Space(name, modules, f"read from a NOAH supernet file for {model}", blocks=blocks)


def _arch(check: Checker, node: Node, blocks: int, most: Mapping[str, int]) -> Arch | None:
    keys = check.mapping(node, "RETRAIN", DIMS)
    found = {key: _dims(check, value, key, blocks, most.get(key)) for key, value in keys.items()}
    if any(found.get(f"{PREFIX}_DIM", ())):
        check.fault(keys[f"{PREFIX}_DIM"], _no_prefix(f"RETRAIN.{PREFIX}_DIM"))
    if check.faults:
        return None
    return Arch(**{m: found[f"{p}_DIM"] for m, p in MODULES.items() if f"{p}_DIM" in found})


def _dims(check: Checker, node: Node, key: str, blocks: int, most: int | None) -> tuple[int, ...]:
    if not isinstance(node.value, list):
        check.fault(node, f"RETRAIN.{key} must be a list with one dim a block")
        return ()
    dims = tuple(check.integer(item, f"RETRAIN.{key}") for item in node.value)
    if blocks and len(dims) != blocks:
        check.fault(node, f"RETRAIN.{key} has {len(dims)} dims, SUPERNET.DEPTH is {blocks}")
    if most is not None and dims and max(dims) > most:
        check.fault(node, f"RETRAIN.{key} exceeds SUPERNET.{key}, {most}")
    return dims


def _no_prefix(key: str) -> str:
    return f"{key}: prefixes are not imported (adapter, lora and vpt are); all must be 0"
