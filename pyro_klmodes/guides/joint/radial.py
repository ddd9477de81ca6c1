"""How the density falls off with the Mahalanobis norm: Gaussian or Student-t."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from scipy import special
from torch import Tensor
from torch.distributions import Chi2

from pyro_klmodes.guides.arguments import positive_number

__all__ = ["Gaussian", "Radial", "RadialLaw", "RadialParameters", "StudentT"]


class Radial(ABC):
    """The law of the length of elliptical vectors, at fixed values of its parameters."""

    @abstractmethod
    def log_density(
        self,
        squared: Tensor,  # (*batch)
        volume: Tensor,  # (*batch) or broadcasting with it
        size: Tensor,  # likewise, the number of coordinates
    ) -> Tensor:  # (*batch)
        """Log-density of ``size`` coordinates from squared norm and ``1/2 log det S``."""

    @abstractmethod
    def stretch(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape) or ()
        """Random factors that turn Gaussian vectors into vectors of this law."""

    @abstractmethod
    def standard_quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q,)
        """Quantiles of one coordinate at location 0 and scale 1, without gradients."""

    @abstractmethod
    def standard_cdf(
        self,
        x: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        """Distribution function of one coordinate at location 0 and scale 1, no gradients."""


class RadialParameters(PyroModule):
    """The parameters of a radial law; ``radial`` reads each of them once."""

    def radial(self) -> Radial:
        """The law at the current parameters."""
        raise NotImplementedError


class RadialLaw(ABC):
    """A choice of radial law."""

    @abstractmethod
    def parameters(
        self,
        like: Tensor,
    ) -> RadialParameters:
        """Parameters in the type and on the device of ``like``."""


@dataclass(frozen=True)
class Gaussian(RadialLaw):
    """Normal densities.

    Example:
        >>> Gaussian()
        Gaussian()
    """

    def parameters(
        self,
        like: Tensor,
    ) -> RadialParameters:
        """No parameters."""
        return _GaussianParameters(like)


@dataclass(frozen=True)
class StudentT(RadialLaw):
    """Student-t densities, one number of degrees of freedom for all coordinates and components.

    The density of j coordinates is

        ``G((df+j)/2) / G(df/2) (df pi)^{-j/2} det(S)^{-1/2} (1 + r^2/df)^{-(df+j)/2}``

    with r the Mahalanobis norm and G the gamma function. The covariance is ``S df / (df - 2)``
    where df > 2; ``init_scale`` of a guide is the square root of the diagonal of S. Moments of
    order df and higher are infinite; so is the importance weights' variance at a target whose tails
    are heavier still.

    Args:
        df: degrees of freedom, positive; the initial value if they are learned.
        learn_df: whether they are a parameter. The optimiser works on log df, so they stay
            positive, and its steps are relative.

    Raises:
        InvalidArgument: if df is not a positive finite number.

    Example:
        >>> StudentT(df=3.0)
        StudentT(df=3.0, learn_df=False)
    """

    df: float = 4.0
    learn_df: bool = False

    def __post_init__(self) -> None:
        positive_number("df", self.df, "; use Gaussian() for infinity")

    def parameters(
        self,
        like: Tensor,
    ) -> RadialParameters:
        """The degrees of freedom, as a parameter or as a constant."""
        df = torch.tensor(float(self.df), dtype=like.dtype, device=like.device)
        return _LearnedStudentT(df) if self.learn_df else _FixedStudentT(df)


class _GaussianRadial(Radial):
    def __init__(self, like: Tensor) -> None:
        self._one = torch.ones((), dtype=like.dtype, device=like.device)

    def log_density(
        self,
        squared: Tensor,  # (*batch)
        volume: Tensor,  # (*batch)
        size: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        return -0.5 * squared - (volume + 0.5 * math.log(2 * math.pi) * size)

    def stretch(
        self,
        shape: torch.Size,
    ) -> Tensor:  # ()
        return self._one

    def standard_quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q,)
        return torch.special.ndtri(levels)

    def standard_cdf(
        self,
        x: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        return torch.special.ndtr(x)


class _StudentTRadial(Radial):
    def __init__(
        self,
        df: Tensor,  # ()
    ) -> None:
        self.df = df

    def log_density(
        self,
        squared: Tensor,  # (*batch)
        volume: Tensor,  # (*batch)
        size: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        # Two large numbers are subtracted where df is large, hence the double precision.
        half_df, half_size = self.df.double() / 2, size.double() / 2
        half_both = half_df + half_size
        log_gammas = torch.lgamma(half_both) - torch.lgamma(half_df)
        constant = log_gammas - half_size * torch.log(2 * math.pi * half_df)
        falloff = half_both.to(squared.dtype) * torch.log1p(squared / self.df)
        return constant.to(squared.dtype) - volume - falloff

    def stretch(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape)
        # Gradients of df pass through the chi-square draw, which PyTorch reparameterises.
        return (self.df / Chi2(self.df).rsample(shape)).sqrt()

    def standard_quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q,)
        quantiles = special.stdtrit(float(self.df.detach()), levels.detach().cpu().numpy())
        return torch.as_tensor(quantiles, dtype=levels.dtype, device=levels.device)

    def standard_cdf(
        self,
        x: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        cdf = special.stdtr(float(self.df.detach()), x.detach().cpu().numpy())
        return torch.as_tensor(cdf, dtype=x.dtype, device=x.device)


class _GaussianParameters(RadialParameters):
    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("like", like.new_zeros(()), persistent=False)

    def radial(self) -> Radial:
        return _GaussianRadial(self.like)


class _FixedStudentT(RadialParameters):
    def __init__(
        self,
        df: Tensor,  # ()
    ) -> None:
        super().__init__()
        self.register_buffer("df", df)

    def radial(self) -> Radial:
        return _StudentTRadial(self.df)


class _LearnedStudentT(RadialParameters):
    def __init__(
        self,
        df: Tensor,  # ()
    ) -> None:
        super().__init__()
        self.df = PyroParam(df, constraints.positive)

    def radial(self) -> Radial:
        return _StudentTRadial(self.df)
