"""Fronts: what no other point beats in both accuracy and cost, and how much a front covers."""

from __future__ import annotations

from collections.abc import Sequence


def nondominated(points: Sequence[tuple[tuple[float, ...], float]]) -> list[int]:
    """Which points no other one dominates, by rising cost; of equal points the first.

    Args:
        points: what is to be large — an accuracy, or a rank of several numbers — and a cost, which
            is to be small.

    Returns:
        Indices into `points`.
    """
    front: list[int] = []
    order = sorted(range(len(points)), key=lambda i: (points[i][1], [-v for v in points[i][0]], i))
    for i in order:
        if not front or points[i][0] > points[front[-1]][0]:
            front.append(i)
    return front


def layers(points: Sequence[tuple[tuple[float, ...], float]]) -> list[list[int]]:
    """All points, front by front: the second is the front of what the first leaves.

    Source: the non-dominated sorting of NSGA-II, Deb et al., IEEE TEC 6(2), 2002.
    """
    left = list(range(len(points)))
    found: list[list[int]] = []
    while left:
        front = [left[i] for i in nondominated([points[i] for i in left])]
        found.append(front)
        taken = set(front)
        left = [i for i in left if i not in taken]
    return found


def hypervolume(points: Sequence[tuple[float, float]], reference: float) -> float:
    """The mean over costs of 0…`reference` of the best accuracy to be had for that cost, in [0, 1].

    That is the area which accuracy and cost dominate, as a share of its largest; the accuracy of
    the reference point is 0. Where nothing is cheap enough, the best accuracy is 0.

    Args:
        points: accuracy in [0, 1] and cost; costs beyond the reference add nothing.
        reference: a cost above 0.

    Raises:
        ValueError: if the reference is not above 0.

    Source: Zitzler & Thiele, PPSN 1998.
    """
    if reference <= 0:
        raise ValueError(f"the reference cost must be above 0, not {reference}")
    front = [points[i] for i in nondominated([((a,), c) for a, c in points])]
    ends = [*(cost for _, cost in front[1:]), reference]
    area = 0.0
    for (accuracy, cost), end in zip(front, ends, strict=False):  # an empty front has no area
        area += accuracy * max(min(end, reference) - cost, 0)
    return area / reference
