"""However archs are evaluated — alone, folded, sharing blocks, in a group — they score alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noahnas import Arch, Space, Supernet, evaluate, supernet
from noahnas.backbone import Backbone, load_backbone
from noahnas.data import Dataset, LoadOptions, Task, load_data
from noahnas.device import autocast, cast
from noahnas.errors import ArchError
from noahnas.evaluate import Scores, evaluate_batch
from noahnas.prefixes import Kept, deep, tree, wide
from noahnas.space import ModuleSpace

from .conftest import FULL, awake
from .test_attributes import OFFERED, Offering
from .test_families import MODULES, OFF, model

CPU = torch.device("cpu")
PLACES = {"convpass": {"placement": ("both", "attention")}}
SOME = [
    "ViT", "ViT, average pool", "ViT, norms after layers", "DeiT, distilled", "DINOv2, gated",
    "SigLIP", "EVA-02, base", "ViT, rotary mixed", "BEiT",
]  # fmt: skip
LOSS, GAP = 1e-5, 1e-3  # nats; of the two largest logits, from which on a prediction must agree


@cache
def network(name: str) -> tuple[Supernet, tuple[Arch, ...]]:
    """All modules with all attributes on a family's model, and archs that begin alike and not."""
    modules = {m: ModuleSpace((0, 1) if m in OFF else (0, 2, 3)) for m in MODULES}
    made = model(name)
    space = Offering("all", modules, offered={**OFFERED, **PLACES}).bind(made)
    net = awake(Supernet(made, space, 3)).eval()
    for key, weight in net.named_parameters():
        if key.startswith("prompts."):
            weight.data.mul_(0.2)  # as trained ones are
    rng = np.random.default_rng(0)
    alone = [Arch(**{m: (1, 1) if m in OFF else (3, 2)}) for m in MODULES]
    flows = [Arch(vpt=(2, p), lora=(2, r)) for p in (0, 2, 3) for r in (0, 2)]
    return net, (*(space.draw(rng) for _ in range(12)), *alone, *flows, Arch())


def pictures() -> Tensor:
    return torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(2))


@contextmanager
def folding(monkeypatch: pytest.MonkeyPatch, tokens: int) -> Iterator[None]:
    """Linear modules are put into the weights from so many tokens on."""
    with monkeypatch.context() as patch:
        patch.setattr(supernet, "FOLDED", tokens)
        with torch.inference_mode():
            yield


@pytest.mark.parametrize("name", SOME)
def test_a_score_does_not_depend_on_the_path_that_computed_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_paths(*network(name), pictures(), torch.arange(6) % 3, monkeypatch)


def test_nor_does_it_on_the_shipped_vit_with_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own weights, a classifier that has learned, and modules as wide as trained ones."""
    backbone = load_backbone("vit-nano")
    data = load_data("digits", LoadOptions(backbone.preprocess.size))
    task = Task(data, backbone.preprocess, CPU)
    space = Space.load("demo").bind(backbone.model)
    net = awake(Supernet(backbone.model, space, len(data.classes))).eval()
    for key, weight in net.named_parameters():
        if key.startswith("prompts."):
            weight.data.mul_(0.1)
    learn(net, *next(data.train.batches(len(data.train), task.preprocess, CPU)))
    x, labels = next(data.val.batches(24, task.preprocess, CPU))
    rng = np.random.default_rng(0)
    archs = (*(space.draw(rng) for _ in range(8)), space.largest, Arch(vpt=(1,) * 12), Arch())
    clear = check_paths(net, archs, x, labels, monkeypatch)
    assert clear > 0.9
    scores = evaluate_batch(net, archs, task, images=[24] * len(archs))
    assert scores[-1].accuracy > 0.5  # of the frozen backbone
    for arch, score in zip(archs, scores, strict=True):
        known = F.cross_entropy(net(x, arch), labels).item()
        assert score.loss == pytest.approx(known, abs=LOSS)
    assert len({score.loss for score in scores}) == len(archs)


@torch.no_grad()
def learn(net: Supernet, x: Tensor, labels: Tensor) -> None:
    """A classifier by the nearest class mean of what the frozen backbone gives for images x."""
    features = net.backbone.forward_head(net.backbone.forward_features(x), pre_logits=True)
    means = torch.stack([features[labels == c].mean(0) for c in labels.unique()])  # (classes, D)
    means = means - features.mean(0)
    net.head.weight.copy_(means)  # type: ignore[union-attr, operator]
    net.head.bias.copy_(  # type: ignore[union-attr, operator]
        -means @ features.mean(0) - means.square().sum(1) / 2
    )


def check_paths(
    net: Supernet,
    archs: Sequence[Arch],
    x: Tensor,
    labels: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> float:
    """Every path gives the loss within LOSS, and the predictions where the gap exceeds GAP.

    Returns:
        The share of images and archs whose gap does.
    """
    with torch.enable_grad():  # nothing is folded
        plain = {arch: net(x, arch).detach() for arch in archs}  # (n, classes) each
    root = tree(net, archs)
    paths: dict[str, dict[Arch, Tensor]] = {}
    for told, tokens in (("plain", 10**9), ("folded", 0)):
        with folding(monkeypatch, tokens):
            paths[told] = {arch: net(x, arch) for arch in archs}
            paths[f"{told}, shared"] = dict(deep(net, [x], root))
            paths[f"{told}, grouped"] = dict(wide(net, x, root, 30))
    clear: dict[Arch, Tensor] = {}
    for arch, logits in plain.items():
        best = logits.topk(2).values  # (n, 2)
        clear[arch] = best[:, 0] - best[:, 1] > GAP  # (n)
    for told, found in paths.items():
        assert set(found) == set(archs)
        for arch, logits in found.items():
            loss = F.cross_entropy(logits, labels).item()
            known = F.cross_entropy(plain[arch], labels).item()
            assert loss == pytest.approx(known, abs=LOSS), (told, arch)
            same = logits.argmax(1) == plain[arch].argmax(1)  # (n)
            assert bool((same | ~clear[arch]).all()), (told, arch)
    return torch.cat(list(clear.values())).float().mean().item()


def test_what_is_linear_is_folded_and_the_frozen_weights_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, _ = network("BEiT")
    arch = Arch(lora=(3, 3), ssf=(1, 1), bitfit=(1, 1), ia3=(1, 1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    held = {key: sorted(vars(m)) for key, m in net.backbone.named_modules()}
    called: list[str] = []
    for kind in {type(m) for ms in net.prompts.values() for m in ms}:  # type: ignore[union-attr]
        act = kind.forward
        monkeypatch.setattr(
            kind,
            "forward",
            lambda self, site, *a, _act=act, **k: (
                called.append(self.name) or _act(self, site, *a, **k)
            ),
        )
    with folding(monkeypatch, 0):
        net(pictures(), arch)
    assert called == []
    with folding(monkeypatch, 10**9):
        net(pictures(), arch)
    assert set(called) == {"lora", "ssf", "bitfit", "ia3"}
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert {key: sorted(vars(m)) for key, m in net.backbone.named_modules()} == held


def test_the_last_block_computes_what_is_read_alone_unless_a_module_mixes_tokens() -> None:
    net, _ = network("DeiT, distilled")
    seen: list[int] = []
    hook = net.backbone.blocks[1].mlp.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].shape[1])
    )
    net(pictures(), Arch(vpt=(2, 2), adapter=(2, 2)))
    net(pictures(), Arch(vpt=(2, 2), convpass=(2, 2)))
    net(pictures(), Arch(vpt=(2, 2), convpass=(2, 0)))
    hook.remove()
    assert seen == [2, net.shape.tokens + 2, 2]


def count_blocks(net: Supernet) -> list[int]:
    """Grows by one whenever a block runs."""
    runs: list[int] = []
    for index, block in enumerate(net.backbone.blocks):
        block.register_forward_pre_hook(lambda _m, _a, index=index: runs.append(index))
    return runs


@pytest.fixture
def task(digits: Dataset, backbone: Backbone) -> Task:
    return Task(digits, backbone.preprocess, CPU)


@pytest.fixture
def net(backbone: Backbone) -> Supernet:
    return awake(Supernet(backbone.model, Space.load("tiny"), 5)).eval()


SAME = [
    Arch(lora=(4, 2, 1, 0)),
    Arch(lora=(4, 2, 1, 8)),
    Arch(lora=(4, 2, 8, 8)),
    Arch(lora=(1, 2, 8, 8)),
]


def test_blocks_before_the_first_difference_are_computed_once(net: Supernet, task: Task) -> None:
    alone = [evaluate.evaluate(net, arch, task) for arch in SAME]
    runs = count_blocks(net)
    found = evaluate_batch(net, SAME, task, batch_size=10**6)
    assert [runs.count(index) for index in range(4)] == [2, 2, 3, 4]
    assert found == alone
    assert [r.passes for r in found] == [len(task.data.val)] * 4
    assert sum(r.computed for r in found) == pytest.approx(11 / 16 * 4 * len(task.data.val))
    assert found[3].computed == alone[3].computed == len(task.data.val)


LATER = [Arch(lora=(4, 2, 0, 0)), Arch(lora=(4, 8, 0, 0)), Arch(lora=(1, 2, 8, 0))]


def test_first_blocks_are_kept_for_archs_to_come(net: Supernet, task: Task) -> None:
    """The first half of the blocks, and to the last bit what is computed without them."""
    alone = evaluate_batch(net, LATER, task)
    kept = Kept()
    evaluate_batch(net, SAME, task, kept=kept)
    runs = count_blocks(net)
    found = evaluate_batch(net, LATER, task, batch_size=10**6, kept=kept)
    assert [runs.count(index) for index in range(4)] == [0, 1, 3, 3]
    assert found == alone
    assert sum(r.computed for r in found) == pytest.approx(7 / 12 * 3 * len(task.data.val))
    assert all(r.computed < len(task.data.val) for r in found)


def test_blocks_are_kept_for_the_same_images_alone(net: Supernet, task: Task) -> None:
    kept, split = Kept(), task.data.val
    evaluate_batch(net, SAME, task, images=[20] * 4, kept=kept)
    runs = count_blocks(net)
    found = evaluate_batch(net, SAME[:1], task, batch_size=10**6, kept=kept)
    assert runs == [0, 1, 2, 3]
    assert found == evaluate_batch(net, SAME[:1], task)
    assert found[0].passes == len(split)
    assert evaluate_batch(net, SAME[:1], task, "test", kept=kept)[0].computed == len(task.data.test)


def test_blocks_that_were_used_least_recently_are_given_up(net: Supernet, task: Task) -> None:
    def computed(kept: Kept, arch: Arch) -> float:
        (found,) = evaluate_batch(net, [arch], task, kept=kept)
        return found.computed / len(task.data.val)

    a, b, c = (Arch(lora=(dim, 0, 0, 0)) for dim in (1, 2, 4))
    tokens = net.begin(torch.zeros(len(task.data.val), 3, 16, 16)).tokens
    kept = Kept(most=4 * tokens.untyped_storage().nbytes())  # two blocks of two archs
    assert [computed(kept, arch) for arch in (a, b, a, c, a, b)] == [1, 1, 0.5, 1, 0.5, 1]
    kept.clear()
    assert computed(kept, a) == 1
    none = Kept(most=0)
    assert [computed(none, a), computed(none, a)] == [1, 1]


def test_a_score_is_the_same_whoever_else_is_asked_for(net: Supernet, task: Task) -> None:
    """To the last bit: what a search that was killed asks for again is fewer."""
    whole = evaluate_batch(net, SAME, task)
    assert evaluate_batch(net, SAME[2:], task) == whole[2:]
    assert evaluate_batch(net, SAME[::-1], task) == whole[::-1]


def test_each_arch_is_scored_on_as_many_images_as_it_asks_for(net: Supernet, task: Task) -> None:
    images = [10, None, 10, 37]
    found = evaluate_batch(net, SAME, task, images=images)
    assert [r.passes for r in found] == [10, len(task.data.val), 10, 37]
    for arch, count, result in zip(SAME, images, found, strict=True):
        assert result == evaluate.evaluate(net, arch, task, images=count)


def test_an_arch_that_is_asked_for_twice_is_evaluated_once(net: Supernet, task: Task) -> None:
    runs = count_blocks(net)
    first, second = evaluate_batch(net, [FULL, FULL], task, batch_size=10**6)
    assert first == second
    assert len(runs) == 4


def test_an_arch_without_weights_is_refused_before_anything_runs(net: Supernet, task: Task) -> None:
    with pytest.raises(ArchError, match="wider than"):
        evaluate_batch(net, [FULL, Arch(lora=(9, 9, 9, 9))], task)


def test_scores_are_kept_while_weights_images_and_precision_are_the_same(
    net: Supernet, task: Task
) -> None:
    scores = Scores(net, task)
    runs = count_blocks(net)
    first = scores(SAME[:2], [20, 20])
    computed = len(runs)
    again = scores([SAME[1], SAME[0]], [20, 20])
    assert again == first[::-1]
    assert [r.computed for r in again] == [0, 0]
    assert len(runs) == computed
    scores([SAME[0]], [21])
    assert len(runs) > computed
    computed = len(runs)
    scores.task = replace(task, precision="bf16")
    scores([SAME[0]], [20])
    assert len(runs) == computed + 4  # none of the other precision's blocks
    with torch.no_grad():
        net.head.bias.add_(torch.arange(5.0))  # type: ignore[union-attr]
    assert scores([SAME[0]], [20])[0].loss != first[0].loss


def test_weights_are_reduced_once_and_come_back(net: Supernet) -> None:
    layer: nn.Linear = net.backbone.blocks[0].mlp.fc1
    with cast(net.backbone, "bf16"), autocast(CPU, "bf16"), torch.inference_mode():
        assert layer.weight.dtype == torch.bfloat16
        once = net(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), FULL)
    assert layer.weight.dtype == torch.float32
    assert "weight" not in vars(layer)
    with autocast(CPU, "bf16"), torch.inference_mode():
        each = net(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), FULL)
    torch.testing.assert_close(once, each, rtol=0, atol=0.02)
