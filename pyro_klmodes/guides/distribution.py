"""Any distribution over the flat unconstrained vector as a guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import init_to_median
from torch import Tensor
from torch.distributions import Distribution

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.bijection import is_discrete
from pyro_klmodes.guides.joint.base import JointDensity, JointFamily
from pyro_klmodes.guides.joint_guide import JointGuide

__all__ = ["AutoDistribution"]


class AutoDistribution(JointGuide):
    """A guide from a distribution of your own over all unconstrained latents.

    Args:
        model: a Pyro model with continuous latents and no subsampled plate around them.
        distribution: a function (or ``nn.Module``) of the initial location ``(D,)`` that returns a
            distribution with event shape ``(D,)``. It is called in every run; its parameters are
            ``pyro.param`` statements, or those of the module.
        init_loc_fn: initial value by site.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: if ``distribution`` does not return a distribution over D-vectors.
        UnsupportedStructure: in the first call, as for ``AutoFullRank``.

    A distribution without ``rsample`` gets score-function gradients.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     pyro.sample("b", dist.Gamma(2.0, 1.0))
        >>> guide = AutoDistribution(
        ...     model, lambda loc: dist.Laplace(pyro.param("m", loc), 1.0).to_event(1)
        ... )
        >>> sorted(guide())
        ['a', 'b']
    """

    def __init__(
        self,
        model: Callable[..., Any],
        distribution: Callable[[Tensor], Distribution],
        *,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn, create_plates=create_plates)
        # a distribution of Pyro's can be called, and draws
        if not callable(distribution) or isinstance(distribution, Distribution):
            raise InvalidArgument(
                f"distribution={distribution!r} must be a function of the initial location that "
                "returns a distribution, for instance lambda loc: dist.Normal(loc, 1).to_event(1)."
            )
        self.distribution = distribution

    def _family(
        self,
        loc: Tensor,  # (D,)
    ) -> JointFamily:
        return _Called(self.distribution, loc)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution itself."""
        density: Any = super().get_posterior(*args, **kwargs)
        return density.distribution


class _Called(JointFamily):
    """A distribution made anew in every run."""

    def __init__(
        self,
        make: Callable[[Tensor], Distribution],
        loc: Tensor,  # (D,)
    ) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("loc", loc.detach().clone())

    def density(self) -> JointDensity:
        """What the function returns for the initial location."""
        # a copy: pyro.param makes a parameter of the very tensor it is given
        made = self.make(self.loc.clone())
        if not isinstance(made, Distribution):
            raise InvalidArgument(
                f"distribution returned {type(made).__name__}; it must return a distribution."
            )
        if made.support is not None and is_discrete(made.support):
            raise InvalidArgument(
                f"distribution returned {made}, which is discrete; unconstrained latents need a "
                "density."
            )
        if made.event_shape != self.loc.shape or made.batch_shape:
            raise InvalidArgument(
                f"distribution returned batch shape {tuple(made.batch_shape)} and event shape "
                f"{tuple(made.event_shape)}; it must be one distribution over vectors of length "
                f"{len(self.loc)}: batch shape () and event shape ({len(self.loc)},). For "
                "independent coordinates use .to_event(1)."
            )
        return _Wrapped(made)


class _Wrapped(JointDensity):
    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.has_rsample = bool(distribution.has_rsample)

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        if self.has_rsample:
            return self.distribution.rsample(shape)
        return self.distribution.sample(shape)

    def log_prob(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch)
        return self.distribution.log_prob(u)
