"""Log-normals, the default on the positive half line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.normal import Normal
from pyro_klmodes.guides.site_families.supports import is_positive

__all__ = ["LogNormal"]


@dataclass(frozen=True)
class LogNormal(Normal):
    """``log x ~ Normal(loc, scale)`` in every entry of a positive site.

    Parameters ``loc``, ``scale``: ``(*batch, *event)``. Natural parameters
    ``(loc / scale^2, -1 / (2 scale^2))`` for the statistics ``(log x, log^2 x)``, base measure
    ``(2 pi)^(-1/2) / x``. Starts with median at the value and ``scale`` as the standard deviation
    of log x.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> params = {"loc": torch.tensor(0.0), "scale": torch.tensor(1.0)}
        >>> LogNormal().quantile(params, torch.tensor([0.025, 0.975]), constraints.positive)
        tensor([0.1409, 7.0991])
    """

    def accepts(self, support: Constraint) -> bool:
        """The half line from zero."""
        return is_positive(support)

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``LogNormal(loc, scale)``."""
        return dist.LogNormal(params["loc"], params["scale"]).to_event(event_dim)
