"""Many draws in blocks, so that no run holds more numbers than fit into little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyro_klmodes.tracing.by_site import SiteDensity
from pyro_klmodes.tracing.draws import Draws

__all__ = ["NUMBERS", "block_sizes", "joined"]

#: numbers that one run may hold in the sites of model and guide, all draws together
NUMBERS = 2**22


def block_sizes(
    count: int,
    numbers: int,  # that one draw takes up in the sites of model and guide
) -> list[int]:
    """How many draws each run has.

    All runs but the last have as many as the numbers of one draw allow: which is a matter of the
    model, so the first draws of a longer run are those of a shorter one, as long as both take whole
    blocks, and runs of one block have the draws of a single run.

    Example:
        >>> block_sizes(10, 2**20)
        [4, 4, 2]
    """
    most = max(1, NUMBERS // numbers)
    whole, rest = divmod(count, most)
    return [most] * whole + [rest] * (rest > 0)


def joined(parts: Sequence[Draws]) -> Draws:
    """Blocks of draws from one layout and minibatch as one.

    The terms, which are for messages, stay those of the first block.
    """
    first, *others = parts
    if not others:
        return first
    names = [n for n in first.values if all(n in part.values for part in others)]
    return replace(
        first,
        log_p=torch.cat([part.log_p for part in parts]),
        log_q=torch.cat([part.log_q for part in parts]),
        score=_scores(parts),
        values={n: torch.cat([part.values[n] for part in parts]) for n in names},
        by_site=None if first.by_site is None else _sites(parts),
    )


def _scores(parts: Sequence[Draws]) -> Tensor | None:
    scores = [part.score for part in parts if part.score is not None]
    return torch.cat(scores) if len(scores) == len(parts) else None


def _sites(parts: Sequence[Draws]) -> dict[str, SiteDensity]:
    return {
        name: replace(
            site,
            log_p=torch.cat([part.sites[name].log_p for part in parts]),
            log_q=torch.cat([part.sites[name].log_q for part in parts]),
        )
        for name, site in parts[0].sites.items()
    }
