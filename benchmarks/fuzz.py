"""Strangers' files and arguments by the thousand; writes benchmarks/results/fuzz.json.

    nice -n 10 python benchmarks/fuzz.py --minutes 10 --seed 0

Cases are those of tests/hostile.py, seed after seed, kind after kind, in this process, whose memory
is limited. `--only KIND --seed N --count 1 --out FILE` repeats one; `--table` writes the counts to
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from noahnas.rundir import versions  # noqa: E402
from tests.hostile import KINDS, LIMIT, Outcome, Sandbox  # noqa: E402

OUT = ROOT / "benchmarks/results/fuzz.json"
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"
MEMORY = 12 * 2**30  # bytes of addresses that this process may have


def main() -> None:
    """Do cases until the time is over, then write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--only", choices=list(KINDS), action="append")
    parser.add_argument("--count", type=int, default=10**9, help="cases of each kind, at most")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="write the page's table, and end")
    asked = parser.parse_args()
    if asked.table:
        write_page(json.loads(OUT.read_text()))
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    kinds = asked.only or list(KINDS)
    done: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="noahnas-fuzz-") as folder:
        box = Sandbox(Path(folder) / "sandbox")
        began, seed = time.monotonic(), asked.seed
        while time.monotonic() - began < 60 * asked.minutes and seed < asked.seed + asked.count:
            for kind in kinds:
                outcome = box.case(kind, seed)
                done.append(outcome)
                if outcome.fault or asked.count == 1:
                    print(outcome, flush=True)
            seed += 1
        seconds = time.monotonic() - began
    told = summary(done, asked.minutes, asked.seed, seconds)
    asked.out.write_text(json.dumps(told, indent=1, ensure_ascii=True) + "\n")
    print(json.dumps(told["kinds"], indent=1))


def summary(done: list[Outcome], minutes: float, seed: int, seconds: float) -> dict[str, Any]:
    """Counts per kind, the slowest case of each, and all that went wrong."""
    kinds = {}
    for kind in dict.fromkeys(one.kind for one in done):
        own = [one for one in done if one.kind == kind]
        codes = Counter(str(one.code) for one in own)
        kinds[kind] = {
            "cases": len(own),
            "exit": dict(sorted(codes.items())),
            "faults": sum(bool(one.fault) for one in own),
            "slowest_seconds": max(one.seconds for one in own),
        }
    return {
        "command": f"python benchmarks/fuzz.py --minutes {minutes:g} --seed {seed}",
        "first_seed": seed,
        "seconds": round(seconds),
        "limit_seconds": LIMIT,
        "memory_bytes": MEMORY,
        "versions": versions(),
        "cases": len(done),
        "kinds": kinds,
        "faults": [asdict(one) for one in done if one.fault],
    }


def write_page(told: dict[str, Any]) -> None:
    """Put the counts into docs/reliability.md."""
    head = ("cases of", "done", "exit 0", "exit 2", "exit 130", "faults", "slowest, s")
    rows = [head, ("---",) * len(head)]
    for kind, found in told["kinds"].items():
        codes = tuple(str(found["exit"].get(code, 0)) for code in ("0", "2", "130"))
        slowest = f"{found['slowest_seconds']:.1f}"
        rows.append((kind, f"{found['cases']:,}", *codes, str(found["faults"]), slowest))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = f"`{told['command']}`, {told['seconds']} s, {told['cases']:,} cases:\n\n{table}"
    page = PAGE.read_text()
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
