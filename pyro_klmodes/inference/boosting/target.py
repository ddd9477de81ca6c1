"""The model's log-density as a function of the flat unconstrained vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.packing import Packing
from pyro_klmodes.guides.joint_guide import JointGuide
from pyro_klmodes.tracing.joint_densities import log_joints
from pyro_klmodes.tracing.joint_density import log_joint
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
        if self.layout.vectorised:
            joint = self._together(points)
        else:
            joint = torch.stack([self._one(point) for point in points])
        return joint.reshape(u.shape[:-1])

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
