"""Discrete sites together: all combinations of their states."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides.block_families import JointStates
from pyro_klmodes.guides.site_families.supports import is_boolean
from pyro_klmodes.inference.cavi.rules.base import JointRule, Nodes, Params, blended

__all__ = ["JointStatesRule"]


class JointStatesRule(JointRule):
    """All combinations of states; points are their probabilities, those of the first site.

    Args:
        family: with the sites and their numbers of states.
    """

    def __init__(self, family: JointStates) -> None:
        self.sites, self.numbers = family.sites, family.numbers
        self.binary = [is_boolean(x.support) for x in family.latents]

    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Probabilities of all combinations, ``(n_1 n_2 ..., *batch)``, the last site fastest."""
        return {self.sites[0]: self._log_table(params).exp()}

    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """Every site's state in all combinations, weighed by their probabilities."""
        weights = points[self.sites[0]]
        found = {}
        states = torch.arange(len(weights), device=weights.device)
        for i, site in enumerate(self.sites):
            own = states // math.prod(self.numbers[i + 1 :]) % self.numbers[i]
            own = own.to(weights.dtype) if self.binary[i] else own
            column = own.reshape(-1, *[1] * (weights.dim() - 1))
            found[site] = Nodes(column.expand(weights.shape), weights)
        return found

    def step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
    ) -> dict[str, dict[str, Tensor]]:
        """The log-potentials of all combinations, as log-odds of every site given those before."""
        now = self._log_table(params)
        (table,) = blended((now,), (gradients[self.sites[0]].log_softmax(0),), rho)
        table = table.movedim(0, -1)
        left = table.reshape(*table.shape[:-1], *self.numbers)
        found = {}
        for i in reversed(range(len(self.sites))):
            own = left[..., 1] - left[..., 0] if self.binary[i] else left.log_softmax(-1)
            found[self.sites[i]] = {"logits": own}
            left = left.logsumexp(-1)
        return found

    def entropy(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """``-sum p log p``, all of it with the first site."""
        log_p = self._log_table(params)
        return {self.sites[0]: -(log_p.exp() * log_p.clamp(min=-1e30)).sum(0)}

    def _log_table(self, params: Mapping[str, Params]) -> Tensor:  # (n_1 n_2 ..., *batch)
        table: Tensor | None = None
        for site, binary in zip(self.sites, self.binary, strict=True):
            logits = params[site]["logits"]
            if binary:
                logits = torch.stack([torch.zeros_like(logits), logits], -1)
            own = logits.log_softmax(-1)
            table = own if table is None else table.unsqueeze(-1) + own
        assert table is not None
        flat = table.flatten(table.dim() - len(self.sites))
        return flat.movedim(-1, 0)
