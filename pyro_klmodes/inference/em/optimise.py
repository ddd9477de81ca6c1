"""The M-step without a closed form: climb the expected complete-data log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import NonFiniteLoss, NotMonotone
from pyro_klmodes.inference.em.e_step import Expected
from pyro_klmodes.inference.em.parameters import Parameters

__all__ = ["LBFGS", "expected_log_joint"]


def expected_log_joint(
    expected: Expected,
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
) -> Tensor:  # (R,)
    """``Q(theta) = sum_f <weight_f, log p_f(theta)>``, differentiable in the parameters.

    Fillings without weight count nothing, even where they are impossible.
    """
    total: Tensor | None = None
    for name, log_prob in expected.filled.log_probs(values).items():
        weight = expected.weights[name]
        part = torch.where(weight == 0, 0.0, weight * log_prob)
        part = part.reshape(len(part), -1).sum(1)
        total = part if total is None else total + part
    assert total is not None
    return total


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with a strong-Wolfe line search, in unconstrained space.

    All starts share one search. Where the expected complete-data log-likelihood of a start would
    be lower in the end it keeps its values: a generalised EM (Dempster, Laird and Rubin 1977),
    which is monotone too.

    Args:
        steps: iterations in each M-step.
        tolerance: largest entry of the gradient, per datum of weight one, at which it stops.

    Source: Nocedal and Wright (2006), chapter 7.

    Example:
        >>> LBFGS(steps=5)
        LBFGS(steps=5, tolerance=1e-08)
    """

    steps: int = 20
    tolerance: float = 1e-8

    def maximise(
        self,
        parameters: Parameters,
        names: Sequence[str],
        expected: Expected,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """New values of some parameters, the others as they are.

        Raises:
            NonFiniteLoss: naming parameters with a gradient that is not a number.
            NotMonotone: if the model is another one from call to call.
        """
        chosen = Parameters({n: parameters[n] for n in names})
        before = chosen.unconstrained(values).detach()
        start, slope = _slope(chosen, expected, values, before)
        usable = start.isfinite()  # what is impossible at a start is found in the bound
        _refuse_nan(chosen, slope[usable])
        kept = before.clone()
        rows = usable.nonzero()[:, 0]
        if len(rows):
            kept[rows] = self._climb(chosen, expected, values, before, rows, start)
        if len(rows) > 1:  # a common line search may leave one behind for the others
            still = (kept[rows] == before[rows]).all(1)
            steep = slope[rows].abs().amax(1) > self.tolerance * start[rows].abs().clamp(min=1.0)
            for number in rows[still & steep].tolist():
                row = torch.tensor([number], device=rows.device)
                kept[row] = self._climb(chosen, expected, values, before, row, start)
        with torch.no_grad():
            return {**values, **chosen.constrained(kept)}

    def _climb(
        self,
        chosen: Parameters,
        expected: Expected,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
        before: Tensor,  # (R, U)
        rows: Tensor,  # (A,), which starts to move
        told: Tensor,  # (R,), the objective as it was before
    ) -> Tensor:  # (A, U)
        """One search over the sum of some starts; where a start would be lower it does not move."""
        part = Expected(
            expected.bound[rows],
            {n: _taken(w, rows, len(before)) for n, w in expected.weights.items()},
            expected.filled,
        )
        held = {n: v.detach()[rows] for n, v in values.items() if n not in chosen}
        first = before[rows]
        vectors = first.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [vectors],
            max_iter=self.steps,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective(at: Tensor) -> Tensor:  # (A,)
            return expected_log_joint(part, {**held, **chosen.constrained(at)})

        with torch.no_grad():
            start = objective(first)
        _refuse_change(told[rows], start, rows)
        size = start.abs().sum().clamp(min=1.0)

        def closure() -> Tensor:
            search.zero_grad()
            with torch.enable_grad():
                loss = -objective(vectors).sum() / size
                loss.backward()
            return loss

        search.step(closure)
        with torch.no_grad():
            better = (objective(vectors) >= start) & vectors.isfinite().all(1)
            return torch.where(better[:, None], vectors, first).detach()


def _taken(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """Some starts of a table, which may be the same for all of them."""
    return x[rows] if len(x) == count else x


def _slope(
    chosen: Parameters,
    expected: Expected,
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    before: Tensor,  # (R, U)
) -> tuple[Tensor, Tensor]:  # (R,), (R, U)
    """The expected complete-data log-likelihood and its gradient."""
    at = before.clone().requires_grad_()
    with torch.enable_grad():
        now = {**{n: v.detach() for n, v in values.items()}, **chosen.constrained(at)}
        joint = expected_log_joint(expected, now)
        (slope,) = torch.autograd.grad(joint.sum(), at)
    return joint.detach(), slope


def _refuse_change(
    before: Tensor,  # (A,)
    now: Tensor,  # (A,)
    rows: Tensor,  # (A,)
) -> None:
    """A search on ground that moves keeps where it is, which looks like an optimum."""
    slack = torch.finfo(now.dtype).eps ** 0.75 * (1 + before.abs())
    for place in ((now - before).abs() > slack).nonzero()[:1, 0].tolist():
        raise NotMonotone(
            f"the expected log-likelihood of start {int(rows[place])} was "
            f"{float(before[place]):.9g} and is {float(now[place]):.9g} at the same "
            "parameters. Does the model draw random numbers besides its sites, or change from call "
            "to call?"
        )


def _refuse_nan(
    chosen: Parameters,
    slope: Tensor,  # (R, U)
) -> None:
    """A gradient that is no number would leave all parameters where they are, without a word."""
    if bool(slope.isfinite().all()):
        return
    parts = torch.arange(slope.shape[1])[None]
    bad = (~slope.isfinite()).any(0)
    names = [n for n, x in chosen.by_coordinate(parts).items() if bool(bad[x].any())]
    shown = ", ".join(map(repr, names))
    raise NonFiniteLoss(
        f"the gradient of the expected log-likelihood is not a number in {shown}, "
        "which the optimizer moves. Data that are nan have such a gradient even where they are "
        "masked: fill them in with any value, mask them as before. Or does the model take the root "
        "or the logarithm of zero?"
    )
