"""What the scale of an elliptical density, or of each component of a mixture, has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from pyro.nn import PyroModule
from torch import Tensor

__all__ = ["Scale", "ScaleParameters", "TriangularScale", "apply", "as_columns", "prefix_sums"]


class Scale(ABC):
    """A covariance ``S`` of length D, or one for each of a batch of components, at fixed values.

    Leading dimensions ``*lead`` are those of the components: none, ``(C,)``, or those of an index
    that picked a component for every draw. What stands left of them is a batch of vectors.
    """

    #: how many standard normal numbers a draw takes
    noise_size: int

    @abstractmethod
    def select(
        self,
        index: Tensor,  # (*shape) long
    ) -> Scale:
        """The scales of these components, with ``*shape`` as leading dimensions."""

    @abstractmethod
    def draw(
        self,
        noise: Tensor,  # (*batch, *lead, noise_size)
    ) -> Tensor:  # (*batch, *lead, D)
        """Vectors of covariance S from standard normal noise."""

    @abstractmethod
    def prefixes(
        self,
        delta: Tensor,  # (*batch, *lead, D)
        ends: Sequence[int],
    ) -> tuple[Tensor, Tensor]:  # (*batch, *lead, len(ends)), (*lead, len(ends))
        """Norms and volumes of the leading coordinates, for ends ``e_1 < ... < e_n``.

        Returns:
            The squared Mahalanobis norms ``delta[:e]' S[:e, :e]^{-1} delta[:e]`` and the
            log-volumes ``1/2 log det S[:e, :e]``.
        """

    @abstractmethod
    def marginal_sd(self) -> Tensor:  # (*lead, D)
        """Square roots of the diagonal of S."""

    @abstractmethod
    def triangular(self) -> TriangularScale:
        """The same covariance as a lower triangular factor."""


class TriangularScale(Scale):
    """A scale by the lower triangular factor L of ``S = L L'``.

    Attributes:
        sd: the diagonal of L: the standard deviation of every coordinate given those before it.
    """

    sd: Tensor  # (*lead, D)

    @abstractmethod
    def residuals(
        self,
        delta: Tensor,  # (*batch, *lead, m), the leading m <= D coordinates
    ) -> Tensor:  # (*batch, *lead, m)
        """``L^{-1} delta``: every coordinate, standardised given those before it."""

    @abstractmethod
    def pulled_back(
        self,
        direct: Tensor,  # (*batch, C, D)
        carried: Tensor,  # (*batch, C, D)
        residuals: Tensor,  # (*batch, C, D)
    ) -> Tensor:  # (*batch, D, D) lower triangular
        """Derivatives by delta, added up over components.

        Row j is that of ``sum_c direct[c, j] eps[c, j] - carried[c, j] |eps[c, :j]|^2 / 2`` where
        ``eps = L_c^{-1} delta`` are the residuals.
        """

    def prefixes(
        self,
        delta: Tensor,  # (*batch, *lead, D)
        ends: Sequence[int],
    ) -> tuple[Tensor, Tensor]:  # (*batch, *lead, len(ends)), (*lead, len(ends))
        """Those of the residuals."""
        return self.prefixes_of(self.residuals(delta[..., : ends[-1]]), ends)

    def prefixes_of(
        self,
        residuals: Tensor,  # (*batch, *lead, m)
        ends: Sequence[int],
    ) -> tuple[Tensor, Tensor]:  # (*batch, *lead, len(ends)), (*lead, len(ends))
        """Leading blocks of L are the factors of leading blocks of S, so plain sums do."""
        volumes = prefix_sums(self.sd[..., : ends[-1]].log(), ends)
        return prefix_sums(residuals.square(), ends), volumes

    def triangular(self) -> TriangularScale:
        """The scale itself."""
        return self


class ScaleParameters(PyroModule):
    """The parameters of a scale; ``scale`` reads each of them once."""

    def scale(self) -> Scale:
        """The scale at the current parameters."""
        raise NotImplementedError

    def subset(
        self,
        index: Tensor,  # (n,) long
    ) -> ScaleParameters:
        """Parameters of their own for some of the components, starting at the current values."""
        raise NotImplementedError


def prefix_sums(
    x: Tensor,  # (*batch, m)
    ends: Sequence[int],
) -> Tensor:  # (*batch, len(ends))
    """``x[:e].sum()`` for every e of ``ends``; the last must be m."""
    if len(ends) == 1:
        return x.sum(-1, keepdim=True)
    return x.cumsum(-1)[..., [end - 1 for end in ends]]


def apply(
    matrix: Tensor,  # (*lead, m, n)
    x: Tensor,  # (*batch, *lead, n)
) -> Tensor:  # (*batch, *lead, m)
    """The matrix of every component times its vectors."""
    if matrix.dim() == 2:
        return x @ matrix.mT
    return as_columns(lambda columns: matrix @ columns, x, matrix.dim() - 2)


def as_columns(
    function: Callable[[Tensor], Tensor],  # (*lead, n, N) -> (*lead, m, N)
    x: Tensor,  # (*batch, *lead, n)
    lead: int,
) -> Tensor:  # (*batch, *lead, m)
    """Let a matrix act on the batch as its columns: one solve per component, not per vector."""
    columns = x.reshape(-1, *x.shape[x.dim() - 1 - lead :]).movedim(0, -1)
    result = function(columns)
    return result.movedim(-1, 0).reshape(*x.shape[:-1], result.shape[-2])
