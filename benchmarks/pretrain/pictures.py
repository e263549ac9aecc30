"""Pictures for pretraining: what the student sees, 56×56, and none of it for any evaluation.

Rendered scenes, lone shapes, pen strokes and letters are drawn from the generator alone;
Fashion-MNIST (first 50 000 of train), emoji (two thirds of the symbols) and digits 0–4 come as
arrays and are turned, scaled, coloured and pasted. There is no arrow and no MNIST image in here,
and nothing is drawn by `noahnas.data.rendered`.

    python benchmarks/pretrain/pictures.py sheet.png     # a sheet of examples, to look at
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from shapes import CANVAS, Rng, affine, background, bend, coarse, colour, draw_shape, pen

SIDE = 56  # pixels given
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # no digits

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sources:
    """The pictures that are not drawn."""

    fashion: Bytes  # (50000, 28, 28)
    emoji: Bytes  # (n, 64, 64, 4), RGBA
    digits: Bytes  # (m, 8, 8), classes 0-4 only

    @classmethod
    def load(cls, cache: Path) -> Sources:
        """Read what `fetch.py` left, and sklearn's digits 0–4."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        few = bunch.images[bunch.target <= 4] * (255 / 16)  # (901, 8, 8)
        fashion = np.load(cache / "fashion_pretrain.npy", mmap_mode="r")
        return cls(fashion, np.load(cache / "emoji_pretrain.npy"), few.astype(np.uint8))


def scene(rng: Rng, _: Sources) -> Image.Image:
    """Up to ten shapes, lines and curves of any size, anywhere, overlapping or not."""
    image = background(rng)
    draw = ImageDraw.Draw(image)
    big = rng.uniform(8, 40)
    for _i in range(int(rng.integers(1, 11))):
        if rng.random() < 0.12:
            pen(
                rng,
                draw,
                colour(rng),
                rng.uniform(1.5, 6),
                rng.uniform(0, CANVAS, 2),
                rng.uniform(20, 120),
            )
        else:
            draw_shape(rng, draw, rng.uniform(5, big + 4), rng.uniform(4, CANVAS - 4, 2))
    return image


def sparse(rng: Rng, _: Sources) -> Image.Image:
    """Objects of like size that do not touch, on a dark or plain ground."""
    image = background(rng)
    draw = ImageDraw.Draw(image)
    size, placed = rng.uniform(5, 16), np.empty((0, 2))
    for centre in rng.uniform(size, CANVAS - size, (int(rng.integers(1, 16)), 2)):
        if len(placed) == 0 or np.hypot(*(placed - centre).T).min() > 2 * size:
            draw_shape(rng, draw, size * rng.uniform(0.6, 1), centre)
            placed = np.vstack([placed, centre])
    return image


def lone(rng: Rng, _: Sources) -> Image.Image:
    """One shape, any size, place and turn; sometimes with a small companion."""
    image = background(rng)
    draw = ImageDraw.Draw(image)
    radius = rng.uniform(8, 45)
    draw_shape(rng, draw, radius, rng.uniform(0.7 * radius, CANVAS - 0.7 * radius, 2))
    if rng.random() < 0.3:
        draw_shape(rng, draw, rng.uniform(3, 9), rng.uniform(5, CANVAS - 5, 2))
    return image


def stroke(rng: Rng, _: Sources) -> Image.Image:
    """A made-up sign of one to four pen strokes, light on black, often as coarse as 28×28."""
    image = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    at, width, reach = rng.uniform(25, CANVAS - 25, 2), rng.uniform(5, 15), rng.uniform(25, 110)
    for _i in range(int(rng.integers(1, 5))):
        level = int(rng.integers(200, 256))
        end = pen(rng, draw, (level, level, level), width, at, reach * rng.uniform(0.4, 1.3))
        at = end if rng.random() < 0.6 else rng.uniform(25, CANVAS - 25, 2)
    return coarse(rng, image, 0.6)


_FONTS = [ImageFont.load_default(size) for size in (40, 56, 72, 88, 104)]


def letter(rng: Rng, _: Sources) -> Image.Image:
    """One to three letters of Pillow's own font, sheared, stretched and bent; light on black."""
    image = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    few = 1 if rng.random() < 0.75 else int(rng.integers(2, 4))
    for _i in range(few):
        font = _FONTS[int(rng.integers(len(_FONTS) if few == 1 else 2))]
        at = rng.normal(CANVAS / 2, 6 if few == 1 else 25, 2)
        sign, edge = LETTERS[rng.integers(len(LETTERS))], int(rng.integers(0, 4))
        draw.text((at[0], at[1]), sign, fill=255, font=font, anchor="mm", stroke_width=edge)
    image = bend(rng, affine(rng, image, 0.35, 0.3, 4))
    return coarse(rng, image.convert("RGB"), 0.6)


def fashion(rng: Rng, sources: Sources) -> Image.Image:
    """A garment, grey on black, mirrored or not, a little turned and scaled."""
    image = Image.fromarray(sources.fashion[rng.integers(len(sources.fashion))])
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    if rng.random() < 0.6:
        image = affine(rng, image, 0.2, 0.25, 6)
    return image.convert("RGB")


def digit(rng: Rng, sources: Sources) -> Image.Image:
    """A handwritten digit 0–4 of 8×8 pixels, made smooth, turned, stretched and bent."""
    image = Image.fromarray(sources.digits[rng.integers(len(sources.digits))])
    inner = int(rng.integers(64, 104))
    image = image.resize((inner, inner), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:  # nearer to a pen's edge
        image = image.point(lambda v: max(0, min(255, int((v - 90) * 3))))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(image, ((CANVAS - inner) // 2, (CANVAS - inner) // 2))
    return bend(rng, affine(rng, canvas, 0.15, 0.25, 4)).convert("RGB")


def paste_emoji(rng: Rng, sources: Sources, image: Image.Image, low: float, high: float) -> None:
    """Paste one emoji at `low` to `high` of the canvas; turned one time in three."""
    picture = Image.fromarray(sources.emoji[rng.integers(len(sources.emoji))])
    size = int(rng.uniform(low, high) * CANVAS)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.33:
        picture = picture.rotate(rng.uniform(-180, 180), Image.Resampling.BILINEAR)
    room = max(1, CANVAS - int(0.85 * size))
    x, y = (int(v) for v in rng.integers(-int(0.1 * size), room, 2))
    image.paste(picture, (x, y), picture)


def emoji(rng: Rng, sources: Sources) -> Image.Image:
    """One emoji on white, black or anything; or centred and whole, as evaluation shows its own."""
    plain = rng.random()
    if plain < 0.5:
        ground = Image.new(
            "RGB",
            (CANVAS, CANVAS),
            colour(rng) if plain < 0.15 else (255,) * 3 if plain < 0.4 else (0,) * 3,
        )
    else:
        ground = background(rng)
    if rng.random() < 0.4:
        picture = Image.fromarray(sources.emoji[rng.integers(len(sources.emoji))])
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = picture.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
        ground.paste(picture, (0, 0), picture)
    else:
        paste_emoji(rng, sources, ground, 0.4, 1.3)
    return ground


def crowd(rng: Rng, sources: Sources) -> Image.Image:
    """Two to seven small emoji and shapes together."""
    image = background(rng)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 8))):
        if rng.random() < 0.7:
            paste_emoji(rng, sources, image, 0.15, 0.45)
        else:
            draw_shape(rng, draw, rng.uniform(5, 20), rng.uniform(4, CANVAS - 4, 2))
    return image


GREY = {"stroke", "letter", "fashion", "digit"}
KINDS: dict[str, tuple[Callable[[Rng, Sources], Image.Image], float]] = {  # and the share of each
    "scene": (scene, 0.16),
    "sparse": (sparse, 0.12),
    "lone": (lone, 0.16),
    "stroke": (stroke, 0.14),
    "letter": (letter, 0.10),
    "fashion": (fashion, 0.08),
    "digit": (digit, 0.06),
    "emoji": (emoji, 0.12),
    "crowd": (crowd, 0.06),
}


def finish(rng: Rng, image: Image.Image, grey: bool) -> Bytes:
    """Reduce to 56×56 and shake the colours: (56, 56, 3)."""
    if rng.random() < 0.08:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    x: npt.NDArray[np.floating] = np.asarray(image.reduce(CANVAS // SIDE), np.float32)
    if grey:
        if rng.random() < 0.15:  # ink and ground of any two colours
            a, b = rng.uniform(0, 255, (2, 3)).astype(np.float32)
            x = a + (b - a) * (x / 255)
        elif rng.random() < 0.15:
            x = 255 - x
    elif rng.random() < 0.2:
        x = x[..., rng.permutation(3)]
    elif rng.random() < 0.1:
        x = np.broadcast_to(x.mean(-1, keepdims=True), x.shape)
    if rng.random() < 0.3:
        x = (x - 128) * rng.uniform(0.5, 1.3) + 128 + rng.uniform(-30, 30)
    if rng.random() < 0.06:
        x = x + rng.normal(0, rng.uniform(2, 20), x.shape)
    out: Bytes = np.clip(x, 0, 255).astype(np.uint8)
    return out


def pictures(rng: Rng, sources: Sources, n: int, only: Sequence[str] = ()) -> Bytes:
    """Draw `n` views, kinds mixed by their shares: (n, 56, 56, 3)."""
    names = list(only or KINDS)
    shares = np.array([KINDS[name][1] for name in names])
    out = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i, k in enumerate(rng.choice(len(names), n, p=shares / shares.sum())):
        out[i] = finish(rng, KINDS[names[k]][0](rng, sources), names[k] in GREY)
    return out


def main() -> None:
    """Write a sheet of 12 examples of each kind."""
    from fetch import DEFAULT_CACHE

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    args = parser.parse_args()
    sources = Sources.load(args.cache)
    rng = np.random.default_rng(0)
    rows = [np.concatenate(list(pictures(rng, sources, 12, [name])), 1) for name in KINDS]
    Image.fromarray(np.concatenate(rows, 0)).save(args.sheet)


if __name__ == "__main__":
    main()
