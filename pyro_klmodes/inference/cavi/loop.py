"""Sweeps of a fit, over all data or one minibatch after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.callbacks import Callbacks, StepInfo
from pyro_klmodes.inference.cavi.prepare import Prepared
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.tracing.node_runs import NodeModel

__all__ = ["Loop"]

#: local sites of a batch are swept over until points move by less than this part, or so often
_INNER_TOLERANCE, _INNER = 1e-3, 20


@dataclass(repr=False)
class Loop:
    """The sweeps of one fit.

    Attributes:
        model: a Pyro model.
        ready: what is swept over.
        length: of the steps by number.
        told: the callbacks.
        tolerance: of changes of points.
        losses: minus the ELBO after every sweep.
        advance: what is told of every sweep in words, for a progress bar.
    """

    model: Callable[..., Any]
    ready: Prepared
    length: Callable[[int], float]
    told: Callbacks
    tolerance: float
    losses: list[float] = field(default_factory=list)
    advance: Callable[[str], None] = lambda words: None
    _done: int = 0  # runs of the models of batches before

    @property
    def evaluations(self) -> int:
        """How often the model was run."""
        return self._done + self.ready.plan.model.runs

    def sweeps(self, steps: int) -> bool:
        """Sweep to convergence."""
        sweeper = self.ready.sweeper
        limit = max(self.tolerance, 8 * _eps(self.ready))
        for number in range(1, steps + 1):
            rho = self.length(number)
            moved = sweeper.sweep(rho)
            self.losses.append(-sweeper.elbo)
            self.advance(f"ELBO {sweeper.elbo:.6g}, last change {moved:.1e}")
            if self.told.after_step(self._info(None)):
                return False
            if moved <= limit * rho:
                return True
        return False

    def minibatches(self, stream: Stream, steps: int | None, epochs: int | None) -> None:
        """One step for every batch."""
        number = 0
        while (steps is None or number < steps) and (
            epochs is None or (stream.epoch or 0) < epochs
        ):
            call = stream.take()
            if call is None:
                if self.told.after_epoch(self._info(stream.epoch)):
                    return
                stream.next_epoch()
                continue
            number += 1
            model = NodeModel(self.model, call.args, call.kwargs)
            model.look()
            self._done += self.ready.plan.model.runs
            self.ready.at(model)
            self._step(self.length(number))
            self.advance(f"ELBO of the batch {self.ready.sweeper.elbo:.6g}")
            if self.told.after_step(self._info(stream.epoch)):
                return

    def _step(self, rho: float) -> None:
        sweeper, plan = self.ready.sweeper, self.ready.plan
        local = [n for n, view in plan.model.sites.items() if view.ratio != 1]
        others = [n for n in plan.model.sites if n not in local]
        limit = max(_INNER_TOLERANCE, self.tolerance)
        for _ in range(_INNER if local else 0):
            if sweeper.sweep(1.0, local) <= limit:
                break
        sweeper.sweep(rho, others, guarded=False)
        self.losses.append(-sweeper.elbo)

    def _info(self, epoch: int | None) -> StepInfo:
        last = self.losses[-1] if self.losses else float("nan")
        return StepInfo(len(self.losses) - 1, last, self.parameters, epoch)

    def parameters(self) -> Mapping[str, Tensor]:
        """The unconstrained parameters of the guide by name."""
        self.ready.store()
        return dict(self.ready.guide.named_parameters())


def _eps(ready: Prepared) -> float:
    some = next(iter(next(iter(ready.sweeper.params.values())).values()))
    return float(torch.finfo(some.dtype).eps)
