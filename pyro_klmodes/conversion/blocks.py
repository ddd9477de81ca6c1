"""The draws of a posterior, a block at a time, the same ones in every pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.posteriors import Chains
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.full_data import FullData

__all__ = ["Block", "ChainBlocks", "Finite", "GuideBlocks", "derived_seed"]


@dataclass(frozen=True)
class Block:
    """Some draws of every chain.

    Attributes:
        number: which block this is.
        chains: how many chains it has.
        values: of every latent site at hand, ``(chains * s, *site_shape)``.
        statistics: of every draw, ``(chains * s,)``.
        log_p: ``(s, *cells)`` log-density of model and data, if the draws have weights.
        log_q: same shape, that of the guide.
        cells: names of the local plates.
    """

    number: int
    chains: int
    values: Mapping[str, Tensor] = field(repr=False)
    statistics: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    log_p: Tensor | None = field(default=None, repr=False)
    log_q: Tensor | None = field(default=None, repr=False)
    cells: tuple[str, ...] = ()

    @property
    def log_w(self) -> Tensor | None:  # (s, *cells)
        """Log-weights."""
        return None if self.log_p is None or self.log_q is None else self.log_p - self.log_q

    def __len__(self) -> int:
        return len(next(iter(self.values.values()))) // self.chains


def derived_seed(seed: int, purpose: int, block: int) -> int:
    """A seed for one use of random numbers, so that no use depends on the others.

    The draws of the first block have the seed itself, as ``FitResult.draws`` does.
    """
    if purpose == block == 0:
        return seed
    return int(np.random.SeedSequence([seed, purpose, block]).generate_state(1)[0])


@dataclass(frozen=True)
class GuideBlocks:
    """Draws from a guide; each pass draws them anew from the same seeds."""

    data: FullData
    count: int
    per_block: int
    seed: int
    weighed: bool

    def __iter__(self) -> Iterator[Block]:
        for number, start in enumerate(range(0, self.count, self.per_block)):
            size = min(self.per_block, self.count - start)
            with seeded(derived_seed(self.seed, 0, number)):
                block = self._block(number, size)
            yield block

    def _block(self, number: int, size: int) -> Block:
        if not self.weighed:
            return Block(number, 1, self.data.values(size))
        drawn = self.data.draws(size)
        return Block(
            number,
            1,
            {name: drawn.values[name] for name in self.data.latents},
            log_p=drawn.log_p,
            log_q=drawn.log_q,
            cells=drawn.plates,
        )


@dataclass(frozen=True)
class ChainBlocks:
    """Draws of Markov chains, with the log-density of each."""

    chains: Chains
    at: ModelAt
    per_block: int

    def __iter__(self) -> Iterator[Block]:
        chains, count = self.chains.shape
        per_block = max(1, self.per_block // chains)
        for number, start in enumerate(range(0, count, per_block)):
            rows = slice(start, start + per_block)
            values = {n: v[:, rows].flatten(0, 1) for n, v in self.chains.values.items()}
            _refuse_nonfinite(values)
            statistics = {n: v[:, rows].flatten(0, 1) for n, v in self.chains.statistics.items()}
            yield Block(number, chains, values, {"lp": self.at.log_joint(values), **statistics})


@dataclass(frozen=True)
class Finite:
    """Blocks of a guide none of whose values and weights is NaN or +inf."""

    blocks: GuideBlocks

    def __iter__(self) -> Iterator[Block]:
        for block in self.blocks:
            _refuse_nonfinite(block.values)
            log_w = block.log_w
            if log_w is not None and bool((log_w.isnan() | (log_w == torch.inf)).any()):
                raise InvalidArgument(
                    "log-weights of some draws are NaN or +inf: the log-density of model or guide "
                    "is not a number there. Check the model at draws of the guide."
                )
            yield block


def _refuse_nonfinite(values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        wrong = ~value.reshape(len(value), -1).isfinite().all(1)
        if bool(wrong.any()):
            raise InvalidArgument(
                f"{int(wrong.sum())} of {len(value)} draws of site '{name}' are NaN or infinite. "
                "The inference has diverged, or the site's values overflow: look at its "
                "parameters, or fit anew with a smaller step."
            )
