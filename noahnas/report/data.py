"""What was found in a data set, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table


def data_table(found: Mapping[str, Any]) -> Table:
    """What was found in a data set."""
    table = Table(title=f"{found['data']}: fit for use", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    images = found["images"]
    table.add_row("images", " · ".join(f"{count:,} {split}" for split, count in images.items()))
    size = " × ".join(map(str, found["size"]))
    megabytes = sum(images.values()) * 3 * math.prod(found["size"]) / 1e6
    table.add_row("decoded to", f"{size} pixels, RGB, uint8: {megabytes:.1f} MB")
    table.add_row("classes", _classes_told(found["classes"]))
    table.add_row("digest", found["digest"])
    skipped = found["skipped"]
    if skipped:
        more = f"; {len(skipped) - 3} more" if len(skipped) > 3 else ""
        table.add_row("unreadable", f"{len(skipped)} left out: {'; '.join(skipped[:3])}{more}")
    ignored = found["ignored"]
    if ignored:
        more = ", …" if len(ignored) > 3 else ""
        told = "1 file is no image" if len(ignored) == 1 else f"{len(ignored)} files are no images"
        table.add_row("left aside", f"{told}, by their endings: {', '.join(ignored[:3])}{more}")
    if found["overlap"]:
        done = "kept: fixed lists" if found["overlap_kept"] else "left out of the earlier split"
        told = "1 picture" if found["overlap"] == 1 else f"{found['overlap']} pictures"
        table.add_row("in two splits", f"{told}, {done}")
    how = "decoded now" if found["decoded_now"] else "from the cache"
    table.add_row("seconds", f"{found['seconds']:.2f}, {how if found['cache'] else 'not cached'}")
    if found["cache"]:
        table.add_row("cache", found["cache"])
    if "contact_sheet" in found:
        table.add_row("contact sheet", found["contact_sheet"])
    return table


def _classes_told(classes: Mapping[str, Mapping[str, int]]) -> str:
    """How many classes, their names, and how uneven they are."""
    counts = [sum(splits.values()) for splits in classes.values()]
    names = ", ".join(list(classes)[:10]) + (", …" if len(classes) > 10 else "")
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    least = min(splits["train"] for splits in classes.values())
    return f"{len(classes)}: {names}; {each} images each, at least {least} of them in train"
