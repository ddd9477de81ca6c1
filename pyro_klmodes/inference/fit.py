"""``fit``: run stochastic variational inference to the end, in isolation, and say how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import Adam, PyroOptim
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.inference.check import examine
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.progress import progress_bar
from pyro_klmodes.inference.result import FitResult, FittedGuide
from pyro_klmodes.inference.step import Stepper
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.losses import DivergenceLoss

__all__ = ["StepInfo", "fit"]


class StepInfo(NamedTuple):
    """What a callback is told after every step.

    Attributes:
        step: its number, from 0.
        loss: NaN if the step was skipped.
        parameters: call it for the unconstrained parameters by name, the tensors themselves.
    """

    step: int
    loss: float
    parameters: Callable[[], Mapping[str, Tensor]] = dict


def fit(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    *args: Any,
    steps: int = 1000,
    optim: PyroOptim | None = None,
    seed: int = 0,
    callbacks: Iterable[Callable[[StepInfo], object]] = (),
    progress: bool = True,
    on_nonfinite: Literal["raise", "skip", "backoff"] = "raise",
    **kwargs: Any,
) -> FitResult:
    r"""Minimise a loss over the parameters of guide and model by stochastic gradients.

    The fit runs in a param store of its own, and all random states are restored after it: two fits
    in one process give bitwise what they give in two. The pair is checked before the first step.
    Ctrl-C returns what was fitted so far.

    Args:
        model: a Pyro model.
        guide: a guide for it; a module continues from the values its parameters have, and so does
            the guide of an earlier result that is one.
        loss: one of this package's losses, or of Pyro's.
        *args: what model and guide are called with.
        steps: how many gradient steps to take.
        optim: a Pyro optimizer; Adam with learning rate 0.01 by default.
        seed: for torch's, numpy's and Python's generators.
        callbacks: called with a ``StepInfo`` after every step; a true result ends the fit. If one
            has a method ``finish``, that is called at the end and may change the parameters.
        progress: whether to show a bar with the loss and the effective sample size.
        on_nonfinite: what to do about a loss or gradient that is not a number: "raise"; "skip" the
            step; or "backoff", which returns to the parameters before the last step and halves
            the learning rate.
        **kwargs: what model and guide are called with.

    Returns:
        The fitted guide, the loss of every step, the parameters, and how it was done.

    Raises:
        InvalidArgument: for arguments out of range.
        NonFiniteLoss: naming site and step; ``error.result`` holds the fit up to that step.
        KLModesError: whatever ``check`` finds wrong with the pair.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_klmodes import ReverseKL
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> result = fit(model, AutoNormal(model), ReverseKL(16), torch.tensor(2.0),
        ...              steps=300, optim=pyro.optim.Adam({"lr": 0.05}), progress=False)
        >>> abs(result.guide.median()["mu"].item() - 1.0) < 0.1
        True
    """
    _check_arguments(loss, steps, seed, on_nonfinite)
    if isinstance(guide, FittedGuide):
        guide = guide.to_train()
    callbacks = tuple(callbacks)
    started = time.perf_counter()
    losses: list[float] = []
    interrupted = False
    store = pyro.get_param_store()
    with seeded(seed), store.scope() as state:
        if isinstance(loss, DivergenceLoss):
            examine(model, guide, args, kwargs, loss)

        def so_far() -> FitResult:
            params = {name: store[name].detach().clone() for name in store}
            return FitResult(
                guide=FittedGuide(guide, state),
                losses=torch.tensor(losses, dtype=torch.float64),
                params={**_plain_parameters(model, guide), **params},
                model=model,
                loss=loss,
                args=args,
                kwargs=kwargs,
                seed=seed,
                versions=versions(),
                seconds=time.perf_counter() - started,
                interrupted=interrupted,
            )

        stepper = Stepper(model, guide, loss, optim or Adam({"lr": 0.01}), on_nonfinite)
        watch = _effective_size(model, guide, loss, args, kwargs) if progress else None
        with progress_bar(steps, watch) as advance:
            try:
                for step in range(steps):
                    losses.append(stepper(step, args, kwargs))
                    advance(losses[-1])
                    told = StepInfo(step, losses[-1], stepper.parameters)
                    wishes = [callback(told) for callback in callbacks]  # all of them are told
                    if any(wishes):
                        break
            except KeyboardInterrupt:
                interrupted = True
            except NonFiniteLoss as error:
                state.update(store.get_state())  # an error leaves the scope without doing so
                error.result = so_far()
                raise
        for callback in callbacks:
            if hasattr(callback, "finish"):
                callback.finish()
        return so_far()


def _check_arguments(loss: Any, steps: Any, seed: Any, on_nonfinite: Any) -> None:
    if not isinstance(loss, ELBO):
        raise InvalidArgument(
            f"loss={loss!r} is not a loss. Pass an instance, for instance ReverseKL() or "
            "ForwardKL(num_particles=32)."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InvalidArgument(f"steps={steps!r} must be a non-negative integer.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidArgument(f"seed={seed!r} must be an integer.")
    if on_nonfinite not in ("raise", "skip", "backoff"):
        raise InvalidArgument(
            f"on_nonfinite={on_nonfinite!r} must be 'raise', 'skip' or 'backoff'."
        )


def _effective_size(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[], float] | None:
    """A look at the effective sample size that leaves the random states as they are."""
    if not isinstance(loss, DivergenceLoss):
        return None

    def look() -> float:
        with seeded(None):
            return loss.effective_share(model, guide, *args, **kwargs)

    return look


def _plain_parameters(*modules: Any) -> dict[str, Tensor]:
    """Constrained values of the parameters of modules that Pyro's param store does not know."""
    local = pyro.settings.get("module_local_params")
    params: dict[str, Tensor] = {}
    for module in modules:
        if not isinstance(module, torch.nn.Module):
            continue
        if isinstance(module, pyro.nn.PyroModule) and not local:
            continue
        for name, _ in module.named_parameters():
            name = name.removesuffix("_unconstrained")
            params[name] = attrgetter(name)(module).detach().clone()
    return params
