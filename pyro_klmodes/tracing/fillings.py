"""What the latents of a filled model are worth: the evidence, and the weight of every filling.

For any bound ``L`` that is a function of the log-probabilities of the sites, ``dL / d log p_f`` is
the weight of the filling that the factor ``f`` was evaluated at. For the log-evidence these are the
posterior probabilities of the values that a factor joins (Darwiche 2003), and ``sum_f <weight_f,
log p_f(theta)>`` has the gradient of the log-evidence in the parameters (Fisher's identity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.joint_densities import refuse_minibatch
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.terms import Term, scored_sites

__all__ = ["Enumerated", "sum_over_data", "weights_of"]

Bound = Callable[[Mapping[str, Tensor]], Tensor]  # {site: (R, *batch)} -> (R,)


def weights_of(
    bound: Bound,
    log_probs: Mapping[str, Tensor],  # {site: (R, *batch)}
) -> tuple[Tensor, dict[str, Tensor]]:  # (R,), and {site: (R, *batch)}
    """The value of a bound and its derivatives with respect to the log-probabilities."""
    leaves = {n: x.detach().requires_grad_() for n, x in log_probs.items()}
    with torch.enable_grad():
        value = bound(leaves)
        found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    weights = {
        n: torch.zeros_like(leaf) if g is None else g
        for (n, leaf), g in zip(leaves.items(), found, strict=True)
    }
    return value.detach(), weights


class Enumerated:
    """The log-evidence of a model whose latents are all enumerated.

    Args:
        filled: the model; it has no particles.
        values: some values of its parameters, ``{parameter: (*shape)}``.
        minibatch: whether it may see a minibatch, for which it stands with the scale of the plate.
    """

    def __init__(
        self, filled: Filled, values: Mapping[str, Tensor], *, minibatch: bool = False
    ) -> None:
        self.filled = filled
        self.minibatch = minibatch
        with torch.no_grad():
            # Starts have the place of particles in the sums; two of them make a dimension.
            self.layout: Trace = filled.trace(values, Together(2, filled.nesting))

    @property
    def largest(self) -> int:
        """How many numbers the largest table of one start has, with the events of its site."""
        return max(
            (s["fn"].batch_shape + s["fn"].event_shape).numel() // 2
            for s in scored_sites(self.layout)
        )

    def log_evidence(
        self,
        log_probs: Mapping[str, Tensor],  # {site: (R, *batch)}
    ) -> Tensor:  # (R,)
        """``log sum_z p(x, z)``, masked and scaled, by variable elimination."""
        dim = -1 - self.filled.nesting
        placed = {n: _at(x, dim) for n, x in log_probs.items()}
        terms = model_terms_summed(self.layout, placed)
        starts = len(next(iter(log_probs.values())))
        return sum_over_data(terms, dim, starts, minibatch=self.minibatch)


def sum_over_data(
    terms: Sequence[Term], dim: int, starts: int, *, minibatch: bool
) -> Tensor:  # (starts,)
    """Add terms up, each with its scale."""
    total = torch.zeros(starts)
    for term in terms:
        scale = term.scale
        if minibatch:
            for ratio in term.ratios.values():
                scale = scale * ratio
        else:
            refuse_minibatch(term)
        total = total + to_cells(term.log_prob * scale, dim, [])
    return total


def _at(
    log_prob: Tensor,  # (R, *enumerated, *plates)
    dim: int,
) -> Tensor:  # (*enumerated, R, *plates)
    """Move the starts to where the particles of a run are."""
    missing = -dim - log_prob.dim()
    if missing > 0:
        log_prob = log_prob.reshape(len(log_prob), *[1] * missing, *log_prob.shape[1:])
    return log_prob.movedim(0, dim)
