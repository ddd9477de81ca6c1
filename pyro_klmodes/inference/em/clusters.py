"""A first guess at discrete latents: which of some centres each datum is nearest to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.tracing.enumerated_sites import DiscreteLatent, discrete_latents, held_at
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.fillings import Enumerated, weights_of

__all__ = ["clustered"]


def clustered(
    filled: Filled,
    values: Mapping[str, Tensor],  # {parameter: (*shape)}
    count: int,
) -> dict[str, Tensor]:  # {site: (count, *batch)}
    """Weights of all sites with every discrete latent at the centre that its data are nearest to.

    Latents with as many states and data of the same kind, such as those of all times of a chain,
    share their centres.

    Raises:
        UnsupportedStructure: naming a discrete latent without data of its own.
    """
    groups: dict[tuple[int, int], list[DiscreteLatent]] = defaultdict(list)
    for latent in discrete_latents(filled, values):
        groups[latent.states, latent.data.shape[1]].append(latent)
    states: dict[str, Tensor] = {}
    for (number, _), group in groups.items():
        nearest = _nearest(torch.cat([latent.data for latent in group]), number, count)
        sizes = [len(latent.data) for latent in group]
        for latent, rows in zip(group, nearest.split(sizes, dim=1), strict=True):
            states[latent.name] = rows.reshape(count, *latent.batch)
    log_probs = filled.log_probs({n: v.expand(count, *v.shape) for n, v in values.items()})
    tables = held_at(filled.trace(values), log_probs, states)
    return weights_of(Enumerated(filled, values).log_evidence, tables)[1]


def _nearest(
    data: Tensor,  # (N, D)
    states: int,
    count: int,
) -> Tensor:  # (count, N)
    """The number of the nearest of some centres, in units of the data's standard deviations."""
    scaled = data / data.std(0).clamp(min=torch.finfo(data.dtype).tiny)
    return torch.cdist(scaled.expand(count, -1, -1), _seeds(scaled, states, count)).argmin(-1)


def _seeds(
    data: Tensor,  # (N, D)
    states: int,
    count: int,
) -> Tensor:  # (count, states, D)
    """The seeds of k-means++, for all starts at a time."""
    everywhere = data.expand(count, -1, -1)
    seeds = data[torch.randint(len(data), (count, 1))]
    nearest = torch.cdist(everywhere, seeds).square()[..., 0]  # (count, N)
    while seeds.shape[1] < states:
        none_left = nearest.sum(1, keepdim=True) == 0  # fewer different data than states
        chances = torch.where(none_left, torch.ones_like(nearest), nearest)
        new = data[torch.multinomial(chances, 1)]
        seeds = torch.cat([seeds, new], 1)
        nearest = torch.minimum(nearest, torch.cdist(everywhere, new).square()[..., 0])
    return seeds
