"""A contact sheet: some images of each class, as the backbone will see them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageDraw

from noahnas.data import Dataset

PER_CLASS, CLASSES = 8, 24  # images in a row, rows
MARGIN, TEXT = 4, 150  # pixels between images; width of the class names
LEAST = 48  # pixels that an image takes at least


def contact_sheet(data: Dataset) -> bytes:
    """A PNG: a row for each of the first 24 classes, its name and its first 8 images of train."""
    shown = data.classes[:CLASSES]
    height, width = data.train.images.shape[2:]
    scale = max(1, -(-LEAST // min(height, width)))
    high, wide = height * scale, width * scale
    size = (TEXT + PER_CLASS * (wide + MARGIN) + MARGIN, len(shown) * (high + MARGIN) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(shown):
        top = MARGIN + row * (high + MARGIN)
        draw.text((MARGIN, top + high // 2 - 5), _short(name), fill="black")
        first = torch.nonzero(data.train.labels == row)[:PER_CLASS, 0]  # (k)
        for column, index in enumerate(first.tolist()):
            pixels = np.moveaxis(data.train.images[index].numpy(), 0, 2)  # (3, H, W) -> (H, W, 3)
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            left = TEXT + MARGIN + column * (wide + MARGIN)
            sheet.paste(picture.resize((wide, high), Image.Resampling.NEAREST), (left, top))
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _short(name: str) -> str:
    """A name that fits, in characters that every font of Pillow has."""
    plain = name.encode("ascii", "replace").decode()
    return plain if len(plain) <= 22 else f"{plain[:19]}..."
