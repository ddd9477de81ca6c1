"""Values of a site for probing a model: lines in the space of sufficient statistics, and switches.

A function that is affine in the statistics ``t`` gives ``sum_s l_s f(x_s) = 0`` for points with
``sum_s l_s = 0`` and ``sum_s l_s t(x_s) = 0``. A function that is additive over the elements of a
site gives ``f(a on A, b elsewhere) + f(b on A, a elsewhere) = f(a) + f(b)`` for every set A.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import (
    Beta,
    Dirichlet,
    Gamma,
    MultivariateNormal,
    Normal,
    Wishart,
)
from pyro_klmodes.guides.site_families.supports import number_of_categories

__all__ = ["Coordinates", "annihilator"]

#: where a fourth of the way out of the usual range a function that is not affine shows
_STEPS = (-1.5, -0.4, 0.7, 1.6)


class Coordinates:
    """The coordinates that a family sees a site in: unconstrained ones for normals.

    Args:
        latent: the site.
        family: that stands for it.
        shape: of its value, minibatches at their size.
        generator: of the values.
    """

    def __init__(
        self, latent: Latent, family: Any, shape: torch.Size, generator: torch.Generator
    ) -> None:
        self.latent, self.family, self.generator = latent, family, generator
        self.batch_dim = len(latent.batch_shape)
        self.batch = shape[: self.batch_dim]
        self.unconstrained = isinstance(family, Normal | MultivariateNormal)
        u_event = () if latent.discrete else latent.unconstrained_event_shape
        self.u_shape = torch.Size([*self.batch, *u_event])
        self.shape = self.u_shape if self.unconstrained else shape
        own = {Dirichlet: 1, Wishart: 2, MultivariateNormal: 1}.get(type(family), 0)
        #: the dimensions whose indices tell elements apart
        self.element_dims = [d for d in range(len(self.shape) - own) if self.shape[d] > 1]

    def constrained(self, coordinates: Tensor) -> Tensor:
        """The value at some coordinates."""
        return self.latent.transform(coordinates) if self.unconstrained else coordinates

    def log_det(
        self,
        coordinates: Tensor,  # (S, *shape)
    ) -> Tensor | None:  # (S, *batch)
        """Log-Jacobian of the coordinates."""
        if not self.unconstrained:
            return None
        return self.latent.log_det(coordinates, self.constrained(coordinates))

    def random(self) -> Tensor:
        """Any value, in coordinates."""
        latent = self.latent
        if latent.discrete:
            n = number_of_categories(latent.support) or 2
            states = torch.randint(n, self.shape, generator=self.generator)
            return states.to(latent.initial)
        start = latent.unconstrained
        dtype = start.dtype
        middle = start.reshape(-1, *latent.unconstrained_event_shape).mean(0)
        u = middle + 0.7 * self._randn(self.u_shape, dtype)
        if self.unconstrained:
            return u
        value: Tensor = latent.transform(u)
        return value

    def line(self) -> tuple[Tensor, Tensor]:  # (S, *shape), (S,)
        """Points on a line in the space of statistics, and the combination that vanishes there."""
        family, base = self.family, self.random()
        if self.unconstrained:
            t = base.new_tensor(_STEPS)
            direction = self._randn(self.shape, base.dtype)
            x = base + self._column(t) * direction
            return x, annihilator(torch.stack([torch.ones_like(t), t, t * t]))
        if isinstance(family, Gamma):
            t = base.new_tensor(_STEPS).exp()
            return base * self._column(t), annihilator(torch.stack([t.new_ones(4), t.log(), t]))
        if isinstance(family, Beta):
            t = base.new_tensor(_STEPS).sigmoid()
            flip = self._randn(self.shape, base.dtype) > 0
            x = torch.where(flip, 1 - self._column(t), self._column(t))
            logs = [t.new_ones(4), t.log(), (-t).log1p()]
            return x, annihilator(torch.stack(logs))
        if isinstance(family, Dirichlet):
            return self._dirichlet_line(base)
        return self._wishart_line(base)

    def _dirichlet_line(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """Powers of one vector, normalised, its entries in another order in every element."""
        t = base.new_tensor(_STEPS)
        size = self.shape[-1]
        logs = self._randn(torch.Size([size]), base.dtype)
        order = self._randn(self.shape, base.dtype).argsort(-1)
        norm = torch.logsumexp(t[:, None] * logs, -1)
        x = (self._column(t) * logs[order] - self._column(norm)).exp()
        return x, annihilator(torch.stack([t.new_ones(4), t, norm]))

    def _wishart_line(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """``A (p I + q B) A'`` with a matrix A of its own for every element."""
        size = self.shape[-1]
        root = self._randn(torch.Size([size, size]), base.dtype)
        other = root @ root.mT / size
        p = base.new_tensor((1.0, 0.6, 1.7, 0.4, 1.2))
        q = base.new_tensor((0.3, 1.5, 0.8, 0.5, 2.0))
        eye = torch.eye(size, dtype=base.dtype)
        middle = p[:, None, None] * eye + q[:, None, None] * other
        factor = torch.linalg.cholesky(base)
        ones = [1] * (len(self.shape) - 2)
        x = factor @ middle.reshape(-1, *ones, size, size) @ factor.mT
        det = torch.linalg.slogdet(middle).logabsdet
        if size == 1:  # log det and the entry are those of a Gamma; one point less is needed
            t = middle[:4, 0, 0]
            return x[:4], annihilator(torch.stack([torch.ones_like(t), t, t.log()]))
        return 0.5 * (x + x.mT), annihilator(torch.stack([torch.ones_like(p), p, q, det]))

    def switches(self, dim: int) -> Tensor:  # (2 + 2 bits, *shape)
        """Two values a and b, and both mixed by the bits of the index along a dimension."""
        a, b = self.random(), self.random()
        index = torch.arange(self.shape[dim])
        rows = [a, b]
        for bit in range(max(1, math.ceil(math.log2(self.shape[dim])))):
            chosen = (index >> bit) % 2 == 1
            mask = chosen.reshape([-1 if d == dim else 1 for d in range(len(self.shape))])
            rows += [torch.where(mask, a, b), torch.where(mask, b, a)]
        return torch.stack(rows)

    def _column(self, t: Tensor) -> Tensor:
        return t.reshape(-1, *([1] * len(self.shape)))

    def _randn(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=dtype)


def annihilator(
    functions: Tensor,  # (n, n + 1), each row a function at the points
) -> Tensor:  # (n + 1,)
    """The combination of points at which all functions vanish."""
    return torch.linalg.svd(functions.double()).Vh[-1].to(functions)
