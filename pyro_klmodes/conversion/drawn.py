"""The draws that inference data are made of, and what takes all of them to know."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from pyro_klmodes.conversion.arrays import Array
from pyro_klmodes.conversion.blocks import Block, ChainBlocks, Finite, GuideBlocks, derived_seed
from pyro_klmodes.conversion.weights import Tail, resampled
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference.given import check_given, surveyed
from pyro_klmodes.posteriors import Chains, Guided
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.discrete import marginals
from pyro_klmodes.tracing.runs import Pair

__all__ = ["Drawn", "of_chains", "of_guide", "scope_of"]

_RESAMPLE = 4  # what random numbers are used for, see ``arrays``


@dataclass(frozen=True)
class Drawn:
    """Draws that can be passed over again, and the model they are of."""

    at: ModelAt
    blocks: Iterable[Block]
    count: int
    cells: tuple[str, ...] = ()
    khat: torch.Tensor | None = None  # (*cells), if it is known before
    weighed: bool = False
    note: str | None = None

    def summary(self, wanted: frozenset[str]) -> tuple[dict[str, Array], dict[str, Any]]:
        """What takes all draws to know: arrays and attributes."""
        extra: dict[str, Array] = {}
        found: dict[str, Any] = {} if self.note is None else {"log_weights": self.note}
        enumerated = bool(self.at.enumerated) and "constant_data" in wanted
        khat, cells = self.khat, self.cells
        tail = Tail(self.count) if self.weighed and khat is None else None
        sums: dict[str, Any] = {}
        for block in self.blocks if tail or enumerated else ():
            cells = block.cells
            if tail is not None and block.log_w is not None:
                tail.add(block.log_w)
            if enumerated:
                for name, table in marginals(self.at, block.values).items():
                    sums[name] = sums.get(name, 0.0) + table.sum(0)
        khat = khat if tail is None else tail.khat()
        if khat is not None:
            found["khat"] = float(khat.max())
            if cells:
                extra["khat"] = Array(khat, {p: i - len(cells) for i, p in enumerate(cells)})
        for name, total in sums.items():
            axes = {plate.name: plate.dim - 1 for plate in self.at.sites[name].plates}
            axes[f"{name}_state"] = -1
            extra[f"{name}_probabilities"] = Array(total / self.count, axes)
        return extra, found


def of_guide(posterior: Guided, count: int, seed: int, resample: str, *, keep: bool) -> Drawn:
    """Draws from a guide, kept in memory if they are to be."""
    pair = Pair(posterior.model, posterior.guide, posterior.args, posterior.kwargs)
    data = surveyed(pair)
    note = data.why_unweighed()
    if note is not None:
        if resample == "psis":
            raise InvalidArgument(f"resample='psis' needs log-weights, but {note}.")
        warnings.warn(
            f"the draws have no log-weights, because {note}: no log_p, log_q and k-hat.",
            KLModesWarning,
            stacklevel=3,
        )
    at = ModelAt(pair.model, pair.args, pair.kwargs, data.latents)
    blocks: Any = Finite(GuideBlocks(data, count, at.draws_per_run, seed, note is None))
    if resample == "psis":
        axes = {name: at.sites[name].axes for name in data.latents}
        blocks, khat = resampled(list(blocks), axes, derived_seed(seed, _RESAMPLE, 0))
        return Drawn(at, blocks, count, cells=blocks[0].cells, khat=khat)
    if keep:
        blocks = list(blocks)
    return Drawn(at, blocks, count, weighed=note is None, note=note)


def of_chains(posterior: Chains, resample: str) -> Drawn:
    """Draws of chains, which are there already."""
    if resample != "none":
        raise InvalidArgument("resample='psis' is for guides; chains have no log-weights.")
    if posterior.model is None:
        raise InvalidArgument(
            "the model of these chains is not known, because their kernel was given a potential "
            "function; pass MCMC with a kernel that was given the model."
        )
    check_given(posterior.args, posterior.kwargs, model=posterior.model)
    at = ModelAt(posterior.model, posterior.args, posterior.kwargs, posterior.values.keys())
    chains, count = posterior.shape
    blocks = ChainBlocks(posterior, at, at.draws_per_run)
    return Drawn(at, blocks, chains * count)


def scope_of(posterior: Guided | Chains) -> AbstractContextManager[Any]:
    """Where the fitted parameters are those of the global store."""
    return posterior.scope() if isinstance(posterior, Guided) else nullcontext()
