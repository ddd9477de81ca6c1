"""How far the posterior's mean and standard deviation can be from the guide's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.log_weights import check_log_weights, normalised_for_site
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import pareto_khat, power_mean

__all__ = ["ErrorBounds", "error_bounds"]

# The second moment of the weights is finite below this shape of their tail.
_FINITE_SECOND_MOMENT = 0.5


@dataclass(frozen=True)
class ErrorBounds:
    """Bounds on the distance between posterior p and guide q; inf where none is known.

    Attributes:
        divergence: Bound on the Rényi divergence `D_2(p || q) = log E_q[(p/q)^2]`.
        wasserstein_1: Bound on the 1-Wasserstein distance of all given sites together.
        wasserstein_2: Bound on the 2-Wasserstein distance of all given sites together.
        mean: For every site a bound on `|mean_p - mean_q|` of each element.
        sd: For every site a bound on `|sd_p - sd_q|` of each element.
        khat: Pareto k-hat of the weights.
        reason: Why there are no finite bounds; "" if there are.
    """

    divergence: float
    wasserstein_1: float
    wasserstein_2: float
    mean: dict[str, Tensor]
    sd: dict[str, Tensor]
    khat: float
    reason: str


def error_bounds(
    log_w: Tensor,  # (S)
    values: Mapping[str, Tensor],  # site: (S, *site_shape)
) -> ErrorBounds:
    """Bounds on the errors of mean and standard deviation from ELBO, CUBO and moments of the guide.

    `D_2(p || q) = 2 (CUBO_2 - log Z) <= 2 (CUBO_2 - ELBO) = D`, and `chi = sqrt(exp(D) - 1)`
    bounds the standard deviation of the normalised weights. With m, s and M4 mean, standard
    deviation and fourth central moment under q:

    * `W_1 <= chi sqrt(E_q |x - m|^2)` and `W_2 <= sqrt(2 chi) (E_q |x - m|^4)^(1/4)` with the
      Euclidean norm of all elements together: a coupling that leaves in place what p and q share
      gives `W_p^p <= 2^(p-1) E_q[|x - m|^p |w - 1|]`, and Cauchy's inequality the rest.
    * mean: `|mean_p - mean_q| = |E_q[(w - 1)(x - m)]| <= chi s`, element by element.
    * sd: `|E_p (x - m)^2 - s^2| <= chi sqrt(M4 - s^4)` in the same way, from which the variance
      under p is known up to that and the square of the bound on the mean. This is never worse
      than the bound by W_2.

    The inequalities are exact; what enters them is estimated from S draws. CUBO_2 comes out too
    small when large weights are still unseen, so bounds are given for weights whose second moment
    is finite only, that is for `k-hat < 1/2`; near it they are uncertain. They are generous: a
    factor of three is a good one.

    Args:
        log_w: One joint log-weight per draw, `(S,)`. An unknown constant, the log evidence, may be
            in it.
        values: Draws of every site, `(S, *site_shape)`.

    Returns:
        The bounds, or inf and the reason.

    Raises:
        InvalidArgument: `log_w` is not one number per draw, there are fewer than two draws, an
            entry is NaN or +inf, all weights are zero, shapes do not match or there is no site.

    References:
        Huggins, Kasprzak, Campbell and Broderick (2020), Validated variational inference via
        practical posterior error bounds, AISTATS; Villani (2009), Optimal transport, theorem 6.15.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(4000)  # the posterior has mean 0.2
        >>> bounds = error_bounds(0.2 * x - 0.02, {"x": x})
        >>> 0.2 < float(bounds.mean["x"]) < 0.4, 0.2 < bounds.wasserstein_2 < 1.2
        (True, True)
    """
    exact = check_log_weights(log_w, "error_bounds")
    if exact.dim() != 1 or not values:
        raise InvalidArgument(
            f"error_bounds: log_w of shape {tuple(log_w.shape)} and {len(values)} sites; give one "
            "joint log-weight per draw (sum those of the cells) and the values of some site."
        )
    uniform = torch.full_like(exact, -math.log(len(exact)))
    draws = {
        site: normalised_for_site(uniform, value, site=site, caller="error_bounds")[1]
        for site, value in values.items()
    }
    shape = float(pareto_khat(exact))
    reason = _why_not(exact, shape)
    divergence = math.inf if reason else 2 * float(power_mean(exact, 2.0) - exact.mean())
    # Two equal numbers may differ by rounding, in the wrong direction.
    divergence = max(divergence, 0.0)
    chi = math.sqrt(math.expm1(divergence)) if divergence < 700 else math.inf
    if math.isinf(chi) and not reason:
        reason = f"The bound on the divergence, {divergence:.0f} nats, overflows: it says nothing."

    together = torch.cat([x.reshape(len(x), -1) for x in draws.values()], dim=1)
    square = (together - together.mean(0)).square().sum(1)
    return ErrorBounds(
        divergence=divergence,
        wasserstein_1=chi * float(square.mean()) ** 0.5 if not reason else math.inf,
        wasserstein_2=(
            math.sqrt(2 * chi) * float(square.square().mean()) ** 0.25 if not reason else math.inf
        ),
        mean={site: _mean_bound(chi, x) for site, x in draws.items()},
        sd={site: _sd_bound(chi, x) for site, x in draws.items()},
        khat=shape,
        reason=reason,
    )


def _why_not(log_w: Tensor, khat: float) -> str:
    if (log_w == -math.inf).any():
        return "Some draws have weight zero: the ELBO is -inf and does not bound the evidence."
    if bool((log_w == log_w[0]).all()):
        return ""
    if math.isinf(khat):
        return "The weights have no tail that could be fitted (few draws, or ties): take more."
    if khat >= _FINITE_SECOND_MOMENT:
        return (
            f"Pareto k-hat is {khat:.2f}: from 1/2 on the second moment of the weights is not "
            "finite, and neither is any bound by it. Widen the guide or fit with CUBO."
        )
    return ""


def _mean_bound(
    chi: float,
    x: Tensor,  # (S, *site_shape)
) -> Tensor:  # (*site_shape)
    if math.isinf(chi):
        return torch.full_like(x[0], math.inf)
    return chi * x.std(0, correction=0)


def _sd_bound(
    chi: float,
    x: Tensor,  # (S, *site_shape)
) -> Tensor:  # (*site_shape)
    if math.isinf(chi):
        return torch.full_like(x[0], math.inf)
    square = (x - x.mean(0)).square()
    variance = square.mean(0)
    sd = variance.sqrt()
    spread = chi * square.std(0, correction=0)
    upper = (variance + spread).sqrt()
    lower = (variance - spread - chi**2 * variance).clamp(min=0.0).sqrt()
    return torch.maximum(upper - sd, sd - lower)
