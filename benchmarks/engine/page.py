"""The engine's figures as tables of docs/results.md."""

from __future__ import annotations

import statistics
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
        put("results.md", "engine attention", "\n".join(_attention(found)))
    if "memory" in found:
        put("results.md", "engine memory", "\n".join(_memory(found)))
    if "prefix" in found:
        put("results.md", "engine prefix", "\n".join(_prefix(found)))
    if "precision" in found:
        put("results.md", "engine precision", "\n".join(_precision(found)))
    if found.get("gpu", {}).get("run"):
        put("results.md", "engine gpu", "\n".join(_gpu(found["gpu"])))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), "|---" * len(head) + "|", *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _models() -> list[str]:
    return sorted(MODELS, key=list(NAMES).index)


def _cases(found: Found, what: str) -> list[tuple[str, Found]]:
    return [
        (f"{NAMES[model]}, {told}", found[f"{what}:{model}"][told])
        for model in _models()
        for told in ("largest", "median")
    ]


def _held(each: Found) -> list[str]:
    numbers = [f"{each[key]:.3f}" for key in ("ratio", "upper95")]
    return [f"{each['limit']:.2f}", *numbers, str(each["pairs"]), _met(each)]


def _met(each: Found) -> str:
    return "met" if each["met"] else "**missed**"


def _made_by(found: Found, sections: Sequence[str]) -> list[str]:
    """A line that tells the versions that sections were measured with; where they differ, whose."""
    by: dict[str, list[str]] = {}
    for section in sections:
        about = found[section]["about"]
        told = f"PyTorch {about['torch']}, timm {about['timm']}, {about['threads']} thread"
        what, _, model = section.partition(":")
        by.setdefault(told, []).append(NAMES.get(model, what))
    if len(by) == 1:
        return ["", f"{next(iter(by))}."]
    return ["", "; ".join(f"{', '.join(names)}: {told}" for told, names in by.items()) + "."]


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
    head = ["evaluating", "limit", "ratio", "upper bound", "pairs", ""]
    table = _table([*head, "equal parts", "memory kept", "tokens"], rows)
    return table + _made_by(found, [f"eval:{model}" for model in _models()])


def _training(found: Found) -> list[str]:
    rows = [[name, *_held(each)] for name, each in _cases(found, "train")]
    table = _table(["training", "limit", "ratio", "upper bound", "pairs", ""], rows)
    return table + _made_by(found, [f"train:{model}" for model in _models()])


def _attention(found: Found) -> list[str]:
    rows = [
        [told, *(f"{each[key]:.1f}" for key in ("plain_ms", "ms")), f"{each['ratio']:.2f}",
         f"{each['upper95']:.2f}", str(each["pairs"])]
        for told, each in found["attention"].items()
        if told != "about"
    ]  # fmt: skip
    head = ["images × (tokens + prompts)", "PyTorch's, ms", "by hand, ms", "ratio", "upper bound"]
    return _table([*head, "pairs"], rows) + _made_by(found, ["attention"])


def _memory(found: Found) -> list[str]:
    memory = found["memory"]
    rows = [
        [
            told,
            f"{each['limit']:.2f}",
            *(f"{each[key]:.3f}" for key in ("ratio", "lowest", "highest")),
            f"{statistics.median(each['bytes']) / 2**30:.2f}",
            _met(each),
        ]
        for told in ("largest", "median")
        for each in [memory[told]]
    ]
    head = ["peak memory, ViT-B/16", "limit", "ratio", "lowest", "highest", "GiB", ""]
    plain = memory["plain"]["bytes"]
    return [
        *_table(head, rows),
        "",
        f"Processes of each case: {memory['processes']}; the plain step takes "
        f"{min(plain) / 2**30:.2f} to {max(plain) / 2**30:.2f} GiB.",
        *_made_by(found, ["memory"]),
    ]


def _prefix(found: Found) -> list[str]:
    prefix, rows = found["prefix"], []
    for told in ("evolution", "random"):
        each, share = prefix[told], prefix["computed"][told]
        numbers = [f"{x:.3f}" for x in (share, each["ratio"], each["upper95"])]
        limit = [f"{each['limit']:.2f}", _met(each)] if "limit" in each else ["–", ""]
        rows.append([told, *numbers, str(each["pairs"]), *limit])
    head = ["asks of", "blocks computed", "ratio", "upper bound", "asks", "limit", ""]
    return [
        *_table(head, rows),
        "",
        f"Within an ask alone {prefix['computed']['random, within an ask']:.3f} of the blocks of "
        "random draws would have to be computed.",
        *_made_by(found, ["prefix"]),
    ]


def _precision(found: Found) -> list[str]:
    precision = found["precision"]
    speed = precision["bf16_over_fp32"]
    rows = [
        ["time, bf16 over fp32", f"{speed['ratio']:.3f}", f"up to {speed['upper95']:.3f}"],
        *(
            [f"τ of {told}", f"{each['tau']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}"]
            for told, each in (
                ("losses", precision["tau_loss"]),
                ("the order by which a search ranks", precision["tau_rank"]),
                ("accuracies", precision["tau_accuracy"]),
            )
        ),
        [
            "greatest difference of losses, nats",
            f"{precision['largest_difference_of_losses']:.4f}",
            "–",
        ],
    ]
    head = [f"{precision['archs']} architectures", "", "95 % interval"]
    return _table(head, rows) + _made_by(found, ["precision"])


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
    measured = [each for each in found.values() if isinstance(each, dict)]
    waits = [each["compile_seconds"] for each in measured if "compile_seconds" in each]
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
        f"–: not measured. Compiled code is that of one architecture and takes {min(waits):.0f} to "
        f"{max(waits):.0f} s to make, so beside the plain backbone one was compiled, the median.",
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
