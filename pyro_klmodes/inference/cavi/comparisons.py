"""Whether numbers from runs of a model are what they should be, up to half of their digits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.tracing.node_runs import NodeTerm

__all__ = ["agree", "is_additive", "is_own", "vanishes"]


def agree(
    terms: list[NodeTerm],
    single: list[NodeTerm],
    choice: Mapping[int, int],  # node dimension -> index
) -> bool:
    """Whether terms at all nodes hold those of a run at one combination of them."""
    if [t.name for t in terms] != [t.name for t in single]:
        return False
    for term, one in zip(terms, single, strict=True):
        value = term.value
        for dim, s in choice.items():
            if term.depends_on(dim):
                value = value.narrow(dim, s, 1)
        if value.numel() != one.value.numel():
            return False
        apart = (value.reshape(one.value.shape) - one.value).abs()
        # an impossible value says nothing about the size of the others
        size = one.value.abs().nan_to_num(0.0, posinf=0.0)
        slack = _root(value) * (1 + size.max() if size.numel() else 1)
        same = (apart <= slack) | (value.reshape(one.value.shape) == one.value)
        if not bool(same.all()):
            return False
    return True


def _root(value: Tensor) -> float:
    """Half of the digits: what is off by more is no rounding."""
    return float(torch.finfo(value.dtype).eps ** 0.5)


def vanishes(
    values: Tensor,  # (S, *shape)
    combination: Tensor,  # (S,)
) -> bool:
    """Whether a combination of values is zero, up to half of the digits."""
    weighted = values * combination.to(values).reshape(-1, *([1] * (values.dim() - 1)))
    scale = weighted.abs().sum(0)
    return bool((weighted.sum(0).abs() <= _root(values) * scale.clamp(min=1e-30)).all())


def is_additive(
    values: Tensor,  # (2 + 2 bits, *shape): a, b, then pairs of mixtures
) -> bool:
    """Whether mixing two values element by element changes no sum."""
    pairs = values[2::2] + values[3::2]
    both = values[0] + values[1]
    scale = values.abs().amax(0).clamp(min=1e-30)
    return bool(((pairs - both).abs() <= 4 * _root(values) * scale).all())


def is_own(
    values: Tensor,  # (n + R, *batch): all elements in one state, then mixed ones
    mixed: Tensor,  # (R, *site batch)
    n: int,
    nesting: int,
) -> bool:
    """Whether every element depends on the state of its own element only."""
    batch = mixed.shape[1:]
    ones = nesting - len(batch)
    for r in range(len(mixed)):
        state = mixed[r].long().reshape([1] * ones + list(batch))
        got, table = values[n + r], values[:n]
        rank = max(got.dim(), state.dim())
        state = state.reshape((1,) * (rank - state.dim()) + state.shape)
        table = table.reshape(n, *(1,) * (rank - got.dim()), *got.shape)
        wide = torch.broadcast_shapes(table.shape[1:], state.shape)
        expected = table.expand(n, *wide).gather(0, state.expand(wide).unsqueeze(0))[0]
        got = got.reshape((1,) * (rank - got.dim()) + got.shape)
        if wide != got.shape:
            return False  # there is one term for several elements
        apart = (expected - got).abs()
        same = (apart <= _root(got) * (1 + got.abs())) | (expected == got)
        if not bool(same.all()):
            return False
    return True
