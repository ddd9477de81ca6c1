"""A run of a pair whose first particle stands where Markov chains stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.along_site import along_site
from pyro_klmodes.tracing.chains import Chains, ForeignChains
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.guide_inverse import GuideInverse
from pyro_klmodes.tracing.handlers import Cut, is_delta, is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.observed import Observed, is_data
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.visits import Visit

__all__ = ["ChainRun", "sample_on_chains"]

Site = Mapping[str, Any]  # a node of a trace


@dataclass(frozen=True)
class ChainRun:
    """Draws whose particle 0 stands where chains stand, and what they were about.

    Attributes:
        draws: states and fresh draws from the guide, evaluated alike.
        sites: the guide's sites in which randomness enters, by name.
        observed: what the model observes.
    """

    draws: Draws
    sites: Mapping[str, Site]
    observed: Mapping[str, Observed]

    @property
    def visit(self) -> Visit:
        """The elements of the local plates that the run saw."""
        return _visit(self.draws.plates, self.sites, self.draws.indices)

    @property
    def sizes(self) -> list[int]:
        """Full sizes of the local plates."""
        return [_full_size(plate, self.sites) for plate in self.draws.plates]


def sample_on_chains(
    pair: Pair,
    layout: Layout,
    particles: int,
    chains: Chains | None,
    *,
    strict: bool = False,
) -> ChainRun:
    """Draw from the guide, and put the states of chains in the place of particle 0.

    Cells that have no state yet keep the guide's draw. The pair is then run at the mixed values.

    Args:
        pair: what to run.
        layout: its structure.
        particles: S, with the state.
        chains: where they stand; None if none has begun.
        strict: whether data that have changed under an index are refused as well.

    Raises:
        UnsupportedStructure: for latents both inside and outside of a subsampled plate, scales on
            some guide sites only, or a guide that is random beyond the latents.
        ForeignChains: if the chains belong to other sites or to other data.
    """
    for plate in layout.partial_plates:
        raise UnsupportedStructure(
            f"plate '{plate}' is subsampled and holds some of the latents, but not all: the "
            "others' chain would need all data in every step. Use the full data in "
            f"'{plate}', or IWAE or ReverseKL."
        )
    watch = _Watch(-1 - layout.nesting if layout.vectorised else None)
    mixed = {} if chains is None else _mixed(pair, layout, particles, chains)
    draws = sample(pair, layout, particles, Cut.DRAWS, fixed_first=mixed, around_first=watch)
    nodes = {t.name: t.site for where, t in draws.terms if where == "guide" and t.site is not None}
    run = ChainRun(draws, {n: nodes[n] for n in draws.sources}, watch.observed)
    _refuse_untargeted(run)
    if chains is None:
        _refuse_other_randomness(pair, run, watch.supports)
    else:
        chains.check(draws, run.observed, run.visit, strict=strict)
    return run


def _mixed(pair: Pair, layout: Layout, particles: int, chains: Chains) -> dict[str, Tensor]:
    """Values of the guide's sites, and indices, with states in the place of particle 0."""
    shape = Together(particles, layout.nesting) if layout.vectorised else Single(layout.nesting)
    with poutine.block(), torch.no_grad():
        proposed = run_guide(pair, shape, {}, detach=True)
    sites = {
        n: s for n, s in proposed.trace.nodes.items() if is_latent(s) and not is_delta(s["fn"])
    }
    if set(sites) != set(chains.values):
        raise ForeignChains.of_others(list(chains.values), list(sites))
    chains.check_sizes({plate: _full_size(plate, sites) for plate in chains.plates})
    visit = _visit(chains.plates, sites, proposed.indices)
    values = dict(proposed.indices)
    for name, site in sites.items():
        drawn = site["value"]
        first = drawn[0] if layout.vectorised else drawn
        state = chains.at(name, visit)
        if first.shape[first.dim() - state.dim() :] != state.shape:
            raise ForeignChains.of_shape(name, state.shape, first.shape)
        begun = along_site(chains.begun(visit).unsqueeze(0), site, chains.plates)[0]
        placed = torch.where(begun.to(state.device), state, first)
        if layout.vectorised:
            placed = torch.cat([placed.unsqueeze(0), drawn[1:]])
        values[name] = placed
    return values


class _Watch(Messenger):
    """Note what a model observes, and the supports of its latents."""

    def __init__(self, particle_dim: int | None) -> None:
        super().__init__()
        self.particle_dim = particle_dim
        self.observed: dict[str, Observed] = {}
        self.supports: dict[str, Any] = {}
        self._indices: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):
            self._indices[msg["name"]] = torch.as_tensor(msg["value"])
        elif is_data(msg):
            seen = Observed.of(msg, self._indices)
            batch = seen.value.dim() - seen.event_dim
            if self.particle_dim is None or batch < -self.particle_dim:  # it follows no latent
                self.observed[msg["name"]] = seen
        elif is_latent(msg):
            self.supports[msg["name"]] = msg["fn"].support  # in the end the model's: it is run last


def _visit(plates: Sequence[str], sites: Mapping[str, Site], indices: Visit) -> Visit:
    """The elements that a run saw of some plates.

    Raises:
        InvalidArgument: if they are no indices.
        ForeignChains: if there is no such plate.
    """
    return {plate: _rows(plate, sites, indices) for plate in plates}


def _rows(plate: str, sites: Mapping[str, Site], indices: Visit) -> Tensor:
    size = _full_size(plate, sites)
    if plate not in indices:
        raise UnsupportedStructure(
            f"plate '{plate}' was made outside of model and guide, so that it does not say which "
            "minibatch it sees. Make it inside of both."
        )
    rows = torch.as_tensor(indices[plate])
    if rows.is_floating_point() or not bool(((rows >= 0) & (rows < size)).all()):
        raise InvalidArgument(
            f"plate '{plate}': subsample= must hold the indices of the minibatch, integers from 0 "
            f"to {size - 1}, by which the chains are kept. Pass "
            f"pyro.plate('{plate}', {size}, subsample=index)."
        )
    return rows.long()


def _full_size(plate: str, sites: Mapping[str, Site]) -> int:
    frames = {f.name: f for s in sites.values() for f in s["cond_indep_stack"]}
    if plate not in frames:
        raise ForeignChains.of_others([plate], list(frames))
    frame = frames[plate]
    size = frame.size if frame.full_size is None else frame.full_size
    if size < 1:
        raise UnsupportedStructure(f"plate '{plate}' has no size. Give it one in model and guide.")
    return int(size)


def _refuse_untargeted(run: ChainRun) -> None:
    """Refuse draws whose weights leave no distribution invariant."""
    draws = run.draws
    if draws.tempered is not None:
        raise UnsupportedStructure(
            f"guide site '{draws.tempered}' has a poutine.scale that other sites do not share, so "
            "its log-probability is not that of its draws and the weights leave no target "
            "invariant. Scale sites of the model only."
        )
    for name in draws.sources:
        if name not in draws.values:
            raise UnsupportedStructure(
                f"guide site '{name}' is drawn for some particles only, so that a chain cannot "
                "stand at it. Sample it always, and mask it (poutine.mask) where it does not count."
            )


def _refuse_other_randomness(pair: Pair, run: ChainRun, supports: Mapping[str, Any]) -> None:
    """What a guide draws must follow from the latents, or there is no target for it."""
    beside = [n for n, s in run.sites.items() if s["infer"].get("is_auxiliary", False)]
    if not beside:
        return
    latents = {n: v for n, v in run.draws.values.items() if n not in run.sites}
    with same_random_state():
        inverse = GuideInverse.of(pair, {n: s for n, s in supports.items() if n in latents})
    for name in inverse.undetermined(latents):
        if name in beside:
            raise UnsupportedStructure(
                f"guide site '{name}' is random beyond the latents, so that a chain has nowhere to "
                "stand at it. Remove it from the guide, or use ReverseKL or ForwardKL."
            )
