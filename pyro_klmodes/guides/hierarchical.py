"""A guide for hierarchical models: globals first, then locals given globals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import init_to_median
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.conditioned import ConditionedGuide
from pyro_klmodes.guides.conditioning.coordinates import initial_coordinates, num_coordinates
from pyro_klmodes.guides.conditioning.coupling import Coupling, PerElement
from pyro_klmodes.guides.conditioning.given import Conditional
from pyro_klmodes.guides.conditioning.linear import LinearConditional
from pyro_klmodes.guides.conditioning.order import outer_first, visible
from pyro_klmodes.guides.conditioning.prior import LinearPrior, linear_priors
from pyro_klmodes.guides.conditioning.product import ProductConditional
from pyro_klmodes.guides.conditioning.upstream import Inputs, Upstream
from pyro_klmodes.guides.joint.draw import JointDraw
from pyro_klmodes.guides.joint.elliptical import Elliptical
from pyro_klmodes.guides.joint.packing import Packing
from pyro_klmodes.guides.joint.radial import Gaussian
from pyro_klmodes.guides.joint.stretched import Stretched, StretchedGaussian
from pyro_klmodes.tracing.surroundings import Surroundings

__all__ = ["AutoHierarchical"]

_PER_ELEMENT = PerElement()
_STRETCHED = Stretched()
_GLOBALS = ""  # where the globals stand among the sources of locals; no site has this name


class AutoHierarchical(ConditionedGuide):
    r"""Globals :math:`g \sim q(g)` together, locals given them: :math:`q(g) \prod_n q(z_n \mid g)`.

    Globals are the latents in no plate. They have one joint density over their unconstrained
    vector with full correlations, by default with learned tails (``Stretched``: the logarithm of a
    scale has an exponential tail towards zero, and a Gaussian has weights without a variance
    there). Locals are all others, also where a plate holds few elements and no minibatches. A local
    is conditioned on the globals, on locals of plates around its own, and on earlier locals of its
    own element, never on another element. Sites in fewer plates come first.

    Every unconstrained coordinate of a local is, given the values x before it,

    .. math:: q(u \mid x) &\propto N(u; l_0(x), s_0(x)^2) \; N(u; l_1(x), s_1(x)^2) \\
            &\propto N\big(u; (1 - \kappa) l_0 + \kappa l_1, \; (1 - \kappa) s_0^2 \big), \qquad
            \kappa = \frac{s_0^2}{s_0^2 + s_1^2},

    a prior times a likelihood, with :math:`l_i` and :math:`\log s_i` linear in x. If the prior of
    :math:`z_n` is normal in unconstrained space with mean linear and log-scale linear in x, and if
    its data are normal around :math:`a_n z_n + b_n \cdot x` with log-scale linear in x, this is the
    exact conditional: normals multiply to a normal, with precisions added and means weighted by
    precision. That covers eight schools, varying intercepts and Neal's funnel. :math:`\kappa(x)` is
    how far the local is centred: as it goes to 0, z follows its prior and
    :math:`(z - l_0) / s_0` is independent of x, the non-centred form; as it goes to 1, z stays with
    its data whatever x is, the centred one. Coordinates of one event are coupled by a unit
    triangular factor L, ``sqrt(1 - kappa) s_0 * L noise``.

    The first factor is the model's prior, linearised around the start (by running the model twice
    for each coordinate of x, with at most 100 of them), plus a learned correction; the second is
    learned. At the start the product stands at ``init_loc_fn`` with standard deviation
    ``init_scale``, or with the prior's over the square root of two, if that is less.

    Parameters for D globals and N elements with an event of size d and G coordinates before them:
    ``D (D + 7) / 2``, and ``N d (4 + 2 G) + 2 d G + N d (d - 1) / 2``, or with ``Shared()``
    ``4 N d + 4 d G + d (d - 1) / 2``. They have the full size of their plates, and minibatches see
    their own.

    Args:
        model: a Pyro model with continuous latents.
        coupling: ``PerElement()`` or ``Shared()`` slopes of the locations (and factors L). Shared
            ones are for many elements whose data are of one design and precision.
        tails: ``Stretched()`` or ``Gaussian()`` globals.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Attributes:
        upstream: names of the sites that each site is conditioned on.

    Raises:
        InvalidArgument: if ``coupling`` or ``tails`` is something else.
        UnsupportedStructure: in the first call, naming the site: no continuous latents, a support
            without a transform, a site that comes and goes.

    Source: Hoffman and Blei (2015), Agrawal and Domke (2021) for locals given globals;
    Papaspiliopoulos, Roberts and Skold (2007) for degrees of centring.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     tau = pyro.sample("tau", dist.HalfNormal(1.0))
        ...     with pyro.plate("data", 3):
        ...         z = pyro.sample("z", dist.Normal(mu, tau))
        ...         pyro.sample("y", dist.Normal(z, 1.0), obs=y)
        >>> guide = AutoHierarchical(model)
        >>> guide(torch.zeros(3))["z"].shape
        torch.Size([3])
        >>> guide.upstream["z"]
        ('mu', 'tau')
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        coupling: Coupling = _PER_ELEMENT,
        tails: Stretched | Gaussian = _STRETCHED,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        if not isinstance(coupling, Coupling):
            raise InvalidArgument(f"coupling={coupling!r} must be PerElement() or Shared().")
        if not isinstance(tails, Stretched | Gaussian):
            raise InvalidArgument(f"tails={tails!r} must be Stretched() or Gaussian().")
        self.coupling = coupling
        self.tails = tails
        self._packing: Packing | None = None
        self._sources: dict[str, tuple[str, ...]] = {}

    # -- parameters --------------------------------------------------------------------------------

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        try:
            self._create_locals(args, kwargs)
        except Exception:
            self.prototype_trace = None  # a set-up that fails is tried again
            raise

    def _create_parameters(self) -> None:
        super()._create_parameters()
        self.upstream = visible(self.latents, outer_first(self.latents))
        outside = {name: latent for name, latent in self.latents.items() if not latent.plates}
        self._sources = {
            name: ((_GLOBALS,) if outside else ()) + tuple(n for n in before if n not in outside)
            for name, before in self.upstream.items()
            if name not in outside
        }
        if outside:
            self._packing = Packing(outside)
            family = StretchedGaussian if isinstance(self.tails, Stretched) else Elliptical
            self.family = family(self._packing.initial(), init_scale=self.init_scale)

    def _create_locals(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        initial = {n: s["value"] for n, s in self.prototype_trace.nodes.items()}
        upstream = {name: self.upstream[name] for name in self._sources if self.upstream[name]}
        priors = linear_priors(self.model, args, kwargs, self.latents, initial, upstream)
        for name in self._sources:
            loc = initial_coordinates(self.latents[name])
            inputs = sum(num_coordinates(self.latents[n]) for n in self.upstream[name])
            self._add(name, self._conditional(loc, inputs, priors.get(name)))

    def _conditional(
        self,
        loc: Tensor,  # (*batch, d)
        inputs: int,
        prior: LinearPrior | None,
    ) -> Conditional:
        if not inputs:
            return LinearConditional(loc, self.init_scale, 0, self.coupling)
        if prior is None:  # as wide as the start needs
            width = torch.full_like(loc, self.init_scale * math.sqrt(2))
            prior = LinearPrior.constant(loc, width.log(), inputs)
        return ProductConditional(loc, self.init_scale, prior, self.coupling)

    # -- draws -------------------------------------------------------------------------------------

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        before, result = Upstream(), {}
        if self._packing is not None:
            result = self._draw_globals(self._packing, before)
        return result | self._draw_in_order(self._sources, before)

    def _draw_globals(self, packing: Packing, before: Upstream) -> dict[str, Tensor]:
        around = Surroundings.of(packing.nesting)
        density = self.family.density()
        draw = JointDraw(density, packing, around.lead, density.rsample(around.lead))
        result = {}
        for i, block in enumerate(packing.blocks):
            value = pyro.sample(block.latent.name, draw.site(i))
            draw.take(value)
            result[block.latent.name] = value
        if self._sources:
            u = draw.vector().reshape(*around.lead, *[1] * packing.nesting, -1)
            before.put(_GLOBALS, Inputs.of(u, density.loc, density.scale.marginal_sd()))
        return result

    def _medians(self) -> dict[str, Tensor]:
        before, result = Upstream(), {}
        if self._packing is not None:
            density = self.family.density()
            loc = density.loc
            before.put(_GLOBALS, Inputs.of(loc, loc, density.scale.marginal_sd()))
            for block in self._packing.blocks:
                u = block.split(loc, block.latent.batch_shape)
                result[block.latent.name] = block.latent.transform(u)
        return result | self._medians_in_order(self._sources, before)
