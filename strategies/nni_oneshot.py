"""NNI one-shot: architecture parameters trained by gradient, or single paths, with NNI 3.0."""

from __future__ import annotations

import copy
import io
import math
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from noahnas.data import Split, Task
from noahnas.errors import StrategyError
from noahnas.evaluate import evaluate
from noahnas.files import own_bytes, sealed, unsealed, write_atomic
from noahnas.progress import Progress, Report
from noahnas.relax import check_mixture, decode, expected_params, mixture
from noahnas.space import Arch, Space
from noahnas.strategies.nni_space import model_space
from noahnas.strategy import OneShot, Proposal
from noahnas.supernet import Supernet
from noahnas.train import PASSES_PER_TRAINING_IMAGE

Batch = tuple[Tensor, Tensor]


class NNIOneShot(OneShot):
    """Trains probabilities of the genes on a copy of the shared weights, then decodes archs.

    `method=gumbel` (GumbelDARTS) and `darts` keep a probability for each choice of each gene, and
    take turns: a step of the probabilities on a batch of val, a step of the weights on a batch of
    train. The expected number of parameters, where it exceeds the budget, is added to the loss.
    Archs are decoded within the budget: the likeliest ones for a range of prices of a parameter,
    then draws. `method=spos` (RandomOneShot) trains one uniform path a step, scores one on val with
    the copy, and proposes those with the least loss.

    Attributes are searched like dims. `gumbel` and `darts` compute every combination of a module's
    attribute values in every block, in time and memory: offer few, or take spos.

    Rules are not part of what is trained: an arch that breaks one is led back, or drawn anew.

    All that happens before the first ask, is charged in passes, and goes on from a checkpoint.

    Not for spaces whose modules are few and wide: what is trained is a mean of all widths. Needs
    nni 3.0, which exists for x86-64 and Python before 3.14.

    Source: Dong & Yang, arXiv:1910.04465 (Gumbel); Liu et al., arXiv:1806.09055 (DARTS);
    Guo et al., arXiv:1904.00420 (single path).

    Raises:
        ValueError: if a number is out of range.
        StrategyError: if nni cannot be imported; if `method` is not spos and a module may have more
            than 512 combinations of attribute values in a block, or adds tokens under some only.
    """

    summary = "NNI one-shot: Gumbel-DARTS, DARTS or single-path, decoded within the budget"

    def __init__(
        self,
        space: Space,
        seed: int,
        method: Literal["gumbel", "darts", "spos"] = "gumbel",
        epochs: int = 10,
        lr: float = 5e-4,
        arc_lr: float = 0.1,
        batch: int = 64,
        penalty: float = 2.0,
    ) -> None:
        super().__init__(space, seed)
        if epochs < 1 or batch < 1:
            raise ValueError("epochs and batch are at least 1")
        if not all(0 <= rate < math.inf for rate in (lr, arc_lr, penalty)):
            raise ValueError("lr, arc_lr and penalty are finite and at least 0")
        if method != "spos":
            check_mixture(space)
        self.method, self.epochs, self.batch = method, epochs, batch
        self.lr, self.arc_lr, self.penalty = lr, arc_lr, penalty
        self._ranked: list[Arch] | None = None
        self._probabilities: list[NDArray[np.float64]] = []
        self._space = model_space(space, method, seed)

    # --- proposing ---------------------------------------------------------------------------

    def ask(self, n: int) -> list[Proposal]:
        """The decoded archs in order, then draws from the probabilities, then exact draws.

        Raises:
            StrategyError: if `begin` was not called.
        """
        if self._ranked is None:
            raise StrategyError("the nni strategy needs a supernet: call begin first")
        rng = self.rng()
        ranked = iter(self._ranked)

        def decoded(_position: int) -> Arch:
            return next(ranked, None) or self._drawn(rng)

        tries = len(self._ranked) + 50
        return self.fresh(decoded, n, tries) or self.fresh(lambda _: self.space.sample(rng)[0], n)

    def _drawn(self, rng: np.random.Generator) -> Arch:
        if not self._probabilities:
            return self.space.sample(rng)[0]
        vector = [int(rng.choice(len(p), p=p)) for p in self._probabilities]
        return self.space.shrink(self.space.decode(vector), rng)

    # --- training ----------------------------------------------------------------------------

    def begin(
        self, supernet: Supernet, task: Task, checkpoint: Path, report: Report = lambda _: None
    ) -> tuple[int, float]:
        """Train on a copy of `supernet`; returns the passes and seconds that this costs in all."""
        net = copy.deepcopy(supernet)
        self._space.to(task.device)
        devices = [task.device] if task.device.type == "cuda" else []
        weights = torch.optim.AdamW(net.trainable().values(), lr=self.lr)
        arc = torch.optim.Adam(self._space.alphas(), lr=self.arc_lr, betas=(0.5, 0.999))
        arc_or_none = None if self.method == "spos" else arc
        state = _State(checkpoint, self._key(), net, self._space, weights, arc_or_none)
        paths: list[tuple[float, list[int]]] = state.restore()
        steps = max(1, math.ceil(len(task.data.val) / self.batch))
        for epoch in range(state.epoch, self.epochs):
            began = time.perf_counter()
            rng = np.random.default_rng([self.seed, epoch])
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(int(rng.integers(2**31)))
                self._space.temperature(epoch / self.epochs)
                train = _batches(task.data.train, task, self.batch, steps, rng)
                val = _batches(task.data.val, task, self.batch, steps, rng)
                for ours, theirs in zip(train, val, strict=True):
                    if self.method == "spos":
                        self._path_step(net, weights, ours, rng)
                    else:
                        self._alpha_step(net, arc, theirs)
                        self._weight_step(net, weights, ours)
            if not all(torch.isfinite(alpha).all() for alpha in self._space.alphas()):
                raise StrategyError("nni: the probabilities are not finite; lower lr or arc_lr")
            if self.method == "spos":
                paths += [self._scored(net, task, rng) for _ in range(steps)]
            state.save(epoch + 1, paths, state.seconds + time.perf_counter() - began)
            report(Progress("one-shot", epoch + 1, self.epochs, self._note(paths)))
        self._decode(paths)
        return self._passes(len(task.data.val), steps), state.seconds

    def _passes(self, val: int, steps: int) -> int:
        """What all epochs cost: training on batches of train, and of val or of scoring on val."""
        trained = PASSES_PER_TRAINING_IMAGE * steps * self.batch
        on_val = steps * val if self.method == "spos" else trained
        return self.epochs * (trained + on_val)

    def _key(self) -> str:
        options = (self.method, self.epochs, self.lr, self.arc_lr, self.batch, self.penalty)
        return f"nni {self.seed} {options}"

    def _alpha_step(self, net: Supernet, arc: torch.optim.Optimizer, batch: Batch) -> None:
        weights = self._space()
        logits = net.eval().mixture(batch[0], *mixture(self.space, weights))  # (B, classes)
        loss = F.cross_entropy(logits, batch[1])
        limit = self.space.limits[1]
        if limit is not None:
            excess = expected_params(self.space, weights) / max(limit, 1) - 1
            loss = loss + self.penalty * F.relu(excess)
        arc.zero_grad()
        loss.backward()
        arc.step()

    def _weight_step(self, net: Supernet, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        with torch.no_grad():
            dims, values = mixture(self.space, self._space())
        loss = F.cross_entropy(net.train().mixture(batch[0], dims, values), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _path_step(
        self,
        net: Supernet,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        rng: np.random.Generator,
    ) -> None:
        arch = self._path(rng)
        loss = F.cross_entropy(net.train()(batch[0], arch), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _path(self, rng: np.random.Generator) -> Arch:
        self._space.resample(int(rng.integers(2**31)))
        values = self._space()
        genes = self.space.genes
        return self.space.decode([gene.choices.index(values[gene.name]) for gene in genes])

    def _scored(
        self, net: Supernet, task: Task, rng: np.random.Generator
    ) -> tuple[float, list[int]]:
        """A path within the budget and its loss on val under the copy's weights."""
        arch = self.space.shrink(self._path(rng), rng)
        return evaluate(net, arch, task).loss, list(self.space.encode(arch))

    def _note(self, paths: Sequence[tuple[float, list[int]]]) -> str:
        if self.method == "spos":
            return f"best val loss {min(paths)[0]:.3f}"
        with torch.no_grad():
            expected = float(expected_params(self.space, self._space.probabilities()))
        return f"expected parameters {expected:.0f}"

    # --- decoding ----------------------------------------------------------------------------

    def _decode(self, paths: Sequence[tuple[float, list[int]]]) -> None:
        if self.method == "spos":
            self._ranked = [self.space.decode(vector) for _, vector in sorted(paths)]
            return
        with torch.no_grad():
            weights = self._space.probabilities()
        self._probabilities = [_array(weights[gene.name]) for gene in self.space.genes]
        self._ranked = decode(self.space, self._probabilities)


def _batches(
    split: Split, task: Task, size: int, steps: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """`steps` batches of exactly `size` images, drawn without repetition while images last."""
    rounds = math.ceil(steps * size / len(split))
    order = np.concatenate([rng.permutation(len(split)) for _ in range(rounds)])[: steps * size]
    return split.batches(size, task.preprocess, task.device, torch.from_numpy(order))


def _array(weights: Mapping[int, Tensor]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = np.array([float(w) for w in weights.values()])
    p /= p.sum()
    return p


class _State:
    """The checkpoint of `begin`, written after each epoch."""

    def __init__(
        self,
        path: Path,
        key: str,
        net: Supernet,
        space: Any,
        weights: torch.optim.Optimizer,
        arc: torch.optim.Optimizer | None,
    ) -> None:
        self.path, self.key, self.net, self.space = path, key, net, space
        self.optimizers = [weights, arc] if arc else [weights]
        self.epoch = 0
        self.seconds = 0.0

    def save(self, epoch: int, paths: list[tuple[float, list[int]]], seconds: float) -> None:
        self.epoch, self.seconds = epoch, seconds
        buffer = io.BytesIO()
        content = {
            "key": self.key,
            "epoch": epoch,
            "seconds": seconds,
            "weights": {k: v.detach() for k, v in self.net.trainable().items()},
            "alphas": [alpha.detach() for alpha in self.space.alphas()],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "paths": paths,
        }
        torch.save(content, buffer)
        write_atomic(self.path, sealed(buffer.getvalue()))

    def restore(self) -> list[tuple[float, list[int]]]:
        if not self.path.exists():
            return []
        device = next(self.net.parameters()).device
        try:
            content = io.BytesIO(unsealed(own_bytes(self.path)))
            saved = torch.load(content, map_location=device, weights_only=True)
            if saved["key"] != self.key:
                raise StrategyError(f"{self.path} belongs to another search ({saved['key']})")
            self.net.load_state_dict(saved["weights"], strict=False)
            with torch.no_grad():
                for alpha, value in zip(self.space.alphas(), saved["alphas"], strict=True):
                    alpha.copy_(value)
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as e:
            raise StrategyError(f"{self.path} is damaged ({e}); remove it to begin anew") from e
        self.epoch, self.seconds = saved["epoch"], saved["seconds"]
        return [(loss, vector) for loss, vector in saved["paths"]]
