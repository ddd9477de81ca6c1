"""The M-step: closed forms where the model has them, an optimizer for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.e_step import Expected
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments import ClosedForm, Maximised
from pyro_klmodes.inference.em.optimise import LBFGS
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["MStep"]


class MStep:
    """Maximise the expected complete-data log-likelihood over the parameters.

    Attributes:
        parameters: all of them.
        closed: those with a closed form, and why others have none.
        optimizer: for the others.
    """

    def __init__(self, parameters: Parameters, closed: ClosedForm, optimizer: LBFGS) -> None:
        self.parameters = parameters
        self.closed = closed
        self.optimizer = optimizer
        self._last: tuple[Filled, Mapping[str, tuple[Any, Tensor]]] | None = None

    @classmethod
    def find(
        cls, filled: Filled, parameters: Parameters, optimizer: LBFGS, *, floor: float
    ) -> MStep:
        """See which parameters have a closed form.

        Raises:
            UnsupportedStructure: naming a parameter that moves nothing.
        """

        def run(values: Mapping[str, Tensor]) -> dict[str, tuple[Any, Tensor]]:
            return _sites(filled, values)

        moved = _moved_by(filled, parameters)
        closed = ClosedForm.find(run, parameters, floor=floor, moved=moved)
        return cls(parameters, closed, optimizer)

    @property
    def left(self) -> tuple[str, ...]:
        """The parameters without a closed form."""
        return tuple(n for n in self.parameters if n not in self.closed.covered)

    def __call__(
        self,
        expected: Expected,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> Maximised:
        """New values of all parameters, and what is wrong with which start."""
        found = Maximised(dict(values), [])
        if self.closed.covered:
            found = self.closed.maximise(self.statistics(expected, values), values)
        left = self.left
        if not left:
            return found
        now = {**values, **found.values}
        return Maximised(
            self.optimizer.maximise(self.parameters, left, expected, now), found.faults
        )

    def statistics(
        self,
        expected: Expected,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> dict[str, Tensor]:
        """The expected sufficient statistics, which add up over data."""
        known = self._last is not None and self._last[0] is expected.filled
        factors = {
            n: Factor(n, fn, value, expected.weights[n])
            for n, (fn, value) in self._filled_in(expected.filled, values).items()
        }
        if self.closed.probe is not None and not known:
            self.closed.check(factors)
        return self.closed.statistics(factors)

    def _filled_in(
        self, filled: Filled, values: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Any, Tensor]]:
        """Distributions and values of the sites; what the parameters are does not matter here.

        At the probe one sees which of their entries are selected.
        """
        if self._last is None or self._last[0] is not filled:
            one = self.closed.probe or {n: v[0].detach() for n, v in values.items()}
            self._last = (filled, _sites(filled, one))
        return self._last[1]


def _sites(filled: Filled, values: Mapping[str, Tensor]) -> dict[str, tuple[Any, Tensor]]:
    with torch.no_grad():
        return {s["name"]: (s["fn"], s["value"]) for s in scored_sites(filled.trace(values))}


def _moved_by(filled: Filled, parameters: Parameters) -> dict[str, set[str]]:
    """The parameters that each site's log-probability is computed from, whatever their values.

    Raises:
        UnsupportedStructure: naming a parameter that none is, and that would stay where it is.
    """
    leaves = {n: v[None].clone().requires_grad_() for n, v in parameters.initial().items()}
    moved: dict[str, set[str]] = {}
    with torch.enable_grad():
        for site, log_prob in filled.log_probs(leaves).items():
            moved[site] = set()
            if log_prob.requires_grad:
                found = torch.autograd.grad(
                    log_prob.sum(), list(leaves.values()), allow_unused=True, retain_graph=True
                )
                moved[site] = {n for n, g in zip(leaves, found, strict=True) if g is not None}
    for name in leaves:
        if not any(name in names for names in moved.values()):
            raise UnsupportedStructure(
                f"no site of the model depends on parameter '{name}', or not through Pyro: a plain "
                "nn.Parameter of a module is used past it. Make it a PyroParam, or remove it."
            )
    return moved
