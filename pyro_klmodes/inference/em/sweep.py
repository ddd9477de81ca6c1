"""One pass of EM over the data: all at once, or batch after batch with the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.em.e_step import RunningEStep
from pyro_klmodes.inference.em.exact import RunningExact
from pyro_klmodes.inference.em.m_step import MStep
from pyro_klmodes.inference.em.moments import Maximised

__all__ = ["Chunked", "Sweep", "Whole", "refuse_left_over"]

Sweep = Callable[[Mapping[str, Tensor]], tuple[Tensor, Maximised]]


class Whole:
    """An E-step on all data, and an M-step."""

    def __init__(self, e_step: RunningEStep, m_step: MStep) -> None:
        self.e_step = e_step
        self.m_step = m_step

    def __call__(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> tuple[Tensor, Maximised]:  # (R,), and new values
        """The bound at these values, and the next ones."""
        if self.m_step.left or not isinstance(self.e_step, RunningExact):
            expected = self.e_step.expect(dict(values))
            return expected.bound, self.m_step(expected, values)
        bound, statistics = _summed_up(self.e_step, self.m_step, values)
        return bound, self.m_step.closed.maximise(statistics, values)


class Chunked:
    """The same with bounded memory: sufficient statistics are added up over batches.

    Args:
        e_step: of the first batch.
        m_step: with a closed form for every parameter.
        calls: called anew for every pass over the batches.
    """

    def __init__(
        self, e_step: RunningExact, m_step: MStep, calls: Callable[[], Iterable[Call]]
    ) -> None:
        refuse_left_over(m_step)
        self.e_step = e_step
        self.m_step = m_step
        self.calls = calls

    def __call__(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> tuple[Tensor, Maximised]:  # (R,), and new values
        """The bound at these values, and the next ones."""
        bound: Tensor | None = None
        total: dict[str, Tensor] = {}
        for call in self.calls():
            e_step = self.e_step.on(call, minibatch=False)
            here, statistics = _summed_up(e_step, self.m_step, values)
            bound = here if bound is None else bound + here
            for name, part in statistics.items():
                total[name] = total[name] + part if name in total else part
        assert bound is not None
        return bound, self.m_step.closed.maximise(total, values)


def _summed_up(
    e_step: RunningExact,
    m_step: MStep,
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
) -> tuple[Tensor, dict[str, Tensor]]:  # (R,), {statistic: (R, ...)}
    """Bound and statistics, for as many starts at a time as their tables stay small."""
    count = len(next(iter(values.values())))
    bounds, statistics = [], []
    for first in range(0, count, e_step.at_once):
        some = {n: v[first : first + e_step.at_once] for n, v in values.items()}
        expected = e_step.expect(some)
        bounds.append(expected.bound)
        statistics.append(m_step.statistics(expected, some))
    return torch.cat(bounds), {n: torch.cat([s[n] for s in statistics]) for n in statistics[0]}


def refuse_left_over(m_step: MStep) -> None:
    """Statistics of batches add up only where the M-step has a closed form.

    Raises:
        UnsupportedStructure: naming a parameter without one, and why.
    """
    if m_step.left:
        name = m_step.left[0]
        raise UnsupportedStructure(
            f"batches: parameter '{name}' has no closed-form update ({m_step.closed.reasons[name]})"
            ", so batches cannot be summed up in statistics. Use fit(model, guide, ReverseKL(), "
            "batches=...), which takes gradient steps, or all data at once."
        )
