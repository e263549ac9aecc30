from __future__ import annotations

import torch

from noahnas.augment import AUGMENTATIONS, crop, flip


def ramp(n: int = 64) -> torch.Tensor:
    """Images (n, 3, 16, 16) whose value grows from left to right, and a little downwards."""
    across = torch.linspace(0, 1, 16).expand(16, 16)
    return (across + 0.01 * across.T).expand(n, 3, 16, 16).clone()


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others() -> None:
    torch.manual_seed(0)
    x = ramp(400)
    y = flip(x)
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    kept = (y == x).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < int(mirrored.sum()) < 250


def test_a_crop_is_a_part_of_the_image_in_its_own_orientation() -> None:
    torch.manual_seed(0)
    x = ramp()
    y = crop(x)
    assert y.shape == x.shape
    assert y.min() >= x.min() - 1e-5
    assert y.max() <= x.max() + 1e-5
    assert (y.diff(dim=-1) >= -1e-5).all()  # still grows from left to right
    spread = y.flatten(1).amax(1) - y.flatten(1).amin(1)
    assert (spread < spread.max() - 0.1).any()  # some are small parts
    assert y.flatten(1).mean(1).std() > 0.05  # from different places


def test_each_image_is_drawn_anew_and_a_seed_repeats_it() -> None:
    x = ramp(8)
    torch.manual_seed(1)
    first = AUGMENTATIONS["crop-flip"](x)
    second = AUGMENTATIONS["crop-flip"](x)
    torch.manual_seed(1)
    assert torch.equal(AUGMENTATIONS["crop-flip"](x), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert AUGMENTATIONS["none"](x) is x
