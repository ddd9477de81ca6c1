"""The schedule of distilled importance sampling: let the likelihood in as the guide can follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.weights import raised_exponent

__all__ = ["Distilled", "towards_posterior"]


@dataclass(frozen=True)
class Distilled:
    r"""Weights against :math:`p(z)\, p(x|z)^\epsilon`, with an exponent that only grows.

    At every step :math:`\epsilon` rises to where the effective sample size of the N weights is
    ``ess * N`` (one if it is enough there), and stays where it was if they have fewer. It
    begins at zero, with the prior as the target. Then weights above ``truncate`` are cut, so that
    none is more than this share of all.

    Args:
        ess: the share of the particles that must stay effective, in (0, 1).
        truncate: the largest normalised weight, in (0, 1]; it must be more than 1/N.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Prangle and Viscardi (2023), Distilling importance sampling for likelihood free
    inference, Journal of Computational and Graphical Statistics 32(4).

    Example:
        >>> Distilled(ess=0.4)
        Distilled(ess=0.4, truncate=0.1)
    """

    ess: float = 0.5
    truncate: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.ess, int | float) or not 0 < self.ess < 1:
            raise InvalidArgument(f"Distilled: ess={self.ess!r} must be a share in (0, 1).")
        if not isinstance(self.truncate, int | float) or not 0 < self.truncate <= 1:
            raise InvalidArgument(
                f"Distilled: truncate={self.truncate!r} must be a share in (0, 1]."
            )

    def next_epsilon(self, draws: Draws, epsilon: float) -> float:
        """The exponent after these draws."""
        proposal = draws.log_q if draws.log_r is None else draws.log_r
        weight = draws.log_prior - proposal
        if draws.log_share is not None:
            share = draws.log_share
            weight = weight + share.reshape(share.shape + (1,) * (weight.dim() - share.dim()))
        return raised_exponent(weight, draws.log_likelihood, epsilon, self.ess)


def towards_posterior(draws: Draws, epsilon: float) -> Draws:
    """The draws as if the target were the prior times a power of the likelihood; for the guide."""
    likelihood: Tensor | float = 0.0 if epsilon == 0 else epsilon * draws.log_likelihood
    return replace(
        draws, log_p=(draws.log_prior + likelihood).detach(), rest=epsilon * draws.rest.detach()
    )
