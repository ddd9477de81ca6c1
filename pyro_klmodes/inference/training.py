"""A fit in progress: the loop over steps and epochs, and all that a checkpoint must hold of it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import KLModesWarning
from pyro_klmodes.inference.aggressive import AggressiveInference, parameters_of_guide
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.callbacks import Callbacks, StepInfo
from pyro_klmodes.inference.checkpoint import Checkpoint
from pyro_klmodes.inference.constraint_codes import constraint_of, encode
from pyro_klmodes.inference.fingerprint import describe_fit, describe_parameters, differences
from pyro_klmodes.inference.modules import Modules, called_modules
from pyro_klmodes.inference.random_state import random_state, set_random_state
from pyro_klmodes.inference.step import Stepper, plain_parameters
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.inference.versions import versions

__all__ = ["Length", "Training"]

#: steps that a compiled loop takes before anybody looks, and so many are taken one by one after
#: one of them was not finite
_AT_ONCE, _ONE_BY_ONE = 1000, 100


class Length(NamedTuple):
    """When a fit ends: after so many steps or epochs, one of which is None."""

    steps: int | None
    epochs: int | None

    @property
    def in_epochs(self) -> bool:
        """Whether epochs are what the fit, its schedules and its checkpoints count."""
        return self.epochs is not None

    def reached(self, step: int, epoch: int | None) -> bool:
        """Whether so much is enough."""
        if self.steps is not None:
            return step >= self.steps
        return self.epochs is not None and (epoch or 0) >= self.epochs


class Training:
    """Everything that changes while a guide is fitted.

    Attributes:
        losses: the loss of every step so far.
    """

    def __init__(
        self,
        stepper: Stepper,
        stream: Stream,
        callbacks: Callbacks,
        length: Length,
        *,
        seed: int,
        checkpoint: Checkpoint | None,
        inner: AggressiveInference | None,
    ) -> None:
        self.stepper = stepper
        self.stream = stream
        self.callbacks = callbacks
        self.length = length
        self.checkpoint = checkpoint
        self.inner = inner
        self._inner_stream = Stream(stream.batches, stream.args, stream.kwargs)
        self._of_guide: set[Tensor] = set()
        self.losses: list[float] = []
        self._before = 0.0  # seconds that earlier parts of a resumed fit have taken
        self._started = time.perf_counter()
        self._since = 0  # first step of the epoch
        self._over = False
        self._compiles = False
        self._careful = 0  # so many steps one by one, after one of them was not finite
        self._written: tuple[int, int | None] | None = None  # step and epoch
        self._modules = Modules(stepper.model, stepper.guide)
        self._at_start: dict[str, str] | None = None
        self._fit = describe_fit(
            stepper.model,
            stepper.guide,
            stepper.loss,
            seed=seed,
            optim=stepper.optimizers.describe(),
            clip_norm=stepper.optimizers.clip_norm,
            on_nonfinite=stepper.on_nonfinite,
            inner=inner,
            batches_per_epoch=stream.batches_per_epoch,
            counted_in="epochs" if length.in_epochs else "steps",
        )

    @property
    def seconds(self) -> float:
        """Time it has taken, with that of the parts before interruptions."""
        return self._before + time.perf_counter() - self._started

    def set_up(self, run: Callable[[], object]) -> None:
        """Have a run of model and guide make their parameters, and look at what there is."""
        with called_modules() as called:
            run()
        self._modules.add_called(called)
        params = self.live()
        self.stepper.optimizers.choose(params)
        for prefix in self.stepper.optimizers.unused():
            warnings.warn(
                f"optim: no parameter's name begins with '{prefix}'; there are {sorted(params)}.",
                KLModesWarning,
                stacklevel=4,
            )
        buffers = {f"buffer {n}": f"{tuple(b.shape)}" for n, b in self._modules.buffers().items()}
        self._at_start = {**describe_parameters(params, _constraints()), **buffers}

    def set_up_inner(self, call: Call) -> None:
        """Find out whose parameters are whose, if that matters."""
        if self.inner is None:
            return
        self.inner.begin()

        def find() -> None:
            self._of_guide = parameters_of_guide(self.stepper.model, self.stepper.guide, call)

        if self._at_start is None:  # a loss of Pyro's
            self.set_up(find)
        else:
            find()

    def live(self) -> dict[str, Tensor]:
        """All unconstrained parameters by name."""
        in_store = dict(pyro.get_param_store().named_parameters())
        plain = plain_parameters(self.stepper.model, self.stepper.guide, in_store)
        return {**in_store, **plain}

    def run(self, advance: Callable[[float, int | None], None]) -> None:
        """Go on to the end.

        Args:
            advance: told the loss and the epoch of every step.
        """
        if self.losses and self._at_start is not None:  # it goes on where it was interrupted
            self._compile()
        while not self._over and not self.length.reached(len(self.losses), self.stream.epoch):
            call = self.stream.take()
            if call is None:
                self._end_epoch()
                continue
            epoch = self.stream.epoch
            before = len(self.losses)
            self._advance(call, epoch)
            for loss in self.losses[before:]:
                advance(loss, epoch)
            info = self._info(epoch)
            if epoch is None and self.inner and len(self.losses) % self.inner.check_every == 0:
                self._look_inside()
            self._over = self.callbacks.after_step(info)
            if not self.length.in_epochs:
                self.stepper.optimizers.step_schedules(self.losses[-1])
                self._save_if_due(len(self.losses))
        self._save()

    def _advance(self, call: Call, epoch: int | None) -> None:
        """Take a step, or several at once where nobody looks in between."""
        count = self._unobserved()
        if self._compiles and count and not self._careful:
            losses = self.stepper.many(call, count)
            if losses is not None:
                self.losses += losses
                return
            self._careful = min(count, _ONE_BY_ONE)
        self._careful = max(self._careful - 1, 0)
        self._step(call, epoch)
        if not self._compiles and self._at_start is not None:
            self._compile()

    def _compile(self) -> None:
        """From now on steps may be compiled: all parameters are there."""
        self._compiles = self.stepper.engine.begin(self.stepper.touched, self._modules.roots())

    def _unobserved(self) -> int:
        """How many steps may be taken at once; none if each of them has to be looked at."""
        stepper = self.stepper
        if stepper.engine.off or self.inner is not None or stepper.on_nonfinite == "backoff":
            return 0
        alone = self.stream.batches is not None or self.callbacks.each
        if alone or stepper.optimizers.has_schedule:
            return 1
        done = len(self.losses)
        left = _AT_ONCE if self.length.steps is None else self.length.steps - done
        if self.checkpoint is not None:
            left = min(left, self.checkpoint.steps_until_due(done))
        return min(left, _AT_ONCE)

    def _step(self, call: Call, epoch: int | None) -> None:
        number = len(self.losses)
        where = f"step {number}" if epoch is None else f"step {number}, epoch {epoch}"
        if self.inner is not None and self.inner.active:
            self._catch_up(self.inner, where)
            self.losses.append(self.stepper(where, call, lambda p: p not in self._of_guide))
        elif self._at_start is None:  # a loss of Pyro's: the first step makes the parameters
            self.set_up(lambda: self.losses.append(self.stepper(where, call)))
        else:
            self.losses.append(self.stepper(where, call))

    def _catch_up(self, inner: AggressiveInference, where: str) -> None:
        def step() -> float:
            batch = self._inner_stream.endless()
            return self.stepper(f"inner step before {where}", batch, self._of_guide.__contains__)

        inner.catch_up(step)

    def _end_epoch(self) -> None:
        if self.length.in_epochs:
            seen = torch.tensor(self.losses[self._since :], dtype=torch.float64)
            self.stepper.optimizers.step_schedules(float(seen.nanmean()))
        self._look_inside()
        self._over = self.callbacks.after_epoch(self._info(self.stream.epoch))
        self.stream.next_epoch()
        self._since = len(self.losses)
        if self.length.in_epochs:
            self._save_if_due(self.stream.epoch or 0)
        elif self.stream.ends:
            warnings.warn(
                f"the batches, which can be iterated over only once, ended after {self._since} of "
                f"steps={self.length.steps}.",
                KLModesWarning,
                stacklevel=4,
            )
            self._over = True

    def _look_inside(self) -> None:
        if self.inner is not None and self.inner.active:
            self.inner.look(self.stepper.model, self.stepper.guide)

    def _info(self, epoch: int | None) -> StepInfo:
        last = self.losses[-1] if self.losses else math.nan
        return StepInfo(len(self.losses) - 1, last, self.stepper.parameters, epoch)

    def _save_if_due(self, count: int) -> None:
        if self.checkpoint is not None and self.checkpoint.due(
            count, in_epochs=self.length.in_epochs
        ):
            self._save()

    def _save(self) -> None:
        now = len(self.losses), self.stream.epoch
        if self.checkpoint is not None and self.losses and now != self._written:
            self.checkpoint.write(self.state_dict())
            self._written = now

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, numbers and strings."""
        params = self.live()
        loss = self.stepper.loss
        return {
            "fit": self._fit,
            "at_start": self._at_start,
            "versions": versions(),
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "since": self._since,
            "ended_by": list(self.callbacks.ended_by),
            "params": {name: p.detach() for name, p in params.items()},
            "constraints": _constraints(),
            "buffers": {name: b.detach() for name, b in self._modules.buffers().items()},
            "optimizers": self.stepper.optimizers.state_dict(params),
            "stepper": self.stepper.state_dict(params),
            "loss": loss.state_dict() if hasattr(loss, "state_dict") else None,
            "callbacks": self.callbacks.state_dict(),
            "inner": None if self.inner is None else self.inner.state_dict(),
            "stream": self.stream.state_dict(),
            "inner_stream": self._inner_stream.state_dict(),
            "why_eager": self.stepper.engine.explanation.cause,
            "random": random_state(self.stream.generators),
        }

    def check_fit(self, saved: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Refuse the checkpoint of another fit, before anything is run.

        Raises:
            InvalidArgument: naming the path and what differs.
        """
        _refuse(differences(saved["fit"], self._fit), checkpoint)
        changed = differences(saved["versions"], versions())
        if changed:
            warnings.warn(
                f"checkpoint '{checkpoint.path}' was written with other versions: "
                f"{'; '.join(changed)}. The numbers may differ from those of one long fit.",
                KLModesWarning,
                stacklevel=4,
            )

    def load_state_dict(self, saved: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Go on from a saved state, after ``set_up``.

        Raises:
            InvalidArgument: naming the path and what differs, for other parameters.
        """
        _refuse(differences(saved["at_start"], self._at_start or {}), checkpoint)
        store = pyro.get_param_store()
        for name, value in saved["params"].items():  # those that only a later step has made
            if name not in store and name in saved["constraints"]:
                constraint = constraint_of(saved["constraints"][name])
                state = {
                    "params": {name: value.requires_grad_()},
                    "constraints": {name: constraint},
                }
                store.set_state(state)
        params, buffers = self.live(), self._modules.buffers()
        with torch.no_grad():
            for name, value in saved["params"].items():
                params[name].copy_(value)
            for name, value in saved["buffers"].items():
                buffers[name].copy_(value)
        self.stepper.optimizers.load_state_dict(saved["optimizers"], params)
        self.stepper.load_state_dict(saved["stepper"], params)
        if saved["loss"] is not None:
            self.stepper.loss.load_state_dict(saved["loss"])
        self.callbacks.load_state_dict(saved["callbacks"])
        self.losses = saved["losses"].tolist()
        self._before = saved["seconds"]
        self._since = saved["since"]
        self._over = self.callbacks.end_again(saved["ended_by"])
        if self.inner is not None:
            self.inner.load_state_dict(saved["inner"])
            self._inner_stream.load_state_dict(saved["inner_stream"])
        self.stream.load_state_dict(saved["stream"])
        self._written = len(self.losses), self.stream.epoch
        self.stepper.engine.resume(saved.get("why_eager"))
        set_random_state(saved["random"], self.stream.generators)


def _constraints() -> dict[str, dict[str, Any]]:
    store = pyro.get_param_store()
    return {name: encode(constraint) for name, constraint in store._constraints.items()}


def _refuse(found: list[str], checkpoint: Checkpoint) -> None:
    if found:
        raise checkpoint.problem(f"it is of another fit: {'; '.join(found)}")
