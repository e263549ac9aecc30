"""Every fault that a run is to survive, done to real processes; the table of docs/reliability.md.

    python benchmarks/faults --kills 50

A round starts a search and kills it with SIGKILL in each of its stages, resuming it after each
kill, to its end; the sequence of trials and the result must be those of an undisturbed run. The
moment is drawn over all that the stage took in an undisturbed run, in seconds of the processor, so
that other work on the machine does not shift it. The other faults come first. What is done stands
in benchmarks/results/faults.json and is not repeated: the same command goes on, as long as versions
are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from kills import round_of_kills, today
from kinds import FAULTS
from work import STAGES, Record, Work

from noahnas.files import write_atomic
from noahnas.rundir import versions

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import put

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"


def table(found: Record) -> str:
    """The faults as Markdown."""
    rounds = found["rounds"].values()
    kills = [kill for one in rounds for kill in one["kills"] if kill["hit"]]
    kept = "yes" if all(one["same"] and not one.get("left") for one in rounds) else "**no**"
    lines = ["| fault | what happened | nothing lost |", "|---|---|---|"]
    for stage in STAGES:
        own = [kill for kill in kills if kill["stage"] == stage]
        what = f"{len(own)} times"
        aimed = [kill for kill in own if kill.get("aimed") == stage]
        shares = [kill["cpu_seconds"] / kill["of"] for kill in aimed]
        if shares:
            what += f", {min(shares):.0%} to {max(shares):.0%} through it"
        what += "; resumed, each to the trials and the result of an undisturbed run"
        lines.append(f"| `kill -9` in: {stage} | {what} | {kept} |")
    for name, (what, ok) in found["faults"].items():
        lines.append(f"| {name} | {what} | {'yes' if ok else '**no**'} |")
    if "versions" in found:
        told = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        lines += ["", f"{found['date']}; {told}."]
    return "\n".join(lines)


def begun(out: Path) -> Record:
    """What was done before, by the same versions."""
    if not out.exists():
        return {"date": today(), "versions": versions(), "rounds": {}, "faults": {}}
    found: Record = json.loads(out.read_text())
    if found.get("versions") != versions():
        raise SystemExit(f"{out} was made with other versions; remove it to begin anew")
    return found


def main() -> None:
    """Do what is not done, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noahnas-faults")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Another leaves the page alone.")
    parser.add_argument("--table", action="store_true", help="Write the table of what is done.")
    parser.add_argument("--only", choices=FAULTS, help="Do this fault alone, anew.")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.table else begun(options.out)

    def keep() -> None:
        write_atomic(options.out, (json.dumps(found, indent=1) + "\n").encode())
        if options.out == RESULTS and found["rounds"]:
            put("reliability.md", "faults", table(found))

    def kills() -> int:
        return sum(kill["hit"] for one in found["rounds"].values() for kill in one["kills"])

    if not options.table:
        options.work.mkdir(parents=True, exist_ok=True)
        work = Work(options.work)
        lengths = work.undisturbed()
        print("seconds of the processor by stage", lengths, flush=True)
        for name, fault in FAULTS.items():
            if name == options.only or (not options.only and name not in found["faults"]):
                found["faults"][name] = fault(work)
                print(name, found["faults"][name], flush=True)
                keep()
        while not options.only and kills() < options.kills:
            number = str(len(found["rounds"]))
            found["rounds"][number] = round_of_kills(work, lengths, int(number))
            print("round", number, found["rounds"][number], flush=True)
            keep()
    keep()
    print(table(found))


if __name__ == "__main__":
    main()
