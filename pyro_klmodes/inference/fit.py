"""``fit``: run stochastic variational inference to the end, in isolation, and say how it went."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import Adam, PyroOptim
from torch import Tensor

from pyro_klmodes.engine import Choice, Engine, check_choice
from pyro_klmodes.errors import InvalidArgument, KLModesWarning, NonFiniteLoss
from pyro_klmodes.inference.aggressive import AggressiveInference, check_inner
from pyro_klmodes.inference.batches import Call, check_batches, on_all, runs_other_code
from pyro_klmodes.inference.callbacks import Callbacks, StepInfo
from pyro_klmodes.inference.calling import (
    check_pair,
    check_positional,
    check_signatures,
    shown,
)
from pyro_klmodes.inference.check import examine
from pyro_klmodes.inference.checkpoint import Checkpoint
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.modules import evaluating
from pyro_klmodes.inference.optimizers import Optimizers
from pyro_klmodes.inference.progress import progress_bar
from pyro_klmodes.inference.result import FitResult, FittedGuide
from pyro_klmodes.inference.shared_latents import shared_latent
from pyro_klmodes.inference.step import Stepper
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.inference.training import Length, Training
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.losses import DivergenceLoss

__all__ = ["StepInfo", "fit"]

_STEPS = 1000


def fit(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    *args: Any,
    steps: int | None = None,
    epochs: int | None = None,
    batches: Iterable[Any] | None = None,
    optim: PyroOptim | Mapping[str, PyroOptim] | None = None,
    clip_norm: float | None = None,
    inner: AggressiveInference | None = None,
    seed: int = 0,
    callbacks: Iterable[Callable[[StepInfo], object]] = (),
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    on_nonfinite: Literal["raise", "skip", "backoff"] = "raise",
    engine: Choice = "auto",
    **kwargs: Any,
) -> FitResult:
    r"""Minimise a loss over the parameters of guide and model by stochastic gradients.

    The fit runs in a param store of its own, and all random states are restored after it: two fits
    of functions give in one process bitwise what they give in two. Modules are trained in place,
    wherever they are (autoguides, networks that model or guide hold or are methods of): a second
    fit goes on from where the first one left them, and moves the guide of the first result too.
    Build new networks for every fit that is to be compared. The pair is checked before the first
    step. Ctrl-C returns what was fitted so far.

    ``batches`` is anything that can be iterated over anew for every epoch. Model and guide are
    called with each batch: a tensor is their first argument, a tuple or list their first
    arguments, a dict is keywords; ``args`` and ``kwargs`` follow. Indices are wrapped by
    ``by_index(sampler)`` and given as ``subsample=``. Lists are checked to their end before the
    first step, anything else batch by batch. A ``DataLoader`` shuffles by torch's generator, which
    is seeded here. Latents that all batches share, outside of the plate of the data, need to be
    told how many data there are, by ``pyro.plate("data", N, subsample=index)``; a model that takes
    each batch for all data is warned of.

    Args:
        model: a Pyro model.
        guide: a guide for it; a module continues from the values its parameters have, and so does
            the guide of an earlier result that is one.
        loss: one of this package's losses, or of Pyro's.
        *args: what model and guide are called with, after the batch if there are batches.
        steps: how many gradient steps to take; 1000 if neither these nor epochs are given.
        epochs: how many times to go through the batches.
        batches: minibatches, for instance a ``torch.utils.data.DataLoader``.
        optim: a Pyro optimizer, Adam with learning rate 0.01 by default; or several, by how the
            names of their parameters begin: ``{"encoder": Adam(...), "decoder": Adam(...)}``. Names
            are those of ``params`` in the result, with a dot between the name of a ``pyro.module``
            and its parameter. Learning-rate schedules (``pyro.optim.ExponentialLR``, or
            ``LambdaLR`` with a function of one's own) take a step after each epoch in a fit of
            ``epochs``, and after each step in one of ``steps``; those that wait for a plateau are
            told the (mean) loss.
        clip_norm: largest Euclidean norm of the gradient of all parameters together; a larger one
            is scaled down and keeps its direction. ``pyro.optim.ClippedAdam`` does something else:
            it clamps every element, at 10 unless told otherwise. The gradient of a minibatch is
            scaled up to all data and noisy, so that many elements are beyond that; the mean of the
            clamped ones is biased, and zero elsewhere.
        inner: ``AggressiveInference`` to train the guide ahead of the model.
        seed: for torch's, numpy's and Python's generators.
        callbacks: called with a ``StepInfo`` after every step; a true result ends the fit. If one
            has a method ``before_fit``, ``after_epoch`` or ``finish``, that is called too: before
            the first step with model, guide and a function that returns the parameters; after each
            epoch with the last step's ``StepInfo``, where a true result ends the fit; and at the
            end, when it may change the parameters.
        checkpoint: a file to go on from if the fit is interrupted, see ``Checkpoint``.
        progress: whether to show a bar with the loss and the effective sample size.
        on_nonfinite: what to do about a loss or gradient that is not a number: "raise"; "skip" the
            step; or "backoff", which returns to the parameters before the last step and halves
            the learning rate.
        engine: what runs the steps. "eager" is Pyro, step by step. The others write one step down
            as a graph of tensor operations, compare it with eager code at random points, and run
            that: "graph" as it is; "inductor" compiled, which takes seconds and a C++ compiler;
            "aot" compiled ahead of time and kept on disk for other processes. All of them draw the
            same random numbers from the same seed; results differ by rounding. "auto" takes what
            should be fastest for so many steps, and eager code below two thousand of them. A step
            that cannot be written down is eager, with a warning that says why. See
            ``FitResult.explain``.
        **kwargs: what model and guide are called with.

    Returns:
        The fitted guide, the loss of every step, the parameters, and how it was done. Its ``args``
        and ``kwargs``, for draws and diagnoses, are those given here; with batches they are all
        data, if these are the tensors of a loader's ``TensorDataset``, or if indices can be left
        out; and the first batch otherwise.

    Raises:
        InvalidArgument: for arguments out of range, for batches that are empty or of no known kind,
            and for the checkpoint of another fit.
        NonFiniteLoss: naming site and step; ``error.result`` holds the fit up to that step.
        KLModesError: whatever ``check`` finds wrong with the pair.

    Warns:
        KLModesWarning: naming the cause, if steps were to be compiled and cannot be; and before the
            first step, naming latent and plate, if several batches share a
            latent and each of them is taken for all data; and whatever callbacks warn of, as
            ``AverageIterates`` does if it has replaced nothing.

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

        On minibatches, each with latents of its own:

        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> def local_model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def encoder(x):
        ...     slope = pyro.param("slope", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(slope * x, 0.7))
        >>> loader = DataLoader(TensorDataset(torch.randn(100)), batch_size=20, shuffle=True)
        >>> result = fit(local_model, encoder, ReverseKL(4), batches=loader, epochs=20,
        ...              optim=pyro.optim.Adam({"lr": 0.05}), progress=False)
        >>> result.steps, result.args[0].shape, abs(result.params["slope"].item() - 0.5) < 0.1
        (100, torch.Size([100]), True)
    """
    length = _checked_length(steps, epochs, batches)
    _check_arguments(loss, seed, on_nonfinite, checkpoint, args)
    check_choice(engine)
    check_pair(model, guide)
    check_positional(args)
    if batches is not None:
        check_batches(batches, epochs)
    check_inner(inner, batches)
    if isinstance(guide, FittedGuide):
        guide = guide.to_train()
    optimizers = Optimizers(Adam({"lr": 0.01}) if optim is None else optim, clip_norm)
    stream = Stream(batches, args, kwargs)
    told = Callbacks(callbacks)
    planned = _steps_in_all(length, stream)
    observed = bool(told.each) or runs_other_code(batches)
    accelerated = Engine(engine, model, guide, loss, planned, observed=observed)
    stepper = Stepper(model, guide, loss, optimizers, on_nonfinite, accelerated)
    training = Training(
        stepper, stream, told, length, seed=seed, checkpoint=checkpoint, inner=inner
    )
    saved = None if checkpoint is None else checkpoint.read()
    if checkpoint is not None and saved is not None:
        training.check_fit(saved, checkpoint)
    interrupted = False
    store = pyro.get_param_store()
    with seeded(seed), store.scope() as state:
        first = stream.first()
        check_signatures(model, guide, first, batches=batches)
        whole = first if batches is None else on_all(batches, args, kwargs, first, (model, guide))
        ours = isinstance(loss, DivergenceLoss)
        if isinstance(loss, DivergenceLoss):
            loss.reset()
            training.set_up(lambda: examine(model, guide, first.args, first.kwargs, loss))

        _warn_of_shared_latent(model, guide, stream)

        def so_far() -> FitResult:
            params = {name: store[name].detach().clone() for name in store}
            return FitResult(
                guide=FittedGuide(guide, state),
                losses=torch.tensor(training.losses, dtype=torch.float64),
                params={**_plain_values(model, guide), **params},
                model=model,
                loss=loss,
                args=whole.args,
                kwargs=whole.kwargs,
                seed=seed,
                versions=versions(),
                seconds=training.seconds,
                interrupted=interrupted,
                epochs=stream.epoch,
                explanation=accelerated.explanation,
                optimizer=optimizers.words(),
            )

        training.set_up_inner(first)
        told.before_fit(model, guide, stepper.parameters)
        if checkpoint is not None and saved is not None:
            if not ours:  # its first call makes parameters and counts plates
                training.set_up(lambda: loss.loss(model, guide, *first.args, **first.kwargs))
            training.load_state_dict(saved, checkpoint)
        watch = _effective_size(model, guide, loss, first) if progress else None
        total = _steps_in_all(length, stream)
        told.check_length(total)
        with progress_bar(total, watch, done=len(training.losses), epochs=length.epochs) as advance:
            try:
                training.run(advance)
            except KeyboardInterrupt:
                interrupted = True
            except NonFiniteLoss as error:
                state.update(store.get_state())  # an error leaves the scope without doing so
                error.result = so_far()
                raise
        told.finish()
        return so_far()


def _checked_length(steps: Any, epochs: Any, batches: Any) -> Length:
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 0
        ):
            raise InvalidArgument(f"{name}={value!r} must be a non-negative integer.")
    if steps is not None and epochs is not None:
        raise InvalidArgument(
            f"steps={steps} and epochs={epochs} exclude each other; give the one that counts."
        )
    if epochs is not None and batches is None:
        raise InvalidArgument(
            f"epochs={epochs} counts passes over batches, and there are none; give batches=, or "
            "steps= instead."
        )
    if steps is None and epochs is None:
        return Length(_STEPS, None)
    return Length(steps, epochs)


def _check_arguments(
    loss: Any, seed: Any, on_nonfinite: Any, checkpoint: Any, args: tuple[Any, ...]
) -> None:
    if not isinstance(loss, ELBO):
        late = any(isinstance(x, ELBO) for x in args)
        raise InvalidArgument(
            f"loss={shown(loss)} is not a loss. Pass an instance, for instance ReverseKL() or "
            "ForwardKL(num_particles=32)."
            + (" The order is fit(model, guide, loss, *data, optim=...)." if late else "")
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidArgument(f"seed={seed!r} must be an integer.")
    if on_nonfinite not in ("raise", "skip", "backoff"):
        raise InvalidArgument(
            f"on_nonfinite={on_nonfinite!r} must be 'raise', 'skip' or 'backoff'."
        )
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise InvalidArgument(f"checkpoint={shown(checkpoint)} is none; pass Checkpoint(path).")


def _warn_of_shared_latent(
    model: Callable[..., Any], guide: Callable[..., Any], stream: Stream
) -> None:
    shared = shared_latent(model, guide, stream)
    if shared is None or shared.scaled:
        return
    warnings.warn(
        f"batches: latent '{shared.latent}' is outside of plate '{shared.plate}', which is as long "
        "as one batch. Each batch is taken for all data, and the fit leads to the posterior of one "
        "batch, which is too wide. Say how many data there are: "
        f'pyro.plate("{shared.plate}", N, subsample=index) in the model (and in the guide, if it '
        "has the plate), and batches=by_index(sampler). This is fine only where every batch is a "
        f"data set by itself, with a '{shared.latent}' of its own.",
        KLModesWarning,
        stacklevel=3,
    )


def _steps_in_all(length: Length, stream: Stream) -> int | None:
    if length.epochs is None or stream.batches_per_epoch is None:
        return length.steps
    return length.epochs * stream.batches_per_epoch


def _effective_size(
    model: Callable[..., Any], guide: Callable[..., Any], loss: ELBO, call: Call
) -> Callable[[], float] | None:
    """A look at the effective sample size that leaves the random states as they are."""
    if not isinstance(loss, DivergenceLoss):
        return None

    def look() -> float:
        with seeded(None), evaluating(model, guide):
            return loss.effective_share(model, guide, *call.args, **call.kwargs)

    return look


def _plain_values(model: Callable[..., Any], guide: Callable[..., Any]) -> dict[str, Tensor]:
    """Constrained values of the parameters of modules that Pyro's param store does not know."""
    local = pyro.settings.get("module_local_params")
    values: dict[str, Tensor] = {}
    known: set[Tensor] = set()
    for label, module in (("model", model), ("guide", guide)):
        if not isinstance(module, torch.nn.Module):
            continue
        if isinstance(module, pyro.nn.PyroModule) and not local:
            continue
        for raw, p in module.named_parameters():
            if p not in known:
                known.add(p)
                name = raw.removesuffix("_unconstrained")
                value = attrgetter(name)(module).detach().clone()
                values[f"{label}.{name}" if name in values else name] = value
    return values
