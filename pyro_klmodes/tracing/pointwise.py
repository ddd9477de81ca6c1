"""The log-likelihood of every datum in one run of a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.enumeration import (
    Packed,
    contract,
    enumerated_names,
    pack,
    refuse_subsampling_inside_sums,
)
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.particles import Particles, Together
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.sites import SiteInfo
from pyro_klmodes.tracing.terms import model_term, scored_sites
from pyro_klmodes.tracing.visits import Piece

__all__ = ["Likelihoods", "likelihoods"]


@dataclass(frozen=True)
class Likelihoods:
    """The likelihood of one run, by name of the observed site or group of sites.

    Attributes:
        log_prob: masked (zero), without any scale, enumerated sites summed out, ``(s, *batch)``.
        counts: whether an element is a datum, i.e. not masked out, same shape.
    """

    log_prob: dict[str, Piece]
    counts: dict[str, Piece]


@dataclass(frozen=True)
class _Found:
    """A likelihood as it comes out of a trace."""

    log_prob: Tensor  # batch dimensions as Pyro lays them out
    sites: list[dict[str, Any]]  # the data it is of
    plates: Mapping[str, int] | None = None  # that they share, if enumerated sites tie them


def likelihoods(trace: Trace, infos: Mapping[str, SiteInfo], particles: Particles) -> Likelihoods:
    """Pointwise log-likelihoods of a trace of one or several draws.

    Observed sites that share enumerated sites are one likelihood, per element of the plates that
    all of them have in common: p(y_i | globals) of a mixture, one value per sequence of a hidden
    Markov model. ``pyro.factor`` is no likelihood.

    Raises:
        UnsupportedStructure: if a latent that is not enumerated, or a factor, is summed over
            together with data: what comes out is not the likelihood of the data.
    """
    found = _summed(trace) if enumerated_names(trace) else _plain(trace)
    log_prob, counts = {}, {}
    for name, likelihood in found.items():
        log_prob[name], counts[name] = _piece(likelihood, infos, particles)
    return Likelihoods(log_prob, counts)


def _plain(trace: Trace) -> dict[str, _Found]:
    sites = [s for s in scored_sites(trace) if _is_datum(s)]
    return {s["name"]: _Found(model_term(s).log_prob, [s]) for s in sites}


def _summed(trace: Trace) -> dict[str, _Found]:
    packed = pack(trace)
    found = {
        name: _Found(packed.terms[name].log_prob, [site])
        for name, site in packed.sites.items()
        if _is_datum(site) and name not in packed.reached
    }
    for group in _groups(packed):
        factors = {n: packed.sites[n] for n in group}
        data = [s for s in factors.values() if _is_datum(s)]
        if not data:
            continue
        _refuse_what_is_no_datum(factors.values(), packed)
        refuse_subsampling_inside_sums(factors, packed)
        terms = contract(factors, packed)
        total = terms[0].log_prob
        for term in terms[1:]:
            total = total + term.log_prob
        name = _common_name([s["name"] for s in data], {*packed.sites, *found})
        found[name] = _Found(total, data, terms[0].plates)
    return found


def _is_datum(site: Mapping[str, Any]) -> bool:
    return site["is_observed"] and not isinstance(site["fn"], Unit)


def _groups(packed: Packed) -> Iterable[list[str]]:
    """The sites that enumerated values reach, those that share one together."""
    groups: list[tuple[set[str], list[str]]] = []
    for name in packed.reached:
        dims = packed.sites[name]["packed"]["unscaled_log_prob"]._pyro_dims
        symbols, names = set(dims) & set(packed.symbols), [name]
        apart = []
        for other_symbols, other_names in groups:
            if other_symbols & symbols:
                symbols, names = symbols | other_symbols, other_names + names
            else:
                apart.append((other_symbols, other_names))
        groups = [*apart, (symbols, names)]
    return [names for _, names in groups]


def _refuse_what_is_no_datum(sites: Iterable[Mapping[str, Any]], packed: Packed) -> None:
    for site in sites:
        if is_latent(site) and site["name"] not in packed.symbols.values():
            raise UnsupportedStructure(
                f"latent site '{site['name']}' depends on an enumerated site, so summing that out "
                "gives the joint density of data and latents, which is no likelihood. Sample the "
                "enumerated site in the guide, or leave log_likelihood out."
            )
        if isinstance(site["fn"], Unit):
            raise UnsupportedStructure(
                f"factor '{site['name']}' depends on an enumerated site, so summing that out gives "
                "no likelihood. Leave log_likelihood out."
            )


def _common_name(names: list[str], taken: set[str]) -> str:
    """What to call the likelihood of several sites, such as ``y`` for y_0, y_1, ..."""
    if len(names) == 1:
        return names[0]
    same = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in same).rstrip("_-.0123456789")
    return common if common and common not in taken else "+".join(names)


def _piece(
    found: _Found, infos: Mapping[str, SiteInfo], particles: Particles
) -> tuple[Piece, Piece]:
    """Log-probability and mask of one likelihood, draws first."""
    first = found.sites[0]
    own = plates_of(first)
    if found.plates is None:
        shape = infos[first["name"]].batch_shape
        axes = own
    else:
        axes = dict(found.plates)
        sizes = {f.dim: f.size for f in first["cond_indep_stack"] if f.name in axes}
        shape = tuple(sizes.get(d, 1) for d in range(min(sizes, default=0), 0))
    keep = {*range(-len(shape), 0)} if found.plates is None else {*axes.values()}
    counts = [_any_but(unmasked(site), keep, particles) for site in found.sites]
    kept = counts[0]
    for other in counts[1:]:
        kept = kept | other
    draws = particles.count if isinstance(particles, Together) else 1
    return (
        Piece(_draws_first(found.log_prob, shape, draws), axes),
        Piece(_draws_first(kept, shape, draws), axes),
    )


def _draws_first(x: Tensor, shape: tuple[int, ...], draws: int) -> Tensor:  # (draws, *shape)
    """From batch dimensions as Pyro lays them out to draws first and plates last."""
    x = x.reshape((1,) * max(len(shape) - x.dim(), 0) + x.shape)
    lead = x.shape[: x.dim() - len(shape)]
    return x.reshape((lead.numel(), *x.shape[len(lead) :])).expand(draws, *shape)


def _any_but(counts: Tensor, keep: set[int], particles: Particles) -> Tensor:
    """Whether anything counts, over all dimensions but some and the one of the draws."""
    if isinstance(particles, Together):
        keep = {*keep, particles.dim}
    for d in range(-counts.dim(), 0):
        if d not in keep:
            counts = counts.any(d, keepdim=True)
    return counts
