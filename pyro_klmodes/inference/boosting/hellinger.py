"""Boosting by the Hellinger distance: mixtures of square roots of Gaussians, squared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pyro.distributions import constraints
from pyro.infer import ELBO
from pyro.nn import PyroParam
from scipy import optimize
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.radial import Gaussian, RadialLaw
from pyro_klmodes.guides.joint.scales import Diagonal, Full, ScaleStructure
from pyro_klmodes.guides.joint.spread import At
from pyro_klmodes.inference.boosting.base import Booster, BoostingDivergence
from pyro_klmodes.inference.boosting.components import Components
from pyro_klmodes.inference.boosting.gaussians import log_overlaps, products
from pyro_klmodes.inference.target import Target
from pyro_klmodes.losses import Renyi

__all__ = ["Hellinger"]

#: keeps the Gram matrix of two equal components invertible
_JITTER = 1e-10
#: the square of the sine of the angle to the mixture so far, below which directions are the same
_SAME = 1e-6


@dataclass(frozen=True)
class Hellinger(BoostingDivergence):
    r"""The squared Hellinger distance :math:`1 - \int \sqrt{p q}`, of ``q`` the square of a sum.

    With :math:`f = \sqrt{p(x, \cdot)}` and square roots :math:`g_i` of Gaussian densities, the sum
    :math:`s = \sum_i \lambda_i g_i`, :math:`\lambda \ge 0`, of length 1 is brought to f. The next
    component is the direction of steepest approach on the sphere,

    .. math:: \max_h \frac{\langle f, h \rangle - \langle f, s \rangle \langle s, h \rangle}
        {\sqrt{1 - \langle s, h \rangle^2}},

    after which all :math:`\lambda` solve a non-negative least squares problem with the Gram matrix
    :math:`Z_{ij} = \langle g_i, g_j \rangle`, which is closed. :math:`\langle f, h \rangle` is a
    mean of :math:`f / h` over draws of :math:`h^2`, whose variance is below the evidence whatever
    the tails; that of the weights is over draws of all components together (Veach and Guibas,
    1995). No regulariser is needed: a component that shrinks to a point has no overlap with f.

    The density :math:`s^2 = \sum_{ij} \lambda_i \lambda_j Z_{ij} \, (g_i g_j / Z_{ij})` is again a
    mixture of Gaussians, with C (C + 1) / 2 components and weights :math:`\lambda_i^2` and
    :math:`2 \lambda_i \lambda_j Z_{ij}`. The guide is this mixture, but for weights that are zero
    to machine precision. ``guide.prune`` drops more.

    Args:
        weight_draws: draws of each component for the weights, and of each candidate in the end.

    Raises:
        InvalidArgument: if ``weight_draws`` is not a positive integer; by ``boost`` for Student-t
            components or a low-rank scale, whose products are of another kind.

    Source: Campbell and Li (2019), Universal boosting variational inference.

    Example:
        >>> Hellinger()
        Hellinger(weight_draws=10000)
    """

    weight_draws: int = 10_000

    def check(self, scale: ScaleStructure, radial: RadialLaw) -> None:
        """Gaussian components with a diagonal or a full scale."""
        if not isinstance(radial, Gaussian):
            raise InvalidArgument(
                f"radial={radial!r}: products of square roots of Student-t densities are none. Use "
                "Gaussian(), or divergence=KL()."
            )
        if not isinstance(scale, Diagonal | Full):
            raise InvalidArgument(
                f"scale={scale!r}: products of square roots of low-rank Gaussians have a higher "
                "rank. Use Diagonal() or Full(), or divergence=KL()."
            )

    def booster(self, target: Target, bank: Mixture) -> Booster:
        """A sum without terms."""
        return _HellingerBooster(target, bank, self.weight_draws)

    def loss(self, num_particles: int) -> ELBO:
        """``-2 log E sqrt(w)``, the Renyi bound of order one half."""
        return Renyi(0.5, num_particles)


class _HellingerBooster(Booster):
    """The sum s; ``weights`` are lambda.

    Attributes:
        log_overlap: ``log <f, s>``.
    """

    def __init__(self, target: Target, bank: Mixture, weight_draws: int) -> None:
        super().__init__(target, bank)
        self.weight_draws = weight_draws
        self.log_overlap = -math.inf
        self._draws = target.initial.new_empty(0, len(target.initial))
        self._log_p = target.initial.new_empty(0)

    def score(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> Tensor:  # (S,)
        """Sign times logarithm of the gain, turned so that more is better on either side of zero.

        The logarithm is what gives far candidates a direction.
        """
        log_f, log_s, log_sine = self._parts(candidates, num_draws)
        if self.size == 0:
            return log_f
        above = log_f > log_s
        ratio = (log_s - log_f).abs().clamp(min=_SAME)
        size = torch.maximum(log_f, log_s) + (-torch.expm1(-ratio)).log() - log_sine
        return torch.where(above, size, -size)

    def gain(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> Tensor:  # (S,)
        """The gain itself, up to a factor."""
        log_f, log_s, log_sine = self._parts(candidates, num_draws)
        scale = torch.where(log_f.isnan(), -math.inf, log_f).amax()
        if scale == -math.inf:  # no candidate has seen any of the density
            return log_f
        return (log_f - scale - log_sine).exp() - (log_s - scale - log_sine).exp()

    def reweigh(self) -> float:
        """Non-negative least squares; twice the log overlap is the bound."""
        with torch.no_grad():
            new = Components.of(self.bank).first(self.size).draw(self.weight_draws)[:, -1]
            self._draws = torch.cat([self._draws, new])
            self._log_p = torch.cat([self._log_p, self.density_at(new)])
            components = self.components
            log_each = components.log_each(self._draws)  # (P, C)
            log_proposal = torch.logsumexp(log_each, -1) - math.log(self.size)
            log_ratio = 0.5 * (self._log_p.unsqueeze(-1) + log_each) - log_proposal.unsqueeze(-1)
            log_inner = torch.logsumexp(log_ratio, 0) - math.log(len(self._draws))
            gram = log_overlaps(components, components).exp()
        top = log_inner.max()
        inner = (log_inner - top).exp()
        root = torch.linalg.cholesky(gram + _JITTER * torch.eye(self.size).to(gram))
        right = torch.linalg.solve_triangular(root, inner.unsqueeze(-1), upper=False).squeeze(-1)
        found, _ = optimize.nnls(root.mT.cpu().double().numpy(), right.cpu().double().numpy())
        weights = torch.as_tensor(found).to(gram)
        self.weights = weights / (weights @ gram @ weights).sqrt()
        self.log_overlap = float((self.weights @ inner).log() + top)
        return 2 * self.log_overlap

    @torch.no_grad()
    def mixture(self) -> Mixture:
        """The square of the sum."""
        components = self.components
        i, j = torch.triu_indices(self.size, self.size)
        log_gram = log_overlaps(components, components)
        log_weights = self.weights[i].log() + self.weights[j].log() + log_gram[i, j]
        log_weights = torch.where(i == j, log_weights, log_weights + math.log(2))
        kept = log_weights - torch.logsumexp(log_weights, 0) > math.log(
            torch.finfo(log_weights.dtype).eps
        )
        locs, sd, scales = products(components, i[kept], j[kept])
        family = Mixture(
            self.target.initial, num_components=len(locs), init_scale=sd, start=At(locs)
        )
        family.logits = PyroParam(log_weights[kept], constraints.real)
        family.scale = scales
        return family

    def _parts(
        self,
        candidates: Mixture,
        num_draws: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # (S,) each
        """Logarithms of ``<f, h>``, of ``<f, s> <s, h>``, and of the sine between s and h."""
        h = Components.of(candidates)
        draws = h.draw(num_draws)
        log_w = self.target(draws) - h.log_own(draws)
        log_f = torch.logsumexp(0.5 * log_w, 0) - math.log(num_draws)
        if self.size == 0:
            return log_f, torch.full_like(log_f, -math.inf), torch.zeros_like(log_f)
        with torch.no_grad():
            components = self.components
        log_h = log_overlaps(h, components) + self.weights.log()
        log_cosine = torch.logsumexp(log_h, -1)
        sine = (-torch.expm1(2 * log_cosine)).clamp(min=_SAME)
        return log_f, self.log_overlap + log_cosine, 0.5 * sine.log()
