"""A guide that draws site by site, each conditioned on those before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import init_to_median
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.conditioned import ConditionedGuide
from pyro_klmodes.guides.conditioning import Linear, Network
from pyro_klmodes.guides.conditioning.coordinates import initial_coordinates, num_coordinates
from pyro_klmodes.guides.conditioning.elimination import parents_in_order
from pyro_klmodes.guides.conditioning.order import outer_first, visible
from pyro_klmodes.guides.conditioning.upstream import Upstream
from pyro_klmodes.tracing.dependencies import dependencies_of

__all__ = ["AutoAutoregressive"]

_LINEAR = Linear()


class AutoAutoregressive(ConditionedGuide):
    r"""Each site is normal in unconstrained space given those before it:

    .. math:: u_s = c_s + e_s (W_s x + e^{V_s x} \odot L_s \epsilon), \qquad
              x = \text{all } (u_r - c_r) / e_r \text{ with } r \to s

    with centres c, spreads e, slopes W and V, and unit lower triangular L between the coordinates
    of one site; all start at zero or the identity, so that the guide starts independent. With
    V = 0 it holds every Gaussian posterior over the sites outside of plates.

    Sites in fewer plates come first, else in the order of the model. A site depends on an earlier
    one if it does in the posterior given all sites up to it: the model's graph, made undirected,
    with the sites taken out of it from the last to the first. Where Pyro cannot follow the values
    through the model (it branches on one, or passes it through NumPy), on all earlier sites. An
    element of a plate depends on values outside of the plate and on its own, not on those of other
    elements. See ``upstream`` after the first call. Sites that ``poutine.block`` hides from the
    guide count as constants.

    Args:
        model: a Pyro model with continuous latents.
        conditioning: ``Linear()``, or ``Network(hidden)`` for a tanh network added to both slopes.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Attributes:
        upstream: names of the sites that each site is conditioned on.

    Raises:
        InvalidArgument: if ``conditioning`` is something else.
        UnsupportedStructure: in the first call, naming the site: no continuous latents, a support
            without a transform, a site that comes and goes.

    Source: Webb et al. (2018) for the dependences; Ambrogioni et al. (2021), Pyro's
    ``AutoStructured`` for guides of this kind.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", 3):
        ...         z = pyro.sample("z", dist.Normal(mu, 1.0))
        ...         pyro.sample("y", dist.Normal(z, 1.0), obs=y)
        >>> guide = AutoAutoregressive(model)
        >>> guide(torch.zeros(3))["z"].shape
        torch.Size([3])
        >>> guide.upstream
        {'mu': (), 'z': ('mu',)}
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        conditioning: Linear | Network = _LINEAR,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        if not isinstance(conditioning, Linear | Network):
            raise InvalidArgument(
                f"conditioning={conditioning!r} must be Linear(...) or Network(...)."
            )
        self.conditioning = conditioning
        self._neighbours: dict[str, set[str]] = {}

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        found = dependencies_of(self.model, args, kwargs)
        if found is not None:
            posterior = found["posterior_dependencies"]
            self._neighbours = {name: set(others) for name, others in posterior.items()}
        super()._setup_prototype(*args, **kwargs)

    def _create_parameters(self) -> None:
        super()._create_parameters()
        order = outer_first(self.latents)
        parents = parents_in_order(self._neighbours, order)
        for name, seen in visible(self.latents, order).items():
            self.upstream[name] = tuple(n for n in seen if n in parents[name])
            inputs = sum(num_coordinates(self.latents[n]) for n in self.upstream[name])
            loc = initial_coordinates(self.latents[name])
            self._add(name, self.conditioning.parameters(loc, self.init_scale, inputs))

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self._draw_in_order(self.upstream, Upstream())

    def _medians(self) -> dict[str, Tensor]:
        return self._medians_in_order(self.upstream, Upstream())
