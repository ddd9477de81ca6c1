"""Coordinates of families whose entries depend on each other: full normal, Dirichlet, Wishart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.linear_response.coordinates import Coordinates, Params

__all__ = ["DirichletCoordinates", "FullNormalCoordinates", "WishartCoordinates"]


class FullNormalCoordinates(Coordinates):
    """``loc``, and the Cholesky factor of the covariance with the logarithm of its diagonal."""

    def __init__(self, family: Any, support: Any, size: int) -> None:
        super().__init__(family, support)
        self.size, self.value_shape = size, torch.Size([size])

    def free(self, params: Params) -> Tensor:  # (*elements, D + D (D + 1) / 2)
        """``(loc, log diagonal, entries below it)``."""
        return torch.cat([params["loc"], _from_tril(params["scale_tril"])], -1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``loc`` and ``scale_tril``."""
        rest = free[..., self.size :]
        return {"loc": free[..., : self.size], "scale_tril": _to_tril(rest, self.size)}

    def mean(self, params: Params) -> Tensor:
        """``loc``."""
        return params["loc"]

    def variance(self, params: Params) -> Tensor:
        """The diagonal of the covariance."""
        return params["scale_tril"].square().sum(-1)


class DirichletCoordinates(Coordinates):
    """The logarithms of the concentrations."""

    def __init__(self, family: Any, support: Any, size: int) -> None:
        super().__init__(family, support)
        self.value_shape = torch.Size([size])

    def free(self, params: Params) -> Tensor:  # (*elements, K)
        """``log a``."""
        return params["concentration"].log()

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``a``."""
        return {"concentration": free.exp()}

    def mean(self, params: Params) -> Tensor:
        """``a / sum a``."""
        return params["concentration"] / params["concentration"].sum(-1, keepdim=True)

    def variance(self, params: Params) -> Tensor:
        """``m (1 - m) / (sum a + 1)``."""
        m = self.mean(params)
        return m * (1 - m) / (params["concentration"].sum(-1, keepdim=True) + 1)


class WishartCoordinates(Coordinates):
    """``log(df - D + 1)``, and the factor of the scale with the logarithm of its diagonal."""

    def __init__(self, family: Any, support: Any, size: int) -> None:
        super().__init__(family, support)
        self.size, self.value_shape = size, torch.Size([size, size])

    def free(self, params: Params) -> Tensor:  # (*elements, 1 + D (D + 1) / 2)
        """``(log(df - D + 1), log diagonal, entries below it)``."""
        room = (params["df"] - self.size + 1).log().unsqueeze(-1)
        return torch.cat([room, _from_tril(params["scale_tril"])], -1)

    def params(self, free: Tensor) -> dict[str, Tensor]:
        """``df`` and ``scale_tril``."""
        df = free[..., 0].exp() + self.size - 1
        return {"df": df, "scale_tril": _to_tril(free[..., 1:], self.size)}

    def mean(self, params: Params) -> Tensor:
        """``df V``."""
        tril = params["scale_tril"]
        return params["df"][..., None, None] * (tril @ tril.mT)

    def variance(self, params: Params) -> Tensor:
        """``df (V_ij^2 + V_ii V_jj)``."""
        tril = params["scale_tril"]
        scale = tril @ tril.mT
        diagonal = scale.diagonal(dim1=-2, dim2=-1)
        products = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return params["df"][..., None, None] * (scale.square() + products)


def _from_tril(
    tril: Tensor,  # (*elements, D, D)
) -> Tensor:  # (*elements, D (D + 1) / 2)
    size = tril.shape[-1]
    below = torch.tril_indices(size, size, offset=-1, device=tril.device)
    diagonal = tril.diagonal(dim1=-2, dim2=-1)
    return torch.cat([diagonal.log(), tril[..., below[0], below[1]]], -1)


def _to_tril(
    free: Tensor,  # (*elements, D (D + 1) / 2)
    size: int,
) -> Tensor:  # (*elements, D, D)
    below = torch.tril_indices(size, size, offset=-1, device=free.device)
    basis = free.new_zeros(below.shape[1], size, size)
    basis[torch.arange(below.shape[1]), below[0], below[1]] = 1
    return free[..., :size].exp().diag_embed() + torch.tensordot(free[..., size:], basis, dims=1)
