"""Guides that draw one site after the other, each conditioned on those before it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule
from torch import Tensor

from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.conditioning.given import Conditional
from pyro_klmodes.guides.conditioning.site_normal import SiteNormal
from pyro_klmodes.guides.conditioning.upstream import Upstream
from pyro_klmodes.guides.sitewise import parameter_of

__all__ = ["ConditionedGuide"]

Sources = Mapping[str, tuple[str, ...]]  # site -> what it is conditioned on, in order of drawing


class ConditionedGuide(DensityGuide):
    """A guide of normal conditionals in unconstrained space.

    A subclass adds a ``Conditional`` for every such site when it creates the parameters.

    Attributes:
        upstream: the sites that each site is conditioned on, by name.
    """

    upstream: dict[str, tuple[str, ...]]

    def _create_parameters(self) -> None:
        self.upstream = {}
        self.sites = PyroModule()

    def _add(self, name: str, conditional: Conditional) -> None:
        deep_setattr(self.sites, name, conditional)

    def _normal(self, name: str, before: Upstream, sources: Sources) -> SiteNormal:
        """What a site is drawn from; called inside of its plates, or outside for all data."""
        conditional: Any = parameter_of(self.sites, name)
        return SiteNormal(self.latents[name], conditional.given(before.gather(sources[name])))

    def _draw_in_order(self, sources: Sources, before: Upstream) -> dict[str, Tensor]:
        """Sample sites, given the values before them."""
        used = {source for found in sources.values() for source in found}
        result = {}
        for name in sources:
            with self._in_plates(self.latents[name]):
                normal = self._normal(name, before, sources)
                result[name] = pyro.sample(name, normal)
            if name in used:
                before.put(name, normal.given.inputs(normal.unconstrained(result[name])))
        return result

    def _medians_in_order(self, sources: Sources, before: Upstream) -> dict[str, Tensor]:
        """Medians of sites over all data, each given the medians before it."""
        result = {}
        for name in sources:
            normal = self._normal(name, before, sources)
            before.put(name, normal.given.inputs(normal.given.loc))
            result[name] = normal.median()
        return result

    @abstractmethod
    def _medians(self) -> dict[str, Tensor]:
        """Medians of all sites, each given the medians before it."""

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The conditional median of every site given the medians before it, over all data.

        It is the location, transformed to the support. The marginal medians, which have no closed
        form, differ from it where a location is not linear in the values before.
        """
        self._prepare(args, kwargs)
        medians = self._medians()
        return {name: medians[name].detach().clone() for name in self.latents}
