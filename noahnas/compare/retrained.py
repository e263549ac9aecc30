"""Winners of a comparison, trained alone and tested once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from noahnas.compare.plan import Plan
from noahnas.compare.progress import Grid
from noahnas.compare.record import Place, Record
from noahnas.evaluate import Result
from noahnas.loaded import Loaded
from noahnas.memory import release
from noahnas.progress import Report
from noahnas.retrain import retrain
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch
from noahnas.train import PASSES_PER_TRAINING_IMAGE
from noahnas.typed import typed

RETRAINED = "retrained.json"
Key = tuple[str, int]  # of a winner: its digest, and the seed


@dataclass(frozen=True)
class Retrained:
    """A winner, trained alone."""

    test: Result
    passes: int
    seconds: float


def retraining_passes(loaded: Loaded) -> int:
    """What retraining one winner costs."""
    recipe, data = loaded.inputs.recipe, loaded.task.data
    images = len(data.train) + (len(data.val) if recipe.retrain_on == "train+val" else 0)
    return PASSES_PER_TRAINING_IMAGE * images * recipe.retrain.epochs


def retrained(
    out: Path,
    plan: Plan,
    records: Mapping[Place, Record],
    loaded: Loaded,
    grid: Grid,
) -> Iterator[tuple[Key, Retrained]]:
    """Winners trained alone; one that several entrants found with one seed, once."""
    wanted, passes = _winners(plan, records), retraining_passes(loaded)
    grid.rest(passes * len(missing(out, plan, records)))
    for number, ((digest, seed), arch) in enumerate(wanted.items(), start=1):
        place = _place(out, digest, seed)
        if not (place.path / RETRAINED).is_file():
            name = f"[{number}/{len(wanted)}] winner {digest} · seed {seed}"
            retrained_one(out, arch, seed, loaded, grid.part(name, {"retrain": passes}))
            grid.done(passes)
            release()
        (place.path / "retrain.ckpt").unlink(missing_ok=True)
        found = place.read_json(RETRAINED, "test", "passes", "seconds")
        with reading(place.path / RETRAINED):
            test = typed(Result, found["test"], "test")
        yield (digest, seed), Retrained(test, found["passes"], found["seconds"])


def missing(out: Path, plan: Plan, records: Mapping[Place, Record]) -> dict[Key, Arch]:
    """The winners that are still to be retrained."""
    return {
        key: arch
        for key, arch in _winners(plan, records).items()
        if not (_place(out, *key).path / RETRAINED).is_file()
    }


def retrained_one(out: Path, arch: Arch, seed: int, loaded: Loaded, report: Report) -> None:
    """Train a winner alone, test it once, and write what came of it.

    Raises:
        RunError: if another process is at work on this winner.
    """
    recipe, place = loaded.inputs.recipe, _place(out, arch.digest, seed)
    place.path.mkdir(parents=True, exist_ok=True)
    with place.locked():  # workers outlive their driver for a moment if it is killed
        trained = retrain(
            arch,
            loaded.fresh(recipe.retrain),
            loaded.fed(recipe.retrain),
            recipe.retrain,
            seed=seed,
            checkpoint=place.path / "retrain.ckpt",
            report=report,
            on=recipe.retrain_on,
        )
        assert trained is not None  # as this process is alone
        told = {"arch": arch.to_dict(), "test": trained.result.to_dict()}
        place.write_json(RETRAINED, told | asdict(trained.log))


def _winners(plan: Plan, records: Mapping[Place, Record]) -> dict[Key, Arch]:
    """Each once, by its digest and the seed."""
    labels = {entrant.label for entrant in plan.entrants}
    wanted: dict[Key, Arch] = {}
    for (label, _, seed), record in records.items():
        if seed in plan.retrain_seeds and label in labels:
            wanted.setdefault((record.winner.digest, seed), record.winner)
    return wanted


def _place(out: Path, digest: str, seed: int) -> RunDirectory:
    return RunDirectory(out / "retrained" / digest / f"seed-{seed}")
