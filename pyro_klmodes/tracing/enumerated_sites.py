"""The discrete latents of a filled model: their data, and tables that hold them at one state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.enumeration import Packed, enumerated_names, pack
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.plates import plates_of

__all__ = ["DiscreteLatent", "discrete_latents", "held_at"]


@dataclass(frozen=True)
class DiscreteLatent:
    """A discrete latent and the data that depend on it and no other.

    Attributes:
        name: its site.
        states: how many values it has.
        batch: the shape of its plates.
        data: what was observed, one row for each of its elements.
    """

    name: str
    states: int
    batch: tuple[int, ...]
    data: Tensor  # (elements, features)


def discrete_latents(
    filled: Filled,
    values: Mapping[str, Tensor],  # {parameter: (*shape)}
) -> list[DiscreteLatent]:
    """All discrete latents, each with its data.

    Raises:
        UnsupportedStructure: naming one that has no data of its own.
    """
    trace = filled.trace(values)
    packed = pack(trace)
    latents = packed.symbols
    found: dict[str, list[Tensor]] = {name: [] for name in latents.values()}
    for name, site in packed.sites.items():
        if not site["is_observed"]:
            continue
        above = [latents[s] for s in _symbols(packed, name) if s in latents]
        if len(above) == 1:
            batch = _batch(packed, above[0])
            found[above[0]].append(_rows(site["value"], site["fn"].event_dim, batch))
    for name, parts in found.items():
        if not parts:
            raise UnsupportedStructure(
                f"discrete latent '{name}' has no observed site that depends on it alone, so that "
                "data cannot be assigned to its states by their distances. Use RandomStarts."
            )
    return [
        DiscreteLatent(
            name,
            len(trace.nodes[name]["fn"].enumerate_support(expand=False)),
            _batch(packed, name),
            torch.cat(parts, 1),
        )
        for name, parts in found.items()
    ]


def held_at(
    trace: Trace,
    log_probs: Mapping[str, Tensor],  # {site: (R, *batch)}
    states: Mapping[str, Tensor],  # {discrete latent: (R, *its plates)}
) -> dict[str, Tensor]:  # {site: (R, *batch)}
    """Log-probabilities under which every discrete latent has one state, all else being equal."""
    tables = {name: torch.zeros_like(x) for name, x in log_probs.items()}
    for name in enumerated_names(trace):
        dim = trace.nodes[name]["infer"]["_enumerate_dim"]
        count = len(trace.nodes[name]["fn"].enumerate_support(expand=False))
        here = torch.arange(count).reshape(count, *[1] * (-dim - 1))
        state = states[name]
        state = state.reshape(len(state), *[1] * (-dim + 1 - state.dim()), *state.shape[1:])
        table = torch.where(here == state, 0.0, -math.inf).to(tables[name])
        tables[name] = tables[name] + table.reshape(
            len(state), *[1] * (tables[name].dim() - table.dim()), *table.shape[1:]
        )
    return tables


def _symbols(packed: Packed, name: str) -> str:
    dims: str = packed.sites[name]["packed"]["unscaled_log_prob"]._pyro_dims
    return dims


def _batch(packed: Packed, name: str) -> tuple[int, ...]:
    """The sizes of a site's plates, right-aligned with ones between them."""
    site = packed.sites[name]
    sizes = {f.dim: f.size for f in site["cond_indep_stack"] if f.vectorized}
    depth = max((-d for d in plates_of(site).values()), default=0)
    return tuple(sizes.get(d, 1) for d in range(-depth, 0))


def _rows(
    value: Tensor,  # (*batch, *event)
    event_dim: int,
    batch: tuple[int, ...],
) -> Tensor:  # (prod(batch), features)
    """Observed values with one row per element of the latent's plates."""
    cut = value.dim() - event_dim
    dims = [d for d in range(cut) if _is_of(batch, cut - d)]
    rest = [d for d in range(value.dim()) if d not in dims]
    elements = math.prod(batch)
    own = math.prod(value.shape[d] for d in dims)
    rows = value.permute([*dims, *rest]).reshape(own, -1)
    return rows.to(torch.get_default_dtype()).expand(elements, -1) if own == 1 else _as_float(rows)


def _is_of(batch: tuple[int, ...], from_right: int) -> bool:
    return from_right <= len(batch) and batch[-from_right] > 1


def _as_float(rows: Tensor) -> Tensor:
    return rows if rows.is_floating_point() else rows.to(torch.get_default_dtype())
