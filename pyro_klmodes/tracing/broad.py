"""Where defensive particles are drawn from: the model's prior, or a broad guide of one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.guide_inverse import GuideInverse, name_of
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.masks import mask_of, unmasked
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_guide, run_model
from pyro_klmodes.tracing.terms import Term, guide_terms

__all__ = ["Broad", "BroadGuide", "Prior", "refuse"]


def refuse(reason: str) -> NoReturn:
    """What cannot be proposed defensively."""
    raise UnsupportedStructure(f"defensive particles: {reason}. Use defensive=0.")


class Broad(ABC):
    """A distribution over the latent sites that covers what the guide may miss.

    Args:
        pair: the model and guide.
        shape: how many particles share a run.
    """

    def __init__(self, pair: Pair, shape: Together) -> None:
        self.pair = pair
        self.shape = shape

    @abstractmethod
    def draw(self, own: Draws) -> dict[str, Mapping[str, Any]]:
        """Trace nodes of the latent sites, on the minibatch of the guide's own draws."""

    @abstractmethod
    def log_density(
        self,
        draws: Draws,
        values: Mapping[str, Tensor],  # {site: (count, *site_shape)}
    ) -> Tensor:  # the shape of draws.log_q
        """Log-density of values, cell by cell; ``draws`` weigh the guide at the same ones."""

    def _cells(self, terms: list[Term], draws: Draws) -> Tensor:  # the shape of draws.log_q
        dims = [[t.plates.get(name, 0) for name in draws.plates] for t in terms]
        if not terms or not all(d < 0 for row in dims for d in row):
            refuse("they must be drawn in the plates that the guide's draws are in")
        parts = [
            to_cells(t.log_prob, self.shape.dim, row) for t, row in zip(terms, dims, strict=True)
        ]
        shape = draws.log_q.shape
        total = sum(parts[1:], start=parts[0])
        return total.expand(self.shape.count, *shape[len(shape) - len(draws.plates) :]).reshape(
            shape
        )


class Prior(Broad):
    """The model's latent sites as it draws them itself."""

    def draw(self, own: Draws) -> dict[str, Mapping[str, Any]]:
        """Run the model."""
        try:
            with poutine.block():
                trace = run_model(self.pair, self.shape, own.indices, enumerated=False)
        except NotImplementedError as error:
            refuse(f"the prior cannot be sampled ({error})")
        return {n: s for n, s in trace.nodes.items() if is_latent(s) and n in own.values}

    def log_density(self, draws: Draws, values: Mapping[str, Tensor]) -> Tensor:
        """The model's own terms."""
        terms = [t for where, t in draws.terms if where == "model" and t.name in values]
        scales = [t.scale for _, t in draws.terms]
        if any(isinstance(s, Tensor) or s != scales[0] for s in scales):
            refuse("a poutine.scale on some sites only changes what the prior is")
        return self._cells(terms, draws)


class BroadGuide(Broad):
    """A second guide, which is called as the first one and not trained.

    It must draw nothing that does not follow from the latents, as a random scale of its own: its
    density would be that of one such draw, not of the mixture over all. It masks what the first
    one masks; what ``obs_mask`` replaces counts in neither.

    Args:
        guide: it draws every latent site of the model that the guide draws.
        pair: the model and guide.
        shape: how many particles share a run.
        settled: whether this was done before, so that no value need be looked at.

    Raises:
        UnsupportedStructure: by ``draw``, if it misses a latent, is random beyond them, or masks a
            site other than the guide does.
    """

    def __init__(
        self, guide: Callable[..., Any], pair: Pair, shape: Together, *, settled: bool = False
    ) -> None:
        super().__init__(pair, shape)
        self.settled = settled
        self.own = Pair(guide, guide, pair.args, pair.kwargs)

    def draw(self, own: Draws) -> dict[str, Mapping[str, Any]]:
        """Run the broad guide."""
        name = name_of(self.own.guide)
        with poutine.block():
            trace = run_guide(self.own, self.shape, own.indices, detach=True).trace
        sites = {n: s for n, s in trace.nodes.items() if is_latent(s) and n in own.values}
        missing = sorted(set(own.values) - set(sites))
        if missing:
            refuse(f"{name} does not draw site '{missing[0]}'")
        with same_random_state():
            beyond = GuideInverse.of(self.own, settled=self.settled).undetermined(sites)
        if beyond:
            refuse(f"site '{beyond[0]}' of {name} is random beyond the latents")
        of_guide = {t.name: t.site for where, t in own.terms if where == "guide" and t.site}
        for site, broad in sites.items():
            if _masked_otherwise(of_guide[site], broad):
                refuse(
                    f"{name} masks site '{site}' other than the guide does, so that its density "
                    "counts other elements. Put both under the same poutine.mask"
                )
        return sites

    def log_density(self, draws: Draws, values: Mapping[str, Tensor]) -> Tensor:
        """Its terms at the values."""
        with poutine.block(), torch.no_grad():
            inverse = GuideInverse.of(self.own, settled=self.settled)
            at = inverse(values, self.shape.count, self.shape.nesting)
            trace = run_guide(self.own, self.shape, {**draws.indices, **at}, detach=True).trace
            return self._cells(guide_terms(trace, model=_model_trace(draws)), draws)


def _model_trace(draws: Draws) -> Trace:
    """The model's sites that draws were weighed with, which tell what ``obs_mask`` replaces."""
    trace = Trace()
    for where, term in draws.terms:
        if where == "model" and term.site is not None:
            trace.add_node(term.name, **term.site)
    return trace


def _masked_otherwise(site: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the masks of two sites of the same values take out different elements."""
    if mask_of(site) is None and mask_of(other) is None:
        return False
    counts = [unmasked(s)[(...,) + (None,) * s["fn"].event_dim] for s in (site, other)]
    return bool((counts[0] != counts[1]).any())
