"""The E-step by coordinate ascent: variational EM without gradients and without noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.cavi.prepare import Prepared, prepare
from pyro_klmodes.inference.cavi.rules.base import Nodes
from pyro_klmodes.inference.em.e_step import EStep, Expected, check_guide, expected
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.held import Held
from pyro_klmodes.tracing.node_terms import NodeTerm
from pyro_klmodes.tracing.terms import model_term

__all__ = ["CoordinateAscent"]


@dataclass(frozen=True)
class CoordinateAscent(EStep):
    r"""Fit a mean-field guide by coordinate ascent, and average over it exactly.

    The bound is the ELBO, :math:`\log p(x; \theta) - KL(q \| p(z \mid x; \theta))`, which no step
    lowers. Where the posterior does not factorise the M-step moves the parameters so as to make it
    factorise: estimates are biased, by the gradient of the gap (Turner and Sahani 2011).

    Args:
        guide: an ``AutoMeanField`` for all latents, discrete ones among them; None for one with
            conjugate families.
        sweeps: the most sweeps in an E-step, which ends where nothing moves. The guide goes on from
            where it was, so that few will do.

    Limits: one start, no acceleration. The model has to broadcast over latents, as for ``CAVI``.

    Source: Neal and Hinton (1998); Turner and Sahani (2011).

    Example:
        >>> CoordinateAscent()
        CoordinateAscent(guide=None, sweeps=20)
    """

    monotone: ClassVar[bool] = True

    guide: AutoMeanField | None = None
    sweeps: int = 20

    def __post_init__(self) -> None:
        checked_whole("sweeps", self.sweeps, 1)
        if self.guide is not None:
            check_guide(self.guide)
        if not isinstance(self.guide, AutoMeanField | None):
            raise InvalidArgument(
                f"guide is {shown(self.guide)}; coordinate ascent is for AutoMeanField. Other "
                "guides are fitted by gradients: e_step=Variational(guide)."
            )

    def start(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> RunningCoordinateAscent:
        """Get ready for one model and its data.

        Raises:
            UnsupportedStructure: if a site has no update, naming it and what to change.
        """
        return RunningCoordinateAscent(self, model, args, kwargs, parameters)


class RunningCoordinateAscent:
    """Coordinate-ascent E-steps of one model and its data."""

    def __init__(
        self,
        options: CoordinateAscent,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> None:
        self.options = options
        self.held = Held(model, parameters.initial())
        self.ready: Prepared = prepare(self.held, options.guide, args, kwargs, exact=False)
        if self.ready.plan.apart:
            raise UnsupportedStructure(
                "the model does not broadcast over its latents, which the M-step after coordinate "
                "ascent needs: index from the right, with Vindex(x)[..., z] in place of x[z]."
            )
        self.model = model
        self.guide = self.ready.guide
        self.filled: Filled = self._filled(self.ready.sweeper.nodes())

    def expect(
        self,
        values: dict[str, Tensor],  # {parameter: (1, *shape)}
    ) -> Expected:
        """Sweep on at these parameters, and weigh the nodes of the guide."""
        self.held.values = {n: v[0].detach() for n, v in values.items()}
        sweeper = self.ready.sweeper
        sweeper.forget()
        sweeper.converge(self.options.sweeps)
        self.ready.store()
        nodes = sweeper.nodes()
        filled = self._filled(nodes)
        found = expected(filled, lambda at: self._expected(filled, at, nodes), values)
        return found._replace(bound=found.bound.new_tensor([sweeper.elbo]))

    def _filled(self, nodes: Mapping[str, Nodes]) -> Filled:
        plan = self.ready.plan
        run = plan.model
        given = {n: run.laid_out(n, x.values, plan.positions[n]) for n, x in nodes.items()}
        return Filled(self.model, run.args, run.kwargs, run.nesting, given=given)

    def _expected(
        self,
        filled: Filled,
        log_probs: Mapping[str, Tensor],  # {site: (1, *batch)}
        nodes: Mapping[str, Nodes],
    ) -> Tensor:  # (1,)
        """``E_q[log p]`` as a function of the log-probabilities at the nodes."""
        with torch.no_grad():
            trace = filled.trace(self.held.values)
        means = []
        for name, log_prob in log_probs.items():
            term = model_term(trace.nodes[name], log_prob[0])
            at_nodes = NodeTerm(name, term.log_prob, term.plates, term.scale)
            means.append(self.ready.sweeper.expectation.mean(at_nodes, nodes).sum())
        return torch.stack(means).sum().reshape(1)
