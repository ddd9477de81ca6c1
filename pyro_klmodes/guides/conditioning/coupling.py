"""Whether the elements of a plate have slopes of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

__all__ = ["Coupling", "PerElement", "Shared"]


class Coupling(ABC):
    """How the slopes of the elements of a plate are coupled; their offsets are always their own."""

    @abstractmethod
    def batch(self, batch_shape: torch.Size) -> torch.Size:
        """The batch dimensions of the slopes of a site with these."""


@dataclass(frozen=True)
class PerElement(Coupling):
    """Every element has slopes of its own, which data of unequal precision or design call for.

    Example:
        >>> PerElement().batch(torch.Size([85]))
        torch.Size([85])
    """

    def batch(self, batch_shape: torch.Size) -> torch.Size:
        """Those of the site."""
        return batch_shape


@dataclass(frozen=True)
class Shared(Coupling):
    """All elements have the same slopes: far fewer parameters, and all data inform them.

    Example:
        >>> Shared().batch(torch.Size([85]))
        torch.Size([])
    """

    def batch(self, batch_shape: torch.Size) -> torch.Size:
        """None."""
        return torch.Size()
