from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from noahnas.augment import AUGMENTATIONS, augmented, crop, erase, flip, mix
from noahnas.recipe import WORDS, Stage


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


def test_erasing_puts_noise_in_one_box_of_some_images() -> None:
    torch.manual_seed(0)
    x = torch.full((400, 3, 32, 32), 7.0)
    y = erase(x, 0.25)
    changed = (y != x).any(dim=1)  # (400, 32, 32)
    share = changed.flatten(1).double().mean(1)
    hit = share > 0
    assert 70 < int(hit.sum()) < 130
    assert 0.005 < share[hit].min() < share[hit].max() < 0.4
    for image in changed[hit][:20]:  # a full rectangle
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum()


def test_mixup_blends_each_image_with_its_partner_as_it_does_their_targets() -> None:
    torch.manual_seed(0)
    x, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    y, mixed = mix(x, targets, 0.8, 0.0)
    share = mixed[0, 0]
    assert 0 < share < 1
    assert torch.allclose(mixed, share * targets + (1 - share) * targets.flip(0))
    assert torch.allclose(y, share * x + (1 - share) * x.flip(0), atol=1e-6)


def test_cutmix_takes_a_box_of_the_partner_and_its_share_of_the_target() -> None:
    torch.manual_seed(0)
    x, targets = torch.rand(4, 3, 16, 16), torch.eye(4)
    y, mixed = mix(x, targets, 0.0, 1.0)
    partner = (y == x.flip(0)).all(1)  # (4, 16, 16)
    assert torch.equal(partner, ~(y == x).all(1))
    assert mixed[0, 3].item() == pytest.approx(partner[0].double().mean().item(), abs=1e-6)
    assert torch.allclose(mixed.sum(1), torch.ones(4))


def test_where_both_are_wanted_half_of_the_batches_are_cut() -> None:
    torch.manual_seed(0)
    x, targets = torch.rand(2, 3, 8, 8), torch.eye(2)
    cut = 0
    for _ in range(200):
        y, _ = mix(x, targets, 0.8, 1.0)
        cut += bool(((y == x) | (y == x.flip(0))).all())
    assert 70 < cut < 130


def test_a_stage_says_which_augmentations_there_are() -> None:
    assert set(AUGMENTATIONS) == set(WORDS["augment"])
    x, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    plain = Stage(epochs=1, lr=1e-3, batch_size=6)
    same, still = augmented(x, labels, plain, 3)
    assert same is x
    assert still is labels
    torch.manual_seed(0)
    mixed, targets = augmented(x, labels, replace(plain, cutmix=1.0, erase=0.9), 3)
    assert targets.shape == (6, 3)
    assert not torch.equal(mixed, x)
