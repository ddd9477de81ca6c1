"""Sum enumerated sites of the model out of every weight, exactly."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.distributions import MaskedDistribution
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.plates import PARTICLES, plates_of, split_scale, subsampled
from pyro_klmodes.tracing.terms import Term, model_term, scored_sites

__all__ = [
    "Packed",
    "contract",
    "enumerated_names",
    "model_terms_summed",
    "pack",
    "refuse_subsampling_inside_sums",
]


@dataclass(frozen=True)
class Packed:
    """An enumerated trace, packed for sums over the enumerated values.

    Attributes:
        trace: the trace, without the indices of plates.
        sites: its scored sites by name.
        terms: the term of every one of them.
        symbols: the enumerated site behind each symbol of the packed tensors.
        reached: the sites whose log-probability depends on an enumerated value.
    """

    trace: Trace
    sites: dict[str, dict[str, Any]]
    terms: dict[str, Term]
    symbols: dict[str, str]
    reached: list[str]


def enumerated_names(trace: Trace) -> list[str]:
    """The sites of a trace that were enumerated in parallel."""
    return [n for n, s in trace.nodes.items() if s.get("infer", {}).get("_enumerate_dim")]


def model_terms_summed(
    trace: Trace,
    log_probs: Mapping[str, Tensor] | None = None,
) -> list[Term]:
    """The terms of log p with every enumerated site summed out by variable elimination.

    Sites that no enumerated value reaches keep a term of their own. The others are grouped by
    the enumerated sites they share; each group becomes one term, in the plates that all of it
    has in common (Obermeyer et al., 2019). Where an enumerated site is masked it is uniform.

    Raises:
        UnsupportedStructure: if a group has several scales, or if a subsampled plate lies inside
            a sum: the estimate from a minibatch would be biased.
    """
    packed = pack(trace, log_probs)
    plain = [term for n, term in packed.terms.items() if n not in packed.reached]
    if not packed.reached:
        return plain
    factors = {n: packed.sites[n] for n in packed.reached}
    refuse_subsampling_inside_sums(factors, packed)
    return plain + contract(factors, packed, _common_scale(factors))


def pack(trace: Trace, log_probs: Mapping[str, Tensor] | None = None) -> Packed:
    """Compute the masked log-probabilities of an enumerated trace, and pack them.

    Args:
        trace: of a run in which sites were enumerated.
        log_probs: raw log-probabilities of all scored sites that take the place of the trace's.
    """
    given = {} if log_probs is None else log_probs
    trace = prune_subsample_sites(trace)  # the indices of a plate have no plate, but may be masked
    sites = {s["name"]: s for s in scored_sites(trace)}
    marked = enumerated_names(trace)
    terms = {
        n: (_uniform_where_masked if n in marked else model_term)(s, given.get(n))
        for n, s in sites.items()
    }
    for name, term in terms.items():
        sites[name]["log_prob"] = sites[name]["unscaled_log_prob"] = term.log_prob
    trace.pack_tensors()
    symbols = {sites[n]["infer"]["_enumerate_symbol"]: n for n in marked}
    reached = [n for n, s in sites.items() if set(_dims(s)) & set(symbols)]
    return Packed(trace, sites, terms, symbols, reached)


def _uniform_where_masked(site: Mapping[str, Any], log_prob: Tensor | None = None) -> Term:
    """The term of an enumerated site; a sum over the values of a masked one must give one.

    Series of different lengths, padded and masked, then have the evidence of their own lengths.
    """
    term = model_term(site, log_prob)
    states = site["fn"].enumerate_support(expand=False).shape[0]
    own = site["fn"]._mask if isinstance(site["fn"], MaskedDistribution) else None
    table = term.log_prob
    for mask in (site["mask"], own):
        if mask is not None:
            keep = torch.as_tensor(mask, device=table.device)
            table = torch.where(keep, table, table.new_tensor(-math.log(states)))
    return replace(term, log_prob=table)


def _dims(site: Mapping[str, Any]) -> str:
    return site["packed"]["unscaled_log_prob"]._pyro_dims


def refuse_subsampling_inside_sums(factors: Mapping[str, Any], packed: Packed) -> None:
    """Refuse a minibatch of what is multiplied before it is summed over."""
    symbols, sites = packed.symbols, packed.sites
    for name, site in factors.items():
        for symbol in set(_dims(site)) & set(symbols):
            source = symbols[symbol]
            inside = set(subsampled(site)) - set(subsampled(sites[source]))
            if inside:
                plate = sorted(inside)[0]
                raise UnsupportedStructure(
                    f"subsampled plate '{plate}' (site '{name}') lies inside the sum over the "
                    f"enumerated site '{source}', so a minibatch gives a biased evidence. Use the "
                    f"full data in '{plate}', or sample '{source}' in the guide."
                )


def _common_scale(factors: Mapping[str, Any]) -> float:
    scales = {}
    for name, site in factors.items():
        scale, _ = split_scale(site)
        if isinstance(scale, Tensor) and scale.numel() > 1:
            raise UnsupportedStructure(
                f"site '{name}' depends on an enumerated site and has a tensor poutine.scale; only "
                "one number for all such sites has a meaning. Remove the scale or the enumeration."
            )
        scales[name] = float(scale)
    first, *rest = scales
    for name in rest:
        if scales[name] != scales[first]:
            raise UnsupportedStructure(
                f"sites '{first}' (scale {scales[first]:g}) and '{name}' (scale {scales[name]:g}) "
                "are summed over together and need the same poutine.scale."
            )
    return scales[first]


class _StableRing(LogRing):
    """Pyro's sums in log space, by way of ``log_einsum``."""

    _backend = "pyro_klmodes.tracing.log_einsum"


def contract(factors: Mapping[str, Any], packed: Packed, scale: float = 1.0) -> list[Term]:
    """Sum the enumerated values out of some sites, all that these values reach among them."""
    plate_symbols = packed.trace.plate_to_symbol
    tree: OrderedDict[frozenset[str], dict[str, Tensor]] = OrderedDict()
    sizes: dict[str, int] = {}
    for site in factors.values():
        names = {f.name for f in site["cond_indep_stack"] if f.vectorized}
        ordinal = frozenset(plate_symbols[n] for n in names)
        log_prob = site["packed"]["unscaled_log_prob"]
        sizes.update(zip(log_prob._pyro_dims, log_prob.shape, strict=True))
        _multiply(tree.setdefault(ordinal, {}), log_prob)
    factors_of = OrderedDict((ordinal, list(same.values())) for ordinal, same in tree.items())
    with shared_intermediates() as cache:
        ring = _StableRing(cache=cache, dim_to_size=sizes)
        summed = contract_tensor_tree(factors_of, set(packed.symbols) & set(sizes), ring=ring)

    dims: dict[str, int] = {}
    ratios: dict[str, float] = {}
    particles: dict[str, int] = {}
    for site in factors.values():
        dims.update(plates_of(site))
        ratios.update(subsampled(site))
        stack = site["cond_indep_stack"]
        particles.update({f.name: f.dim for f in stack if f.name.startswith(PARTICLES)})
    name = "+".join(sorted(factors))
    joined = {n: is_latent(site) for n, site in factors.items()}
    terms = []
    for ordinal, tensors in summed.items():
        plates = {n: d for n, d in dims.items() if plate_symbols[n] in ordinal}
        layout = {plate_symbols[n]: d for n, d in {**plates, **particles}.items()}
        inside = {n: r for n, r in ratios.items() if n in plates}
        for tensor in tensors:
            log_prob = _unpack(tensor, layout)
            counts = _counts(factors, set(layout.values()))
            terms.append(
                Term(
                    name,
                    log_prob,
                    plates,
                    scale,
                    inside,
                    latent=True,
                    summed=joined,
                    counts=counts,
                )
            )
    return terms


def _multiply(
    tensors: dict[str, Any],  # packed tensors by their dimensions
    log_prob: Any,  # packed
) -> None:
    """Join factors of the same dimensions, which costs less than to do it inside of the sum."""
    dims = log_prob._pyro_dims
    if dims in tensors:
        log_prob = tensors[dims] + log_prob
        log_prob._pyro_dims = dims
    tensors[dims] = log_prob


def _counts(factors: Mapping[str, Any], dims: Collection[int]) -> Tensor | None:
    """Where in some dimensions any of the data that are summed over together is not masked."""
    found: Tensor | None = None
    for site in factors.values():
        if site["is_observed"]:
            counts = unmasked(site)
            for d in range(-counts.dim(), 0):
                if d not in dims:
                    counts = counts.any(d, keepdim=True)
            found = counts if found is None else found | counts
    return found


def _unpack(
    tensor: Any,  # packed: one dimension per symbol in its _pyro_dims
    layout: Mapping[str, int],  # symbol -> negative batch dimension
) -> Tensor:
    """Lay a packed tensor out in Pyro's batch dimensions."""
    dims = tensor._pyro_dims
    order = sorted(range(len(dims)), key=lambda i: layout[dims[i]])
    shape = [1] * max((-layout[d] for d in dims), default=0)
    for i, d in enumerate(dims):
        shape[layout[d]] = tensor.shape[i]
    return tensor.permute(order).reshape(torch.Size(shape))
