"""Each entrant against one of them, at equal cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from noahnas.compare.measures import Measures
from noahnas.compare.statistics import (
    ALPHA,
    Array,
    cliffs_delta,
    holm,
    interval,
    sign_flip,
    smallest_p,
    verdict,
)


def tests(m: Measures) -> dict[str, Any]:
    """Each entrant against one of them, at equal cost, for each measure a family of its own."""
    against = m.found.plan.against
    if against not in m.labels:
        return {"against": against, "reason": f"{against} takes no part", "measures": {}}
    if len(m.labels) == 1:
        return {"against": against, "reason": "there is nothing to test", "measures": {}}
    equal = {label: m.at_equal_passes(label) for label in m.labels}
    measures = {"val at equal cost": _family(m, equal, m.images["val"])}
    tested = {label: test for label in m.labels if (test := m.test(label)) is not None}
    if tested:
        measures["test, retrained"] = _family(m, tested, m.images["test"])
    return {
        "against": against,
        "alpha": ALPHA,
        "how": (
            "exact two-sided sign-flip test of differences paired by (supernet, seed), "
            "Holm-corrected over strategies within a measure"
        ),
        "measures": measures,
    }


def _family(m: Measures, values: dict[str, Array], images: int) -> list[dict[str, Any]]:
    base = values[m.found.plan.against]
    rows: list[dict[str, Any]] = []
    for label, own in values.items():
        if label == m.found.plan.against:
            continue
        if np.isnan(own).any() or np.isnan(base).any():
            rows.append({"label": label, "reason": "nothing scored within the budget of passes"})
            continue
        steps = np.round((own - base) * images).astype(int)  # (S, n), in images
        by_supernet = steps.sum(axis=1)  # (S)
        delta = cliffs_delta(own, base)
        rows.append(
            {
                "label": label,
                "pairs": steps.size,
                "unequal": int((steps != 0).sum()),
                "difference": interval(own - base).to_dict(),
                "p": sign_flip(steps.ravel().tolist()),
                "smallest_p": smallest_p(steps.size),
                "cliffs_delta": delta,
                "superiority": (delta + 1) / 2,
                "supernets": {
                    "p": sign_flip(by_supernet.tolist()),
                    "smallest_p": smallest_p(len(by_supernet)),
                },
            }
        )
    tested = [row for row in rows if "p" in row]
    for key in ("p", "smallest_p"):
        corrected = holm([row[key] for row in tested])
        for row, value in zip(tested, corrected, strict=True):
            row[f"{key}_corrected"] = value
    for row in tested:
        row["verdict"] = verdict(
            row["difference"]["mean"],
            row["p_corrected"],
            row["pairs"],
            row["unequal"],
            len(tested),
        )
    return rows
