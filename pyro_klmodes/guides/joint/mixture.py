"""Mixtures of Gaussian or Student-t densities over all latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.base import ChainDensity, JointFamily
from pyro_klmodes.guides.joint.elliptical import log_prefixes
from pyro_klmodes.guides.joint.implicit import implicit_draw
from pyro_klmodes.guides.joint.mixture_quantiles import mixture_quantiles
from pyro_klmodes.guides.joint.radial import Gaussian, Radial, RadialLaw
from pyro_klmodes.guides.joint.scale_base import Scale
from pyro_klmodes.guides.joint.scales import Diagonal, ScaleStructure
from pyro_klmodes.guides.joint.spread import At, Spread, Start

__all__ = ["Mixture", "MixtureDensity"]

_DIAGONAL = Diagonal()
_GAUSSIAN = Gaussian()
_SPREAD = Spread()


class MixtureDensity(ChainDensity):
    """A mixture at the current parameters.

    Attributes:
        log_weights: logarithms of the weights of the components, ``(C,)``.
        component_locs: locations of the components, ``(C, D)``.
        scale: their scale matrices.
        radial: Gaussian or Student-t, common to the components.
    """

    def __init__(
        self,
        log_weights: Tensor,  # (C,)
        component_locs: Tensor,  # (C, D)
        scale: Scale,
        radial: Radial,
    ) -> None:
        self.log_weights = log_weights
        self.component_locs = component_locs
        self.scale = scale
        self.radial = radial

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        """Draw vectors; they carry gradients of all parameters, the weights' included.

        The gradients are implicit (see ``implicit``): exact in the mean and continuous in the
        draw, but of large variance where a draw falls between far components. First derivatives
        only. The conditionals of a low-rank scale take a Cholesky factor of each D x D matrix.
        """
        shape = torch.Size(shape)
        components = self.draw_components(shape)
        # A Student-t vector is a Gaussian one times a random factor, and the factor is the same
        # for all components because the degrees of freedom are. So it can be drawn first (with
        # gradients of df): given the factor the vector is a draw of a mixture of Gaussians with
        # the weights and locations of this one, and without it a draw of this mixture.
        stretch = self.radial.stretch(shape)
        with torch.no_grad():
            value = self._draw(components, stretch)
        if not torch.is_grad_enabled():
            return value
        return implicit_draw(
            value, self.log_weights, self.component_locs, self.scale.triangular(), stretch
        )

    def rsample_component(
        self,
        components: Tensor,  # (*shape) long
    ) -> Tensor:  # (*shape, D)
        """Draw each vector from the component named, with ordinary gradients of its parameters.

        For estimators that go through the components one by one. The weights, which these draws
        do not depend on, are ``log_weights``.
        """
        return self._draw(components, self.radial.stretch(components.shape))

    def draw_components(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape) long
        """Indices of components, drawn by their weights."""
        weights = self.log_weights.detach().exp()
        return torch.multinomial(weights, math.prod(shape), replacement=True).reshape(shape)

    def log_prefixes(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """Log-density of the first e coordinates, for every e of ``ends``."""
        return torch.logsumexp(self._log_joint(u, ends), -2)

    def responsibilities(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, C)
        """Probabilities that a vector comes from each of the components."""
        return torch.softmax(self._log_joint(u, [u.shape[-1]]).squeeze(-1), -1)

    def quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, D)
        """Marginal quantiles of every coordinate, by bisection, without gradients."""
        return mixture_quantiles(
            levels,
            self.log_weights.detach().exp(),
            self.component_locs.detach(),
            self.scale.marginal_sd().detach(),
            self.radial,
        )

    def _log_joint(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, C, len(ends))
        delta = u.unsqueeze(-2) - self.component_locs
        return self.log_weights.unsqueeze(-1) + log_prefixes(self.scale, self.radial, delta, ends)

    def _draw(
        self,
        components: Tensor,  # (*shape)
        stretch: Tensor,  # (*shape) or ()
    ) -> Tensor:  # (*shape, D)
        rows = components.reshape(-1)  # torch looks at an index without dimensions as a number
        scale = self.scale.select(rows)
        locs = self.component_locs[rows]
        noise = torch.randn((len(rows), scale.noise_size), dtype=locs.dtype, device=locs.device)
        stretched = stretch.expand(components.shape).reshape(-1, 1) * scale.draw(noise)
        return (locs + stretched).reshape(*components.shape, -1)


class Mixture(JointFamily):
    r"""A mixture of C Gaussian or Student-t densities.

    .. math:: q(u) = \sum_c \pi_c \, q_c(u), \qquad
        \pi_c = (1 - C \delta) \, \mathrm{softmax}(\ell)_c + \delta,

    with :math:`\delta` = ``min_weight``. With a floor no component can be switched off, so a draw
    keeps coming from each of them (a defensive mixture; Hesterberg, 1995).

    Args:
        loc: initial location, ``(D,)``; its type and device are those of the density.
        num_components: number C of components, at least 1.
        init_scale: initial square roots of the diagonals of the scale matrices: a number, or a
            tensor that broadcasts to ``(C, D)``.
        scale: ``Diagonal()``, ``LowRank(rank)`` or ``Full()``, for every component its own.
        radial: ``Gaussian()`` or ``StudentT(df, learn_df)``, with one df for all components.
        start: where the components start; called with ``loc``, C and (the mean of) ``init_scale``.
        min_weight: the least weight a component can have, below 1/C.

    Raises:
        InvalidArgument: if ``num_components`` or ``min_weight`` is out of range, or ``start`` does
            not return ``(C, D)`` finite numbers.

    Example:
        >>> from pyro_klmodes.guides.joint.spread import At
        >>> points = At(torch.tensor([[-3.0], [3.0]]))
        >>> density = Mixture(torch.zeros(1), num_components=2, start=points).density()
        >>> density.responsibilities(torch.zeros(1))
        tensor([0.5000, 0.5000], grad_fn=...)
        >>> density.quantiles(torch.tensor([0.1, 0.9]))
        tensor([[-3.8416],
                [ 3.8416]])
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        *,
        num_components: int,
        init_scale: float | Tensor = 1.0,
        scale: ScaleStructure = _DIAGONAL,
        radial: RadialLaw = _GAUSSIAN,
        start: Start = _SPREAD,
        min_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _check(num_components, min_weight)
        self.min_weight = min_weight
        self.structure, self.law = scale, radial
        locs = _locations(start, loc.detach(), num_components, init_scale)
        self.logits = PyroParam(loc.new_zeros(num_components), constraints.real)
        self.locs = PyroParam(locs, constraints.real)
        self.scale = scale.parameters(init_scale * torch.ones_like(locs))
        self.radial = radial.parameters(loc)

    @property
    def num_components(self) -> int:
        """Number of components."""
        return self.logits_unconstrained.shape[0]

    def density(self) -> MixtureDensity:
        """The density at the current parameters."""
        log_weights = torch.log_softmax(self.logits, -1)
        if self.min_weight > 0:
            rest = math.log1p(-self.min_weight * self.num_components)
            floor = torch.full_like(log_weights, math.log(self.min_weight))
            log_weights = torch.logaddexp(log_weights + rest, floor)
        return MixtureDensity(log_weights, self.locs, self.scale.scale(), self.radial.radial())

    def pruned(
        self,
        *,
        keep: int | None = None,
        threshold: float | None = None,
    ) -> Mixture:
        """A smaller mixture of some of the components, at their current parameters.

        Their weights are divided by their sum, so on each draw of the new mixture the density is
        the sum of the components kept, up to a constant factor. The new mixture has parameters of
        its own. Of equal weights, the first are kept.

        Args:
            keep: keep this many, the heaviest.
            threshold: keep those of at least this weight (at any rate the heaviest).

        Raises:
            InvalidArgument: unless exactly one of the two is given, or if ``keep`` is not between
                1 and the number of components.
        """
        weights = self.density().log_weights.detach().exp()
        order = weights.argsort(descending=True, stable=True)
        num_kept = _number_kept(weights, keep, threshold)
        kept = order[:num_kept].sort().values

        locs = self.locs.detach()[kept]
        smaller = Mixture(
            locs[0],
            num_components=num_kept,
            scale=self.structure,
            radial=self.law,
            start=At(locs),
            min_weight=self.min_weight,
        )
        share = weights[kept] / weights[kept].sum()
        free = (share - self.min_weight).clamp(min=torch.finfo(share.dtype).tiny)
        smaller.logits = PyroParam(free.log(), constraints.real)
        smaller.scale = self.scale.subset(kept)
        smaller.radial.load_state_dict(self.radial.state_dict())
        return smaller


def _check(num_components: int, min_weight: float) -> None:
    if num_components < 1:
        raise InvalidArgument(f"num_components is {num_components}, but must be at least 1.")
    if not 0 <= min_weight * num_components < 1:
        raise InvalidArgument(
            f"min_weight is {min_weight}, but with {num_components} components it must be at least "
            f"0 and less than {1 / num_components:g}."
        )


def _locations(
    start: Start,
    loc: Tensor,  # (D,)
    num_components: int,
    init_scale: float | Tensor,
) -> Tensor:  # (C, D)
    locs = start(loc, num_components, float(torch.as_tensor(init_scale).mean())).detach().clone()
    expected = (num_components, loc.shape[-1])
    if tuple(locs.shape) != expected or not bool(locs.isfinite().all()):
        raise InvalidArgument(
            f"start returned a tensor of shape {tuple(locs.shape)}; it must return finite numbers "
            f"of shape {expected}: components by unconstrained coordinates."
        )
    return locs


def _number_kept(
    weights: Tensor,  # (C,)
    keep: int | None,
    threshold: float | None,
) -> int:
    if keep is not None and threshold is None:
        if not 1 <= keep <= len(weights):
            raise InvalidArgument(
                f"keep is {keep}, but must be between 1 and the number of components, "
                f"{len(weights)}."
            )
        return keep
    if threshold is not None and keep is None:
        return max(1, int((weights >= threshold).sum()))
    raise InvalidArgument("give one of keep and threshold.")
