"""The distributions that local latents can have, with parameters given by a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from scipy import special
from torch import Tensor

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides.arguments import positive_number

__all__ = ["DiagonalNormal", "FullNormal", "LocalFamily", "StudentT", "as_raw", "positive"]


class LocalFamily(ABC):
    """A distribution over the D unconstrained coordinates of one site of one datum.

    Its parameters are P unbounded numbers, "raw" because a network puts them out.
    """

    @abstractmethod
    def start(
        self,
        loc: Tensor,  # (D,)
        scale: float,
    ) -> Tensor:  # (P,)
        """The raw parameters of a distribution at this location with independent coordinates."""

    @abstractmethod
    def distribution(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,  # D
        shift: Tensor,  # added to the location: (*lead, *batch, D) or ()
    ) -> Any:
        """A reparameterised distribution with one event dimension."""

    def quantiles(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,  # D
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """Marginal quantiles of every coordinate.

        Raises:
            NotDefined: if they have no closed form.
        """
        raise NotDefined(
            f"the quantiles of {type(self).__name__} have no closed form; take them of draws: "
            "guide.sample(10_000, *args)."
        )


@dataclass(frozen=True)
class DiagonalNormal(LocalFamily):
    """Independent normal coordinates, 2 D numbers.

    Example:
        >>> family = DiagonalNormal()
        >>> raw = family.start(torch.zeros(2), 0.1)
        >>> family.distribution(raw, 2, torch.zeros(())).log_prob(torch.zeros(2))
        tensor(2.7673)
    """

    def start(
        self,
        loc: Tensor,  # (D,)
        scale: float,
    ) -> Tensor:  # (2 D,)
        """Location and standard deviations."""
        return torch.cat([loc, as_raw(torch.full_like(loc, scale))])

    def distribution(
        self,
        raw: Tensor,  # (*batch, 2 D)
        size: int,
        shift: Tensor,
    ) -> Any:
        """A normal with one event dimension."""
        loc, sd = raw.split(size, -1)
        return dist.Normal(loc + shift, positive(sd), validate_args=False).to_event(1)

    def quantiles(
        self,
        raw: Tensor,  # (*batch, 2 D)
        size: int,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """Location plus multiples of the standard deviations."""
        loc, sd = raw.split(size, -1)
        return loc + _leading(torch.special.ndtri(levels.to(raw)), raw) * positive(sd)


@dataclass(frozen=True)
class FullNormal(LocalFamily):
    """A normal with any covariance of the D coordinates, ``D (D + 3) / 2`` numbers.

    The Cholesky factor is ``diag(s) A`` with positive s and unit lower triangular A.

    Example:
        >>> family = FullNormal()
        >>> raw = family.start(torch.zeros(3), 1.0)
        >>> raw.shape, family.distribution(raw, 3, torch.zeros(())).covariance_matrix.diagonal()
        (torch.Size([9]), tensor([1., 1., 1.]))
    """

    def start(
        self,
        loc: Tensor,  # (D,)
        scale: float,
    ) -> Tensor:  # (P,)
        """Location, scales, and zeros below the diagonal."""
        below = loc.new_zeros(len(loc) * (len(loc) - 1) // 2)
        return torch.cat([loc, as_raw(torch.full_like(loc, scale)), below])

    def distribution(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        shift: Tensor,
    ) -> Any:
        """A multivariate normal."""
        loc, factor = self._parameters(raw, size)
        return dist.MultivariateNormal(loc + shift, scale_tril=factor, validate_args=False)

    def quantiles(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """Location plus multiples of the marginal standard deviations."""
        loc, factor = self._parameters(raw, size)
        sd = torch.linalg.vector_norm(factor, dim=-1)
        return loc + _leading(torch.special.ndtri(levels.to(raw)), raw) * sd

    def _parameters(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch, D, D)
        loc, scale, below = raw.split([size, size, raw.shape[-1] - 2 * size], -1)
        unit = torch.eye(size, dtype=raw.dtype, device=raw.device)
        row, column = torch.tril_indices(size, size, -1, device=raw.device)
        lower = unit.expand(*raw.shape[:-1], size, size).clone()
        lower[..., row, column] = below
        return loc, positive(scale).unsqueeze(-1) * lower


@dataclass(frozen=True)
class StudentT(LocalFamily):
    """Independent Student-t coordinates, 2 D numbers, or 3 D if their tails are learned.

    Args:
        df: degrees of freedom, at the start if they are learned.
        learn_df: whether the network gives every coordinate degrees of freedom of its own. Reverse
            KL hardly feels the tails; learn them with a mass-covering loss.

    Raises:
        InvalidArgument: if ``df`` is not a positive number.

    Example:
        >>> StudentT(df=3.0)
        StudentT(df=3.0, learn_df=False)
    """

    df: float = 4.0
    learn_df: bool = False

    def __post_init__(self) -> None:
        positive_number("df", self.df, "; use DiagonalNormal() for infinity")

    def start(
        self,
        loc: Tensor,  # (D,)
        scale: float,
    ) -> Tensor:  # (2 D,) or (3 D,)
        """Location, scales, and logarithms of the degrees of freedom."""
        parts = [loc, as_raw(torch.full_like(loc, scale))]
        if self.learn_df:
            parts.append(torch.full_like(loc, math.log(self.df)))
        return torch.cat(parts)

    def distribution(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        shift: Tensor,
    ) -> Any:
        """A Student-t with one event dimension."""
        loc, scale, df = self._parameters(raw, size)
        return dist.StudentT(df, loc + shift, scale, validate_args=False).to_event(1)

    def quantiles(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, D)
        """Location plus multiples of the scales, without gradients."""
        loc, scale, df = self._parameters(raw.detach(), size)
        at = _leading(levels.to(raw), raw).cpu().numpy()
        standard = torch.as_tensor(special.stdtrit(df.cpu().numpy(), at))
        return loc + standard.to(raw) * scale

    def _parameters(
        self,
        raw: Tensor,  # (*batch, P)
        size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # (*batch, D) each, the last possibly ()
        loc, scale, *log_df = raw.split(size, -1)
        df = log_df[0].exp() if log_df else raw.new_tensor(self.df)
        return loc, positive(scale), df


def positive(
    raw: Tensor,
) -> Tensor:
    """A positive number for every raw one, by the softplus function."""
    tiny = torch.finfo(raw.dtype).tiny  # softplus ends up at zero itself
    return torch.nn.functional.softplus(raw).clamp(min=tiny)


def as_raw(
    scale: Tensor,  # positive
) -> Tensor:
    """The inverse of ``positive``."""
    return scale + torch.log(-torch.expm1(-scale))


def _leading(
    levels: Tensor,  # (Q,)
    raw: Tensor,  # (*batch, P)
) -> Tensor:  # (Q, 1, ..., 1)
    return levels.reshape(-1, *[1] * raw.dim())
