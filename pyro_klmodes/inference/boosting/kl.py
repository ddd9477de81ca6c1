"""Boosting by the reverse Kullback-Leibler divergence."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from pyro.distributions import constraints
from pyro.infer import ELBO
from pyro.nn import PyroParam
from scipy import optimize
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.radial import RadialLaw
from pyro_klmodes.guides.joint.scales import ScaleStructure
from pyro_klmodes.inference.boosting.base import Booster, BoostingDivergence
from pyro_klmodes.inference.boosting.components import Components
from pyro_klmodes.inference.target import Target
from pyro_klmodes.losses import ReverseKL

__all__ = ["KL"]

#: the least weight of a candidate: with none it would have no gradient
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class KL(BoostingDivergence):
    r"""The reverse divergence KL(q || p), by the ELBO of the mixture with one component more.

    The next component g and its weight a maximise

    .. math:: (1-a) \, E_{q} [\log p - \log r] + a \, E_{g} [\log p - \log r],
        \qquad r = (1-a) q + a g,

    with q as it is, draws of q and of g apart (stratified), and :math:`a \ge 0.01`. Then all
    weights maximise the ELBO on common draws of all components (fully corrective), or only a does.

    This is the exact ELBO and not its derivative at a = 0, :math:`E_g [\log p - \log q]`, whose
    maximum is a point mass and needs a regulariser (an entropy, or a bound on the variance). Here g
    pays :math:`a \log g` for being narrow: no component collapses. A component that finds nothing
    new ends with a weight near zero; ``guide.prune`` drops it.

    Args:
        corrective: whether all weights are found anew with every component.
        weight_draws: draws of each component for the weights, and of each candidate in the end.

    Raises:
        InvalidArgument: if ``weight_draws`` is not a positive integer; by ``boost`` for degrees of
            freedom that are learned, since components have them in common.

    Source: Guo et al. (2016); Miller, Foti and Adams (2017); Locatello, Dresdner, Khanna, Valera
    and Raetsch (2018) for the correction of all weights.

    Example:
        >>> KL()
        KL(weight_draws=2000, corrective=True)
    """

    weight_draws: int = 2000
    corrective: bool = True

    def check(self, scale: ScaleStructure, radial: RadialLaw) -> None:
        """Any components with a fixed radial law."""
        if getattr(radial, "learn_df", False):
            raise InvalidArgument(
                f"radial={radial!r}: components found one by one cannot learn degrees of freedom "
                "in common. Use learn_df=False, and train the result on with fit."
            )

    def booster(self, target: Target, bank: Mixture) -> Booster:
        """A mixture without components."""
        return _KLBooster(target, bank, self)

    def loss(self, num_particles: int) -> ELBO:
        """The negated ELBO."""
        return ReverseKL(num_particles)


class _KLBooster(Booster):
    def __init__(self, target: Target, bank: Mixture, options: KL) -> None:
        super().__init__(target, bank)
        self.options = options
        shape = (options.weight_draws, 0)
        self._draws = target.initial.new_empty(*shape, len(target.initial))
        self._log_p = target.initial.new_empty(shape)
        self._log_q = target.initial.new_empty(shape)

    def score(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> Tensor:  # (S,)
        """The ELBO of the mixture with each candidate; its share is a function of its logit."""
        odds = candidates.logits - math.log(max(self.size, 1))  # starts at 1 / (size + 1)
        share = _LEAST_SHARE + (1 - _LEAST_SHARE) * torch.sigmoid(odds)
        return self._bounds(candidates, num_draws, share.unsqueeze(0)).squeeze(0)

    def gain(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> Tensor:  # (S,)
        """The ELBO at the best of some shares: a small mode is none the worse for being small."""
        grid = torch.logspace(math.log10(_LEAST_SHARE), -0.1, 12).to(candidates.logits)
        shares = grid.unsqueeze(-1).expand(-1, candidates.num_components)
        return self._bounds(candidates, num_draws, shares).amax(0)

    def _bounds(
        self,
        candidates: Mixture,
        num_draws: int,
        share: Tensor,  # (R, S)
    ) -> Tensor:  # (R, S)
        """The ELBO of the mixture with each candidate at each of its shares."""
        g = Components.of(candidates)
        draws = g.draw(num_draws)
        log_p, log_g = self.target(draws), g.log_own(draws)  # (K, S)
        if self.size == 0:
            return (log_p - log_g).mean(0).expand(share.shape)
        log_new, log_old = share.log().unsqueeze(1), torch.log1p(-share).unsqueeze(1)
        log_r = torch.logaddexp(log_old + self._log_mixture(draws), log_new + log_g)
        new = (log_p - log_r).mean(1)  # (R, S)

        known = min(num_draws, self.options.weight_draws)
        known_log_q = self._log_q[:known].unsqueeze(-1)  # (known, C, 1)
        known_log_g = g.log_each(self._draws[:known])  # (known, C, S)
        log_r = torch.logaddexp(
            log_old.unsqueeze(1) + known_log_q, log_new.unsqueeze(1) + known_log_g
        )
        old = (self._log_p[:known].unsqueeze(-1) - log_r).mean(1)  # (R, C, S)
        return share * new + (1 - share) * torch.einsum("c,rcs->rs", self.weights, old)

    @torch.no_grad()
    def reweigh(self) -> float:
        """The ELBO on draws of all components, at the best weights."""
        new = self.components.draw(self.options.weight_draws)[:, -1:]
        self._draws = torch.cat([self._draws, new], 1)
        self._log_p = torch.cat([self._log_p, self.density_at(new)], 1)
        log_each = self.components.log_each(self._draws)  # (N, C, C)
        if self.size == 1:
            self.weights = torch.ones_like(self._log_p[0])
        elif self.options.corrective:
            self.weights = _best_weights(self._log_p, log_each, self.weights)
        else:
            self.weights = _best_share(self._log_p, log_each, self.weights)
        self._log_q = self._log_mixture(self._draws)
        return float(_elbo(self.weights, self._log_p, log_each))

    @torch.no_grad()
    def mixture(self) -> Mixture:
        """Components and weights."""
        family = copy.deepcopy(self.bank)
        tiny = torch.finfo(self.weights.dtype).tiny
        family.logits = PyroParam(self.weights.clamp(min=tiny).log(), constraints.real)
        family.locs = PyroParam(self.bank.locs.detach()[: self.size], constraints.real)
        family.scale = self.bank.scale.subset(torch.arange(self.size, device=self.weights.device))
        return family

    def _log_mixture(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        with torch.no_grad():
            components = self.components
        return torch.logsumexp(self.weights.log() + components.log_each(u), -1)


def _elbo(
    weights: Tensor,  # (C,)
    log_p: Tensor,  # (N, C), at draws of each component
    log_each: Tensor,  # (N, C, C), densities of all components there
) -> Tensor:  # ()
    log_q = torch.logsumexp(weights.log() + log_each, -1)
    return ((log_p - log_q).mean(0) * weights).sum()


def _best_weights(
    log_p: Tensor,  # (N, C)
    log_each: Tensor,  # (N, C, C)
    before: Tensor,  # (C - 1,)
) -> Tensor:  # (C,)
    """Maximise the ELBO over the simplex by L-BFGS on the logits; the draws stay the same."""

    def negative(logits: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            at = torch.as_tensor(logits).to(log_p).requires_grad_()
            value = -_elbo(torch.softmax(at, -1), log_p, log_each)
            (gradient,) = torch.autograd.grad(value, at)
        return float(value), gradient.cpu().double().numpy()

    share = 1 / (len(before) + 1)
    start = torch.cat([(1 - share) * before, before.new_tensor([share])])
    logits = start.clamp(min=1e-4).log().cpu().double().numpy()
    found = optimize.minimize(negative, logits, jac=True, method="L-BFGS-B")
    return torch.softmax(torch.as_tensor(found.x), -1).to(log_p)


def _best_share(
    log_p: Tensor,  # (N, C)
    log_each: Tensor,  # (N, C, C)
    before: Tensor,  # (C - 1,)
) -> Tensor:  # (C,)
    """Maximise the ELBO over the share of the last component."""

    def weights(share: float) -> Tensor:
        return torch.cat([(1 - share) * before, before.new_tensor([share])])

    found = optimize.minimize_scalar(
        lambda share: -float(_elbo(weights(share), log_p, log_each)),
        bounds=(1e-8, 1 - 1e-8),
        method="bounded",
    )
    return weights(float(found.x))
