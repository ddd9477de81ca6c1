"""Train a task by a loss, follow the bound on held-out data, and say how it went."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.optim import Adam
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_klmodes.inference import (
    Checkpoint,
    Evaluate,
    Evaluation,
    FitResult,
    HeldOutBound,
    StepInfo,
    fit,
    held_out_bound,
)
from pyro_klmodes.inference.batches import ByIndex
from pyro_klmodes.losses import ScoreClimbing
from pyro_klmodes.training.task import Task

__all__ = ["Settings", "Trained", "minibatches", "run"]

#: draws per datum for a look between epochs; the look at the end has its own number
LOOK = 50


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        loss: the name of the loss.
        epochs: how often to go through the data, all in all.
        batch_size: that of the task if None.
        learning_rate: of Adam.
        seed: for all generators.
        held_out_particles: draws per datum for the bound at the end.
    """

    loss: str
    epochs: int
    batch_size: int | None
    learning_rate: float
    seed: int
    held_out_particles: int


@dataclass(frozen=True)
class Trained:
    """A training that is over, or was interrupted.

    Attributes:
        result: of the fit.
        batches_per_epoch: how many steps make an epoch; None if nobody knows.
        looks: the bound on held-out data after each epoch.
        held_out: that at the end; None if there was no step.
        exact: mean log-evidence of the data held out, if the model has it in closed form.
    """

    result: FitResult = field(repr=False)
    batches_per_epoch: int | None
    looks: Sequence[Evaluation] = field(repr=False)
    held_out: HeldOutBound | None
    exact: float | None


def minibatches(task: Task, loss: ELBO, batch_size: int | None) -> tuple[tuple[Tensor, ...], Any]:
    """What model and guide are called with beside each batch, and the batches.

    Raises:
        InvalidArgument: if the data do not come as this loss, or this size, needs them.
    """
    if isinstance(loss, ScoreClimbing):  # keeps a chain for every datum
        return task.train_by_index(batch_size)
    return (), task.train_batches(batch_size)


def run(
    task: Task,
    loss: ELBO,
    settings: Settings,
    checkpoint: Checkpoint,
    *,
    progress: bool,
    say: Callable[[str], object],
) -> Trained:
    """Train, from the checkpoint if it holds something.

    Args:
        task: what to train.
        loss: by what.
        settings: how.
        checkpoint: where to write down all that is needed to go on.
        progress: whether to show a bar.
        say: called with a line after epochs.

    Raises:
        KLModesError: whatever is wrong with the pair, the data or the checkpoint.
    """
    args, batches = minibatches(task, loss, settings.batch_size)
    test = task.test_batches()
    # a plate that knows its size scales a batch up to all data
    loss_of = "all data" if isinstance(batches, ByIndex) else "per batch"
    evaluate = Evaluate(batches=test, num_particles=min(LOOK, settings.held_out_particles))
    result = fit(
        task.model,
        task.guide,
        loss,
        *args,
        batches=batches,
        epochs=settings.epochs,
        optim=Adam({"lr": settings.learning_rate}),
        seed=settings.seed,
        callbacks=[evaluate, _Lines(evaluate, settings.epochs, loss_of, say)],
        checkpoint=checkpoint,
        progress=progress,
    )
    held_out, exact = None, None
    if result.steps and not result.interrupted:
        held_out = held_out_bound(
            task.model,
            result.guide,
            batches=test,
            num_particles=settings.held_out_particles,
            seed=settings.seed,
        )
        exact = None if task.exact is None else _mean_exact(task.exact, test)
    return Trained(result, _length(batches), tuple(evaluate.records), held_out, exact)


class _Lines:
    """A line after every epoch, or after every twentieth part of many."""

    def __init__(
        self, evaluate: Evaluate, epochs: int, loss_of: str, say: Callable[[str], object]
    ) -> None:
        self.evaluate, self.epochs, self.loss_of, self.say = evaluate, epochs, loss_of, say
        self.every = max(epochs // 20, 1)

    def __call__(self, info: StepInfo) -> None:
        """Nothing: lines are by epoch."""

    def after_epoch(self, info: StepInfo) -> None:
        """The loss of the last step, and the bound."""
        number = (info.epoch or 0) + 1
        if self.evaluate.records and (number % self.every == 0 or number == self.epochs):
            look = self.evaluate.records[-1]
            self.say(
                f"epoch {number}/{self.epochs}  loss ({self.loss_of}) {info.loss:.4g}  "
                f"held-out bound (per datum) {look.bound:.4f} ± {look.standard_error:.4f}"
            )


@torch.no_grad()
def _mean_exact(exact: Callable[..., Tensor], test: DataLoader[Any]) -> float:
    values = torch.cat([exact(*batch).reshape(-1).double() for batch in test])
    mean = float(values.mean())
    return mean if math.isfinite(mean) else math.nan


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:  # of an iterable that does not know its length
        return None
