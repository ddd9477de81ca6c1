"""Concentrations of a Dirichlet with given moments of its logarithms; a Beta has two."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families.roots import increasing_root, inverse_digamma, trigamma

__all__ = ["concentration_around", "concentration_with_mean_logs"]


def concentration_around(
    value: Tensor,  # (*batch, n), positive with sum 1
    scale: float,
) -> Tensor:  # (*batch, n)
    """Concentrations whose log-ratios have the means of the value and a typical sd of ``scale``.

    ``E[log x_i - log x_j] = log value_i - log value_j`` and ``mean_i trigamma(a_i) = scale^2 / 2``:
    the variance of ``log x_i - log x_j`` is ``trigamma(a_i) + trigamma(a_j)``. They are
    ``a_i = inverse_digamma(log value_i + k)`` for the one k that has the second property.
    """
    log_value = value.detach().double().log()
    target = torch.full_like(log_value[..., 0], scale**2 / 2).log()

    def shortfall(k: Tensor) -> tuple[Tensor, Tensor]:
        a = inverse_digamma(log_value + k.unsqueeze(-1))
        variance = trigamma(a)
        total = variance.mean(-1)
        slope = (torch.polygamma(2, a) / variance).mean(-1)
        return target - total.log(), -slope / total

    k = increasing_root(shortfall, torch.zeros_like(target))
    return inverse_digamma(log_value + k.unsqueeze(-1)).to(value)


def concentration_with_mean_logs(
    mean_logs: Tensor,  # (*batch, n), E[log x_i]
) -> Tensor:  # (*batch, n)
    """Solve ``digamma(a_i) - digamma(sum_j a_j) = E[log x_i]`` (Minka 2000).

    One equation in ``s = digamma(sum_j a_j)`` is left after ``a_i = inverse_digamma(g_i + s)``,
    which a bracketed Newton iteration cannot miss.
    """
    g = mean_logs.detach().double()

    def excess(s: Tensor) -> tuple[Tensor, Tensor]:
        a = inverse_digamma(g + s.unsqueeze(-1))
        total = a.sum(-1)
        slope = trigamma(total) * (1 / trigamma(a)).sum(-1)
        return s - total.digamma(), 1 - slope

    s = increasing_root(excess, torch.zeros_like(g[..., 0]))
    return inverse_digamma(g + s.unsqueeze(-1)).to(mean_logs)
