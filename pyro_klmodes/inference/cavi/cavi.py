"""Coordinate ascent variational inference on ordinary Pyro models."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyro
import torch

from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.inference.batches import Call, check_batches, on_all
from pyro_klmodes.inference.callbacks import Callbacks, StepInfo
from pyro_klmodes.inference.calling import (
    check_pair,
    check_positional,
    check_signatures,
    shown,
)
from pyro_klmodes.inference.cavi.arguments import (
    check_counts,
    checked_step,
    own_blocks,
    own_guide,
)
from pyro_klmodes.inference.cavi.loop import Loop
from pyro_klmodes.inference.cavi.prepare import Prepared, prepare
from pyro_klmodes.inference.cavi.report import ConjugacyReport
from pyro_klmodes.inference.cavi.result import CAVIResult
from pyro_klmodes.inference.cavi.schedule import RobbinsMonro
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.late_progress import checked_progress, late_progress
from pyro_klmodes.inference.result import FittedGuide
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.losses import ReverseKL
from pyro_klmodes.tracing.data_fit import check_data

__all__ = ["CAVI"]

_SWEEPS = 1000


class CAVI:
    r"""Coordinate ascent in a mean-field guide, without updates written by hand.

    The natural gradient of the ELBO in the natural parameters of one site is the plain gradient of
    :math:`E_q[\log p(x, z)]` in its mean parameters. Where the log-joint is affine in the site's
    sufficient statistics, with coefficients c given the other sites, the step

    .. math:: \lambda \leftarrow (1 - \rho) \lambda + \rho \, E_{q_{-i}}[c]

    with rho = 1 is the exact coordinate update, and the ELBO never falls. With rho < 1 on
    minibatches it is stochastic variational inference: sites inside of the subsampled plate are
    updated for every batch until they hardly move, the others by a step.

    Expectations are exact: each site is replaced by a few weighted values that have its expected
    statistics, the model is run at all of them at once, and the gradients at these values give the
    coefficients. Which sites are conjugate is found out by running the model, see ``check``. Normal
    sites that are not take natural-gradient steps with Gauss-Hermite expectations (quasi-random
    ones where several entries meet in a term), shortened until the ELBO does not fall.

    Args:
        model: a Pyro model, to be written so that it broadcasts: batches left of its plates.
            Otherwise it is run once for every combination of values.
        guide: an ``AutoMeanField`` for it; None for one with a conjugate family for every site
            that has one, and a start of its own in every fit.
        step: length rho of the steps, between 0 and 1, or a function of the number of the step (1,
            2, ...) such as ``RobbinsMonro()``, which is what None means on minibatches.
        exact: whether to refuse a model with a site that is not conjugate.
        blocks: sites that get one factor together, for instance ``[("w", "tau")]``: real sites and
            a positive one a Normal-Gamma, a vector and a matrix a Normal-Wishart, real sites one
            normal, discrete ones their joint table (``AutoBlocks``). The model has to be jointly
            conjugate in them, as with priors ``Normal(m, (k * tau).rsqrt())``.

    Raises:
        InvalidArgument: for arguments of the wrong kind.
        UnsupportedStructure: when it is called with data, for a block that has no exact update.

    Limits: parameters of the model (``pyro.param``) stay as they are; ``EM(model,
    e_step=CoordinateAscent())`` moves them too. A run takes all combinations of the nodes of sites
    that share a term (2 nodes for a number, D + 1 for a vector of D, n for n states). Elements of a
    discrete site must stay in their plates, unless they are Bernoulli and enter as numbers.
    ``Categorical(probs)`` takes probabilities below the rounding error for equal to it, so that
    Dirichlet sites with concentrations below 0.03 (0.07 in single precision) are not exact there;
    ``logits=probs.log()`` is.

    Source: Khan and Lin (2017), "Conjugate-computation variational inference"; Hoffman, Blei, Wang
    and Paisley (2013), "Stochastic variational inference"; Bishop (2006), chapter 10.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(y):
        ...     tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)
        >>> y = torch.tensor([0.5, 1.5, 1.0])
        >>> result = CAVI(model).fit(y)
        >>> result.converged, result.guide.families["tau"]
        (True, Gamma())
        >>> print(CAVI(model, AutoMeanField(model)).check(y)["tau"].remedy)
        families={"tau": Gamma()} makes it so.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: AutoMeanField | None = None,
        *,
        step: float | Callable[[int], float] | None = None,
        exact: bool = False,
        blocks: Sequence[Sequence[str]] = (),
    ) -> None:
        check_pair(model, guide if guide is not None else model)
        self.model, self.exact = model, exact
        self.guide: AutoMeanField | None = own_guide(guide)
        self.step = checked_step(step)
        self.blocks = own_blocks(blocks, self.guide)

    def check(self, *args: Any, **kwargs: Any) -> ConjugacyReport:
        """Which sites are conjugate, and why not; called with the model's arguments.

        Raises:
            UnsupportedStructure: if a site has no update at all, naming it.
        """
        with seeded(0), pyro.get_param_store().scope():
            check_signatures(self.model, self.model, Call(args, kwargs), batches=None)
            check_data(self.model, args, kwargs)
            return self._prepared(args, kwargs, exact=False).plan.report

    def prepare(self, *args: Any, **kwargs: Any) -> Prepared:
        """The sweeps one by one, in the present param store; for algorithms built on them.

        ``prepared.sweeper.sweep()`` updates all sites, ``prepared.sweeper.nodes()`` has values and
        weights of every site, and ``prepared.store()`` writes the parameters to the guide.
        Parameters of the model are those in the store at the time of each run.
        """
        return self._prepared(args, kwargs, exact=self.exact)

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, exact: bool) -> Prepared:
        return prepare(self.model, self.guide, args, kwargs, exact=exact, blocks=self.blocks)

    def fit(
        self,
        *args: Any,
        steps: int | None = None,
        epochs: int | None = None,
        tolerance: float = 1e-8,
        batches: Iterable[Any] | None = None,
        seed: int = 0,
        callbacks: Iterable[Callable[[StepInfo], object]] = (),
        progress: bool = True,
        **kwargs: Any,
    ) -> CAVIResult:
        """Sweep over all sites until nothing moves; on minibatches, one sweep for every batch.

        The fit runs in a param store of its own, and random states are restored after it. A guide
        that was given goes on from its parameters. Ctrl-C returns what was fitted so far.

        Args:
            *args: what model and guide are called with, after the batch if there are batches.
            steps: the most sweeps to take, 1000 unless said otherwise.
            epochs: how many times to go through the batches.
            tolerance: sweeps end when no value that stands for a site moves by more than this part
                of the site's largest one, in the precision of the numbers at best.
            batches: minibatches as in ``fit``, for instance ``by_index(sampler)``.
            seed: of the start, where the guide is new.
            callbacks: called with a ``StepInfo`` after every sweep; a true result ends the fit.
            progress: whether to show a bar if the fit takes longer than two seconds.
            **kwargs: what model and guide are called with.

        Raises:
            InvalidArgument: for arguments of the wrong kind, and a guide for another model.
            UnsupportedStructure: naming the sites that are not conjugate with ``exact=True``, or
                one that has no update.
            NotMonotone: if an exact update lowers the ELBO beyond rounding.
            NonFiniteLoss: for data or values that are not finite, naming the site.

        Warns:
            KLModesWarning: naming parameters of the model, which stay where they are.
        """
        check_counts(steps, epochs, tolerance, seed, batches)
        show = checked_progress(progress)
        check_positional(args)
        if batches is not None:
            check_batches(batches, epochs)
        told = Callbacks(callbacks)
        stream = Stream(batches, args, kwargs)
        store = pyro.get_param_store()
        begin = time.perf_counter()
        with seeded(seed), store.scope() as state:
            first = stream.first()
            check_signatures(self.model, self.model, first, batches=batches)
            check_data(self.model, first.args, first.kwargs)
            functions = [self.model]
            whole = first if batches is None else on_all(batches, args, kwargs, first, functions)
            ready = prepare(
                self.model,
                self.guide,
                first.args,
                first.kwargs,
                exact=self.exact,
                blocks=self.blocks,
                full_call=(whole.args, whole.kwargs) if batches is not None else None,
            )
            _warn_of_parameters(ready.guide)
            # a model that takes minibatches by itself gets a new one for every step
            stochastic = batches is not None or bool(ready.plan.model.indices)
            loop = Loop(self.model, ready, self._length(minibatch=stochastic), told, tolerance)
            told.before_fit(self.model, ready.guide, loop.parameters)
            interrupted = converged = False
            if stochastic and steps is None and epochs is None:
                steps, epochs = (_SWEEPS, None) if batches is None else (None, 1)
            elif steps is None and epochs is None:
                steps = _SWEEPS
            with late_progress(steps, show=show) as loop.advance:
                try:
                    if stochastic:
                        loop.minibatches(stream, steps, epochs)
                    else:
                        converged = loop.sweeps(_SWEEPS if steps is None else steps)
                except KeyboardInterrupt:
                    interrupted = True
            ready.store()
            ready.guide(*first.args, **first.kwargs)  # its parameters are in the store now
            told.finish()
            return CAVIResult(
                guide=FittedGuide(ready.guide, state),
                losses=torch.tensor(loop.losses, dtype=torch.float64),
                params={name: store[name].detach().clone() for name in store},
                model=self.model,
                loss=ReverseKL(),
                args=whole.args,
                kwargs=whole.kwargs,
                seed=seed,
                versions=versions(),
                seconds=time.perf_counter() - begin,
                interrupted=interrupted,
                epochs=stream.epoch,
                conjugacy=ready.plan.report,
                evaluations=loop.evaluations,
                converged=converged,
                expectation=ready.sweeper.expectation,
                site_params={n: dict(p) for n, p in ready.sweeper.params.items()},
            )

    def _length(self, *, minibatch: bool) -> Callable[[int], float]:
        """The lengths of the steps by number."""
        if self.step is None:
            return RobbinsMonro() if minibatch else lambda number: 1.0
        return self._checked_length

    def _checked_length(self, number: int) -> float:
        rho = self.step(number) if callable(self.step) else self.step
        if not isinstance(rho, int | float) or not 0 < rho <= 1:
            raise InvalidArgument(f"step({number}) returned {shown(rho)}, no number in (0, 1].")
        return float(rho)


def _warn_of_parameters(guide: AutoMeanField) -> None:
    """Coordinate ascent moves the guide only."""
    store, own = pyro.get_param_store(), set(guide.parameters())
    held = [name for name in store if store[name].unconstrained() not in own]
    if held:
        names = ", ".join(repr(name) for name in held)
        warnings.warn(
            f"the model's parameters {names} stay where they are in coordinate ascent. To estimate "
            "them too: EM(model, e_step=CoordinateAscent()).",
            KLModesWarning,
            stacklevel=3,
        )
