"""Whether a guide of local latents tells the data apart: active units and mutual information."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import log_mean_exp

__all__ = ["ActiveUnits", "MutualInformation", "active_units", "mutual_information"]


@dataclass(frozen=True)
class ActiveUnits:
    """Which units of a latent differ between data.

    Attributes:
        variance: Variance over the data of each unit's mean in the guide, `(*unit_shape)`.
        active: Whether that is above the threshold, same shape.
    """

    variance: Tensor
    active: Tensor

    @property
    def count(self) -> int:
        """How many units are active."""
        return int(self.active.sum())


def active_units(
    values: Tensor,  # (S, N, *unit_shape)
    threshold: float = 1e-2,
) -> ActiveUnits:
    """Units whose mean in the guide varies between data, `Var_x(E_q(z|x)[z]) > threshold`.

    The mean of S draws varies even where the exact one does not; the variance of a draw divided by
    S is taken off, so that the estimate is unbiased (and may be slightly negative). The threshold
    is for units of prior scale one: in other units give another.

    Args:
        values: S draws for each of N data, `(S, N, *unit_shape)`.
        threshold: 0.01 by default.

    Returns:
        The variances, and which are above the threshold.

    Raises:
        InvalidArgument: Less than two draws or data, or values that are not finite.

    References:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> mean = torch.linspace(-1, 1, 50)[:, None] * torch.tensor([1.0, 0.0])
        >>> active_units(mean + torch.randn(100, 50, 2)).active
        tensor([ True, False])
    """
    if values.dim() < 2 or min(values.shape[:2]) < 2 or not bool(values.isfinite().all()):
        raise InvalidArgument(
            f"active_units: values of shape {tuple(values.shape)}; give finite ones of shape "
            "(draws, data, ...), at least two of each."
        )
    exact = values.detach().double()
    noise = exact.var(0).mean(0) / len(exact)
    variance = exact.mean(0).var(0) - noise
    return ActiveUnits(variance.to(values.dtype), variance > threshold)


@dataclass(frozen=True)
class MutualInformation:
    """How much a draw from the guide says about which datum it is for, in nats.

    Attributes:
        value: The estimate.
        error: Its standard error, over data and draws.
        limit: `log M`, which the estimate cannot exceed.
        per_datum: `(N,)`, what a draw for each datum says.
    """

    value: float
    error: float
    limit: float
    per_datum: Tensor = field(repr=False)

    @property
    def saturated(self) -> bool:
        """Whether it is so near to its limit that it says no more than "at least that"."""
        return self.value > self.limit - max(0.1, 2 * self.error)


def mutual_information(
    log_q: Tensor,  # (S, N, M)
) -> MutualInformation:
    r"""Mutual information of data and latents under the guide.

    `I = E_x E_q(z|x)[log q(z|x) - log q(z)]` with the aggregate `q(z) = E_x q(z|x)` replaced by the
    average over M data, the datum itself among them:

    `I_hat = mean_{s,n} ( log q(z_sn|x_n) - log (1/M) sum_m q(z_sn|x_nm) )`.

    If the M data are all there are (`M = N`), it is unbiased for the information about which of the
    N data a draw is for. For a population that the data are a sample of it is biased down
    (it is the bound of van den Oord et al., 2018, with the best critic), and it never exceeds
    `log M`: an information near that is only known to be at least that.

    The rate is this information plus the divergence of the aggregate from the prior (Hoffman and
    Johnson, 2016).

    Args:
        log_q: `(S, N, M)`, the log-density of draw s for datum n in the distribution of the m-th
            datum it is compared with; `m = 0` is datum n itself.

    Returns:
        The estimate in nats, with its standard error.

    Raises:
        InvalidArgument: Less than two data, or entries that are NaN or +inf, or a draw that is
            impossible for its own datum.

    References:
        Hoffman and Johnson (2016), ELBO surgery; van den Oord, Li and Vinyals (2018),
        Representation learning with contrastive predictive coding.

    Example:
        >>> import torch
        >>> alike, apart = torch.zeros(1, 4, 4), torch.full((1, 4, 4), -50.0)
        >>> apart[:, :, 0] = 0.0
        >>> mutual_information(alike).value, round(mutual_information(apart).value, 4)
        (0.0, 1.3863)
    """
    if log_q.dim() != 3 or min(log_q.shape[1:]) < 2:
        raise InvalidArgument(
            f"mutual_information: log_q of shape {tuple(log_q.shape)}; it must be (draws, data, "
            "data compared with), at least two of both."
        )
    exact = log_q.detach().double()
    if bool((exact.isnan() | (exact == math.inf)).any()) or bool(exact[..., 0].isinf().any()):
        raise InvalidArgument(
            "mutual_information: log_q has entries that are NaN or +inf, or -inf for a datum's own "
            "draws."
        )
    gain = exact[..., 0] - log_mean_exp(exact, dim=-1)
    per_datum = gain.mean(0)
    return MutualInformation(
        value=float(per_datum.mean()),
        error=float(per_datum.std() / math.sqrt(len(per_datum))),
        limit=math.log(log_q.shape[2]),
        per_datum=per_datum.to(log_q.dtype),
    )
