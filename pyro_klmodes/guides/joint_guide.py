"""Guides with one density over all unconstrained latents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.joint.base import JointDensity, JointFamily
from pyro_klmodes.guides.joint.draw import JointDraw
from pyro_klmodes.guides.joint.packing import Packing
from pyro_klmodes.tracing.surroundings import Surroundings

__all__ = ["JointGuide"]


class JointGuide(DensityGuide):
    """A guide that draws all latents together.

    The unconstrained latents are the blocks of one vector u with density q(u). Each latent stands
    at its own site, with the conditional density of its block given the blocks before it where
    that is closed; elsewhere the last site carries the density of all.

    A subclass says in ``_family`` which density. Subsampled plates are refused: a minibatch is no
    draw of the vector.
    """

    def _create_parameters(self) -> None:
        for latent in self.latents.values():
            if latent.subsampled:
                plate = sorted(latent.subsampled)[0]
                raise UnsupportedStructure(
                    f"{type(self).__name__} draws all latents together, and of site "
                    f"'{latent.name}' in subsampled plate '{plate}' a minibatch is all there is. "
                    "Use AutoMeanField, AutoHierarchical, AutoAutoregressive or AutoAmortized, "
                    f"which have parameters by datum, or the full data in '{plate}'."
                )
        self._packing = Packing(self.latents)
        self.family = self._family(self._packing.initial())

    @abstractmethod
    def _family(
        self,
        loc: Tensor,  # (D,)
    ) -> JointFamily:
        """The parameters of the density, centred at the initial location."""

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        around = Surroundings.of(self._packing.nesting)
        density = self.family.density()
        u, infer = self._vectors(density, around)
        draw = JointDraw(density, self._packing, around.lead, u)
        result = {}
        for i, block in enumerate(self._packing.blocks):
            with self._in_plates(block.latent):
                value = pyro.sample(block.latent.name, draw.site(i), infer=dict(infer))
            draw.take(value)
            result[block.latent.name] = value
        return result

    def _vectors(
        self, density: JointDensity, around: Surroundings
    ) -> tuple[Tensor, dict[str, Any]]:
        """Draw u, ``(*lead, D)``, and what its sites have to say about how it was drawn."""
        u = density.rsample(around.lead)
        # elements of a plate are not independent of one another, whatever the model says
        return (u if density.has_rsample else u.detach()), {"couples_plates": True}

    def get_posterior(self, *args: Any, **kwargs: Any) -> JointDensity:
        """The density over the flat unconstrained vector."""
        self._prepare(args, kwargs)
        return self.family.density()

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of every unconstrained coordinate, transformed to the sites' supports.

        Raises:
            NotDefined: if the marginals have no closed form.
        """
        self._prepare(args, kwargs)
        u = self.family.density().quantiles(self._packing.initial().new_tensor([0.5]))[0]
        return self._unpacked(u, torch.Size())

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Marginal quantiles of every latent, ``(len(quantiles), *site_shape)``.

        Raises:
            NotDefined: if the marginals have no closed form, or a site's coordinates are mixed by
                its transform (simplex, matrices).
        """
        self._prepare(args, kwargs)
        density, levels = self.family.density(), torch.as_tensor(quantiles)
        u, mirrored = (
            density.quantiles(x.to(self._packing.initial())) for x in (levels, 1 - levels)
        )
        lead = torch.Size([len(levels)])
        return {
            b.latent.name: b.latent.quantiles(
                b.split(u, lead + b.latent.batch_shape),
                b.split(mirrored, lead + b.latent.batch_shape),
            )
            for b in self._packing.blocks
        }

    def _unpacked(self, u: Tensor, lead: torch.Size) -> dict[str, Tensor]:
        """Constrained values of the sites, ``(*lead, *site_shape)``."""
        values = {}
        for block in self._packing.blocks:
            piece = block.split(u, lead + block.latent.batch_shape)
            values[block.latent.name] = block.latent.transform(piece)
        return values
