"""Coordinates of continuous families whose entries are independent: Normal, Gamma, Beta."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import ExpTransform, IndependentTransform

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides.site_families.unconstrained import bijection, is_elementwise, is_real
from pyro_klmodes.inference.cavi.rules.cubature import gauss_hermite
from pyro_klmodes.inference.linear_response.coordinates import Coordinates, Params

__all__ = ["BetaCoordinates", "GammaCoordinates", "NormalCoordinates"]

_ORDER = 64  # points for the mean of a bounded function of a normal


class NormalCoordinates(Coordinates):
    """``(loc, log scale)`` of every entry in unconstrained space; the value is constrained.

    On the real line the mean is ``loc``, on the positive half line ``exp(loc + scale^2 / 2)``; on
    intervals it is taken by 64 Gauss-Hermite points.
    """

    def __init__(self, family: Any, support: Any) -> None:
        super().__init__(family, support)
        self.transform = bijection(support)
        inner = self.transform
        while isinstance(inner, IndependentTransform):
            inner = inner.base_transform
        self.real, self.positive = is_real(support), isinstance(inner, ExpTransform)

    def free(self, params: Params) -> Tensor:  # (*elements, 2)
        """``(loc, log scale)``."""
        return torch.stack([params["loc"], params["scale"].log()], -1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``loc`` and ``scale``."""
        return {"loc": free[..., 0], "scale": free[..., 1].exp()}

    def mean(self, params: Params) -> Tensor:
        """See the class.

        Raises:
            NotDefined: if the bijection mixes entries, as for a simplex.
        """
        loc, scale = params["loc"], params["scale"]
        if self.real:
            return loc
        if self.positive:
            return (loc + 0.5 * scale.square()).exp()
        return self._expected(params, 1)

    def variance(self, params: Params) -> Tensor:
        """The variance of the constrained value."""
        scale = params["scale"]
        if self.real:
            return scale.square()
        if self.positive:
            return scale.square().expm1() * self.mean(params).square()
        return self._expected(params, 2, self.mean(params))

    def _expected(self, params: Params, power: int, around: Tensor | float = 0.0) -> Tensor:
        if not is_elementwise(self.transform):
            raise NotDefined("has a bijection that mixes entries")
        x, w = gauss_hermite(1, _ORDER)
        column = [-1] + [1] * params["loc"].dim()
        x, w = (v.to(params["loc"]).reshape(column) for v in (x, w))
        values = self.transform(params["loc"] + params["scale"] * x)
        return (w * (values - around) ** power).sum(0)


class GammaCoordinates(Coordinates):
    """``(log concentration, log mean)``, which are independent in the sense of Fisher."""

    def free(self, params: Params) -> Tensor:  # (*elements, 2)
        """``(log a, log(a / b))``."""
        log_a = params["concentration"].log()
        return torch.stack([log_a, log_a - params["rate"].log()], -1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``a`` and ``b``."""
        log_a, log_mean = free.unbind(-1)
        return {"concentration": log_a.exp(), "rate": (log_a - log_mean).exp()}

    def mean(self, params: Params) -> Tensor:
        """``a / b``."""
        return params["concentration"] / params["rate"]

    def variance(self, params: Params) -> Tensor:
        """``a / b^2``."""
        return params["concentration"] / params["rate"].square()


class BetaCoordinates(Coordinates):
    """The logarithms of both concentrations."""

    def free(self, params: Params) -> Tensor:  # (*elements, 2)
        """``(log a, log b)``."""
        return torch.stack([params["concentration1"].log(), params["concentration0"].log()], -1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``a`` and ``b``."""
        a, b = free.exp().unbind(-1)
        return {"concentration1": a, "concentration0": b}

    def mean(self, params: Params) -> Tensor:
        """``a / (a + b)``."""
        return params["concentration1"] / (params["concentration1"] + params["concentration0"])

    def variance(self, params: Params) -> Tensor:
        """``m (1 - m) / (a + b + 1)``."""
        m = self.mean(params)
        return m * (1 - m) / (params["concentration1"] + params["concentration0"] + 1)
