"""The findings of a comparison as plain values: what compare.json holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from noahnas.compare.glimpse import MOST
from noahnas.compare.importance import mean_importance, scores_of
from noahnas.compare.measures import Measures
from noahnas.compare.notes import notes
from noahnas.compare.plan import origins
from noahnas.compare.run import Found
from noahnas.compare.statistics import LEVEL, Array, band, interval
from noahnas.compare.versus import tests
from noahnas.compare.winners import agreement, random_distance, usage
from noahnas.ranking import binomial_error
from noahnas.rundir import versions
from noahnas.space.check import binding

BANDS = 2000  # draws for a band of curves
AXES = ("evaluations", "passes")
RULES = (
    "All strategies search the same supernets, score on the same validation images, obey the same "
    "feasibility rule, and use the same seeds.",
    "All have the same two budgets: distinct evaluations, and passes (evaluations × validation "
    "images). Scoring on fewer images is charged its share of an evaluation. What a one-shot "
    "strategy trains is charged in passes, 3 for a training image, and leaves it fewer "
    "evaluations.",
    "An architecture proposed again costs nothing and is not scored again. Each strategy is "
    "charged the full price of its evaluations, also where another one's are looked up.",
    "The winner is the arch of best validation accuracy, whatever the recipe selects by; ties go "
    "to the lower loss.",
    "Winners are retrained with one recipe on {retrain_on} and tested once, at the last epoch. "
    f"Test images (at most {MOST:,}) are seen once more, under the shared weights, to measure how "
    "optimistic val accuracies of winners are; nothing is chosen by them.",
)


def summary(found: Found) -> dict[str, Any]:
    """Table, curves, tests, noise, winners and genes, with all that they depend on."""
    m = Measures(found)
    seeds = len(found.plan.seeds)
    of = f"{len(m.supernets)} supernet{'s' * (len(m.supernets) > 1)} × {seeds} seeds"
    told = {
        "title": f"{' · '.join(m.labels)} on {found.loaded.task.data.name}",
        "about": _about(m),
        "rules": [r.format(retrain_on=found.plan.inputs.recipe.retrain_on) for r in RULES],
        "given": (
            "given this supernet" if len(m.supernets) == 1 else f"over {len(m.supernets)} supernets"
        ),
        "of": of,
        "level": LEVEL,
        "left_out": dict(found.plan.left_out),
        "supernets": _supernets(m),
        "table": {label: _row(m, label) for label in m.labels},
        "fronts": _fronts(m),
        "curves": {axis: _curves(m, axis) for axis in AXES},
        "tests": tests(m),
        "optimism": {label: _optimism(m, label) for label in m.labels},
        "noise": _noise(m),
        "winners": _winners(m),
        "genes": mean_importance(
            found.space,
            {
                name: scores_of(r for (_, on, _), r in found.records.items() if on == name)
                for name in m.supernets
            },
        ),
        "runs": list(_runs(m)),
    }
    told["notes"] = list(notes(m, told))
    return told


def _about(m: Measures) -> dict[str, Any]:
    found, plan = m.found, m.found.plan
    kept = ("digests", "classes", "device", "precision", "threads")
    limits = binding(found.space)
    told = {key: found.about[key] for key in kept} | {
        "data": found.loaded.task.data.name,
        "backbone": plan.inputs.backbone,
        "space": plan.space.name,
        "budget": found.space.limits[1],
        "binding": asdict(limits) | {"binds": limits.binds},
        "recipe": plan.inputs.recipe.to_dict(),
        "trials": m.trials,
        "passes": m.budget,
        "images": m.images,
        "entrants": {e.label: e.to_dict() for e in plan.entrants},
        "strategies_from": origins(plan),
        "seeds": list(plan.seeds),
        "retrain_seeds": m.retrained_seeds,
        "supernets": {s.name: {"seed": s.seed, "run": s.run} for s in plan.supernets},
        "against": plan.against,
        "chance": m.chance,
        "versions": versions() | _others(),
    }
    inputs = {k: v for k, v in told.items() if k not in ("versions", "strategies_from")}
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return told | {"digest": digest}


def _others() -> dict[str, str]:
    found = {}
    for name in ("matplotlib", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _supernets(m: Measures) -> dict[str, Any]:
    return {
        name: {key: cost[key] for key in ("passes", "seconds", "reused") if key in cost}
        for name, cost in m.found.supernets.items()
    }


def _row(m: Measures, label: str) -> dict[str, Any]:
    test = m.test(label)
    equal = m.at_equal_passes(label)
    measures: dict[str, Array | None] = {
        "val": m.val(label),
        "val_at_equal_passes": None if np.isnan(equal).any() else equal,
        "test": test,
        "area_evaluations": m.area(label, "evaluations"),
        "area_passes": m.area(label, "passes"),
        "params": m.array(label, lambda r: r.val.params),
        "evaluations": m.array(label, lambda r: len(r.trials)),
        "passes": m.array(label, lambda r: r.passes),
        "training_passes": m.array(label, lambda r: r.training_passes),
        "seconds": m.array(label, lambda r: r.seconds),
    }
    return {
        name: None if values is None else interval(values).to_dict()
        for name, values in measures.items()
    }


def _fronts(m: Measures) -> dict[str, Any]:
    """Hypervolumes on val of those that look for a front, against what, and up to which cost.

    Two labels are comparable where axis and reference are the same.
    """
    told = {}
    for label in m.labels:
        front = m.record(label, m.supernets[0], m.found.plan.seeds[0]).front
        if front:
            reference = m.array(label, lambda r: (r.front or {})["reference"])
            volume = m.array(label, lambda r: (r.front or {})["hypervolume"])
            told[label] = {
                "axis": front["axis"],
                "reference": [float(reference.min()), float(reference.max())],
                "hypervolume": interval(volume).to_dict(),
            }
    return told


def _curves(m: Measures, axis: str) -> dict[str, Any]:
    told: dict[str, Any] = {"at": m.points(axis).astype(int).tolist(), "entrants": {}}
    for label in m.labels:
        curves = m.curves(label, axis)
        low, high = band(curves, BANDS)
        rows = {"mean": curves.mean(axis=(0, 1)), "low": low, "high": high}
        told["entrants"][label] = {
            key: [None if np.isnan(v) else float(v) for v in row] for key, row in rows.items()
        }
    return told


# --- noise -----------------------------------------------------------------------------------


def _optimism(m: Measures, label: str) -> dict[str, Any]:
    gap = m.array(label, lambda r: r.val.accuracy - r.test.accuracy)
    told = {"gap": interval(gap), "selection": interval(m.optimism(label))}
    plain: dict[str, Any] = {name: value.to_dict() for name, value in told.items()}
    test = m.test(label)
    if test is not None:
        val = m.array(label, lambda r: r.val.accuracy, m.retrained_seeds)
        plain["retrained"] = interval(test - val).to_dict()
    return plain


def _noise(m: Measures) -> dict[str, Any]:
    """How far random archs lie apart on val, and how much of that is the split's own noise."""
    floors = {}
    for name in m.supernets:
        floor = m.found.floors[name]
        val, test = np.array(floor.val), np.array(floor.test)  # (archs), (archs)
        mean = float(val.mean())
        both = np.hypot(
            binomial_error(mean, m.images["val"]),
            binomial_error(float(test.mean()), min(m.images["test"], MOST)),
        )
        floors[name] = {
            "archs": len(val),
            "mean": mean,
            "sd": float(val.std(ddof=1)),
            "binomial": binomial_error(mean, m.images["val"]),
            "per_arch": float((val - test).std(ddof=1)),
            "per_arch_binomial": float(both),
        }
    winners = float(np.mean([m.val(label).mean() for label in m.labels]))
    return {"by_supernet": floors, "at_winners": binomial_error(winners, m.images["val"])}


# --- winners ---------------------------------------------------------------------------------


def _winners(m: Measures) -> dict[str, Any]:
    space, seeds = m.found.space, m.found.plan.seeds
    random = random_distance(space)
    told = {}
    for label in m.labels:
        archs = {
            name: [m.record(label, name, seed).winner for seed in seeds] for name in m.supernets
        }
        told[label] = {
            "modules": usage(space, [arch for row in archs.values() for arch in row]),
            "agreement": agreement(space, archs, random),
        }
    drawn = space.sample(np.random.default_rng([0, 1000]), 1000, prior="paper")
    return {
        "entrants": told,
        "random": {"modules": usage(space, drawn), "steps": random},
        "blocks": space.blocks,
    }


def _runs(m: Measures) -> Iterator[dict[str, Any]]:
    for label in m.labels:
        for name in m.supernets:
            for seed in m.found.plan.seeds:
                record = m.record(label, name, seed)
                digest = record.winner.digest
                again = m.found.retrained.get((digest, seed))
                yield {
                    "entrant": label,
                    "supernet": name,
                    "seed": seed,
                    "arch": record.winner.to_dict(),
                    "digest": digest,
                    "val": record.val.to_dict(),
                    "test_shared_weights": record.test.to_dict(),
                    "test": again.test.to_dict() if again else None,
                    "retrain": {"passes": again.passes, "seconds": again.seconds} if again else {},
                    "evaluations": len(record.trials),
                    "allowed": record.allowed,
                    "exhausted": record.exhausted,
                    "front": record.front,
                    "passes": record.passes,
                    "training_passes": record.training_passes,
                    "seconds": record.seconds,
                }
