"""A Gaussian with a low-rank covariance over all latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import init_to_median
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.elliptical import Elliptical
from pyro_klmodes.guides.joint.scales import LowRank
from pyro_klmodes.guides.joint_guide import JointGuide

__all__ = ["AutoLowRank"]


class AutoLowRank(JointGuide):
    r"""Gaussian with covariance :math:`W W^\top + \mathrm{diag}(d^2)` over all latents.

    D (rank + 2) parameters; a step costs O(D rank^2), for any D without a D x D matrix.

    Args:
        model: a Pyro model with continuous latents and no subsampled plate around them.
        rank: columns of W; by default about the square root of D.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: if ``rank`` is not a positive integer, or more than D.
        UnsupportedStructure: in the first call, as for ``AutoFullRank``.

    Source: Ong, Nott and Smith (2018).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        >>> guide = AutoLowRank(model, rank=3)
        >>> guide()["z"].shape
        torch.Size([20])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rank: int | None = None,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
            raise InvalidArgument(f"rank={rank!r} must be a positive integer, or None.")
        self.rank = rank

    def _family(
        self,
        loc: Tensor,  # (D,)
    ) -> Elliptical:
        rank = math.isqrt(len(loc) - 1) + 1 if self.rank is None else self.rank
        return Elliptical(loc, init_scale=self.init_scale, scale=LowRank(rank))
