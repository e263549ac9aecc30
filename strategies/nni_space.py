"""The genes of a space as an NNI model space, mutated for a one-shot method."""

from __future__ import annotations

import itertools
import logging
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from noahnas.errors import StrategyError
from noahnas.space import Gene, Space


def model_space(space: Space, method: str, seed: int) -> Any:
    """The genes as an NNI model space, mutated for a method; calling it gives the genes' weights.

    Every gene is a module that holds an `nni.choice` among the indices of its choices (NNI sorts
    what it chooses from, and texts, numbers and None have no order); NNI's own strategy replaces
    it by one that samples. NNI draws initial values from torch's generator, which is seeded and
    restored.
    """
    nni = _nni()
    choice, nas, strategies, base = nni

    class Choice(nas.MutableModule):  # type: ignore[misc, name-defined]
        def __init__(self, position: int, gene: Gene) -> None:
            super().__init__()
            self.gene = gene
            label = f"{position}_{gene.name}".replace(".", "_").replace("-", "_")
            self.choice = choice(label, list(range(len(gene.choices))))
            self.add_mutable(self.choice)

    class Sampled(base.BaseSuperNetModule):  # type: ignore[misc, name-defined]
        """A gene whose value NNI's sampling policy decides."""

        def __init__(self, chosen: Choice, memo: dict[str, Any], kwargs: dict[str, Any]) -> None:
            super().__init__()
            self.gene = chosen.gene
            self.mutable_arguments = {"index": chosen.choice}
            self.init_arguments: dict[str, Any] = {}
            self.add_mutable(chosen.choice)
            self.sampling_policy = kwargs["mixed_op_sampling"](self, memo, kwargs)

        def resample(self, memo: dict[str, Any]) -> Any:
            return self.sampling_policy.resample(self, memo)

        def export(self, memo: dict[str, Any]) -> Any:
            return self.sampling_policy.export(self, memo)

        def export_probs(self, memo: dict[str, Any]) -> Any:
            return self.sampling_policy.export_probs(self, memo)

        def forward(self) -> Any:
            found = self.sampling_policy.forward_argument(self, "index")
            if method == "spos":
                return self.gene.choices[found]
            return {self.gene.choices[index]: weight for index, weight in found.items()}

    class Genes(nas.ModelSpace):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            free = [pair for pair in enumerate(space.genes) if len(pair[1].choices) > 1]
            self.genes = nn.ModuleList(Choice(position, gene) for position, gene in free)

        @property
        def free(self) -> list[Any]:
            """The genes with a choice, each now a module that samples."""
            return list(self.genes)

        def extra_oneshot_hooks(self, _strategy: Any) -> list[Any]:
            def hook(module: Any, _name: str, memo: Any, kwargs: Any) -> Any:
                return (Sampled(module, memo, kwargs), True) if type(module) is Choice else None

            return [hook]

        def forward(self) -> dict[str, Any]:
            free: dict[str, Any] = {module.gene.name: module() for module in self.free}
            one = next((p.new_ones(()) for p in self.parameters()), torch.ones(()))
            fixed: dict[str, Any] = {
                gene.name: gene.choices[0] if method == "spos" else {gene.choices[0]: one}
                for gene in space.genes
                if gene.name not in free
            }
            return free | fixed

        def alphas(self) -> list[nn.Parameter]:
            """The architecture parameters, in the genes' order."""
            if method == "spos":
                return [nn.Parameter(torch.zeros(()))]
            return list(
                itertools.chain.from_iterable(module.arch_parameters() for module in self.free)
            )

        def probabilities(self) -> dict[str, Any]:
            """The softmax of the architecture parameters, without Gumbel's noise."""
            found: dict[str, Any] = self()
            for module in self.free:
                (alpha,) = module.arch_parameters()
                weights = alpha.softmax(dim=0)  # (choices)
                found[module.gene.name] = dict(zip(module.gene.choices, weights, strict=True))
            return found

        def temperature(self, share: float) -> None:
            """Cool Gumbel's softmax from 1 to 1/3 as `share` goes from 0 to 1."""
            for module in self.modules():
                if hasattr(module, "tau"):
                    module.tau = 1 - share * 2 / 3

        def resample(self, seed: int) -> None:
            """Draw a path; NNI would draw it from a generator without a seed."""
            sample: dict[str, Any] = {}
            state = np.random.RandomState(seed)  # what NNI asks for
            for module in self.free:
                for label, mutable in module.simplify().items():
                    sample[label] = mutable.random({}, state)
                module.resample(sample)

    kind = {
        "gumbel": strategies.GumbelDARTS,
        "darts": strategies.DARTS,
        "spos": strategies.RandomOneShot,
    }[method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().mutate_model(Genes())


def _nni() -> Any:
    """NNI's parts, imported quietly: it warns of torch's newer classes and prints to stdout."""
    root = logging.getLogger("nni")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nni
            import nni.nas.nn.pytorch as nas
            import nni.nas.strategy as strategies
            from nni.nas.oneshot.pytorch.supermodule import base
    except ImportError as e:
        raise StrategyError(
            "the nni strategy needs nni 3.0 (x86-64, Python before 3.14): pip install nni "
            f"pytorch-lightning ({e})"
        ) from e
    for handler in list(root.handlers):
        root.removeHandler(handler)
    return nni.choice, nas, strategies, base
