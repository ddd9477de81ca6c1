"""The M-step without a closed form: climb the expected complete-data log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
        part = torch.where(weight == 0, 0.0, weight * log_prob).flatten(1).sum(1)
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
        """New values of some parameters, the others as they are."""
        chosen = Parameters({n: parameters[n] for n in names})
        held = {n: v.detach() for n, v in values.items() if n not in chosen}
        before = chosen.unconstrained(values).detach()
        vectors = before.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [vectors],
            max_iter=self.steps,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective(at: Tensor) -> Tensor:  # (R,)
            return expected_log_joint(expected, {**held, **chosen.constrained(at)})

        with torch.no_grad():
            start = objective(before)
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
            kept = torch.where(better[:, None], vectors, before).detach()
            return {**values, **chosen.constrained(kept)}
