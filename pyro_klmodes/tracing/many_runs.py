"""Run a model at many draws of its latent sites, all in one run if possible, by minibatches."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.blocks_of_draws import NUMBERS
from pyro_klmodes.tracing.broadcasting import rounding
from pyro_klmodes.tracing.over_particles import NotMapped, over_particles
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.sites import SiteInfo, describe
from pyro_klmodes.tracing.terms import scored_sites
from pyro_klmodes.tracing.visits import Piece, select, stitch, visits_of

__all__ = ["ManyRuns", "Pieces", "Run", "Way", "value_piece"]

Pieces = Mapping[Any, Piece]
Run = Callable[[Mapping[str, Tensor], Particles], Pieces]

#: enough draws for those that get mixed up to show
_FEW = 3
#: draws share a run, or torch maps it over them, or they have one each
Way = Literal["together", "mapped", "apart"]


class ManyRuns:
    """A model, ready to be run at draws of its latent sites.

    All draws share a run where the model broadcasts over them; where it does not, it is mapped over
    them by torch, if that can be done. Either is found out by comparing a few with runs of their
    own; otherwise they have one run each. Plates that draw minibatches are visited until every
    element was seen.

    Args:
        model: a Pyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        known: names of the latent sites that draws have values of; discrete sites that are not
            among them are summed out or sampled.

    Attributes:
        sites: all sites by name, in the order of the model.
        nesting: depth of the deepest batch dimension.
        sizes: full sizes of the subsampled plates.
        visits: the minibatches that together see every element.

    Raises:
        InvalidArgument: if the arguments hold a minibatch, or the model has latent sites without
            values.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        known: Collection[str],
    ) -> None:
        self.sites: dict[str, SiteInfo] = describe(model, args, kwargs, known=known)
        for name, site in self.sites.items():
            if site.kind == "latent" and name not in known:
                raise InvalidArgument(
                    f"there are no draws of latent site '{name}', which the model has with these "
                    "arguments. Pass the model and the arguments that the draws belong to."
                )
        self.enumerated = tuple(n for n, s in self.sites.items() if s.kind == "enumerated")
        marked = config_enumerate(model) if self.enumerated else model
        self.model = model
        self.pair = Pair(marked, marked, args, kwargs)
        self.sizes, self.visits = visits_of(self.sites)
        self.nesting = max((len(s.batch_shape) for s in self.sites.values()), default=0)
        self._ways: dict[str, Way] = {}

    def over(
        self,
        values: Mapping[str, Tensor],  # {site: (s, *site_shape)}
        run: Run,
        like: str,
        *,
        check: Run | None = None,
    ) -> dict[Any, Piece]:  # of the full data
        """Run the model at all draws in all visits, and put the pieces together.

        Args:
            values: of the latent sites.
            run: what to do at values that are laid out for it.
            like: under which name to remember what draws can share.
            check: what to compare to find that out, if not the pieces of ``run``, which may then
                draw random numbers.
        """
        shaped = {n: self._shaped(n, v) for n, v in values.items() if n in self.sites}
        way = self._way(like, shaped, check or run)
        in_visit = {"together": self._together, "apart": self._apart, "mapped": self._mapped}[way]
        if way == "mapped" and check is not None:
            in_visit = self._drawn
        parts: dict[Any, list[Any]] = {}
        with poutine.block(), torch.no_grad():
            for visit in self.visits:
                here = {n: select(v, self.sites[n].axes, visit) for n, v in shaped.items()}
                for key, piece in in_visit(here, visit, run).items():
                    parts.setdefault(key, []).append((visit, piece))
        return {key: stitch(found, self.sizes) for key, found in parts.items()}

    def _together(
        self, values: Mapping[str, Tensor], visit: Mapping[str, Tensor], run: Run
    ) -> Pieces:
        count = len(next(iter(values.values())))
        return run(
            {**visit, **{n: self._left_of_plates(n, v) for n, v in values.items()}},
            Together(count, self.nesting),
        )

    def _apart(self, values: Mapping[str, Tensor], visit: Mapping[str, Tensor], run: Run) -> Pieces:
        count = len(next(iter(values.values())))
        single = Single(self.nesting)
        runs = [
            run({**visit, **{n: v[k] for n, v in values.items()}}, single) for k in range(count)
        ]
        return {
            key: Piece(torch.cat([r[key].value for r in runs]), piece.axes)
            for key, piece in runs[0].items()
        }

    def _mapped(
        self,
        values: Mapping[str, Tensor],
        visit: Mapping[str, Tensor],
        run: Run,
        randomness: Literal["error", "different"] = "error",
    ) -> Pieces:
        noted: list[tuple[Any, Piece]] = []

        def one(here: dict[str, Tensor]) -> list[Tensor]:
            noted[:] = run({**visit, **here}, Single(self.nesting)).items()
            return [piece.value for _, piece in noted]

        found = over_particles(one, values, randomness=randomness)
        return {
            key: Piece(value.squeeze(1), piece.axes)  # a single run has one draw in front
            for (key, piece), value in zip(noted, found, strict=True)
        }

    def _drawn(self, values: Mapping[str, Tensor], visit: Mapping[str, Tensor], run: Run) -> Pieces:
        """Mapped with random numbers of every draw's own, or one by one if torch cannot do that."""
        before = torch.get_rng_state()
        try:
            return self._mapped(values, visit, run, "different")
        except NotMapped:
            torch.set_rng_state(before)
            return self._apart(values, visit, run)

    def _way(self, like: str, values: Mapping[str, Tensor], run: Run) -> Way:
        if like not in self._ways:
            with poutine.block(), torch.no_grad(), same_random_state():
                self._ways[like] = self._way_found(values, run)
        return self._ways[like]

    def _way_found(self, values: Mapping[str, Tensor], run: Run) -> Way:
        """The first way in which a run of a few draws gives what each of them gives alone."""
        visit = self.visits[0]
        few = {n: select(v[:_FEW], self.sites[n].axes, visit) for n, v in values.items()}
        alone = self._apart(few, visit, run)
        with suppress(Exception):  # whatever a model does with a batch it did not expect
            if _same(self._together(few, visit, run), alone):
                return "together"
        with suppress(NotMapped):
            if _same(self._mapped(few, visit, run), alone):
                return "mapped"
        return "apart"

    def _shaped(self, name: str, value: Tensor) -> Tensor:  # (s, *site_shape)
        shape = self.sites[name].shape
        if math.prod(value.shape[1:]) != math.prod(shape):
            raise InvalidArgument(
                f"draws of site '{name}' have shape {tuple(value.shape[1:])}, but the model with "
                f"these arguments has it with shape {shape}. Pass the data that the draws are for."
            )
        return value.reshape(len(value), *shape)

    def _left_of_plates(self, name: str, value: Tensor) -> Tensor:
        info = self.sites[name]
        ones = [1] * (self.nesting - len(info.batch_shape))
        return value.reshape(len(value), *ones, *value.shape[1:])

    @property
    def draws_per_run(self) -> int:
        """How many draws may share a run without taking up too much memory."""
        with same_random_state(), poutine.block(), torch.no_grad():
            trace = run_model(
                self.pair, Single(self.nesting), self.visits[0], enumerated=bool(self.enumerated)
            )
        largest = 0
        for site in scored_sites(trace):
            states = torch.as_tensor(site["value"]).numel()
            largest += max(math.prod(site["fn"].shape()), states)
        whole = sum(math.prod(s.shape) for s in self.sites.values())
        return max(1, NUMBERS // max(largest, whole, 1))


def _same(many: Pieces, alone: Pieces) -> bool:
    """Whether the pieces of a few draws are those of runs of their own, up to rounding."""
    return all(
        many[key].value.shape == piece.value.shape
        and torch.allclose(
            many[key].value.to(torch.get_default_dtype()),
            piece.value.to(torch.get_default_dtype()),
            rtol=rounding(piece.value),
            atol=1e-3,
            equal_nan=True,
        )
        for key, piece in alone.items()
    )


def value_piece(value: Tensor, info: SiteInfo, particles: Particles) -> Piece:
    """The value of a site in a run, draws first.

    Raises:
        ValueError: if it has neither the shape of one draw nor that of all.
    """
    shape = (*info.batch_shape, *info.event_shape)
    count = particles.count if isinstance(particles, Together) else 1
    same_for_all = value.numel() == math.prod(shape)
    rows = value.reshape(1 if same_for_all else count, *shape)
    return Piece(rows.expand(count, *shape), info.axes)
