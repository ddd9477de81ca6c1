"""How often credible regions hold the true value: expected coverage, and TARP for all latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from pyro_klmodes.diagnostics.matrices import checked_matrix, own_generator
from pyro_klmodes.diagnostics.ranks import randomised_ranks
from pyro_klmodes.errors import InvalidArgument

__all__ = ["Coverage", "expected_coverage", "tarp", "tarp_shares"]

_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Coverage:
    """Levels of credible regions and how often they held the true value.

    Attributes:
        levels: ``(C,)``.
        observed: ``(C,)``, shares of the simulations.
        lower: ``(C,)``, lower ends of exact binomial 95 % intervals.
        upper: ``(C,)``, upper ends.
    """

    levels: Tensor
    observed: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def consistent(self) -> Tensor:  # (C,)
        """Whether each interval holds its level; one in twenty does not by chance."""
        return (self.lower <= self.levels) & (self.levels <= self.upper)


def expected_coverage(
    probabilities: Tensor,  # (N,)
    levels: Sequence[float] = _LEVELS,
) -> Coverage:
    r"""How often the central credible interval of each level holds the true value.

    The central interval of level c holds :math:`\theta_i` if :math:`|2 p_i - 1| \le c`, with
    :math:`p_i = P_q(\theta < \theta_i)`. Averaged over the prior the exact posterior covers c;
    less means over-confidence. Intervals are those of Clopper and Pearson (1934).

    Args:
        probabilities: one for every simulation, in [0, 1].
        levels: between 0 and 1.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Hermans et al. (2022), "A trust crisis in simulation-based inference?".

    Example:
        >>> u = (torch.arange(100) + 0.5) / 100
        >>> found = expected_coverage(u, [0.5, 0.9])
        >>> found.observed, bool(found.consistent.all())
        (tensor([0.5000, 0.9000], dtype=torch.float64), True)
    """
    p = _checked_probabilities("probabilities", probabilities)
    return _coverage((2 * p - 1).abs(), levels)


def tarp(
    shares: Tensor,  # (N,)
    levels: Sequence[float] = _LEVELS,
) -> Coverage:
    r"""Coverage of balls around random points, which sees all latents at once.

    With :math:`f_i` the share of draws that are nearer to a reference point than the true value
    (see ``tarp_shares``), the ball of credibility c holds the true value if :math:`f_i < c`. For
    the exact posterior f is uniform, and coverage at all levels for *every* distribution of
    reference points characterises it.

    Limits: reference points that do not depend on the data cannot tell the posterior from the
    prior, which passes.

    Args:
        shares: one for every simulation.
        levels: between 0 and 1.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Lemos, Coogan, Hezaveh and Perreault-Levasseur (2023), "Sampling-based accuracy testing
        of posterior estimators for general inference".

    Example:
        >>> tarp((torch.arange(100) + 0.5) / 100, [0.5]).observed
        tensor([0.5000], dtype=torch.float64)
    """
    return _coverage(_checked_probabilities("shares", shares), levels)


def tarp_shares(
    draws: Tensor,  # (N, L, P)
    truth: Tensor,  # (N, P)
    *,
    references: Tensor | None = None,  # (N, P)
    seed: int = 0,
) -> Tensor:  # (N,)
    """Share of draws that are nearer to a random reference point than the true value is.

    Latents are first mapped such that the true values fill [0, 1]; distances are Euclidean. The
    share of r among L draws becomes (r + u) / (L + 1) with u uniform, which is exactly uniform for
    draws of the posterior.

    Args:
        draws: L draws of the guide for each of N simulations.
        truth: the values that made the data.
        references: reference points; by default uniform over the box that holds the true values.
        seed: of a generator of its own, for references and u.

    Raises:
        InvalidArgument: if shapes do not match or numbers are not finite.

    Source: Lemos et al. (2023), see ``tarp``.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> truth = torch.randn(500, 2, generator=generator)
        >>> draws = torch.randn(500, 99, 2, generator=generator)
        >>> round(float(tarp_shares(draws, truth).mean()), 1)
        0.5
    """
    truth = checked_matrix("truth", truth, rows="simulations")
    if draws.dim() != 3 or draws.shape[0] != len(truth) or draws.shape[2] != truth.shape[1]:
        raise InvalidArgument(
            f"draws {tuple(draws.shape)} must be (N, L, P) for truth {tuple(truth.shape)} = (N, P)."
        )
    draws = draws.detach().double()
    if draws.shape[1] == 0 or not bool(draws.isfinite().all()):
        raise InvalidArgument("draws must be finite, and at least one per simulation.")
    low, width = truth.amin(0), (truth.amax(0) - truth.amin(0)).clamp(min=1e-300)
    generator = own_generator(seed)
    if references is None:
        at = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    else:
        references = checked_matrix("references", references, rows="simulations")
        if references.shape != truth.shape:
            raise InvalidArgument(
                f"references {tuple(references.shape)} must be shaped as truth, "
                f"{tuple(truth.shape)}."
            )
        at = (references - low) / width
    far = ((truth - low) / width - at).norm(dim=1)
    distances = ((draws - low) / width - at[:, None]).norm(dim=2).T  # (L, N)
    nearer = randomised_ranks(distances, far, generator=generator)
    place = torch.rand(len(truth), generator=generator, dtype=torch.float64)
    return (nearer + place) / (draws.shape[1] + 1)


def _coverage(
    f: Tensor,  # (N,) the level of the smallest region that holds the true value
    levels: Sequence[float],
) -> Coverage:
    at = torch.as_tensor(levels, dtype=torch.float64)
    if at.dim() != 1 or not bool(((at > 0) & (at < 1)).all()):
        raise InvalidArgument(f"levels={levels!r} must lie between 0 and 1.")
    count = len(f)
    hits = (f[:, None] <= at).sum(0)
    k = hits.numpy()
    lower = torch.tensor(stats.beta.ppf(0.025, k, count - k + 1)).nan_to_num(0.0)
    upper = torch.tensor(stats.beta.ppf(0.975, k + 1, count - k)).nan_to_num(1.0)
    return Coverage(levels=at, observed=hits.double() / count, lower=lower, upper=upper)


def _checked_probabilities(name: str, p: Any) -> Tensor:
    if not isinstance(p, Tensor) or p.dim() != 1 or len(p) == 0:
        raise InvalidArgument(f"{name} must be a vector, one number for every simulation.")
    p = p.detach().double()
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InvalidArgument(f"{name} must lie in [0, 1].")
    return p
