"""The discrete sites that were summed out, given draws of all other latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.discrete import infer_discrete
from torch import Tensor

from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.enumeration import Packed, contract, pack, refuse_subsampling_inside_sums
from pyro_klmodes.tracing.handlers import FixValues, SampledInGuide
from pyro_klmodes.tracing.many_runs import Pieces, value_piece
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import run_model
from pyro_klmodes.tracing.sites import SiteInfo
from pyro_klmodes.tracing.visits import Piece

__all__ = ["marginals", "sample_discrete"]


def sample_discrete(
    at: ModelAt,
    values: Mapping[str, Tensor],  # {site: (s, *site_shape)}
) -> dict[str, Tensor]:  # {enumerated site: (s, *site_shape)}
    """One exact draw of the enumerated sites from p(c | z_s, x) for each draw z_s of the others.

    Forward filtering and backward sampling over whatever structure they have, in one run for all
    draws. Sites whose values are vectors (one-hot) are drawn before, one after the other, from
    their conditionals. Masks are applied, scales are not. A masked enumerated site is uniform.
    """
    vectors = [name for name in at.enumerated if at.sites[name].event_shape]
    if vectors:
        first = vectors[0]
        known = {**values, first: _from_table(at, first, marginals(at, values)[first])}
        now = ModelAt(at.model, at.pair.args, at.pair.kwargs, known.keys())
        return {first: known[first], **sample_discrete(now, known)}
    if not at.enumerated:
        return {}

    def run(here: Mapping[str, Tensor], particles: Particles) -> Pieces:
        def fixed() -> None:
            # Observed, and not fixed: the messenger that enumerates skips what is done already.
            given = poutine.condition(data=latents)
            with FixValues(indices), given, SampledInGuide(latents), particles.plate():
                at.pair.model(*at.pair.args, **at.pair.kwargs)

        indices = {n: x for n, x in here.items() if n in at.sizes}
        latents = {n: x for n, x in here.items() if n not in at.sizes}

        left = -1 - particles.nesting - particles.dims
        with poutine.trace() as tracer:
            infer_discrete(fixed, first_available_dim=left)()
        nodes = tracer.get_trace().nodes
        return {
            name: value_piece(nodes[name]["value"], at.sites[name], particles)
            for name in at.enumerated
        }

    found = at.over(values, run, "joint", check=at.joint)
    return {name: piece.value for name, piece in found.items()}


def marginals(
    at: ModelAt,
    values: Mapping[str, Tensor],  # {site: (s, *site_shape)}
) -> dict[str, Tensor]:  # {enumerated site: (s, *site_shape, states)}
    """The exact conditional probabilities p(c = k | z_s, x) of every enumerated site.

    Their mean over draws of the posterior is the marginal p(c = k | x), with less noise than the
    share of draws with c = k has (Rao-Blackwell). They are the derivatives of the log-evidence
    with respect to the log-probabilities of the site (Darwiche, 2003). States are in
    the order of ``enumerate_support``.
    """
    if not at.enumerated:
        return {}
    found = at.over(values, lambda h, p: _conditionals(at, h, p), "conditionals")
    return {name: piece.value for name, piece in found.items()}


def _conditionals(at: ModelAt, here: Mapping[str, Tensor], particles: Particles) -> Pieces:
    trace = run_model(at.pair, particles, here, enumerated=True)
    packed = pack(trace)
    refuse_subsampling_inside_sums({n: packed.sites[n] for n in packed.reached}, packed)
    leaves = {n: _as_leaf(packed.sites[n]) for n in at.enumerated if n in packed.reached}
    probabilities: dict[str, Tensor] = {}
    if leaves:
        with torch.enable_grad():
            factors = {n: packed.sites[n] for n in packed.reached}
            total = sum(term.log_prob.sum() for term in contract(factors, packed))
            assert isinstance(total, Tensor)
            found = torch.autograd.grad(total, list(leaves.values()))
        probabilities = dict(zip(leaves, found, strict=True))
    return {
        name: _piece(probabilities.get(name), name, packed, at.sites[name], particles)
        for name in at.enumerated
    }


def _as_leaf(site: dict[str, Any]) -> Any:
    """Make the packed log-probability of a site a leaf of the graph."""
    old = site["packed"]["unscaled_log_prob"]
    leaf: Any = old.detach().clone().requires_grad_()
    leaf._pyro_dims = old._pyro_dims
    site["packed"]["unscaled_log_prob"] = leaf
    return leaf


def _piece(
    joint: Tensor | None,  # packed: p(c, what it depends on)
    name: str,
    packed: Packed,
    info: SiteInfo,
    particles: Particles,
) -> Piece:
    """Sum out all but the site itself, and lay out as draws, batch, states."""
    site = packed.sites[name]
    count = particles.count if isinstance(particles, Together) else 1
    states = site["fn"].enumerate_support(expand=False).shape[0]
    if joint is None:  # a single state
        return _with_states(torch.ones(()), (count, *info.batch_shape, states), info)
    own = next(symbol for symbol, source in packed.symbols.items() if source == name)
    to_dim = {
        packed.trace.plate_to_symbol[f.name]: f.dim
        for f in site["cond_indep_stack"]
        if f.vectorized
    }
    dims: str = site["packed"]["unscaled_log_prob"]._pyro_dims
    out = [i for i, d in enumerate(dims) if d not in to_dim and d != own]
    table = joint.sum(out) if out else joint
    left = [d for d in dims if d in to_dim or d == own]
    order = sorted((d for d in left if d != own), key=lambda d: to_dim[d])
    table = table.permute([*(left.index(d) for d in order), left.index(own)])
    shape = [1] * max((-to_dim[d] for d in order), default=0)
    for i, d in enumerate(order):
        shape[to_dim[d]] = table.shape[i]
    inner = len(info.batch_shape)
    lead = math.prod(shape[: len(shape) - inner])
    batch = [1] * max(inner - len(shape), 0) + shape[max(len(shape) - inner, 0) :]
    rows = table.reshape(lead, *batch, states)
    if lead != count:  # the same for all draws, of which the derivative is the sum
        rows = rows / count
    return _with_states(rows, (count, *info.batch_shape, states), info)


def _with_states(table: Tensor, shape: tuple[int, ...], info: SiteInfo) -> Piece:
    return Piece(table.expand(shape), {p.name: p.dim - 1 for p in info.plates})


def _from_table(at: ModelAt, name: str, table: Tensor) -> Tensor:  # (s, *site_shape)
    """Draw states and look up what they stand for."""
    with same_random_state(), poutine.block():
        trace = run_model(at.pair, Single(), at.visits[0], enumerated=False)
    support = trace.nodes[name]["fn"].enumerate_support(expand=False)
    values = support.reshape(len(support), *at.sites[name].event_shape)
    return values[torch.distributions.Categorical(probs=table).sample()]
