"""The next component: gradient ascent from several starts at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_klmodes.guides.joint.mixture import Mixture

__all__ = ["climb"]


def climb(
    candidates: Mixture,
    score: Callable[[Mixture], Tensor],  # -> (S,)
    steps: int,
    optim: PyroOptim,
) -> None:
    """Move each of S candidates uphill; one whose gradient is not finite stays for that step."""
    parameters = list(candidates.parameters())
    for _ in range(steps):
        scores = score(candidates)
        total = -torch.where(scores.isfinite(), scores, torch.zeros_like(scores)).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = _finite_rows(gradient)
        optim([p for p in parameters if p.grad is not None])
        for parameter in parameters:
            parameter.grad = None


def _finite_rows(
    gradient: Tensor,  # (S, ...)
) -> Tensor:  # (S, ...)
    finite = gradient.reshape(len(gradient), -1).isfinite().all(-1)
    finite = finite.reshape(-1, *[1] * (gradient.dim() - 1))
    return torch.where(finite, gradient, torch.zeros_like(gradient))
