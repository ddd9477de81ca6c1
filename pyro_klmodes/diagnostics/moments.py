"""Where a fit is wrong: moments corrected by the weights, next to the guide's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.log_weights import check_log_weights, normalised_for_site
from pyro_klmodes.weights import log_normalise, pareto_smooth

__all__ = ["CorrectedMoments", "corrected_moments"]


@dataclass(frozen=True)
class CorrectedMoments:
    """Moments of one site, all of the shape of the site.

    Attributes:
        mean: Mean of the guide's draws.
        sd: Their standard deviation.
        corrected_mean: Mean under the smoothed weights.
        corrected_sd: Standard deviation under the smoothed weights.
        shift: `(corrected_mean - mean) / corrected_sd`.
        shift_error: Its Monte Carlo standard error.
        sd_ratio: `sd / corrected_sd`; below one where the guide is too narrow.
        sd_ratio_error: Its Monte Carlo standard error.
    """

    mean: Tensor
    sd: Tensor
    corrected_mean: Tensor
    corrected_sd: Tensor
    shift: Tensor
    shift_error: Tensor
    sd_ratio: Tensor
    sd_ratio_error: Tensor


def corrected_moments(
    log_w: Tensor,  # (S, *cells)
    values: Mapping[str, Tensor],  # site: (S, *cells, *rest)
) -> dict[str, CorrectedMoments]:
    """Mean and standard deviation of every latent number under the weights and under the guide.

    With v the Pareto-smoothed, self-normalised weights, the corrected mean is `sum_s v_s x_s` and
    the corrected variance `sum_s v_s (x_s - mean)^2`. The errors are those of the delta method:
    both sides use the same draws, and what they have in common cancels. They count what other
    draws would change and mean little if k-hat is above its limit; the bias that smoothing leaves
    is not in them. A fit without fault has all shifts near 0 and all ratios near 1.

    Args:
        log_w: Log-weights, `(S, *cells)`: one joint weight per draw, or, for sites of local plates,
            one for every cell.
        values: Draws of every site; their shape begins with that of `log_w`, so that the axes of
            the cells come right after the draws.

    Returns:
        For every site its moments. An element that never varies has shift 0 and ratio 1.

    Raises:
        InvalidArgument: There are fewer than two draws, an entry is NaN or +inf, all weights of
            a cell are zero, or the shapes do not match.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(4000)  # the posterior has mean 0.5
        >>> found = corrected_moments(0.5 * x - 0.125, {"x": x})["x"]
        >>> bool(abs(found.shift - 0.5) < 4 * found.shift_error < 0.2)
        True
    """
    exact = check_log_weights(log_w, "corrected_moments")
    log_v = log_normalise(pareto_smooth(exact)[0])
    return {site: _of_site(log_v, value, site) for site, value in values.items()}


def _of_site(log_v: Tensor, value: Tensor, site: str) -> CorrectedMoments:
    weight, x = normalised_for_site(log_v, value, site=site, caller="corrected_moments")
    uniform = torch.full_like(weight, 1 / len(x))
    mean, sd, mean_parts, sd_parts = _moments(uniform, x)
    new_mean, new_sd, new_mean_parts, new_sd_parts = _moments(weight, x)

    # The means of an element that never varies differ by rounding, and so does its sd from zero.
    constant = (x == x[0]).all(0)
    scale = torch.where(constant, 1.0, new_sd)
    shift = torch.where(constant, 0.0, (new_mean - mean) / scale)
    ratio = torch.where(constant, 1.0, sd / scale)
    shift_parts = (new_mean_parts - mean_parts - shift * new_sd_parts) / scale
    ratio_parts = (sd_parts - ratio * new_sd_parts) / scale
    return CorrectedMoments(
        mean=mean,
        sd=sd,
        corrected_mean=new_mean,
        corrected_sd=new_sd,
        shift=shift,
        shift_error=shift_parts.square().sum(0).sqrt(),
        sd_ratio=ratio,
        sd_ratio_error=ratio_parts.square().sum(0).sqrt(),
    )


def _moments(
    weight: Tensor,  # (S, *cells, *ones)
    x: Tensor,  # (S, *site_shape)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # two of (*site_shape), two of (S, *site_shape)
    """Mean and sd, and what every draw contributes to the error of each (its influence)."""
    mean = (weight * x).sum(0)
    deviation = x - mean
    variance = (weight * deviation.square()).sum(0)
    sd = variance.sqrt()
    safe_sd = torch.where(sd > 0, sd, 1.0)
    sd_parts = weight * (deviation.square() - variance) / (2 * safe_sd)
    return mean, sd, weight * deviation, sd_parts
