"""The model's log-density as a function of the flat unconstrained vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides import AutoLowRank
from pyro_klmodes.guides.joint.packing import Packing
from pyro_klmodes.guides.joint_guide import JointGuide
from pyro_klmodes.tracing.joint_densities import log_joints
from pyro_klmodes.tracing.joint_density import log_joint
from pyro_klmodes.tracing.obs_mask import partly_observed
from pyro_klmodes.tracing.over_particles import over_particles
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.survey import survey

__all__ = ["Target"]


class Target:
    """``log p(x, z(u)) + log |dz/du|``, differentiable, all points in one run of the model.

    Args:
        guide: a guide over all latents that has been called once.
        args: what the model is called with.
        kwargs: what the model is called with.
    """

    def __init__(self, guide: JointGuide, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.model = guide.model
        self.args, self.kwargs = args, kwargs
        self.packing: Packing = guide._packing
        self.layout = survey(Pair(self.model, guide, args, kwargs))

    @classmethod
    def of(
        cls, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Target:
        """The target of a model that has no joint guide at hand.

        Raises:
            UnsupportedStructure: for latents without a place in unconstrained space, for improper
                priors, and for latents in subsampled plates.
        """
        shell = _Shell(model, rank=1)
        store = pyro.get_param_store()
        # The model's own parameters stay; those of the shell are forgotten.
        with same_random_state(), store.scope(store.get_state()):
            try:
                replaced = partly_observed(model, args, kwargs)
                shell(*args, **kwargs)
            except NotImplementedError as error:
                raise UnsupportedStructure(
                    f"a site has no distribution to draw from: {error}. Give it a proper prior."
                ) from error
            if replaced:
                raise UnsupportedStructure(
                    f"site '{replaced[0]}' of obs_mask has draws that what was observed replaces, "
                    "and no density for them."
                )
            return cls(shell, args, kwargs)

    @property
    def initial(self) -> Tensor:  # (D,)
        """The initial location of the guide."""
        return self.packing.initial()

    def __call__(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        """The log-density at every vector; not finite where it is not defined."""
        points = u.reshape(-1, u.shape[-1])
        if self.layout.sharing == "run":
            joint = self._together(points)
        elif self.layout.sharing == "map":
            joint = over_particles(lambda at: self._one(at["u"]), {"u": points})
        else:
            joint = torch.stack([self._one(point) for point in points])
        return joint.reshape(u.shape[:-1])

    def vectors(
        self,
        values: Mapping[str, Tensor],  # {site: (n, *site_shape)}
    ) -> Tensor:  # (n, D)
        """Constrained values of all latents as unconstrained vectors."""
        parts = [b.latent.transform.inv(values[b.latent.name]) for b in self.packing.blocks]
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)

    def values(
        self,
        u: Tensor,  # (n, D)
    ) -> dict[str, Tensor]:  # {site: (n, *site_shape)}
        """Constrained values of all latents at unconstrained vectors."""
        shapes = {b.latent.name: b.latent.initial.shape for b in self.packing.blocks}
        values, _ = self._values(u, u.shape[:1])
        return {name: x.reshape(len(u), *shapes[name]) for name, x in values.items()}

    def _together(
        self,
        points: Tensor,  # (n, D)
    ) -> Tensor:  # (n,)
        count, nesting = len(points), self.layout.nesting
        lead = torch.Size([count] + [1] * (nesting - self.packing.nesting))
        values, log_det = self._values(points, lead)
        joint = log_joints(self.model, values, count, nesting, self.args, self.kwargs)
        return joint + log_det

    def _one(
        self,
        point: Tensor,  # (D,)
    ) -> Tensor:  # ()
        values, log_det = self._values(point, torch.Size())
        return log_joint(self.model, values, self.args, self.kwargs) + log_det

    def log_det(
        self,
        u: Tensor,  # (n, D)
    ) -> Tensor:  # (n,)
        """Log absolute Jacobian determinant of the map from vectors to values."""
        return self._values(u, u.shape[:1])[1]

    def score(
        self,
        u: Tensor,  # (n, D)
    ) -> Tensor:  # (n, D)
        """Gradient of the log-density."""
        leaf = u.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self(leaf).sum(), leaf)
        return gradient

    def _values(
        self,
        points: Tensor,  # (n, D) or (D,)
        lead: torch.Size,
    ) -> tuple[dict[str, Tensor], Tensor]:  # by site, and (n,) or ()
        values, log_det = {}, points.new_zeros(points.shape[:-1])
        for block in self.packing.blocks:
            latent = block.latent
            piece = block.split(points, self.packing.batch(lead, block))
            values[latent.name] = latent.transform(piece)
            elements = latent.log_det(piece, values[latent.name])
            log_det = log_det + elements.reshape(*points.shape[:-1], -1).sum(-1)
        return values, log_det


class _Shell(AutoLowRank):
    """The joint guide with the fewest parameters, under a name that no other guide has."""
