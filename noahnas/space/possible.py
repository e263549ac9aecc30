"""Whether any architecture is within a budget; if none is, the error that says why.

What takes too long to find out passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from noahnas.space.flops import backbone_flops
from noahnas.space.work import UncountableError

if TYPE_CHECKING:
    from noahnas.space.cost import Prices


def check_params(prices: Prices) -> None:
    """Raise SpaceError if nothing is within the limits on parameters."""
    space = prices.space
    where = f"at {space.blocks} blocks of width {space.width}"
    low, high = prices.limits
    if low == 0 and high is None:
        if space.counted_size == 0:
            raise prices.ruled_out
        return
    if prices.extremes is not None:
        cheapest, dearest = prices.extremes
        if high is not None and cheapest > high:
            raise space.refused(
                "budget.params",
                f"no architecture meets the budget of {high} parameters {where}; the cheapest "
                f"arch has {cheapest}: raise the budget, or offer smaller dims or depths",
            )
        if dearest < low:
            raise space.refused(
                "budget.params",
                f"no architecture has the least of {low} parameters {where}; the dearest arch "
                f"has {dearest}: lower the least, or offer larger dims or depths",
            )
    if high is not None and low > high:
        message = f"the least of {low} parameters exceeds the most of {high}"
        raise space.refused("budget.params", message)
    if (low or prices.extremes is None) and prices.counted == 0:
        most = "" if high is None else f" and at most {high}"
        raise space.refused(
            "budget.params",
            f"no architecture has at least {low}{most} parameters {where}: widen the window, "
            "or offer other dims or depths",
        )


def check_flops(prices: Prices) -> None:
    """Raise SpaceError if nothing is within the limit on FLOPs."""
    space = prices.space
    most = prices.flops_limit
    if most is None or not space.budget:
        return
    try:
        lightest = prices.extreme("cheapest", flops=True)
    except UncountableError:
        return
    least = prices.total(lightest, flops=True)
    if least > most:
        whole = 1 + least / backbone_flops(space.shape)
        message = (
            f"no architecture meets the budget of {space.budget.flops} FLOPs at "
            f"{space.blocks} blocks of width {space.width}; the lightest arch takes "
            f"{whole:.4f}x: raise it, or offer smaller dims"
        )
        raise space.refused("budget.flops", message)
