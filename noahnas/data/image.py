"""One image file or stream as RGB pixels of the size asked for."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # above it Pillow, too, takes it for a bomb


class UnreadableImageError(Exception):
    """Why an image cannot be read, in a few words."""


def read_pixels(source: Path | bytes | Image.Image, size: tuple[int, int]) -> Pixels:
    """An image as RGB, upright, resized directly to `size` (height, width), bicubic.

    Raises:
        UnreadableImageError: if it is none, cut short, or too large.
    """
    try:
        if isinstance(source, Image.Image):
            return _pixels(source, size)
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as raw:
            return _pixels(raw, size)
    except UnidentifiedImageError:
        raise UnreadableImageError("no image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError("too many pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as e:
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise UnreadableImageError(why) from None


def _pixels(raw: Image.Image, size: tuple[int, int]) -> Pixels:
    if raw.width * raw.height > MAX_PIXELS:
        raise ValueError("too many pixels")
    image = _eight_bits(ImageOps.exif_transpose(raw)).convert("RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)  # (H, W, 3)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit; Pillow's own conversion would cut it off at 255.

    Raises:
        ValueError: if pixels are floating-point.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)  # (H, W), in 0…65535
    return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
