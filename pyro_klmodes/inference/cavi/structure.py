"""How the terms of a model depend on each latent site, found out by running it at chosen values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import Normal
from pyro_klmodes.guides.site_families.supports import is_boolean, number_of_categories
from pyro_klmodes.inference.cavi.comparisons import agree, is_additive, is_own, vanishes
from pyro_klmodes.inference.cavi.coordinates import Coordinates
from pyro_klmodes.tracing.node_runs import NodeModel, NodeTerm, SiteView

__all__ = ["IMPOSSIBLE", "Found", "Probe", "with_jacobian"]

#: the log-probability of what cannot be
IMPOSSIBLE = -1e30
#: discrete sites are set to so many of their states in turn
_MOST_STATES = 16


@dataclass(frozen=True)
class Found:
    """What was found out about one site and a family for it.

    Attributes:
        terms: the terms that depend on the site.
        bent: those of them that are not affine in the family's statistics.
        meeting: dimensions whose elements meet in a term, with the name of one such term.
        elsewhere: terms of a discrete site that depend on other elements than their own.
        broadcasts: whether a run at many values gives what single runs give.
    """

    terms: frozenset[str] = frozenset()
    bent: tuple[str, ...] = ()
    meeting: Mapping[int, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    broadcasts: bool = True


def with_jacobian(
    terms: list[NodeTerm],
    view: SiteView,
    log_det: Tensor | None,  # (*nodes, *batch)
) -> list[NodeTerm]:
    """Count the Jacobian of unconstrained space with a site's own term."""
    if log_det is None:
        return terms
    if view.mask is not None:
        log_det = log_det * view.mask.to(log_det)
    return [
        replace(t, value=t.value * t.scale + log_det * view.ratio, scale=1.0)
        if t.name == view.name
        else t
        for t in terms
    ]


class Probe:
    """Looks at the terms of a model at random values of all sites.

    Args:
        model: that has been looked at.
        latents: its sites.
        seed: of the values.
    """

    def __init__(self, model: NodeModel, latents: Mapping[str, Latent], seed: int = 0) -> None:
        self.model, self.latents = model, latents
        self.generator = torch.Generator().manual_seed(seed)

    def coordinates(self, name: str, family: Any) -> Coordinates:
        """The coordinates of a site."""
        return Coordinates(self.latents[name], family, self.model.sites[name].shape, self.generator)

    def elsewhere(self) -> dict[str, Tensor]:
        """Random values of all sites, constrained, ``(1, *shape)``."""
        found = {}
        for name in self.model.sites:
            discrete = self.latents[name].discrete
            at = self.coordinates(name, None if discrete else Normal())
            found[name] = at.constrained(at.random()).unsqueeze(0)
        return found

    def settings(self, name: str) -> list[dict[str, Tensor]]:
        """Random values of all sites, with all discrete ones but ``name`` in each of their states.

        A term may see a site in some of these states only: ``gate * weight.exp()``.
        """
        first = self.elsewhere()
        counts = {
            n: number_of_categories(latent.support) or 2
            for n, latent in self.latents.items()
            if latent.discrete and n != name and n in first
        }
        most = min(max(counts.values(), default=0), _MOST_STATES)
        return [first] + [
            {
                **self.elsewhere(),
                **{n: torch.full_like(first[n], min(s, count - 1)) for n, count in counts.items()},
            }
            for s in range(most)
        ]

    @torch.no_grad()
    def __call__(self, name: str, family: Any) -> Found:
        """Find out about one site.

        Raises:
            UnsupportedStructure: if the model does not run at many values one by one either.
        """
        found = [self._at(name, family, others) for others in self.settings(name)]
        meeting: dict[int, str] = {}
        for one in found:
            meeting = {**one.meeting, **meeting}
        return Found(
            frozenset().union(*(one.terms for one in found)),
            tuple(dict.fromkeys(term for one in found for term in one.bent)),
            meeting,
            frozenset().union(*(one.elsewhere for one in found)),
            all(one.broadcasts for one in found),
        )

    def _at(self, name: str, family: Any, others: Mapping[str, Tensor]) -> Found:
        """Find out about one site at given values of the others."""
        at = self.coordinates(name, family)
        if self.latents[name].discrete:
            return self._discrete(name, at, others)
        line, combination = at.line()
        rows = [line]
        where: dict[int, range] = {}
        begin = len(line)
        for dim in at.element_dims:
            if self._is_wide(name, dim, at):
                continue
            more = at.switches(dim)
            where[dim] = range(begin, begin + len(more))
            rows.append(more)
            begin += len(more)
        coordinates = torch.cat(rows)
        terms, broadcasts = self.run({name: at.constrained(coordinates)}, others)
        log_det = at.log_det(coordinates)
        if log_det is not None:
            log_det = self.model.laid_out_batch(log_det, 0)
        terms = with_jacobian(terms, self.model.sites[name], log_det)
        dim = self.model.node_dim(0)
        inside = [t for t in terms if t.depends_on(dim)]
        bent: list[str] = []
        meeting: dict[int, str] = {}
        for term in inside:
            values = term.value.movedim(dim, 0)
            if not vanishes(values[: len(line)], combination):
                bent.append(term.name)
            for d, rows_of in where.items():
                if not is_additive(values[rows_of.start : rows_of.stop]):
                    meeting.setdefault(d, term.name)
        names = frozenset(t.name for t in inside)
        return Found(names, tuple(dict.fromkeys(bent)), meeting, broadcasts=broadcasts)

    def _is_wide(self, name: str, dim: int, at: Coordinates) -> bool:
        """Whether elements are too many to be told apart; a plate says that they do not meet."""
        return dim < at.batch_dim and at.shape[dim] > 4096

    def _discrete(self, name: str, at: Coordinates, others: Mapping[str, Tensor]) -> Found:
        latent = self.latents[name]
        n = number_of_categories(latent.support) or 2
        states = torch.arange(n).reshape(-1, *([1] * len(at.shape))).expand(n, *at.shape)
        states = states.to(latent.initial)
        mixed = torch.stack([at.random() for _ in range(3)])
        terms, broadcasts = self.run({name: torch.cat([states, mixed])}, others)
        dim = self.model.node_dim(0)
        inside = [t for t in terms if t.depends_on(dim)]
        elsewhere = set()
        bent: list[str] = []
        for term in inside:
            values = term.value.movedim(dim, 0)
            if at.shape[at.batch_dim :].numel() > 1 or not is_own(
                values, mixed, n, self.model.nesting
            ):
                elsewhere.add(term.name)
        if elsewhere and is_boolean(latent.support):
            bent = self._not_affine(name, at, others, elsewhere)
        names = frozenset(t.name for t in inside)
        return Found(names, tuple(bent), {}, frozenset(elsewhere), broadcasts)

    def _not_affine(
        self, name: str, at: Coordinates, others: Mapping[str, Tensor], among: Collection[str]
    ) -> list[str]:
        """Terms that are not affine in single elements of a site of zeros and ones."""
        self.model.validates = False  # numbers between zero and one are no values of the site
        base = torch.rand(at.shape, generator=self.generator, dtype=torch.float64)
        base = base.to(self.latents[name].initial)
        chosen = torch.randperm(base.numel(), generator=self.generator)[:32].tolist()
        rows = []
        for element in chosen:
            for level in (0.0, 0.5, 1.0):
                row = base.clone().flatten()
                row[element] = level
                rows.append(row.reshape(base.shape))
        terms, _ = self.run({name: torch.stack(rows)}, others)
        dim = self.model.node_dim(0)
        bent = []
        for term in terms:
            if term.name in among and term.depends_on(dim):
                values = term.value.movedim(dim, 0).reshape(len(chosen), 3, -1)
                if not vanishes(values.movedim(1, 0), values.new_tensor([1.0, -2.0, 1.0])):
                    bent.append(term.name)
        return bent

    def run(
        self, values: Mapping[str, Tensor], others: Mapping[str, Tensor]
    ) -> tuple[list[NodeTerm], bool]:
        """Terms at many values of one site, or of several in step, in node dimension 0.

        In runs of their own if the model needs that, which the second result says.
        """
        nodes = {**others, **values}
        positions = dict.fromkeys(self.model.sites, 0)
        try:
            terms = self.model.terms(nodes, positions)
        except (RuntimeError, ValueError, IndexError):
            terms = []
        if terms and self._agrees(terms, nodes, positions, values):
            return _bounded(terms), True
        return _bounded(self.model.terms(nodes, positions, apart=[tuple(values)])), False

    def _agrees(
        self,
        terms: list[NodeTerm],
        nodes: Mapping[str, Tensor],
        positions: Mapping[str, int],
        values: Mapping[str, Tensor],
    ) -> bool:
        dim = self.model.node_dim(0)
        for s in (0, len(next(iter(values.values()))) - 1):
            single = {name: v[s : s + 1] for name, v in values.items()}
            one = self.model.terms({**nodes, **single}, positions)
            if not agree(terms, one, {dim: s}):
                return False
        return True


def _bounded(terms: list[NodeTerm]) -> list[NodeTerm]:
    """Impossible values with a very low log-probability that can still be added and subtracted."""
    return [replace(t, value=t.value.clamp(min=IMPOSSIBLE)) for t in terms]
