"""The conditional of a local latent: its prior times what its data say."""

from __future__ import annotations

import math

import pyro
import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_klmodes.guides.conditioning.coupling import Coupling
from pyro_klmodes.guides.conditioning.given import Conditional, Given
from pyro_klmodes.guides.conditioning.linear import triangle, weighted
from pyro_klmodes.guides.conditioning.prior import LinearPrior
from pyro_klmodes.guides.conditioning.upstream import Inputs

__all__ = ["ProductConditional"]


class ProductConditional(Conditional):
    r"""The product of two normals, one for the prior and one for the likelihood:

    .. math:: q(u \mid x) \propto N(u; l_0(x), s_0(x)^2) \; N(u; l_1(x), s_1(x)^2)

    With the values before in their own units, ``g = centre + spread * x``, and with ``L`` and ``S``
    the prior's location and scale at the start,

        log s_0 = prior's log-scale at g + c + d x   l_0 = prior's location at g + r_0 (h + A x)
        log s_1 = log S + e + (d + f) x              l_1 = L + S (m + M x)

    The prior's location and log-scale are linear functions of g that stay as they are; c, d, h and
    A are corrections where they do not fit. Those of the location are in units of ``r_0``, which is
    ``s_0`` at the same x: were they not, in the neck of a funnel any that is not zero would be many
    ``s_0``. But ``r_0`` leaves out c: with c in it, a narrower scale would move the location as
    well, and a scale that is far too wide would take thousands of steps to narrow.
    The likelihood does not move with the globals' parameters unless M and f make it. Offsets c, e,
    h and m belong to an element, slopes d and f to the plate, as one statement of the model has
    made all of its elements; whose A and M are is the coupling's choice. ``d`` widens both factors:
    had each a slope of its own, two that start alike would stay alike.
    """

    def __init__(
        self,
        loc: Tensor,  # (*batch, d)
        scale: float,
        prior: LinearPrior,
        coupling: Coupling,
    ) -> None:
        super().__init__()
        size, inputs = prior.slopes.shape[-2:]
        self.offsets = PyroParam(_start(loc, scale, prior), constraints.real, event_dim=2)
        zeros = loc.new_zeros((*coupling.batch(loc.shape[:-1]), 2, size, inputs))
        self.loc_slopes = PyroParam(zeros, constraints.real, event_dim=3)
        zeros = loc.new_zeros((2, size, inputs))
        self.scale_slopes = PyroParam(zeros, constraints.real, event_dim=3)
        self.lower = triangle(loc, coupling.batch(loc.shape[:-1]))
        self.register_buffer("prior_values", torch.cat([prior.intercept, prior.initial], -2))
        self.register_buffer("prior_slopes", prior.slopes)

    def given(
        self,
        inputs: Inputs | None,
    ) -> Given:
        """The normal at values of the sites before."""
        assert inputs is not None, "a product of prior and likelihood needs something before it"
        x = inputs.x
        at_zero, prior_slopes = self._prior(inputs)
        prior_loc, prior_log_scale, start_loc, start_log_scale = at_zero.unbind(-2)
        h, m, c, e = self.offsets.unbind(-2)
        log_spread0, log_spread1 = prior_log_scale + c, start_log_scale + e
        unit = start_log_scale.exp()

        prior_move, prior_widening = weighted(prior_slopes, x).unbind(-2)
        move0, move1 = weighted(self.loc_slopes, x).unbind(-2)
        widening, tilt = weighted(self.scale_slopes, x).unbind(-2)
        log_s0 = log_spread0 + prior_widening + widening
        log_s1 = log_spread1 + widening + tilt
        l0 = prior_loc + prior_move + (log_s0 - c).exp() * (h + move0)
        l1 = start_loc + unit * (m + move1)

        # the same at x = 0; no particles here
        reference0, reference1 = prior_loc + prior_log_scale.exp() * h, start_loc + unit * m
        return Given(
            *_product(l0, log_s0, l1, log_s1),
            self.lower,
            *_product(reference0, log_spread0, reference1, log_spread1),
        )

    def _prior(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What stays as it is.

        Returns:
            Location and log-scale of the prior at x = 0 and at the start, ``(*b, 4, d)``, and the
            slopes of the two by x, ``(*b, 2, d, G)``.
        """
        values, slopes = self.prior_values, self.prior_slopes
        if values.dim() > 2:  # one for every element: those of the minibatch
            values = pyro.subsample(values, event_dim=2)
            slopes = pyro.subsample(slopes, event_dim=3)
        intercept, start = values.split(2, -2)
        at_zero = intercept + weighted(slopes, inputs.centre)
        both = torch.cat([at_zero, start.expand_as(at_zero)], -2)
        return both, slopes * inputs.spread[..., None, None, :]


def _start(
    loc: Tensor,  # (*batch, d)
    scale: float,
    prior: LinearPrior,
) -> Tensor:  # (*batch, 4, d)
    """Offsets with which the product starts at ``loc``, no wider than ``scale``.

    The likelihood has half of the precision, or more where the prior is so wide that it takes more.
    """
    prior_loc, prior_log_scale = prior.initial.expand(*loc.shape[:-1], 2, -1).unbind(-2)
    pull = (1 - (2 * (math.log(scale) - prior_log_scale)).exp()).clamp(min=0.5)
    wider = 0.5 * ((1 - pull) / pull).log()
    shift = (loc - prior_loc) / pull * (-prior_log_scale).exp()
    zero = torch.zeros_like(loc)
    return torch.stack([zero, shift, zero, wider], -2).detach()


def _product(
    l0: Tensor,  # (*batch, d)
    log_s0: Tensor,  # (*batch, d)
    l1: Tensor,  # (*batch, d)
    log_s1: Tensor,  # (*batch, d)
) -> tuple[Tensor, Tensor]:  # (*batch, d) each
    """Location and log-scale of the product of two normals."""
    logit = 2 * (log_s0 - log_s1)
    return l0 + logit.sigmoid() * (l1 - l0), log_s0 + 0.5 * logsigmoid(-logit)
