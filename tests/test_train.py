from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from noahnas import Arch, Space
from noahnas.backbone import Backbone, load_backbone
from noahnas.backbone.backbone import EMBEDDED
from noahnas.data import Dataset, LoadOptions, Split, Task, load_data, tasks
from noahnas.data.dataset import SPLITS
from noahnas.device import choose_device
from noahnas.errors import NoahnasError, RunError, TrainingError
from noahnas.evaluate import evaluate, evaluate_batch
from noahnas.policy import only, policy
from noahnas.prefixes import tree, wide
from noahnas.probe import linear_probe
from noahnas.progress import Progress
from noahnas.recipe import Stage
from noahnas.retrain import retrain
from noahnas.supernet import Supernet
from noahnas.train import TrainLog, build, learning_rate, train

from .conftest import FULL, awake

CPU = torch.device("cpu")
GPU_GAP = 0.05  # of the two largest logits; a GPU's convolution of patches is in TF32


def trained(
    data: Dataset,
    stage: Stage,
    folder: Path,
    space: Space,
    stop_after: int | None = None,
    *,
    named: str = "paper",
    precision: str = "fp32",
) -> tuple[Supernet, TrainLog | None]:
    """Train a supernet; with `stop_after`, die after that many epochs."""
    backbone = load_backbone("vit-digits", stage.drop_path)
    net = build(backbone, space, len(data.classes), stage, seed=3)

    def report(progress: Progress) -> None:
        if progress.done == stop_after:
            raise KeyboardInterrupt

    try:
        log = train(
            net, Task(data, backbone.preprocess, CPU, precision), data.train, stage,
            name="supernet", plan=policy(named, space), seed=3, checkpoint=folder / "s.ckpt",
            report=report,
        )  # fmt: skip
    except KeyboardInterrupt:
        return net, None
    return net, log


def test_training_that_was_cut_short_goes_on_to_the_same_weights(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    stage = replace(stage, epochs=4)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, log = trained(digits, stage, tmp_path / "whole", space)
    for stop in (1, 3):
        torch.manual_seed(stop)  # what is drawn must not hang on torch's global state
        _, none = trained(digits, stage, tmp_path / "cut", space, stop_after=stop)
        assert none is None
    resumed, again = trained(digits, stage, tmp_path / "cut", space)
    assert again is not None
    assert log is not None
    assert again.losses == log.losses
    for name, weight in whole.trainable().items():
        assert torch.equal(weight, resumed.trainable()[name]), name


def test_a_training_is_charged_three_passes_an_image_and_epoch(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    _, log = trained(digits, stage, tmp_path, space)
    assert log is not None
    assert log.passes == 3 * 200 * stage.epochs
    assert len(log.losses) == stage.epochs
    assert log.seconds > 0


def test_on_a_wider_backbone_than_its_rate_is_for_it_trains_at_a_lower_one(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    for name, of in (
        ("wider", replace(stage, lr_width=24)),  # the backbone is 48 wide
        ("lower", replace(stage, lr=stage.lr / 4)),
    ):
        (tmp_path / name).mkdir()
        net, log = trained(digits, of, tmp_path / name, space)
        assert log is not None
        assert log.lr == pytest.approx(stage.lr / 4)
        torch.save(net.trainable(), tmp_path / f"{name}.pt")
    wider, lower = (torch.load(tmp_path / f"{name}.pt") for name in ("wider", "lower"))
    for name, weight in wider.items():
        assert torch.equal(weight, lower[name]), name


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    trained(digits, stage, tmp_path, space)
    with pytest.raises(RunError, match="belongs to another training"):
        trained(digits, replace(stage, lr=1.0), tmp_path, space)
    fewer = Split(digits.train.images[1:], digits.train.labels[1:])
    others = {
        "policy": lambda: trained(digits, stage, tmp_path, space, named="paper+mixed"),
        "precision": lambda: trained(digits, stage, tmp_path, space, precision="bf16"),
        "data": lambda: trained(replace(digits, train=fewer), stage, tmp_path, space),
    }
    for what, other in others.items():
        with pytest.raises(RunError, match=rf"another training \({what}: [^;]*\)$"):
            other()
    with pytest.raises(RunError, match=r"\(policy: paper of the space .*, not paper of the"):
        trained(digits, stage, tmp_path, Space.load("lora-only").bind(blocks=4, width=48))
    whole = (tmp_path / "s.ckpt").read_bytes()
    for content in (whole[: len(whole) // 2], b"garbage", b""):
        (tmp_path / "s.ckpt").write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            trained(digits, stage, tmp_path, space)


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    trained(digits, stage, tmp_path, space)
    kept = (tmp_path / "s.ckpt").read_bytes()
    wild = replace(stage, lr=float("1e30"), warmup_epochs=0)
    (tmp_path / "wild").mkdir()
    told = r"at step \d+ of 4 of epoch 1 the loss of Arch\(.*\) is nan; .* lower learning rate"
    with pytest.raises(TrainingError, match=told):
        trained(digits, wild, tmp_path / "wild", space)
    assert (tmp_path / "s.ckpt").read_bytes() == kept


def test_a_training_that_a_fault_made_infinite_goes_on_from_its_last_sound_epoch(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    """What one bad step of a machine spoils is not in the checkpoint."""
    arch = Arch(lora=(2, 0, 0, 1))

    def fit(path: Path, spoil: bool) -> TrainLog:
        backbone = load_backbone("vit-digits")
        net = build(backbone, arch, 5, stage, 0)

        def report(progress: Progress) -> None:
            if spoil and progress.done == 1:
                with torch.no_grad():
                    next(net.prompts.parameters()).fill_(float("nan"))

        task = Task(digits, backbone.preprocess, torch.device("cpu"))
        return train(net, task, digits.train, stage, name="x", plan=only(arch), seed=0,
                     checkpoint=path, report=report)  # fmt: skip

    whole = fit(tmp_path / "whole.ckpt", spoil=False)
    told = r"at step 1 of 4 of epoch 2 the loss of Arch\(lora=.*the weights of epoch 1 are in"
    with pytest.raises(TrainingError, match=told):
        fit(tmp_path / "cut.ckpt", spoil=True)
    assert fit(tmp_path / "cut.ckpt", spoil=False).losses == whole.losses


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    stage = Stage(epochs=10, lr=1.0, batch_size=8, warmup_epochs=2)
    assert learning_rate(stage, 0) == 0
    assert learning_rate(stage, 1) == pytest.approx(0.5)
    assert learning_rate(stage, 2) == pytest.approx(1.0)
    assert learning_rate(stage, 6) == pytest.approx(0.5)
    assert learning_rate(stage, 10) == pytest.approx(0.0)


def test_one_arch_of_the_draw_is_trained_a_step(
    digits: Dataset, stage: Stage, space: Space, tmp_path: Path
) -> None:
    """Weights that no drawn arch uses stay as they were."""
    backbone = load_backbone("vit-digits")
    net = build(backbone, space, 5, stage, seed=0)
    before = {k: v.detach().clone() for k, v in net.trainable().items()}
    arch = Arch(lora=(2, 0, 0, 0))
    train(
        net, Task(digits, backbone.preprocess, CPU), digits.train, stage, name="x",
        plan=only(arch), seed=0, checkpoint=tmp_path / "x.ckpt",
    )  # fmt: skip
    moved = {k for k, v in net.trainable().items() if not torch.equal(v, before[k])}
    assert moved == {"prompts.lora.0.down", "prompts.lora.0.up", "backbone.head.weight",
                     "backbone.head.bias"}  # fmt: skip
    assert torch.equal(net.prompts["lora"][0].up[:, 2:], before["prompts.lora.0.up"][:, 2:])


def shipped(name: str, *, trained: bool) -> Backbone:
    """An embedded backbone, with its weights or with random ones."""
    backbone = load_backbone(name)
    if not trained:
        torch.manual_seed(0)
        backbone.model.init_weights("")  # type: ignore[operator]
    return backbone


def test_retraining_beats_chance_and_pretraining_beats_random_weights(
    digits: Dataset, tmp_path: Path
) -> None:
    stage = Stage(epochs=15, lr=2e-3, batch_size=64, warmup_epochs=1)
    arch = Arch(lora=(4,) * 4)
    accuracy = {}
    for name in ("pretrained", "random"):
        backbone = shipped("vit-digits", trained=name == "pretrained")
        found = retrain(
            arch, backbone, Task(digits, backbone.preprocess, CPU), stage,
            seed=0, checkpoint=tmp_path / f"{name}.ckpt",
        )  # fmt: skip
        assert found.result.split == "test"
        assert found.log.passes == 3 * 299 * 15
        accuracy[name] = found.result.accuracy
    assert accuracy["pretrained"] > 0.5
    assert accuracy["pretrained"] > accuracy["random"] + 0.1


def test_the_linear_probe_is_the_least_penalised_cross_entropy(digits: Dataset) -> None:
    """Against scikit-learn's logistic regression on the same features and penalty."""
    backbone = load_backbone("vit-digits")
    task = Task(digits, backbone.preprocess, CPU)
    probe = linear_probe(backbone, task)
    assert probe.result.split == "test"
    assert (probe.passes, probe.result.passes) == (299, 597)
    assert probe.result.accuracy > 0.5
    with torch.no_grad():
        x, y = zip(
            *(next(digits.split(s).batches(999, task.preprocess, CPU)) for s in SPLITS), strict=True
        )
        train, val, test = (backbone.model(images).double() for images in x)
    mean, std = train.mean(0), train.std(0)
    both = (torch.cat([train, val]) - mean) / std
    model = LogisticRegression(C=1 / (probe.penalty * len(both)), max_iter=2000, tol=1e-8)
    model.fit(both.numpy(), torch.cat(y[:2]).numpy())
    logits = torch.from_numpy(model.decision_function(((test - mean) / std).numpy()))
    loss = torch.nn.functional.cross_entropy(logits, y[2]).item()
    assert probe.result.loss == pytest.approx(loss, abs=1e-3)
    assert linear_probe(backbone, task).result == probe.result


def test_the_shipped_vit_is_small_and_its_features_transfer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A linear probe on its class token, against random weights of the same architecture."""
    asset = files("noahnas").joinpath("assets", EMBEDDED["vit-nano"])
    assert len(asset.read_bytes()) <= 8 * 2**20
    monkeypatch.setattr(tasks, "COUNTS", {"train": 300, "val": 60, "test": 300})
    accuracy = {}
    for name in ("shipped", "random"):
        backbone = shipped("vit-nano", trained=name == "shipped")
        task = Task(load_data("count", LoadOptions((56, 56))), backbone.preprocess, CPU)
        accuracy[name] = linear_probe(backbone, task).result.accuracy
    assert accuracy["shipped"] > accuracy["random"] + 0.08


def test_evaluation_measures_what_it_says(digits: Dataset, space: Space) -> None:
    backbone = load_backbone("vit-digits")
    net = build(backbone, space, 5, Stage(1, 1e-3, 8), seed=0)
    arch = space.draw(np.random.default_rng(0))
    task = Task(digits, backbone.preprocess, CPU)
    result = evaluate(net, arch, task, batch_size=7)
    x, y = next(digits.val.batches(999, backbone.preprocess, CPU))
    with torch.no_grad():
        logits = net(x, arch)
    hit = logits.argmax(1) == y
    assert result.accuracy == pytest.approx(hit.float().mean().item())
    assert result.balanced_accuracy == pytest.approx(
        np.mean([hit[y == c].float().mean() for c in range(5)]), abs=1e-6
    )
    assert result.loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits, y).item(), abs=1e-5
    )
    assert (result.params, result.passes, result.split) == (space.params(arch), 99, "val")
    assert evaluate(net, arch, task, images=10).passes == 10


def test_evaluation_has_no_dropout_and_training_has_what_the_stage_says(
    digits: Dataset, space: Space
) -> None:
    stage = Stage(1, 1e-3, 8, drop_path=0.5, dropout=0.7)
    backbone = load_backbone("vit-digits", stage.drop_path)
    net = awake(build(backbone, space, 5, stage, seed=0)).train()
    assert net.prompts["lora"][0].dropout == 0.7
    assert backbone.model.blocks[3].drop_path2.drop_prob == 0.5
    x, _ = next(digits.val.batches(9, backbone.preprocess, CPU))
    assert not torch.equal(net(x, FULL), net(x, FULL))
    task = Task(digits, backbone.preprocess, CPU)
    assert evaluate(net, FULL, task) == evaluate(net.train(), FULL, task)


def test_weights_without_a_gradient_step_of_their_own_decay_with_the_stage(
    digits: Dataset, space: Space, tmp_path: Path
) -> None:
    norms = []
    for decay in (0.0, 10.0):
        backbone = load_backbone("vit-digits")
        stage = Stage(3, 1e-3, 64, weight_decay=decay)
        net = build(backbone, Arch(lora=(8,) * 4), 5, stage, seed=0)
        train(
            net, Task(digits, backbone.preprocess, CPU), digits.train, stage, name="x", seed=0,
            plan=only(Arch(lora=(8,) * 4)),
            checkpoint=tmp_path / f"{decay}.ckpt",
        )  # fmt: skip
        norms.append(net.prompts["lora"][0].down.norm().item())
    assert norms[1] < 0.95 * norms[0]


def test_an_unknown_or_absent_device_is_refused() -> None:
    with pytest.raises(NoahnasError, match="unknown device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(NoahnasError, match="no CUDA device here"):
            choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same_predictions_as_the_cpu(digits: Dataset, space: Space) -> None:
    """Where the two largest logits are far enough apart, one arch alone or several together."""
    backbone = load_backbone("vit-digits")
    net = awake(build(backbone, space, 5, Stage(1, 1e-3, 8), seed=0)).eval()
    with torch.no_grad():
        net.head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr, operator]
    archs = space.sample(np.random.default_rng(0), 8, prior="paper")
    x, _ = next(digits.val.batches(999, backbone.preprocess, CPU))
    losses, logits = [], []
    for device in (CPU, torch.device("cuda")):
        task = Task(digits, backbone.preprocess, device)
        losses.append([result.loss for result in evaluate_batch(net.to(device), archs, task)])
        with torch.inference_mode():
            together = dict(wide(net, x.to(device), tree(net, archs), 2048))
            logits.append(torch.stack([net(x.to(device), arch).cpu() for arch in archs]))
            logits.append(torch.stack([together[arch].cpu() for arch in archs]))
    assert losses[1] == pytest.approx(losses[0], abs=2e-2)
    best = logits[0].topk(2).values  # (archs, n, 2)
    clear = best[..., 0] - best[..., 1] > GPU_GAP  # (archs, n)
    assert clear.float().mean() > 0.8
    for found in logits:
        assert torch.equal(found.argmax(-1)[clear], logits[0].argmax(-1)[clear])
