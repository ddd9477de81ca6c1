"""The parameters and the densities of the noise that a flow transforms."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.base import JointDensity, JointFamily

__all__ = ["GaussianNoise", "StudentTNoise"]


class GaussianNoise(JointFamily):
    """Independent standard normals."""

    def __init__(
        self,
        like: Tensor,  # (D,)
    ) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros_like(like), persistent=False)

    def density(self) -> JointDensity:
        """The density, which has no parameters."""
        return _Independent(dist.Normal(self.zeros, torch.ones_like(self.zeros)))


class StudentTNoise(JointFamily):
    """Independent Student t's of scale one."""

    def __init__(
        self,
        df: Tensor,  # (D,)
        *,
        learn: bool,
    ) -> None:
        super().__init__()
        if learn:
            self.df = PyroParam(df, constraints.positive)
        else:
            self.register_buffer("df", df)

    def density(self) -> JointDensity:
        """The density at the current degrees of freedom."""
        df = self.df
        return _Independent(dist.StudentT(df, torch.zeros_like(df), torch.ones_like(df)))


class _Independent(JointDensity):
    def __init__(self, marginals: TorchDistribution) -> None:
        self.joint = marginals.to_event(1)

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        draws: Tensor = self.joint.rsample(shape)
        return draws

    def log_prob(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        log_prob: Tensor = self.joint.log_prob(u)
        return log_prob
