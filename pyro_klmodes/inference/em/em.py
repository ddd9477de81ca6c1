"""``EM``: expectation maximisation on Pyro models, from many starts at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import DegenerateFit, InvalidArgument
from pyro_klmodes.inference.acceleration import (
    Accelerator,
    Plain,
    Progress,
    Trajectory,
    iterate,
)
from pyro_klmodes.inference.batches import check_batches
from pyro_klmodes.inference.calling import check_positional, check_signatures
from pyro_klmodes.inference.em.arguments import as_starts, check_lengths, checked_options
from pyro_klmodes.inference.em.ascent import EMMap
from pyro_klmodes.inference.em.data import Data, check_divisible, refuse_minibatches
from pyro_klmodes.inference.em.e_step import EStep
from pyro_klmodes.inference.em.exact import Exact
from pyro_klmodes.inference.em.m_step import MStep
from pyro_klmodes.inference.em.moments import Fault
from pyro_klmodes.inference.em.online import OnlineEM, StepSizes
from pyro_klmodes.inference.em.optimise import LBFGS
from pyro_klmodes.inference.em.parameters import Parameters, parameters_of
from pyro_klmodes.inference.em.result import EMResult, Restarts
from pyro_klmodes.inference.em.starts import RandomStarts, Starts
from pyro_klmodes.inference.em.sweep import Chunked, Whole
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.late_progress import checked_progress, late_progress
from pyro_klmodes.inference.result import FittedGuide
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.losses import ReverseKL
from pyro_klmodes.tracing.data_fit import check_data
from pyro_klmodes.tracing.posterior_guide import PosteriorGuide

__all__ = ["EM"]


class EM:
    r"""Expectation maximisation: maximum likelihood, or posterior modes, with latent variables.

    Each step maximises :math:`Q(\theta \mid \theta_t) = E_{p(z \mid x, \theta_t)}[\log p(x, z;
    \theta)]`. Both halves minimise one divergence, :math:`KL(q(z) \| p(z, x; \theta))`: the E-step
    over q, the M-step over :math:`\theta`, which never lowers the log-likelihood; a decrease is an
    error here. Parameters are the model's ``pyro.param`` and ``PyroParam``. Updates in closed form
    are found in the model's trace, see ``EMResult.closed_form``; other parameters are moved by
    L-BFGS.

    Args:
        model: a Pyro model with parameters; its discrete latents need no mark for enumeration.
        e_step: ``Exact()`` sums discrete latents out; ``MonteCarlo(guide)`` draws and weighs
            continuous ones; ``Variational(guide)`` fits any guide to them, and
            ``CoordinateAscent()`` a mean field to all latents.
        points: continuous latent sites of which the posterior mode is sought, in the constrained
            space, under their priors.
        acceleration: ``Plain()``, ``Squarem()`` or ``Anderson()``.
        starts: a number of ``RandomStarts``, or ``KMeansPlusPlus(R)``, or values
            ``{parameter: (R, *shape)}``. All run in one batch; 1 starts where the model does.
        floor: smallest variance (eigenvalue of a covariance) that an update may give. Zero is
            maximum likelihood, of which the likelihood has no maximum where a component can sit
            on a single datum. Starts below the floor are raised to it.
        optimizer: for parameters without a closed form.
        online: step sizes of online EM, which moves the parameters after every batch.

    Raises:
        InvalidArgument: naming the argument.

    Limits: EM ends in a local maximum or saddle point; use several starts. Starts and steps share
    runs of the model by ``torch.func.vmap``, so that it must not branch on values of parameters.

    Source: Dempster, Laird and Rubin (1977); Neal and Hinton (1998).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from torch.distributions import constraints
        >>> def model(x):
        ...     weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraints.simplex)
        ...     rate = pyro.param("rate", torch.tensor([1.0, 2.0]), constraints.positive)
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Categorical(weights))
        ...         pyro.sample("x", dist.Poisson(rate[z]), obs=x)
        >>> x = torch.tensor([0.0, 1.0, 0.0, 7.0, 9.0, 8.0, 1.0, 0.0])
        >>> result = EM(model).fit(x)
        >>> result.closed_form
        ('weights', 'rate')
        >>> result.params["rate"]
        tensor([0.398..., 7.968...])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        e_step: EStep | None = None,
        points: Collection[str] = (),
        acceleration: Accelerator | None = None,
        starts: int | Starts | Mapping[str, Tensor] = 1,
        floor: float = 0.0,
        optimizer: LBFGS | None = None,
        online: StepSizes | None = None,
    ) -> None:
        checked_options(
            model=model,
            e_step=e_step,
            points=points,
            acceleration=acceleration,
            floor=floor,
            optimizer=optimizer,
            online=online,
        )
        self.model = model
        self.points = tuple(points)
        self.acceleration = acceleration or Plain()
        self.starts = as_starts(starts)
        self.floor = float(floor)
        self.e_step = e_step or Exact()
        self.optimizer = optimizer or LBFGS()
        self.online = online
        if not self.e_step.batched:
            self._refuse_batches()

    def _refuse_batches(self) -> None:
        name = type(self.e_step).__name__
        if not isinstance(self.acceleration, Plain):
            raise InvalidArgument(
                f"acceleration: {name} gives steps with noise, which extrapolation amplifies; use "
                "Plain() with it."
            )
        if self.starts != RandomStarts(1):
            raise InvalidArgument(
                f"starts: {name} has one guide, for one start; leave starts out with it."
            )

    def fit(
        self,
        *args: Any,
        steps: int | None = None,
        tolerance: float = 1e-6,
        batches: Iterable[Any] | None = None,
        epochs: int | None = None,
        seed: int = 0,
        callback: Callable[[Progress], object] | None = None,
        progress: bool = True,
        **kwargs: Any,
    ) -> EMResult:
        """Run EM from all starts until every one has converged.

        The param store and all random states are as they were after it; modules among the model's
        parts keep the fitted values. Ctrl-C returns what was fitted so far.

        Args:
            *args: what the model is called with, after the batch if there are batches.
            steps: most E-steps of each start, 1000 unless said otherwise.
            tolerance: a start has converged when no parameter moves by more in one step, or by more
                than its rounding error, which is larger in single precision.
            batches: as for ``fit``. Without ``online`` every step goes through all of them and is
                the step on all data, in the memory of a batch; with it each batch is a step.
            epochs: passes over the batches of online EM, 5 unless said otherwise.
            seed: for the starts, and the order of the batches.
            callback: called with the ``Progress`` of all starts after every step; a true result
                ends the fit.
            progress: whether to show a bar if the fit takes longer than two seconds.
            **kwargs: what the model is called with.

        Raises:
            InvalidArgument, UnsupportedStructure: naming what is wrong with model or argument.
            NonFiniteLoss: naming the site with data that are not finite.
            DegenerateFit: if every start has failed; naming the component.
            NotMonotone: with the step's details.
        """
        online = self.online is not None
        most, passes = check_lengths(steps, epochs, tolerance, seed, online=online)
        show = checked_progress(progress)
        check_positional(args)
        if batches is not None:
            check_batches(batches, 2)
        elif self.online is not None:
            raise InvalidArgument(
                "online=... moves the parameters after each batch: pass batches=."
            )
        began = time.perf_counter()
        store = pyro.get_param_store()
        with seeded(seed), store.scope() as state:
            data = Data(batches, args, kwargs)
            first = data.first()
            check_signatures(self.model, self.model, first, batches=batches)
            check_data(self.model, first.args, first.kwargs)
            parameters = parameters_of(self.model, first.args, first.kwargs, self.points)
            e_step = self.e_step.start(self.model, first.args, first.kwargs, parameters)
            m_step = MStep.find(e_step.filled, parameters, self.optimizer, floor=self.floor)
            start = m_step.closed.raised(self.starts.values(parameters, e_step.filled, m_step))
            if batches is not None:
                running = check_divisible(e_step, parameters, data.lengths(first))
            else:
                refuse_minibatches(e_step, parameters)
            with late_progress(most if self.online is None else None, show=show) as advance:

                def told(at: Progress) -> bool:
                    advance(_words(at))
                    return callback is not None and bool(callback(at))

                if batches is not None and self.online is not None:
                    task = OnlineEM(parameters, running, m_step, self.online)
                    ended, faults = task.run(start, data.calls, passes, told), task.faults
                else:
                    whole = batches is None
                    sweep = Whole(e_step, m_step) if whole else Chunked(running, m_step, data.calls)
                    step = EMMap(parameters, sweep, m_step, monotone=self.e_step.monotone)
                    ended = iterate(
                        self.acceleration,
                        parameters.flat(start),
                        step,
                        steps=most,
                        tolerance=tolerance,
                        skip_converged=True,
                        callback=told,
                    )
                    faults = step.faults
            restarts = _restarts(parameters, ended, faults)
            best = restarts.best
            if not math.isfinite(float(restarts.log_likelihood[best])):
                raise DegenerateFit(_all_failed(faults))
            params = {n: v[best].detach().clone() for n, v in restarts.params.items()}
            for name, info in parameters.items():
                info.put_back(params[name])
            fitted = getattr(e_step, "guide", None)
            guide = fitted or PosteriorGuide(self.model, params, frozenset(self.points))
            call = data.whole(first, self.model)
            count = int(restarts.evaluations[best])
            return EMResult(
                guide=FittedGuide(guide, state),
                losses=-restarts.history[:count, best].double(),
                params=params,
                model=self.model,
                loss=ReverseKL(),
                args=call.args,
                kwargs=call.kwargs,
                seed=seed,
                versions=versions(),
                seconds=time.perf_counter() - began,
                interrupted=ended.interrupted,
                epochs=passes if self.online is not None else None,
                restarts=restarts,
                closed_form=m_step.closed.covered,
                optimised={n: m_step.closed.reasons[n] for n in m_step.left},
            )


def _words(at: Progress) -> str:
    """How far the starts are, for the bar."""
    best = int(torch.where(at.value.isnan(), -math.inf, at.value).argmax())
    going = int(at.active.sum())
    words = (
        f"log-likelihood {float(at.value[best]):.6g}, last change {float(at.residual[best]):.1e}"
    )
    return words if len(at.value) == 1 else f"{words}, {going} of {len(at.value)} starts going on"


def _restarts(
    parameters: Parameters, trajectory: Trajectory, faults: Mapping[int, Fault]
) -> Restarts:
    failed = trajectory.failed
    return Restarts(
        params=parameters.shaped(trajectory.theta),
        log_likelihood=torch.where(failed, -math.inf, trajectory.value),
        history=trajectory.values,
        evaluations=trajectory.evaluations,
        converged=trajectory.converged,
        faults={start: str(fault) for start, fault in faults.items()},
    )


def _all_failed(faults: Mapping[int, Fault]) -> str:
    """What has gone wrong; a fault that says what to do about it is not told more."""
    if not faults:
        return (
            "the log-likelihood is not finite at any start: the data are impossible under the "
            "model with these values of the parameters. Start elsewhere (starts=...)."
        )
    words = [str(faults[start]).rstrip(".") for start in sorted(faults)[:3]]
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return f"every start of EM has failed: {'; '.join(words)}{more}."
