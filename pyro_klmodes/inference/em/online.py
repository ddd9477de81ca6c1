"""Online EM: parameters move after every batch, statistics are averaged over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.acceleration import Progress, Trajectory
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.em.exact import RunningExact
from pyro_klmodes.inference.em.m_step import MStep
from pyro_klmodes.inference.em.moments import Fault
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.em.sweep import refuse_left_over
from pyro_klmodes.inference.iterate_log import checked_whole

__all__ = ["OnlineEM", "StepSizes"]


@dataclass(frozen=True)
class StepSizes:
    r"""Weights of new batches in the average of the statistics, :math:`(t + delay)^{-power}`.

    Args:
        power: above 1/2 and at most 1, so that the weights sum to infinity and their squares do
            not. 0.6 is the recommendation of Cappé and Moulines.
        delay: large values make the first steps small.
        burn_in: batches before the first M-step, whose statistics are averaged at the start.

    Source: Cappé and Moulines (2009).

    Example:
        >>> [round(StepSizes(power=0.6)(t), 3) for t in (0, 1, 10)]
        [1.0, 0.66, 0.237]
    """

    power: float = 0.6
    delay: float = 1.0
    burn_in: int = 1

    def __post_init__(self) -> None:
        if not 0.5 < self.power <= 1:
            raise InvalidArgument(f"power={self.power!r} must be above 0.5 and at most 1.")
        if not (math.isfinite(self.delay) and self.delay >= 1):
            raise InvalidArgument(f"delay={self.delay!r} must be at least 1.")
        checked_whole("burn_in", self.burn_in, 1)

    def __call__(self, batch: int) -> float:
        """The weight of a batch, counted from 0."""
        return (batch + self.delay) ** -self.power


class OnlineEM:
    """``s <- (1 - g) s + g E[s(x_batch, z)]``, and an M-step from the average s.

    Args:
        parameters: of the model.
        e_step: of the first batch.
        m_step: with a closed form for every parameter.
        sizes: the step sizes g.
    """

    def __init__(
        self, parameters: Parameters, e_step: RunningExact, m_step: MStep, sizes: StepSizes
    ) -> None:
        refuse_left_over(m_step)
        self.parameters = parameters
        self.e_step = e_step
        self.m_step = m_step
        self.sizes = sizes
        self.faults: dict[int, Fault] = {}

    def run(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
        calls: Callable[[], Iterable[Call]],
        epochs: int,
        told: Callable[[Progress], bool],
    ) -> Trajectory:
        """Go through the batches, and once more to see the log-likelihood.

        Args:
            values: where to start.
            calls: called anew for every pass over the batches.
            epochs: how many passes.
            told: called after every batch, with its log-likelihood for each datum; a true result,
                or Ctrl-C, ends the passes.
        """
        average: dict[str, Tensor] = {}
        bounds: list[Tensor] = []
        size = 0.0  # of the first batch
        interrupted = False
        try:
            for call in (call for _ in range(epochs) for call in calls()):
                step = self.e_step.on(call, minibatch=True)
                expected = step.expect(dict(values))
                ratio, weight = step.ratio, self._weight(expected.weights)
                size = size or weight / ratio
                new = self.m_step.statistics(expected, values)
                after = len(bounds) + 1 - self.sizes.burn_in
                rate = 1 / (len(bounds) + 1) if after <= 0 else self.sizes(after)
                for name, part in new.items():
                    before = average.get(name, torch.zeros_like(part))
                    # sums, not means: a short last batch counts for as much as it holds
                    average[name] = before + rate * (part / ratio / size - before)
                last, values = values, self._moved(average, values) if after >= 0 else values
                bounds.append(expected.bound / weight)
                if told(self._progress(last, values, bounds)):
                    break
        except KeyboardInterrupt:
            if not bounds:
                raise
            interrupted = True
        total, value = 0.0, torch.zeros_like(bounds[0])
        for call in calls():
            step = self.e_step.on(call, minibatch=True)
            expected = step.expect(dict(values))
            total += self._weight(expected.weights) / step.ratio
            value = value + expected.bound / step.ratio
        return self._ended(values, value, torch.stack(bounds) * total, interrupted=interrupted)

    def _progress(
        self,
        before: Mapping[str, Tensor],  # {parameter: (R, *shape)}
        after: Mapping[str, Tensor],  # {parameter: (R, *shape)}
        bounds: Sequence[Tensor],  # (R,) each
    ) -> Progress:
        theta = self.parameters.flat(after)
        moved = (theta - self.parameters.flat(before)).abs().amax(-1)
        going = torch.ones(len(theta), dtype=torch.bool)
        going[list(self.faults)] = False
        return Progress(len(bounds) - 1, theta, bounds[-1], moved, going)

    def _moved(
        self, average: Mapping[str, Tensor], values: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        found = self.m_step.closed.maximise(average, values)
        for fault in found.faults:
            self.faults.setdefault(fault.start, fault)
        return {**values, **found.values}

    def _weight(
        self,
        weights: Mapping[str, Tensor],  # {site: (R, *batch)}
    ) -> float:
        """How many data a batch stands for: the posterior weights of one of its sites add up."""
        return float(weights[self.e_step.observed][0].sum())

    def _ended(
        self,
        values: Mapping[str, Tensor],
        value: Tensor,  # (R,)
        history: Tensor,  # (T, R)
        *,
        interrupted: bool,
    ) -> Trajectory:
        theta = self.parameters.flat(values)
        starts = len(theta)
        failed = torch.zeros(starts, dtype=torch.bool)
        failed[list(self.faults)] = True
        return Trajectory(
            theta=theta,
            mapped=theta,
            value=value,
            residual=torch.full_like(value, torch.nan),
            converged=torch.zeros_like(failed),
            failed=failed | ~value.isfinite(),
            evaluations=torch.full((starts,), len(history)),
            rejected=torch.zeros(starts, dtype=torch.long),
            values=history,
            interrupted=interrupted,
        )
