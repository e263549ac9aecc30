"""SIGKILL in each stage of a search, at a moment drawn over all that the stage takes."""

from __future__ import annotations

import random
import shutil
import signal
import time
from datetime import UTC, datetime

from work import LOOK, STAGES, Record, Work, stage_of, told, worked


def round_of_kills(work: Work, lengths: dict[str, float], number: int) -> Record:
    """A search that is killed in each stage and resumed to its end."""
    rng = random.Random(number)
    run, kills = work.fresh(f"killed-{number}"), []
    shutil.rmtree(work.place / "cache", ignore_errors=True)
    for nth, stage in enumerate(STAGES):
        moment = rng.uniform(0, lengths[stage])
        if stage_of(work, run) in STAGES[nth:]:
            continue  # the last kill came later than it was aimed at
        process = work.begin(*work.go_on(run))
        began = None
        while process.poll() is None and (began is None or worked(process) < began + moment):
            if began is None and stage_of(work, run) == stage:
                began = worked(process)
            time.sleep(LOOK)
        process.kill()
        _, err = process.communicate()
        kills.append(
            {
                "aimed": stage,
                "cpu_seconds": round(moment, 3),  # after the stage began
                "of": round(lengths[stage], 3),  # what it took in an undisturbed run
                "exit": process.returncode,
                "stage": stage_of(work, run) or stage,  # in which it died
                "hit": process.returncode == -signal.SIGKILL,
            }
        )
        if process.returncode not in (0, -signal.SIGKILL):
            return {"kills": kills, "same": False, "said": err[-500:]}
    done = work.run(*work.go_on(run))
    same = done.returncode == 0 and told(run) == told(work.whole)
    left = [str(path) for path in run.rglob(".*.tmp")]
    if same and not left:
        shutil.rmtree(run)
    found = {"date": today(), "kills": kills, "same": same, "left": left}
    return found if same else found | {"said": done.stderr[-500:]}


def today() -> str:
    """The date, by UTC."""
    return datetime.now(UTC).date().isoformat()
