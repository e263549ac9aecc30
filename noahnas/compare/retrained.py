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
from noahnas.retrain import retrain
from noahnas.rundir import RunDirectory, reading
from noahnas.space import Arch
from noahnas.train import PASSES_PER_TRAINING_IMAGE
from noahnas.typed import typed

RETRAINED = "retrained.json"


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
) -> Iterator[tuple[tuple[str, int], Retrained]]:
    """Winners trained alone; one that several entrants found with one seed, once."""
    labels = {entrant.label for entrant in plan.entrants}
    wanted: dict[tuple[str, int], Arch] = {}
    for (label, _, seed), record in records.items():
        if seed in plan.retrain_seeds and label in labels:
            wanted.setdefault((record.winner.digest, seed), record.winner)
    recipe, passes = loaded.inputs.recipe, retraining_passes(loaded)
    places = {key: RunDirectory(out / "retrained" / key[0] / f"seed-{key[1]}") for key in wanted}
    grid.rest(passes * sum(not (p.path / RETRAINED).is_file() for p in places.values()))
    for number, ((digest, seed), arch) in enumerate(wanted.items(), start=1):
        place = places[digest, seed]
        place.path.mkdir(parents=True, exist_ok=True)
        if not (place.path / RETRAINED).is_file():
            trained = retrain(
                arch,
                loaded.fresh(recipe.retrain),
                loaded.fed(recipe.retrain),
                recipe.retrain,
                seed=seed,
                checkpoint=place.path / "retrain.ckpt",
                report=grid.part(f"[{number}/{len(wanted)}] winner {digest} · seed {seed}", passes),
                on=recipe.retrain_on,
            )
            assert trained is not None  # as this process is alone
            told = {"arch": arch.to_dict(), "test": trained.result.to_dict()}
            place.write_json(RETRAINED, told | asdict(trained.log))
            grid.done(passes)
        (place.path / "retrain.ckpt").unlink(missing_ok=True)
        found = place.read_json(RETRAINED, "test", "passes", "seconds")
        with reading(place.path / RETRAINED):
            test = typed(Result, found["test"], "test")
        yield (digest, seed), Retrained(test, found["passes"], found["seconds"])
