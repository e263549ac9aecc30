"""The drawing that pretraining pictures are made of: grounds, shapes, pen strokes and warps.

Lengths are pixels of the 112×112 canvas. Nothing here has a shaft and a head: no arrow.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CANVAS = 112  # pixels drawn

Rng = np.random.Generator
Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]


def colour(rng: Rng) -> Colour:
    """Any colour, bright more often than not; one in four is a grey."""
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        r, g, b = (v if v > 110 or i != b % 3 else 255 - v for i, v in enumerate((r, g, b)))
    return (r, r, r) if rng.random() < 0.25 else (r, g, b)


def background(rng: Rng) -> Image.Image:
    """Flat, gradient, noisy or wavy, 112×112; dark more often than not."""
    kind = rng.random()
    top = 60 if rng.random() < 0.6 else 256
    a, b = rng.uniform(0, top, (2, 3))
    if rng.random() < 0.15:
        a, b = np.full(3, rng.choice([0.0, 255.0])), b
    field = np.broadcast_to(a, (CANVAS, CANVAS, 3))
    if kind < 0.25:  # gradient
        ramp = np.linspace(0, 1, CANVAS)
        turn = rng.uniform(0, 2 * math.pi)
        t = (ramp[:, None] - 0.5) * math.sin(turn) + (ramp[None] - 0.5) * math.cos(turn) + 0.5
        field = a + (b - a) * np.clip(t, 0, 1)[..., None]
    elif kind < 0.35:  # waves
        y, x = np.mgrid[:CANVAS, :CANVAS]
        fx, fy = rng.normal(0, 0.25, 2)
        field = a + (b - a) * (0.5 + 0.5 * np.sin(fx * x + fy * y))[..., None]
    if rng.random() < 0.55:
        noise = rng.standard_normal((CANVAS, CANVAS, 3), np.float32)
        field = field + rng.uniform(3, 25) * noise
    return Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))


def _turned(points: Points, centre: Points, turn: float) -> list[tuple[float, float]]:
    c, s = math.cos(turn), math.sin(turn)
    placed = points @ np.array([[c, s], [-s, c]]) + centre  # (k, 2)
    return [(float(x), float(y)) for x, y in placed]


def _ring(t: Points, squash: float | Points = 1.0) -> Points:
    """Points (k, 2) of the unit circle at angles `t` (k,), their y multiplied by `squash`."""
    return np.stack([np.cos(t), squash * np.sin(t)], 1)


def _evenly(k: int) -> Points:
    return 2 * math.pi * np.arange(k) / k


def _regular(rng: Rng) -> Points:
    return _ring(_evenly(int(rng.integers(3, 8))))


def _star(rng: Rng) -> Points:
    t = _evenly(2 * int(rng.integers(4, 8)))
    r = np.where(np.arange(len(t)) % 2, rng.uniform(0.3, 0.7), 1.0)
    return np.multiply(r[:, None], _ring(t))


def _ellipse(rng: Rng) -> Points:
    return _ring(_evenly(24), rng.uniform(0.3, 1))


def _bar(rng: Rng) -> Points:
    h = rng.uniform(0.12, 1)
    return np.array([[-1, -h], [1, -h], [1, h], [-1, h]])


def _kite(rng: Rng) -> Points:
    w, x = rng.uniform(0.2, 0.9), rng.uniform(-1, 0)
    return np.array([[1, 0], [x, w], [-1, 0], [x, -w]])


def _drop(rng: Rng) -> Points:
    t = _evenly(28)
    return _ring(t, rng.uniform(0.4, 0.9) * np.sin(t / 2) ** rng.uniform(1, 3))


def _slice(rng: Rng) -> Points:
    arc = _ring(np.linspace(0, rng.uniform(0.4, 5), 20))
    return np.concatenate([np.zeros((1, 2)), arc])


def _blob(rng: Rng) -> Points:
    t, r = _evenly(32), np.ones(32)
    for k in range(1, 5):
        r += rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 6.3))
    return np.multiply(np.clip(r, 0.15, 1.6)[:, None], _ring(t))


def _bracket(rng: Rng) -> Points:
    a, b = 2 * rng.uniform(0.2, 0.6, 2) - 1
    return 0.8 * np.array([[-1, -1], [1, -1], [1, a], [b, a], [b, 1], [-1, 1]])


OUTLINES = (_regular, _star, _ellipse, _bar, _kite, _drop, _slice, _blob, _bracket)  # no shaft


def outline(rng: Rng, radius: float) -> Points:
    """Corners (k, 2) of a random closed shape about the origin: one of nine sorts, no arrow."""
    return radius * OUTLINES[rng.integers(len(OUTLINES))](rng)


def draw_shape(rng: Rng, draw: ImageDraw.ImageDraw, radius: float, centre: Points) -> None:
    """One random shape, filled, rimmed or hollow."""
    points = _turned(outline(rng, radius), centre, rng.uniform(0, 2 * math.pi))
    style = rng.random()
    if style < 0.75:
        draw.polygon(points, fill=colour(rng))
    elif style < 0.9:
        draw.polygon(points, fill=colour(rng), outline=colour(rng), width=int(rng.integers(1, 5)))
    else:
        draw.line(
            [*points, points[0]], fill=colour(rng), width=int(rng.integers(2, 7)), joint="curve"
        )


def pen(
    rng: Rng,
    draw: ImageDraw.ImageDraw,
    ink: Colour,
    width: float,
    start: Points,
    length: float,
) -> Points:
    """One stroke of a round pen whose curvature wanders or breaks; returns a point of it (2,)."""
    steps = max(4, int(length / 3))
    bends = rng.normal(0, 0.16, int(rng.integers(1, 4))) + rng.normal(0, 0.05)
    turn = np.repeat(bends, -(-steps // len(bends)))[:steps]
    if rng.random() < 0.35:
        turn[rng.integers(steps)] += rng.choice([-1, 1]) * rng.uniform(1, 2.6)  # a corner
    angle = rng.uniform(0, 2 * math.pi) + np.cumsum(turn)
    path = start + 3 * np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0)  # (steps, 2)
    path += (np.full(2, CANVAS / 2) - path.mean(0)) * rng.uniform(0.3, 1)
    points = [(float(x), float(y)) for x, y in path]
    draw.line(points, fill=ink, width=max(1, round(width)), joint="curve")
    for x, y in (points[0], points[-1]):
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)
    end: Points = path[rng.integers(steps)]
    return end


def affine(rng: Rng, image: Image.Image, turn: float, stretch: float, shift: float) -> Image.Image:
    """Turn (radians), stretch and shear (log scale), shift (pixels) about the centre; all sds."""
    t, (lx, ly), shear = (
        rng.normal(0, turn),
        rng.normal(0, stretch / 2, 2),
        rng.normal(0, stretch / 2),
    )
    half = image.width / 2
    m = np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]])
    m = m @ np.array([[math.exp(lx), shear], [0, math.exp(ly)]])
    offset = half - m @ np.full(2, half) + rng.normal(0, shift, 2)
    data = (m[0, 0], m[0, 1], offset[0], m[1, 0], m[1, 1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def bend(rng: Rng, image: Image.Image) -> Image.Image:
    """A smooth random warp: a 3×3 mesh of displaced corners."""
    n, w = 3, image.width
    grid = np.linspace(0, w, n + 1)
    moved = np.stack(np.meshgrid(grid, grid), -1) + rng.normal(
        0, w / 40, (n + 1, n + 1, 2)
    )  # (y, x, 2)
    mesh = []
    for j in range(n):
        for i in range(n):
            box = (round(grid[i]), round(grid[j]), round(grid[i + 1]), round(grid[j + 1]))
            quad = (*moved[j, i], *moved[j + 1, i], *moved[j + 1, i + 1], *moved[j, i + 1])
            mesh.append((box, tuple(float(v) for v in quad)))
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def coarse(rng: Rng, image: Image.Image, share: float) -> Image.Image:
    """With chance `share`, as if it had come in 28×28 pixels."""
    if rng.random() >= share:
        return image
    return image.resize((28, 28), Image.Resampling.BOX).resize(
        (CANVAS, CANVAS), Image.Resampling.BICUBIC
    )
