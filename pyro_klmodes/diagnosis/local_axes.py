"""Values of sites with the axes of the local plates in front, next to the weights of the cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.tracing import Draws

__all__ = ["LocalAxes"]


@dataclass(frozen=True)
class LocalAxes:
    """Where the axes of the local plates are in the shape of each site.

    Attributes:
        of_site: ``{site: axes of the local plates, counted in the site's shape}``.
    """

    of_site: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, draws: Draws, values: Mapping[str, Tensor]) -> LocalAxes:
        """Find the axes from the plates of the guide's sites."""
        found = {}
        for where, term in draws.terms:
            if where == "guide" and term.name in values and term.site is not None:
                batch = values[term.name].dim() - 1 - term.site["fn"].event_dim
                found[term.name] = tuple(batch + term.plates[plate] for plate in draws.plates)
        return cls(found)

    def in_front(
        self,
        values: Mapping[str, Tensor],  # {site: (S, *site_shape)}
    ) -> dict[str, Tensor]:  # {site: (S, *cells, *rest)}
        """The values with the local axes right after the draws."""
        moved = {}
        for site, axes in self.of_site.items():
            ahead = tuple(range(1, 1 + len(axes)))
            moved[site] = values[site].movedim(tuple(1 + axis for axis in axes), ahead)
        return moved

    def put_back(
        self,
        site: str,
        moved: Tensor,  # (*cells, *rest)
    ) -> Tensor:  # (*site_shape)
        """A tensor of one site in the order of the site's own axes."""
        axes = self.of_site[site]
        return moved.movedim(tuple(range(len(axes))), axes)
