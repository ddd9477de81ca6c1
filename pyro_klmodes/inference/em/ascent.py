"""One step of EM as a map of vectors, and the promise that it never goes down."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.errors import NotMonotone
from pyro_klmodes.inference.em.m_step import MStep
from pyro_klmodes.inference.em.moments import Fault
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.em.sweep import Sweep

__all__ = ["EMMap"]


class EMMap:
    """``theta -> argmax Q(. | theta)`` for R starts, with the bound at ``theta``.

    Args:
        parameters: of the model.
        sweep: one pass over the data.
        m_step: what the pass maximises with, for messages.
        monotone: whether a bound that decreases from a point to its image is an error.

    Attributes:
        faults: what went wrong with which start, if anything did.
    """

    def __init__(
        self,
        parameters: Parameters,
        sweep: Sweep,
        m_step: MStep,
        *,
        monotone: bool,
    ) -> None:
        self.parameters = parameters
        self.sweep = sweep
        self.m_step = m_step
        self.monotone = monotone
        self.faults: dict[int, Fault] = {}
        self._image: dict[int, tuple[Tensor, float]] = {}
        self._count = 0

    def __call__(
        self,
        flat: Tensor,  # (A, P)
        rows: Tensor | None = None,  # (A,), which starts these are
    ) -> tuple[Tensor, Tensor]:  # (A, P), (A,)
        """The next points, and the bound at these ones: NaN where a start has failed.

        Points that an accelerator proposes may lie outside of what constrains the parameters, or
        have variances below the floor; the bound is -inf there, and the model does not get to see
        them.
        """
        starts = list(range(len(flat))) if rows is None else rows.tolist()
        values = self.parameters.shaped(flat)
        mapped = torch.full_like(flat, torch.nan)
        bound = flat.new_full((len(flat),), -torch.inf)
        inside = self._inside(flat, values, starts)
        if not inside:
            return mapped, bound
        values = {n: v[inside] for n, v in values.items()}
        reached, found = self.sweep(values)
        bound[inside] = reached.to(bound)
        if self.monotone:
            self._check(flat, bound, starts)
        mapped[inside] = self.parameters.flat(found.values)
        for fault in found.faults:
            row = inside[fault.start]
            self.faults.setdefault(starts[row], fault)
            mapped[row] = torch.nan
        for row in inside:
            self._image[starts[row]] = (mapped[row], float(bound[row]))
        self._count += 1
        return mapped, bound

    def _inside(self, flat: Tensor, values: Mapping[str, Tensor], starts: list[int]) -> list[int]:
        """The rows that the model gets to see."""
        allowed = self.parameters.allowed(values).tolist()
        rows = [row for row, ok in enumerate(allowed) if ok]
        proposed = [
            row
            for row in rows
            if starts[row] in self._image
            and not torch.equal(self._image[starts[row]][0], flat[row])
        ]
        if proposed:
            kept = self._above_floor({n: v[proposed] for n, v in values.items()})
            low = {row for row, ok in zip(proposed, kept.tolist(), strict=True) if not ok}
            rows = [row for row in rows if row not in low]
        return rows

    def _above_floor(self, values: Mapping[str, Tensor]) -> Tensor:  # (A,)
        raised = self.parameters.flat(self.m_step.closed.raised(values))
        given = self.parameters.flat(values)
        close = _rounding(given) * given.abs().amax(1, keepdim=True)
        return ((raised - given).abs() <= close).all(1)

    def _check(self, flat: Tensor, bound: Tensor, starts: list[int]) -> None:
        rounding = _rounding(bound)
        for row, start in enumerate(starts):
            if start not in self._image:
                continue
            image, before = self._image[start]
            now = float(bound[row])
            if torch.equal(image, flat[row]) and now < before - rounding * (1 + abs(before)):
                raise NotMonotone(
                    f"step {self._count} of EM lowered the log-likelihood of start {start} from "
                    f"{before:.12g} to {now:.12g}, by {before - now:.3g}, which no exact EM does. "
                    f"{self._doubt()}"
                )

    def _doubt(self) -> str:
        left = ", ".join(repr(n) for n in self.m_step.left)
        moved = f" The optimizer moved {left}." if left else ""
        return (
            "Does the model draw random numbers besides its sites, or change from call to call? "
            f"If not, please report it.{moved}"
        )


def _rounding(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).eps ** 0.75)
