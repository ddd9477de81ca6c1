"""Discrete sites with a probability for every combination of their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.block_families.base import BlockFamily, BlockParams
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.base import Initial
from pyro_klmodes.guides.site_families.bernoulli import Bernoulli
from pyro_klmodes.guides.site_families.categorical import Categorical
from pyro_klmodes.guides.site_families.supports import is_boolean, number_of_categories

__all__ = ["JointStates"]


class JointStates(BlockFamily):
    """The joint table of discrete sites: each has log-odds for all states of those before it.

    Parameter ``logits``: ``(*batch, *event, n_1, ..., n_(i-1))`` of a Bernoulli, with n_i more for
    a Categorical.

    Args:
        latents: discrete sites of the same plates and event shape.

    Limits: the product of the numbers of states for every element.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro_klmodes.guides import AutoBlocks
        >>> def model():
        ...     pyro.sample("a", dist.Bernoulli(0.5))
        ...     pyro.sample("b", dist.Categorical(torch.ones(3)))
        >>> guide = AutoBlocks(model, [("a", "b")])
        >>> sorted(guide())
        ['a', 'b']
        >>> {name: tuple(p.shape) for name, p in guide.parameters_of("b").items()}
        {'logits': (2, 3)}
    """

    def __init__(self, latents: Sequence[Latent]) -> None:
        self.latents = tuple(latents)
        #: how many states every site has
        self.numbers = tuple(number_of_categories(x.support) or 2 for x in latents)

    def initial(self, scale: float) -> dict[str, dict[str, Initial]]:
        """Log-odds ``1 / scale`` in favour of the initial values, independent."""
        found = {}
        for i, latent in enumerate(self.latents):
            family = Bernoulli() if is_boolean(latent.support) else Categorical()
            own = family.initial(latent.initial, latent.event_dim, scale, latent.support)["logits"]
            shape, inner = latent.initial.shape, own.value.shape[latent.initial.dim() :]
            logits = own.value.reshape([*shape, *[1] * i, *inner])
            logits = logits.expand([*shape, *self.numbers[:i], *inner]).contiguous()
            event_dim = latent.event_dim + i + len(inner)
            found[latent.name] = {"logits": Initial(logits, constraints.real, event_dim)}
        return found

    def distribution(self, site: str, params: BlockParams, drawn: Mapping[str, Tensor]) -> Any:
        """Bernoulli or Categorical, with the log-odds that belong to the states before."""
        latent = self.latents[self.sites.index(site)]
        logits = params[site]["logits"]
        states = tuple(drawn[n].long() for n in self.before(site))
        if is_boolean(latent.support):
            chosen = Vindex(logits)[(..., *states)] if states else logits
            return dist.Bernoulli(logits=chosen).to_event(latent.event_dim)
        chosen = Vindex(logits)[(..., *states, slice(None))] if states else logits
        return dist.Categorical(logits=chosen).to_event(latent.event_dim)
