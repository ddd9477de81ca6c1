"""The E-step by a guide: variational EM, with what the guide cannot say as its gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro.infer import config_enumerate
from pyro.optim import Adam, PyroOptim
from torch import Tensor

from pyro_klmodes.engine import Engine
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.em.e_step import EStep, Expected, check_guide, expected
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.inference.optimizers import Optimizers
from pyro_klmodes.inference.step import Stepper
from pyro_klmodes.losses import ReverseKL
from pyro_klmodes.tracing.drawn_fillings import Drawn
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.held import Held

__all__ = ["Variational"]


@dataclass(frozen=True)
class Variational(EStep):
    r"""Fit a guide to the posterior at the present parameters, and average over its draws.

    The bound is the ELBO, :math:`\log p(x; \theta) - KL(q \| p(z \mid x; \theta))`. Where the guide
    cannot be the posterior the M-step moves the parameters so as to make the posterior one that the
    guide can be: estimates are biased, by the gradient of the gap (Turner and Sahani 2011). The
    gap is what a restricted E-step costs; see it by an exact or a richer one.

    Args:
        guide: a guide for the continuous latents; discrete ones are summed out.
        steps: gradient steps of every E-step. The guide goes on from where it was.
        num_particles: draws in each of them, and 8 times as many to average over.
        optim: for the guide's parameters; Adam with a rate of 0.02 by default.

    Limits: one start, no acceleration, noise of the draws in every step.

    Source: Neal and Hinton (1998); Turner and Sahani (2011).

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> Variational(AutoNormal(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))).steps
        100
    """

    guide: Callable[..., Any]
    steps: int = 100
    num_particles: int = 32
    optim: PyroOptim | None = None

    def __post_init__(self) -> None:
        check_guide(self.guide)
        checked_whole("steps", self.steps, 1)
        checked_whole("num_particles", self.num_particles, 1)

    def start(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> RunningVariational:
        """Get ready for one model and its data.

        Raises:
            ModelGuideMismatch, UnsupportedStructure: as training would.
        """
        return RunningVariational(self, model, args, kwargs, parameters)


class RunningVariational:
    """Variational E-steps of one model and its data."""

    def __init__(
        self,
        options: Variational,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> None:
        self.options = options
        self.guide = options.guide
        self.call = Call(args, dict(kwargs))
        self.held = Held(config_enumerate(model, default="parallel"), parameters.initial())
        optimizers = Optimizers(options.optim or Adam({"lr": 0.02}))
        loss = ReverseKL(options.num_particles)
        engine = Engine("eager", self.held, options.guide, loss, None)
        self.stepper = Stepper(self.held, options.guide, loss, optimizers, "raise", engine)
        self.drawn = Drawn(model, options.guide, args, kwargs)
        self.filled: Filled = self.drawn(self.held.values, 2).filled
        self.steps = 0

    def expect(
        self,
        values: dict[str, Tensor],  # {parameter: (1, *shape)}
    ) -> Expected:
        """Fit the guide on, and draw from it."""
        self.held.values = {n: v[0].detach() for n, v in values.items()}
        for step in range(self.options.steps):
            self.stepper(f"E-step {self.steps}, gradient step {step}", self.call)
        self.steps += 1
        fillings = self.drawn(self.held.values, 8 * self.options.num_particles)
        return expected(fillings.filled, fillings.average, values)
