"""Are the paper's claims true, and what do they cost? The campaign on micro-VTAB, in parts.

    noahnas data fetch micro-vtab
    python benchmarks/micro_vtab/table.py [PART ...] [--precision bf16] [--dry-run]

Parts, by default all but `vit-s`:

- `core`     what the two answers need: noah, random designs and single modules; all tasks, 3 seeds
- `rest`     the other rows, and all weights retrained as the cheapest recipe does
- `recipes`  noah by the paper's recipe and by cheaper ones, random designs retrained as three of
             these are, adapter and LoRA as the paper's is, the classifier alone as the cheapest is;
             a task of each group, 3 seeds
- `fifth`    noah by one more recipe, and a random design retrained as the paper's is; one seed
- `cheaper`  the cheapest recipe, and random designs and single modules retrained as it is; all
             tasks, 3 seeds; in fp32, as its first searches were
- `vit-s`    a confirmation on a pretrained ViT-S (`--vit-s FILE`, as `python
             benchmarks/pretrain/teacher.py save` writes it), 2 tasks, 2 seeds

Each goes on where it was stopped; parts share what they have in common. `--tasks` takes fewer,
so that two processes can share a part. After each part the table, its plots and every finished
run's inputs and result are copied to `benchmarks/micro_vtab/results`; what lies there counts as
done in a checkout that has no runs of its own, so a campaign can move to another machine. A run
that is to be made again must be removed there as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from noahnas.files import read_sealed_json, sealed_json, write_atomic
from noahnas.protocols.answers import MARGIN, points
from noahnas.protocols.runs import FAILED, unplaced

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import DOCS, put

RUNS = Path("runs")  # relative, so that results name no place of this machine
KEPT = Path("benchmarks/micro_vtab/results")
PLOTS = {"vit-nano": "claims", "vit-s": "claims/vit-s"}  # by backbone, in docs
ROWS = {
    "core": "adapter,lora,vpt,feasible,noah",
    "rest": "linear,full,max,middle,random,full@micro-vtab-small-batch",
    "recipes": "noah@micro-vtab-paper,noah@micro-vtab-short-search,noah@micro-vtab-tenth,"
    "noah@micro-vtab-twentieth,noah@micro-vtab-small-batch,noah@micro-vtab-small-batch-long,"
    "noah@micro-vtab-chosen-epochs,noah@micro-vtab-decay,feasible@micro-vtab-small-batch,"
    "feasible@micro-vtab-chosen-epochs,feasible@micro-vtab-decay,adapter@micro-vtab-paper,lora@micro-vtab-paper,"
    "linear@micro-vtab-small-batch",
    "fifth": "noah@micro-vtab-fifth,feasible@micro-vtab-short-search",
    "cheaper": "noah@micro-vtab-small-batch,feasible@micro-vtab-small-batch,"
    "adapter@micro-vtab-small-batch,lora@micro-vtab-small-batch,vpt@micro-vtab-small-batch",
    "vit-s": "linear,full,adapter,lora,vpt,max,middle,feasible,random,noah",
}
ONLY = {  # options of a part, which go before those that are given
    "cheaper": ["--precision", "fp32"],
    "recipes": ["--tasks", "emoji,climate,distance"],
    "fifth": ["--tasks", "emoji,climate,distance", "--seeds", "0"],
    "vit-s": [
        *("--recipe", "benchmarks/micro_vtab/vit-s.yaml", "--budget", "129.1k"),
        *("--tasks", "emoji,distance", "--seeds", "0-1"),
    ],
}


def main() -> None:
    """Do the parts, and keep what they measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--tasks", help="instead of a part's own")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--vit-s", help="the backbone of that part, a file")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    strange = [part for part in given.parts if part not in ROWS]
    if strange:
        parser.error(f"no part is called {', '.join(strange)} (known: {', '.join(ROWS)})")
    for part in given.parts or ["core", "rest", "recipes", "fifth", "cheaper"]:
        name = "vit-s" if part == "vit-s" else "vit-nano"
        out = RUNS / f"micro-vtab-{name}"
        command = [
            *(sys.executable, "-m", "noahnas", "reproduce", "micro-vtab", "--rows", ROWS[part]),
            *("--out", str(out), "--precision", given.precision, "--threads", "1"),
            *ONLY.get(part, []),
        ]
        if given.tasks:
            command += ["--tasks", given.tasks]
        if part == "vit-s":
            if not given.vit_s:
                parser.error("the part vit-s needs --vit-s FILE")
            command += ["--backbone", given.vit_s]
        if given.dry_run:
            command.append("--dry-run")
        parts = (each for each in ROWS if (each == "vit-s") == (part == "vit-s"))
        take_up(KEPT / name, out, ",".join(ROWS[each] for each in parts).split(","))
        print(part, *command[3:], flush=True)
        code = subprocess.run(command, check=False).returncode
        if code:
            raise SystemExit(code)
        if not given.dry_run:
            keep(out, KEPT / name)
            publish(KEPT / name)


def publish(place: Path) -> None:
    """Write the answers to the README, and the report with its plots to docs/claims.md."""
    for plot in place.glob("*.png"):
        _copy(plot, DOCS / PLOTS[place.name] / plot.name)
    for (page, section), text in sections(place).items():
        put(page, section, text)


def sections(place: Path) -> dict[tuple[str, str], str]:
    """What the pages say of the table that lies at `place`, by page and section."""
    _, _, body = (place / "micro-vtab.md").read_text().partition("\n\n")  # the page has a title
    told = json.loads((place / "micro-vtab.json").read_text())
    plots = PLOTS[place.name]
    for plot in place.glob("*.png"):
        body = body.replace(f"![{plot.name}]({plot.name})", f"![{plot.stem}]({plots}/{plot.name})")
    if place.name == "vit-s":  # below a heading of its own
        return {("claims.md", "vit-s"): body.replace("\n## ", "\n### ").strip()}
    return {
        ("../README.md", "micro-vtab"): indent("\n".join(map("- {}".format, brief(told))), "  "),
        ("claims.md", "table"): body.strip(),
    }


def brief(told: Mapping[str, Any]) -> list[str]:
    """The two answers, a sentence for each row, and what a search may cost in one more.

    Of other recipes only what was asked on all tasks.
    """
    tasks = len(told["about"]["tasks"])
    found = [
        row["sentence"]
        for key in ("singles", "singles_alike", "feasible", "feasible_alike")
        for row in told["answers"][key]
        if not key.endswith("_alike") or len(row["tasks"]) == tasks
    ]
    curve = told["curve"]
    held = [row for row in curve["held"] if row["against"] == curve["reference"]] if curve else []
    if held:
        each = (
            f"{row['row'].partition('@')[2] or told['about']['recipe']['name']}, "
            f"{row['share']:.1%}: {points(row['difference'])}, {row['pairs']} pairs"
            + (", kept" if row["keeps"] else "")
            + (" on these tasks" if row["keeps"] and not row["keeps_beyond"] else "")
            for row in sorted(held, key=lambda row: -row["difference"]["mean"])
        )
        paper = told["titles"][curve["reference"]]
        found.append(
            f"Cheaper recipes less {paper}, with their share of its passes, choices of rates "
            f"apart (*kept*: all of the interval above -{100 * MARGIN:.1f}; *on these tasks*: "
            f"but not that of Student's t over tasks): {'; '.join(each)}."
        )
    return found


def keep(out: Path, place: Path) -> None:
    """Copy the table, its plots and each finished run's inputs and result.

    Not those of a supernet that is still to be searched: its weights are too large to be kept.
    """
    found = [p for p in out.iterdir() if p.is_file() and p.suffix != ".lock"]
    for result in (*out.rglob("result.json"), *out.rglob(FAILED)):
        row, seed = result.parts[-3:-1]
        noah = row.replace("supernet", "noah", 1)
        if noah == row or (result.parents[2] / noah / seed / "result.json").exists():
            found += [result, result.with_name("run.json")]
    for path in found:
        _copy(path, place / path.relative_to(out))
        if path.name in ("run.json", "result.json"):
            _unplace(place / path.relative_to(out))


def _unplace(path: Path) -> None:
    """Keep of a backbone's file its name alone: where it lies is a matter of a machine."""
    told = read_sealed_json(path.read_bytes())
    holder = told.get("inputs", told)
    holder["backbone"] = unplaced(holder["backbone"])
    write_atomic(path, sealed_json(told))


def take_up(place: Path, out: Path, rows: Sequence[str]) -> None:
    """Copy what was kept to where it counts as done, unless something is there.

    Args:
        place: where it was kept.
        out: the table's directory.
        rows: those that are asked for, now or by a later part. A supernet that one of them is
            still to search is not copied, as it would count as done although its weights are not
            there.
    """
    todo = []
    for path in place.rglob("*.json"):
        if path.parent == place:
            ours = (out / path.name).exists()
        else:
            ours = (out / path.relative_to(place)).with_name("run.json").exists()
        if not ours and not _wanted(path, rows):
            todo.append(path)
    for path in todo:
        _copy(path, out / path.relative_to(place))


def _wanted(path: Path, rows: Sequence[str]) -> bool:
    """Whether a file is of a supernet that one of the rows is still to search."""
    row, seed = path.parts[-3:-1]
    name, _, label = row.partition("@")
    searches = [f"{kind}@{label}".removesuffix("@") for kind in ("noah", "random")]
    return name == "supernet" and any(
        search in rows and not (path.parents[2] / search / seed / "result.json").exists()
        for search in searches
    )


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


if __name__ == "__main__":
    main()
