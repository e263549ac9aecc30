"""Training policies: what they draw, and what a step of theirs does to the weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from noahnas import Arch, Space, Supernet
from noahnas.backbone import load_backbone
from noahnas.data import Dataset, Task
from noahnas.errors import NoahnasError
from noahnas.policy import SHAPES, SOURCES, Lesson, policy
from noahnas.recipe import Stage
from noahnas.space import parse_space
from noahnas.train import Batch, _step, build, train

CPU = torch.device("cpu")
STEPS = 96


def lessons(name: str, space: Space, steps: int = STEPS) -> list[list[Lesson]]:
    rng, plan = np.random.default_rng(0), policy(name, space)
    return [list(plan(rng, step, steps)) for step in range(steps)]


@pytest.mark.parametrize("source", [*SOURCES, None])
@pytest.mark.parametrize("start", ["warm", None])
@pytest.mark.parametrize("shape", [*SHAPES, None])
def test_every_combination_draws_archs_of_the_space_in_its_shape(
    source: str | None, start: str | None, shape: str | None, space: Space
) -> None:
    name = "+".join(word for word in (shape, start, source) if word) or "paper"
    found = lessons(name, space)
    archs = [lesson.arch for step in found for lesson in step]
    assert all(space.misfit(arch) is None for arch in archs)
    largest = [i for i, step in enumerate(found) if step[0].arch == space.largest]
    if start:
        assert all(step == [Lesson(space.largest)] for step in found[:24])
        assert set(range(24, STEPS, 3)) <= set(largest)
    for step in found[24:]:
        if shape == "sandwich":
            assert [lesson.distilled for lesson in step] == [False, True, True, True]
            assert (step[0].arch, step[1].arch) == (space.largest, space.cheapest)
        elif shape == "mixed":
            assert [(lesson.group, lesson.groups) for lesson in step] == [(i, 4) for i in range(4)]
        else:
            assert len(step) == 1
    drawn = [a for a in archs if a not in (space.largest, space.cheapest)]
    assert all(map(space.feasible, drawn)) is (source == "feasible")


def test_a_policy_draws_the_same_whatever_was_drawn_before_the_step(space: Space) -> None:
    """A training that goes on asks for its epochs' steps alone, with their own generators."""
    for name in ("fair", "mixed+fair", "sandwich+fair"):
        whole = policy(name, space)
        archs = [whole(np.random.default_rng(step), step, STEPS) for step in range(STEPS)]
        later = policy(name, space)
        assert later(np.random.default_rng(70), 70, STEPS) == archs[70]


def vectors_of(space: Space, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Grows by each vector of genes that is made an arch, that of the largest one apart."""
    assert space.largest  # kept from now on
    seen: list[list[int]] = []
    decode = type(space).decode

    def noted(self: Space, vector: Sequence[int]) -> Arch:
        seen.append(list(vector))
        return decode(self, vector)

    monkeypatch.setattr(type(space), "decode", noted)
    return seen


@pytest.mark.parametrize("name", ["noah-vtab", "noah-fewshot", "tiny"])
def test_fair_draws_every_choice_of_every_gene_equally_often(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every block, whether or not the depth drawn beside it leaves the block out."""
    space = Space.load(name).bind(blocks=12, width=48)
    seen = vectors_of(space, monkeypatch)
    sizes = [len(gene.choices) for gene in space.genes]
    steps = 4 * math.lcm(*sizes)
    drawn = lessons("fair", space, steps)
    assert len(drawn) == len(seen) == steps
    columns = list(zip(*seen, strict=True))  # of each gene
    for size, column in zip(sizes, columns, strict=True):
        assert Counter(column) == dict.fromkeys(range(size), steps // size)
    assert len(set(columns)) == len(space.genes)  # none goes along with another
    archs = [space.decode(vector) for vector in tuple(seen)]
    assert [step[0].arch for step in drawn] == archs


RULED = """
name: ruled
modules:
  adapter: {dim: [0, 8, 16]}
  lora: {dim: [0, 1, 2, 4]}
rules:
  - at most 1 modules per block
  - lora.dim non-decreasing
"""


def test_fair_gives_way_to_the_paper_prior_where_a_rule_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = parse_space(RULED, "ruled.yaml").bind(blocks=2, width=48)
    plan, seen = policy("fair", space), vectors_of(space, monkeypatch)
    kept = 0
    for step in range(STEPS):
        seen.clear()
        (lesson,) = plan(np.random.default_rng(step), step, STEPS)
        assert space.contains(lesson.arch)
        fair = space.decode(seen[0])
        kept += bool(space.contains(fair))
        paper = space.draw(np.random.default_rng(step))
        assert lesson.arch == (fair if space.contains(fair) else paper)
    assert 0 < kept < STEPS


def test_fair_goes_through_depths_and_dims_of_noah_in_rounds() -> None:
    space = Space.load("noah-vtab").bind(blocks=12, width=48)
    draws = [step[0].arch for step in lessons("fair", space, 48)]
    for module in space.modules:
        depths = Counter(sum(d > 0 for d in arch.dims(module)) for arch in draws)
        assert depths == dict.fromkeys((3, 6, 9, 12), 12)
        first = Counter(arch.dim(module, 0) for arch in draws)
        assert first == dict.fromkeys((1, 5, 10), 16)
    orders = [tuple(a.dim("vpt", 0) for a in draws[i : i + 3]) for i in range(0, 48, 3)]
    assert len(set(orders)) > 3  # the order differs between rounds


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("warmth", "unknown policy 'warmth'; did you mean 'warm'"),
        ("paper+feasible", "names paper and feasible; choose one"),
        ("sandwich+mixed", "names sandwich and mixed; choose one"),
        ("warm+warm", "names a word twice"),
        ("", "unknown policy ''"),
    ],
)
def test_what_is_no_policy_is_refused(name: str, told: str, space: Space) -> None:
    with pytest.raises(NoahnasError, match=told.replace("(", r"\(").replace("+", r"\+")):
        policy(name, space)


def stirred(digits: Dataset, space: Space) -> tuple[Supernet, torch.Tensor, torch.Tensor]:
    """A supernet whose weights are all drawn, and ten images (10, 3, 16, 16) with labels (10)."""
    backbone = load_backbone("vit-digits")
    net = build(backbone, space, 5, Stage(1, 0.0, 10), seed=0)
    with torch.no_grad():
        for name, weight in net.trainable().items():
            weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return net, *next(digits.train.batches(10, backbone.preprocess, CPU))


def stepped(
    digits: Dataset, space: Space, plan: list[Lesson]
) -> tuple[dict[str, torch.Tensor], float, int]:
    """Gradients of one step, its loss, and how many images it saw."""
    net, x, y = stirred(digits, space)
    optimizer = torch.optim.SGD(net.trainable().values(), lr=0.0)
    loss, seen, *_ = _step(net, optimizer, Batch(x, y, plan))
    grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return grads, loss.item(), seen


def test_a_mixed_step_is_the_mean_over_images_each_under_its_own_arch(
    digits: Dataset, space: Space
) -> None:
    archs = space.sample(np.random.default_rng(0), 2)
    grads, loss, seen = stepped(digits, space, [Lesson(a, i, 2) for i, a in enumerate(archs)])
    assert seen == 10
    net, x, y = stirred(digits, space)
    losses = [F.cross_entropy(net(x[i : i + 1], archs[i % 2]), y[i : i + 1]) for i in range(10)]
    mean = torch.stack(losses).mean()
    mean.backward()
    assert loss == pytest.approx(mean.item(), abs=1e-5)
    for name, weight in net.trainable().items():
        if name in grads:
            assert torch.allclose(grads[name], weight.grad, atol=1e-5), name


def test_in_a_sandwich_only_the_largest_arch_sees_the_labels(digits: Dataset, space: Space) -> None:
    """The first lesson's loss is by labels; with a teacher that is sure, the others' is by it."""
    largest, other = space.largest, space.cheapest
    alone, _, seen_alone = stepped(digits, space, [Lesson(largest)])
    both, loss, seen = stepped(digits, space, [Lesson(largest), Lesson(other, distilled=True)])
    assert (seen_alone, seen) == (10, 20)
    net, x, y = stirred(digits, space)
    taught = net(x, largest)
    expected = F.cross_entropy(taught, y) + F.cross_entropy(
        net(x, other), taught.detach().softmax(dim=1)
    )
    (expected / 2).backward()
    assert loss == pytest.approx(expected.item() / 2, abs=1e-5)
    assert torch.allclose(both["backbone.head.weight"], net.head.weight.grad, atol=1e-5)
    assert not torch.allclose(both["backbone.head.weight"], alone["backbone.head.weight"])


@pytest.mark.parametrize("name", ["paper", "warm+mixed+feasible", "sandwich", "fair"])
def test_a_training_cut_short_ends_in_the_same_weights_and_passes(
    name: str, digits: Dataset, space: Space, stage: Stage, tmp_path: Path
) -> None:
    stage = replace(stage, epochs=3)

    def trained(folder: str, stop: int = 0) -> tuple[dict[str, torch.Tensor], int] | None:
        (tmp_path / folder).mkdir(exist_ok=True)
        backbone = load_backbone("vit-digits", stage.drop_path)
        net = build(backbone, space, 5, stage, seed=1)

        def report(progress: object) -> None:
            if getattr(progress, "done", 0) == stop:
                raise KeyboardInterrupt

        try:
            log = train(
                net, Task(digits, backbone.preprocess, CPU), digits.train, stage, name="supernet",
                plan=policy(name, space), seed=1, checkpoint=tmp_path / folder / "s.ckpt",
                report=report,  # type: ignore[arg-type]
            )  # fmt: skip
        except KeyboardInterrupt:
            return None
        return dict(net.trainable()), log.passes

    whole = trained("whole")
    assert trained("cut", stop=2) is None
    again = trained("cut")
    assert whole is not None
    assert again is not None
    assert whole[1] == again[1]
    each = 4 if name == "sandwich" else 1
    assert whole[1] == 3 * each * len(digits.train) * 3
    for key, weight in whole[0].items():
        assert torch.equal(weight, again[0][key]), key
