"""The engine's figures as tables of docs/results.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from models import MODELS
from pages import put

NAMES = {
    "vit_small_patch16_224": "ViT-S/16",
    "vit_base_patch16_224": "ViT-B/16",
    "vit-nano": "shipped ViT",
}
Found = Mapping[str, Any]


def publish(found: Found) -> None:
    """Write the tables of what was measured whole."""
    if all(f"eval:{model}" in found for model in MODELS):
        put("results.md", "engine evaluation", "\n".join(_evaluating(found)))
    if all(f"train:{model}" in found for model in MODELS):
        put("results.md", "engine training", "\n".join(_training(found)))
    if "attention" in found:
        put("results.md", "engine attention", "\n".join(_attention(found["attention"])))
    if "memory" in found:
        put("results.md", "engine memory", "\n".join(_memory(found["memory"])))
    if found.get("gpu", {}).get("run"):
        put("results.md", "engine gpu", "\n".join(_gpu(found["gpu"])))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), "|---" * len(head) + "|", *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cases(found: Found, what: str) -> list[tuple[str, Found]]:
    return [
        (f"{NAMES[model]}, {told}", found[f"{what}:{model}"][told])
        for model in sorted(MODELS, key=list(NAMES).index)
        for told in ("largest", "median")
    ]


def _held(each: Found) -> list[str]:
    met = "met" if each["met"] else "**missed**"
    return [f"{each['limit']:.2f}", f"{each['ratio']:.3f}", f"{each['upper95']:.3f}", met]


def _evaluating(found: Found) -> list[str]:
    rows = [
        [
            name,
            *_held(each),
            f"{each['in_equal_parts']['ratio']:.3f}",
            f"{each['memory_kept']['ratio']:.3f}" if "memory_kept" in each else "–",
            f"{each['tokens_alone']:.2f}",
        ]
        for name, each in _cases(found, "eval")
    ]
    head = ["evaluating", "limit", "ratio", "upper bound", ""]
    return _table([*head, "equal parts", "memory kept", "tokens"], rows)


def _training(found: Found) -> list[str]:
    rows = [[name, *_held(each)] for name, each in _cases(found, "train")]
    return _table(["training", "limit", "ratio", "upper bound", ""], rows)


def _attention(found: Found) -> list[str]:
    rows = [
        [told, *(f"{each[key]:.1f}" for key in ("plain_ms", "ms")), f"{each['ratio']:.2f}",
         f"{each['upper95']:.2f}"]
        for told, each in found.items()
        if told != "about"
    ]  # fmt: skip
    head = ["images × (tokens + prompts)", "PyTorch's, ms", "by hand, ms", "ratio", "upper bound"]
    return _table(head, rows)


def _memory(found: Found) -> list[str]:
    rows = [
        [
            told,
            f"{each['limit']:.2f}",
            f"{each['ratio']:.3f}",
            "met" if each["met"] else "**missed**",
        ]
        for told in ("largest", "median")
        for each in [found[told]]
    ]
    return _table(["peak memory, ViT-B/16", "limit", "ratio", ""], rows)


def _gpu(found: Found) -> list[str]:
    """Images a second, and memory, of each model, precision and case."""
    cases = [
        f"{what} {told}"
        for what, some in (
            ("eval", ("plain", "median", "largest")),
            ("train", ("plain", "median", "largest")),
        )
        for told in some
    ]
    titles = [case.replace("eval", "evaluating").replace("train", "training") for case in cases]
    rows = []
    for model in ("vit_small_patch16_224", "vit_base_patch16_224"):
        for mode in ("fp32", "bf16", "bf16, compiled"):
            each = [found.get(f"{model} {mode} {case}") for case in cases]
            rows.append([f"{NAMES[model]}, {mode}", *map(_speed, each)])
    told = found["precision"]["bf16_over_fp32"]
    tau = found["precision"]["tau_rank"]
    together, alone = (found[f"50 archs {how}"]["seconds"] for how in ("together", "one by one"))
    return [
        *_table([found["device"], *titles], rows),
        "",
        f"Images a second, and GiB at the peak; {found['images']['eval']} images at 224 are "
        f"evaluated at a time, {found['images']['train']} trained on; medians of "
        f"{found['repeats']} runs. PyTorch {found['about']['torch']}.",
        "",
        f"50 architectures on the 200 val images of `count`, ViT-S/16, bf16: {together:.1f} s "
        f"together, {alone:.1f} s one by one. On the demo's supernet of the shipped ViT bf16 takes "
        f"{told['ratio']:.2f} of fp32's time (upper bound {told['upper95']:.2f}), and ranks "
        f"{found['precision']['archs']} architectures like it: τ {tau['tau']:.3f} "
        f"[{tau['low']:.3f}, {tau['high']:.3f}].",
    ]


def _speed(each: Found | None) -> str:
    if each is None:
        return "–"
    if "failed" in each:
        return "failed"
    return f"{each['images_a_second']:,.0f} · {each['peak_bytes'] / 2**30:.2f}"
