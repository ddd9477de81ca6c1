"""Which axes of which parameters number the states of a latent: those that may be permuted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.tracing.responsibilities import Responsibilities

__all__ = ["Symmetry", "permuted", "symmetries"]

Axis = tuple[str, int]  # a parameter and the number of one of its axes

_MOST = 12  # axes of one size: 4095 sets


@dataclass(frozen=True)
class Symmetry:
    """Axes that number the same states.

    Attributes:
        axes: by parameter, each as often as it has such axes.
        latents: whose states they number.
    """

    axes: tuple[Axis, ...]
    latents: tuple[str, ...]


def permuted(
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    axes: Sequence[Axis],
    order: Tensor,  # (states,)
) -> dict[str, Tensor]:
    """Values with states in another order."""
    found = dict(values)
    for name, axis in axes:
        found[name] = found[name].index_select(axis + 1, order)
    return found


def symmetries(posterior: Responsibilities, parameters: Parameters) -> list[Symmetry]:
    """The smallest sets of axes of which the log-likelihood does not see the order.

    Sets are tried at random values of the parameters, at which no two states are alike; with a
    cycle and a swap of two states, of which all permutations are made.

    Raises:
        UnsupportedStructure: if there is no such set, or there are too many to try.
    """
    at = _random_values(parameters)
    value, tables = posterior(at)
    found = []
    for count in sorted({k for k in posterior.states.values() if k > 1}):
        orders = [torch.arange(count).roll(1)]
        if count > 2:
            orders.append(torch.tensor([1, 0, *range(2, count)]))
        axes = [
            (name, axis)
            for name, info in parameters.items()
            for axis, size in enumerate(info.value.shape)
            if size == count
        ]
        if len(axes) > _MOST:
            raise UnsupportedStructure(
                f"parameters have {len(axes)} axes of size {count}, too many to find out which of "
                f"them number the states of a latent (at most {_MOST}). Compare the starts by "
                "their log-likelihoods, or by what does not depend on labels."
            )
        for chosen in _smallest(posterior, parameters, at, value, axes, orders):
            latents = _latents(posterior, at, tables, chosen, orders[0])
            if latents:
                found.append(Symmetry(chosen, latents))
    if not found:
        raise UnsupportedStructure(
            "no axes of the parameters can be permuted without a change of the log-likelihood, so "
            f"the states of {', '.join(repr(n) for n in list(posterior.states)[:3])} are told "
            "apart by something else: constants, the constraint of a parameter, or priors that "
            "differ from state to state. There is no label switching, or it cannot be undone; "
            "result.restarts.params has all starts as they are."
        )
    return found


def _random_values(parameters: Parameters) -> dict[str, Tensor]:  # {parameter: (2, *shape)}
    first = parameters.unconstrained({n: v[None] for n, v in parameters.initial().items()})
    generator = torch.Generator().manual_seed(7_411)
    noise = torch.randn(2, first.shape[1], generator=generator, dtype=torch.float64)
    return parameters.constrained(first + 0.3 * noise.to(first))


def _smallest(
    posterior: Responsibilities,
    parameters: Parameters,
    at: Mapping[str, Tensor],  # {parameter: (2, *shape)}
    value: Tensor,  # (2,)
    axes: Sequence[Axis],
    orders: Sequence[Tensor],
) -> Iterator[tuple[Axis, ...]]:
    """Sets that can be permuted, without those that are larger than another one needs to be."""
    left = list(axes)
    close = torch.finfo(value.dtype).eps ** 0.6 * value.abs()
    for size in range(1, len(axes) + 1):
        sets = list(combinations(left, size))
        if not sets:
            return
        tried = [permuted(at, chosen, order) for chosen in sets for order in orders]
        joined = {n: torch.cat([values[n] for values in tried]) for n in at}
        # rows and columns of a covariance cannot be permuted one without the other
        allowed = parameters.allowed(joined)
        found = value.new_full(allowed.shape, torch.nan)
        if bool(allowed.any()):
            found[allowed] = posterior({n: v[allowed] for n, v in joined.items()})[0]
        found = found.reshape(len(sets), len(orders), len(value))
        same = ((found - value).abs() <= close).flatten(1).all(1)
        for chosen, ok in zip(sets, same.tolist(), strict=True):
            if ok and all(axis in left for axis in chosen):
                left = [axis for axis in left if axis not in chosen]
                yield chosen


def _latents(
    posterior: Responsibilities,
    at: Mapping[str, Tensor],
    tables: Mapping[str, Tensor],  # {latent: (2, states, elements)}
    axes: Sequence[Axis],
    order: Tensor,
) -> tuple[str, ...]:
    """The latents whose posterior is permuted along."""
    after = posterior(permuted(at, axes, order))[1]
    found = []
    for name, table in tables.items():
        if table.shape[1] != len(order):
            continue
        moved = table.index_select(1, order)
        stays, goes = ((after[name] - t).abs().amax() for t in (table, moved))
        if goes < stays:
            found.append(name)
    return tuple(found)
