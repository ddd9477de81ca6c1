"""Coordinates of discrete families: log-odds, against the most probable state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.linear_response.coordinates import Coordinates, Params, certain_below

__all__ = ["BernoulliCoordinates", "CategoricalCoordinates"]


class BernoulliCoordinates(Coordinates):
    """The log-odds; the value is zero or one."""

    def free(self, params: Params) -> Tensor:  # (*elements, 1)
        """The log-odds, no further out than where nothing changes any more."""
        limit = -2 * certain_below(params["logits"].dtype)
        return params["logits"].clamp(-limit, limit).unsqueeze(-1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """The log-odds."""
        return {"logits": free.squeeze(-1)}

    def pinned(self, free: Tensor) -> Tensor:
        """What is certain."""
        return free.abs() > -certain_below(free.dtype)

    def mean(self, params: Params) -> Tensor:
        """The probability of one."""
        return params["logits"].sigmoid()

    def variance(self, params: Params) -> Tensor:
        """``p (1 - p)``."""
        return params["logits"].sigmoid() * (-params["logits"]).sigmoid()


class CategoricalCoordinates(Coordinates):
    """Log-odds of the other states against the most probable one; the value is one-hot."""

    def __init__(self, family: Any, support: Any, params: Params) -> None:
        super().__init__(family, support)
        self.order = params["logits"].argsort(-1, descending=True)
        self.value_shape = self.order.shape[-1:]

    def free(self, params: Params) -> Tensor:  # (*elements, n - 1)
        """Differences of logits, no larger than where nothing changes any more."""
        logits = params["logits"].gather(-1, self.order)
        return (logits[..., 1:] - logits[..., :1]).clamp(min=2 * certain_below(logits.dtype))

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """Logits, zero for the most probable state."""
        most = free.new_zeros(*free.shape[:-1], 1)
        logits = torch.cat([most, free], -1)
        return {"logits": torch.zeros_like(logits).scatter(-1, self.order, logits)}

    def pinned(self, free: Tensor) -> Tensor:
        """What is impossible."""
        return free < certain_below(free.dtype)

    def mean(self, params: Params) -> Tensor:
        """The probabilities."""
        return params["logits"].softmax(-1)

    def variance(self, params: Params) -> Tensor:
        """``p (1 - p)``."""
        p = params["logits"].softmax(-1)
        return p * (1 - p)
