"""What a family has to offer a group of sites: parameters to start from, and conditionals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.base import Initial

__all__ = ["BlockFamily", "BlockParams"]

BlockParams = Mapping[str, Mapping[str, Tensor]]  # by site and name


class BlockFamily(ABC):
    """A joint distribution of several sites, each drawn given those before it.

    Every site has parameters of its own, so that they live in its plates: their shapes begin with
    the site's batch dimensions.

    Attributes:
        latents: the sites in the order in which they are drawn.
    """

    latents: tuple[Latent, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites in the order in which they are drawn."""
        return tuple(latent.name for latent in self.latents)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(n) for n in self.sites)})"

    def before(self, site: str) -> tuple[str, ...]:
        """The sites that a site is drawn given."""
        return self.sites[: self.sites.index(site)]

    @abstractmethod
    def initial(self, scale: float) -> dict[str, dict[str, Initial]]:
        """Parameters of every site by name, around the initial values of the latents.

        Args:
            scale: standard deviation of every site, on the scale that its own family names.
        """

    @abstractmethod
    def distribution(
        self,
        site: str,
        params: BlockParams,  # of the site and those before it
        drawn: Mapping[str, Tensor],
    ) -> Any:
        """What a site is drawn from, given values of those before it."""

    def median(self, site: str, params: BlockParams) -> Tensor:
        """The marginal median of a site.

        Raises:
            NotDefined: if it has no closed form.
        """
        raise NotDefined(
            f"the marginal median of site '{site}' in {self!r} has no closed form here; take it of "
            "draws: guide.sample(10_000, *args)[site].median(0)."
        )
