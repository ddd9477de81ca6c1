"""What running a pair gives: log-weights per particle and independent local cell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.by_site import SiteDensity
from pyro_klmodes.tracing.nonfinite import describe_nonfinite
from pyro_klmodes.tracing.terms import Term

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    r"""K draws from a guide and what they weigh.

    A *cell* is an element of the local plates, those that enclose every latent site of model and
    guide: a datum of a latent-variable model. Log-weights :math:`\log w = \log p(x, z) - \log q(z)`
    are per particle and cell. Without such plates there is a single weight per particle.

    Attributes:
        log_p: ``(K, *local)``, or ``(K, M, *local)`` with M > 1 outer particles.
        log_q: same shape, the guide's log-density.
        scale: what a divergence of the weights is multiplied by after the reduction over
            particles: full over batch size of the local plates, times a ``poutine.scale`` common
            to all sites.
        plates: names of the local plates, in the order of their axes.
        values: latent values by guide site, ``(K * M, *site_shape)``, detached.
        sources: the sites of ``values`` in which randomness enters (point masses follow them).
        indices: the minibatch, by name of the subsampled plate.
        rest: scalar, log-probability (scaled) of sites that depend on no latent value.
        score: ``(K, *local)`` log-density of the draws that carry no path, or None.
        leaves: pairs (draw with its graph, leaf at which the densities were evaluated).
        log_r: ``(K, *local)`` log-density of the proposal, where that is not the guide.
        outer: number M of outer particles.
        log_share: ``(K,)`` or ``(K, M)``, log K times the share of each draw in an average over the
            guide, where draws are spread over the components of a mixture; None for plain draws.
        tempered: a guide site with a scale other than one inside of the weights, or None.
        by_site: prior and guide latent by latent, where they were asked for, else None.
        log_drawn: ``(K, *local)`` log-density with which all values were drawn, where ``log_q`` is
            that of some of the sites only.
        terms: the summands, for messages.
    """

    log_p: Tensor
    log_q: Tensor
    scale: float
    plates: tuple[str, ...]
    values: Mapping[str, Tensor]
    sources: tuple[str, ...]
    indices: Mapping[str, Tensor]
    rest: Tensor
    score: Tensor | None = None
    leaves: tuple[tuple[Tensor, Tensor], ...] = ()
    log_r: Tensor | None = None
    outer: int = 1
    log_share: Tensor | None = None
    tempered: str | None = None
    by_site: Mapping[str, SiteDensity] | None = field(default=None, repr=False)
    log_drawn: Tensor | None = field(default=None, repr=False)
    terms: Sequence[tuple[str, Term]] = field(default=(), repr=False)

    @property
    def log_w(self) -> Tensor:  # (K, *local)
        """Log-weights against the density that proposed the draws."""
        return self.log_p - (self.log_q if self.log_r is None else self.log_r)

    @property
    def weight(self) -> float:
        """What the sum of an objective over cells and outer particles is multiplied by."""
        return self.scale / self.outer

    @property
    def sites(self) -> Mapping[str, SiteDensity]:
        """Prior and guide latent by latent.

        Raises:
            InvalidArgument: if the draws were made without ``by_site=True``.
        """
        if self.by_site is None:
            raise InvalidArgument(
                "these draws do not say what every latent site adds: make them with by_site=True."
            )
        return self.by_site

    @property
    def log_prior(self) -> Tensor:  # (K, *local)
        """The part of ``log_p`` that is the density of latents."""
        parts = [site.log_p for site in self.sites.values()]
        return sum(parts, start=torch.zeros_like(self.log_p))

    @property
    def log_likelihood(self) -> Tensor:  # (K, *local)
        """The part of ``log_p`` that is not; with what is summed out."""
        impossible = self.log_prior == -math.inf
        rest = self.log_p - torch.where(impossible, torch.zeros_like(self.log_p), self.log_prior)
        return rest.masked_fill(impossible, -math.inf)

    def only(self, names: Collection[str]) -> Draws:
        """The same draws with the densities of some latents alone: their rate is all that is left.

        Args:
            names: keys of ``by_site``.
        """
        kept = {name: site for name, site in self.sites.items() if name in names}
        zero = torch.zeros_like(self.log_p)
        return replace(
            self,
            log_p=sum((site.log_p for site in kept.values()), start=zero),
            log_q=sum((site.log_q for site in kept.values()), start=zero),
            rest=torch.zeros_like(self.rest),
            by_site=kept,
            log_drawn=self.log_q if self.log_drawn is None else self.log_drawn,
        )

    def describe_nonfinite(self) -> str:
        """Where a log-probability is NaN or infinite, in words."""
        return describe_nonfinite(self.terms)
