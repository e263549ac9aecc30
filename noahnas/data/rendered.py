"""Four rendered tasks: count, heading, x-position and distance.

Each is a pure function of a generator: the same seed gives the same pictures on one version of
Pillow. A picture is drawn at 128×128 and reduced to 64×64 by averaging, so edges are smooth; all
lengths below are in pixels of the large canvas. They ask for what a frozen backbone tells only in
part (how many, which way, where, how far), which is why tuning gains much on them: see the
structured tasks of VTAB, arXiv:1910.04867, for the idea.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Images = npt.NDArray[np.uint8]  # (n, 64, 64, 3), RGB
Labels = npt.NDArray[np.int64]  # (n,)
Colour = tuple[int, int, int]
Point = tuple[float, float]

CANVAS = 128  # pixels drawn
SIDE = 64  # pixels given
SIDES = (0, 3, 4, 5)  # corners of the objects of `count`; 0 is a disc
DISTANCES = (20.0, 104.0)  # least and greatest centre distance of `distance`


def dark_noise(rng: np.random.Generator) -> Image.Image:
    """A dark, noisy background of one random hue, 128×128."""
    base = rng.uniform(10, 50, 3)
    noise = rng.normal(0, 12, (CANVAS, CANVAS, 3))
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def bright(rng: np.random.Generator) -> Colour:
    """A colour that stands out from `dark_noise`: at least one channel of 170 or more."""
    channels = rng.integers(40, 256, 3)
    channels[rng.integers(3)] = rng.integers(170, 256)
    return int(channels[0]), int(channels[1]), int(channels[2])


def polygon(centre: Point, radius: float, sides: int, turn: float) -> list[Point]:
    """Corners of a regular polygon; `turn` in radians, `radius` to the corners."""
    angles = turn + 2 * math.pi * np.arange(sides) / sides
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, fill: Colour) -> None:
    """Fill a disc."""
    (x, y), r = centre, radius
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def shape(
    draw: ImageDraw.ImageDraw, centre: Point, radius: float, sides: int, turn: float, fill: Colour
) -> None:
    """Fill a regular polygon, or a disc where `sides` is 0."""
    if sides == 0:
        disc(draw, centre, radius, fill)
    else:
        draw.polygon(polygon(centre, radius, sides, turn), fill=fill)


def place(
    rng: np.random.Generator, radius: float, taken: list[tuple[Point, float]], gap: float = 3.0
) -> Point | None:
    """A centre for a disc of `radius` that stays inside and clear of those taken.

    Returns:
        None if 200 draws found no room.
    """
    for _ in range(200):
        x, y = rng.uniform(radius + 1, CANVAS - radius - 1, 2)
        if all(math.dist((x, y), c) > radius + r + gap for c, r in taken):
            return float(x), float(y)
    return None


def _many(
    rng: np.random.Generator,
    n: int,
    classes: int,
    one: Callable[[np.random.Generator, int], Image.Image],
) -> tuple[Images, Labels]:
    labels = rng.integers(classes, size=n)
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i, label in enumerate(labels):
        images[i] = np.asarray(one(rng, int(label)).reduce(CANVAS // SIDE))
    return images, labels.astype(np.int64)


def _count_one(rng: np.random.Generator, label: int) -> Image.Image:
    while True:
        image = dark_noise(rng)
        draw = ImageDraw.Draw(image)
        taken: list[tuple[Point, float]] = []
        for _ in range(label + 1):
            radius = float(rng.uniform(8, 17))
            centre = place(rng, radius, taken)
            if centre is None:
                break
            turn = float(rng.uniform(0, 2 * math.pi))
            shape(draw, centre, radius, int(rng.choice(SIDES)), turn, bright(rng))
            taken.append((centre, radius))
        if len(taken) == label + 1:
            return image


def count(rng: np.random.Generator, n: int) -> tuple[Images, Labels]:
    """How many objects: 1–8 discs, triangles, squares or pentagons that do not overlap.

    Colour, size (radius 8–17) and turn are random and say nothing of the label.

    Args:
        rng: source of all randomness.
        n: pictures to draw.

    Returns:
        Images (n, 64, 64, 3) and labels (n,); label k means k + 1 objects.
    """
    return _many(rng, n, 8, _count_one)


def _arrow(centre: Point, length: float, angle: float) -> list[Point]:
    half, neck = length / 2, length * 0.12
    shaft, wing = length * 0.08, length * 0.26
    outline = [
        (-half, -shaft), (neck, -shaft), (neck, -wing), (half, 0.0),
        (neck, wing), (neck, shaft), (-half, shaft),
    ]  # fmt: skip
    c, s = math.cos(angle), math.sin(angle)
    return [(centre[0] + x * c - y * s, centre[1] + x * s + y * c) for x, y in outline]


def heading(rng: np.random.Generator, n: int, directions: int = 16) -> tuple[Images, Labels]:
    """Which way an arrow points; its place, size (length 30–80) and colour are random.

    Args:
        rng: source of all randomness.
        n: pictures to draw.
        directions: classes, evenly spaced; the arrow's angle is exact, without jitter.

    Returns:
        Images (n, 64, 64, 3) and labels (n,); label k means k/directions of a turn, clockwise from
        pointing right.

    Raises:
        ValueError: if `directions` is less than 2.
    """
    if directions < 2:
        raise ValueError(f"heading needs at least 2 directions, got {directions}")

    def one(rng: np.random.Generator, label: int) -> Image.Image:
        image = dark_noise(rng)
        length = float(rng.uniform(30, 80))
        centre = place(rng, length / 2, [])
        assert centre is not None  # the canvas is empty and the arrow fits
        angle = 2 * math.pi * label / directions
        ImageDraw.Draw(image).polygon(_arrow(centre, length, angle), fill=bright(rng))
        return image

    return _many(rng, n, directions, one)


def x_position(rng: np.random.Generator, n: int, columns: int = 16) -> tuple[Images, Labels]:
    """Which column holds the bright shape; a small grey disc distracts.

    The shape's centre is uniform within its column, over the width that keeps a shape of the
    greatest radius (16) inside; its height is free.

    Args:
        rng: source of all randomness.
        n: pictures to draw.
        columns: classes, of equal width.

    Returns:
        Images (n, 64, 64, 3) and labels (n,), counted from the left.

    Raises:
        ValueError: if `columns` is less than 2.
    """
    if columns < 2:
        raise ValueError(f"x_position needs at least 2 columns, got {columns}")
    margin = 17.0
    width = (CANVAS - 2 * margin) / columns

    def one(rng: np.random.Generator, label: int) -> Image.Image:
        image = dark_noise(rng)
        draw = ImageDraw.Draw(image)
        radius = float(rng.uniform(9, 16))
        x = margin + width * (label + float(rng.uniform()))
        centre = (x, float(rng.uniform(margin, CANVAS - margin)))
        grey = int(rng.integers(90, 170))
        away = place(rng, 7, [(centre, radius)])
        assert away is not None  # one shape leaves room
        disc(draw, away, float(rng.uniform(4, 7)), (grey, grey, grey))
        turn = float(rng.uniform(0, 2 * math.pi))
        shape(draw, centre, radius, int(rng.choice(SIDES)), turn, bright(rng))
        return image

    return _many(rng, n, columns, one)


def _distance_one(rng: np.random.Generator, label: int) -> Image.Image:
    low, high = DISTANCES
    radius, step = 8.0, (high - low) / 6
    apart = low + step * (label + float(rng.uniform()))
    while True:
        angle = float(rng.uniform(0, 2 * math.pi))
        x, y = rng.uniform(radius + 1, CANVAS - radius - 1, 2)
        red = (float(x), float(y))
        blue = (red[0] + apart * math.cos(angle), red[1] + apart * math.sin(angle))
        if all(radius < v < CANVAS - radius for v in blue):
            break
    image = dark_noise(rng)
    draw = ImageDraw.Draw(image)
    taken = [(red, radius), (blue, radius)]
    disc(draw, red, float(rng.uniform(6, 8)), (230, 40, 40))
    disc(draw, blue, float(rng.uniform(6, 8)), (60, 80, 240))
    for fill in ((60, 200, 70), (230, 210, 60)):
        centre = place(rng, radius, taken)
        assert centre is not None  # four small discs leave room
        disc(draw, centre, float(rng.uniform(6, 8)), fill)
        taken.append((centre, radius))
    return image


def distance(rng: np.random.Generator, n: int) -> tuple[Images, Labels]:
    """How far a red disc is from a blue one, in 6 bins; a green and a yellow disc distract.

    Centre distances run from 20 to 104 pixels of the 128 drawn; bins are 14 wide and uniform
    within.

    Args:
        rng: source of all randomness.
        n: pictures to draw.

    Returns:
        Images (n, 64, 64, 3) and labels (n,), 0 the nearest.
    """
    return _many(rng, n, 6, _distance_one)
