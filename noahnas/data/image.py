"""One image file or stream as RGB pixels of the size asked for."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # above it Pillow, too, takes it for a bomb
LARGE = 2**24  # pixels; images with more of them are decoded one at a time, for the sake of memory
# Those that decode in Pillow alone: EPS, which any file may turn out to be, runs Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
TOO_LARGE = f"too many pixels; at most {MAX_PIXELS:,} are read"
_one = Lock()


class UnreadableImageError(Exception):
    """Why an image cannot be read, in a few words."""


def read_pixels(
    source: Path | bytes | Image.Image, size: tuple[int, int], interpolation: str = "bicubic"
) -> Pixels:
    """An image as RGB, upright, resized directly to `size` (height, width).

    Args:
        source: a file, its content, or an image that Pillow has opened.
        size: height and width, in pixels.
        interpolation: one of `noahnas.backbone.INTERPOLATIONS`.

    Raises:
        UnreadableImageError: if it is none, cut short, or has more than `MAX_PIXELS`.
    """
    try:
        if isinstance(source, Image.Image):
            return _pixels(source, size, interpolation)
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise UnreadableImageError("no regular file")  # noqa: TRY301 - a pipe would wait
        file = BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_formats()) as raw:
            return _pixels(raw, size, interpolation)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("no image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(TOO_LARGE) from None
    except Exception as e:  # decoders raise many kinds on files that were made to break them
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise UnreadableImageError(why) from None


@cache
def _formats() -> list[str]:
    """Those that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _pixels(raw: Image.Image, size: tuple[int, int], interpolation: str) -> Pixels:
    if raw.width * raw.height > MAX_PIXELS:
        raise UnreadableImageError(TOO_LARGE)
    with _one if raw.width * raw.height > LARGE else nullcontext():
        image = _eight_bits(ImageOps.exif_transpose(raw)).convert("RGB")
        if image.size != size[::-1]:
            image = resize(image, size, interpolation)
        return np.asarray(image)  # (H, W, 3)


def resize(image: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """An image at another height and width, by Pillow."""
    return image.resize(size[::-1], Image.Resampling[interpolation.upper()])


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; Pillow's own conversion would cut it off at 255.

    Raises:
        ValueError: if pixels are floating-point.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).clip(0, 65535).astype(np.uint16)  # (H, W)
    return Image.fromarray((pixels // 257).astype(np.uint8))
