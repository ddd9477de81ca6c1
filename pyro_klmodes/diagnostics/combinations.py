"""Where a fit is wrong although every number by itself is right: linear combinations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.log_weights import check_log_weights, normalised_for_site
from pyro_klmodes.diagnostics.moments import corrected_moments
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import log_normalise, pareto_smooth

__all__ = ["Combinations", "combinations"]

# Of the correlation matrix: below, a direction does not vary but for rounding.
LEAST_EIGENVALUE = 1e-6


@dataclass(frozen=True)
class Combinations:
    """Moments of three linear combinations under the guide and under the weights.

    In this order: that in which the guide is too narrow, too wide, and off in its mean, the most.

    Attributes:
        coefficients: `(3, *cells, D)`; zero where nothing varies.
        shift: `(corrected_mean - mean) / corrected_sd`, `(3, *cells)`.
        shift_error: Its Monte Carlo standard error.
        sd_ratio: `sd / corrected_sd`, likewise; below one where the guide is too narrow.
        sd_ratio_error: Its Monte Carlo standard error.
    """

    coefficients: Tensor
    shift: Tensor
    shift_error: Tensor
    sd_ratio: Tensor
    sd_ratio_error: Tensor


def combinations(
    log_w: Tensor,  # (S, *cells)
    values: Tensor,  # (S, *cells, D)
) -> Combinations:
    r"""Find the combinations of D numbers in which guide and weighted draws differ most.

    With the covariances :math:`C_q` of the guide's draws and :math:`C_v` of the weighted ones,

    .. math:: \frac{a^\top C_v a}{a^\top C_q a}

    is largest and smallest at the outer generalised eigenvectors, and the squared shift of the
    mean, :math:`(a^\top \Delta)^2 / a^\top C_v a`, is largest at :math:`a = C_v^{-1} \Delta`.
    Extremes over directions are found in noise, too. So the directions are those of every other
    draw, and the moments along them those of the draws between, which know nothing of the choice:
    shift and ratio are as if the combination had been named beforehand, and so are their errors.

    Args:
        log_w: Log-weights: one joint weight per draw, or one for every cell of the local plates.
        values: What to combine, for every cell by itself.

    Raises:
        InvalidArgument: There are fewer than four draws, an entry is NaN or +inf, all weights of a
            cell are zero in one half of the draws, or the shapes do not match.

    References:
        Flury (1983), Computational Statistics and Data Analysis 1: extreme ratios of variances of
        linear combinations. Errors: those of `corrected_moments`.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(4000, 2)  # the posterior has correlation 0.5 and the same variances
        >>> target = torch.distributions.MultivariateNormal(
        ...     torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        >>> found = combinations(target.log_prob(x) + 0.5 * x.square().sum(1), x)
        >>> error = found.sd_ratio - torch.tensor([1.5**-0.5, 0.5**-0.5, 1.0])
        >>> bool((error[:2].abs() < 4 * found.sd_ratio_error[:2]).all())
        True
    """
    exact = check_log_weights(log_w, "combinations")
    if len(exact) < 4 or values.dim() != exact.dim() + 1:
        raise InvalidArgument(
            f"combinations: log_w of shape {tuple(log_w.shape)} and values of shape "
            f"{tuple(values.shape)} do not go together: give at least four draws, and values with "
            "one dimension more than log_w, the numbers to combine."
        )
    chosen, judged = slice(0, None, 2), slice(1, None, 2)
    a = _directions(check_log_weights(exact[chosen], "combinations"), values[chosen])
    along = torch.einsum("s...d,k...d->s...k", values[judged].double(), a)
    found = corrected_moments(exact[judged], {"combinations": along})["combinations"]
    return Combinations(
        a,
        found.shift.movedim(-1, 0),
        found.shift_error.movedim(-1, 0),
        found.sd_ratio.movedim(-1, 0),
        found.sd_ratio_error.movedim(-1, 0),
    )


def _directions(
    log_w: Tensor,  # (S, *cells)
    values: Tensor,  # (S, *cells, D)
) -> Tensor:  # (3, *cells, D)
    """In the order of ``Combinations``."""
    log_v = log_normalise(pareto_smooth(log_w)[0])
    weight, x = normalised_for_site(log_v, values, site="all", caller="combinations")
    # In units of the guide, so that numbers of all sizes go together.
    sd = x.std(0, correction=0)
    unit = torch.where((x == x[0]).all(0) | (sd == 0), 0.0, 1 / sd)
    x = (x - x.mean(0)) * unit
    sizes, vectors = torch.linalg.eigh(_covariance(torch.full_like(weight, 1 / len(x)), x))
    varies = sizes > LEAST_EIGENVALUE
    # Along these columns the guide has variance one, or none.
    scale = torch.where(varies, sizes.clamp(min=LEAST_EIGENVALUE).rsqrt(), 0.0)
    columns = vectors * scale[..., None, :]
    x = torch.einsum("s...d,...de->s...e", x, columns)
    weighted = _covariance(weight, x)
    # What does not vary gets the mean of all ratios, and so is never an extreme one.
    ordinary = weighted.diagonal(dim1=-2, dim2=-1).sum(-1) / varies.sum(-1).clamp(min=1)
    ratios, turned = torch.linalg.eigh(
        weighted + torch.diag_embed(torch.where(varies, 0.0, ordinary[..., None]))
    )
    shift = turned.mT @ (weight * x).sum(0)[..., None]
    towards = turned @ (shift / ratios.clamp(min=LEAST_EIGENVALUE)[..., None])
    found = torch.cat([turned[..., -1:], turned[..., :1], towards], dim=-1)
    return (unit[..., None] * (columns @ found)).movedim(-1, 0)


def _covariance(
    weight: Tensor,  # (S, *cells, 1)
    x: Tensor,  # (S, *cells, D)
) -> Tensor:  # (*cells, D, D)
    deviation = x - (weight * x).sum(0)
    return torch.einsum("s...i,s...j->...ij", weight * deviation, deviation)
