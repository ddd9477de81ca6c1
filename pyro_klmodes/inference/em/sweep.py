"""One pass of EM over the data: all at once, or batch after batch with the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

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
        expected = self.e_step.expect(dict(values))
        return expected.bound, self.m_step(expected, values)


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
            expected = self.e_step.on(call, minibatch=False).expect(dict(values))
            bound = expected.bound if bound is None else bound + expected.bound
            for name, part in self.m_step.statistics(expected, values).items():
                total[name] = total[name] + part if name in total else part
        assert bound is not None
        return bound, self.m_step.closed.maximise(total, values)


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
