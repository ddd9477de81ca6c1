"""What is decided before the first sweep: the rule of every site, and where its nodes go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.cavi.blocks import BlockChoice
from pyro_klmodes.inference.cavi.choice import Choice, named
from pyro_klmodes.inference.cavi.comparisons import agree
from pyro_klmodes.inference.cavi.report import ConjugacyReport
from pyro_klmodes.inference.cavi.rules.base import JointRule, Nodes, Single
from pyro_klmodes.tracing.node_runs import NodeModel

__all__ = ["Plan"]

#: log-probabilities in one term, runs for one evaluation, and dimensions that torch has room for
_LARGEST, _MOST_RUNS, _MOST_DIMS = 100_000_000, 2_000, 40
_LOOKS = 3


@dataclass
class Plan:
    """How expectations over a model are taken.

    Attributes:
        model: with its arguments.
        choices: by site.
        report: on conjugacy.
        blocks: sites that share a factor.
        positions: node dimension of every site, the same for the sites of a block.
        apart: sites whose nodes need a run each; of a block, all its sites.
        rules: by the first site of each factor in the model, for the present sizes of minibatches.
    """

    model: NodeModel
    choices: Mapping[str, Choice]
    report: ConjugacyReport
    blocks: Sequence[BlockChoice] = ()
    positions: dict[str, int] = field(default_factory=dict)
    apart: tuple[str | tuple[str, ...], ...] = ()
    rules: dict[str, JointRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bind(self.model)

    def bind(self, model: NodeModel) -> None:
        """Use a call of the model, with a minibatch of its own."""
        before = {n: v.shape for n, v in self.model.sites.items()} if self.rules else {}
        model.validates, model.maps = self.model.validates, self.model.maps
        self.model = model
        shapes = {name: view.shape for name, view in model.sites.items()}
        for first, sites in self.factors.items():
            if all(before.get(name) == shapes[name] for name in sites):
                continue
            block = next((b for b in self.blocks if first in b.sites), None)
            if block is not None:
                self.rules[first] = block.rule()
            else:
                self.rules[first] = Single(first, self.choices[first].rule(shapes[first]))

    @cached_property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """The sites of every factor of the guide, by the first of them in the model."""
        found: dict[str, tuple[str, ...]] = {}
        seen: set[str] = set()
        for name in self.choices:
            block = next((b.sites for b in self.blocks if name in b.sites), (name,))
            if name not in seen:
                found[name] = block
                seen.update(block)
        return found

    @cached_property
    def terms(self) -> dict[str, frozenset[str]]:
        """The terms that depend on any site of a factor, by its first site."""
        found = {}
        for first, sites in self.factors.items():
            found[first] = frozenset().union(*(self.choices[n].found.terms for n in sites))
        return found

    def meets(self, one: str, other: str) -> bool:
        """Whether a term depends on two sites."""
        return bool(self.choices[one].found.terms & self.choices[other].found.terms)

    def settle(self, nodes: Mapping[str, Nodes]) -> None:
        """Find node dimensions for all sites in which the model runs as it does at single nodes.

        Raises:
            UnsupportedStructure: if nothing does, or if it would take too much.
        """
        self._check_sizes(nodes)
        factors = self.factors
        narrow = self._spread_over(self._colours())
        wide = self._spread_over({first: i for i, first in enumerate(factors)})
        failing = [f for f, sites in factors.items() if not self._broadcasts(sites)]
        several = [f for f, sites in factors.items() if len(nodes[sites[0]].values) > 1]
        continuous = [f for f in several if not self.choices[f].latent.discrete]
        tries = [(narrow, failing), (wide, failing), (wide, continuous), (wide, several)]
        for positions, apart in tries:
            if max(positions.values()) >= _MOST_DIMS or not self._few_runs(apart, nodes):
                continue
            groups = [factors[f] for f in apart]
            self.positions = dict(positions)
            self.apart = tuple(g[0] if len(g) == 1 else g for g in groups)
            if self._works(nodes):
                return
        dims = 1 + max(narrow.values())
        if dims > _MOST_DIMS:
            raise UnsupportedStructure(
                f"terms depend on up to {dims} latent sites at once, and there is room for "
                f"{_MOST_DIMS}. Join sites in a plate, or as the event of one site."
            )
        raise UnsupportedStructure(
            "the model does not run with a batch of values left of its plates, and one run for "
            f"every combination would take more than {_MOST_RUNS}. Index batches from the right: "
            "Vindex(loc)[..., z] in place of loc[z], (x * w).sum(-1) in place of x @ w. Sites that "
            f"need it: {', '.join(repr(n) for n in failing or several)}."
        )

    def _broadcasts(self, sites: Sequence[str]) -> bool:
        blocks = all(b.found.broadcasts for b in self.blocks if b.sites == tuple(sites))
        return blocks and all(self.choices[n].found.broadcasts for n in sites)

    def _spread_over(self, positions: Mapping[str, int]) -> dict[str, int]:
        """Positions of factors for all their sites."""
        factors = self.factors
        return {n: positions[first] for first, sites in factors.items() for n in sites}

    def _few_runs(self, apart: list[str], nodes: Mapping[str, Nodes]) -> bool:
        return math.prod(len(nodes[n].values) for n in apart) <= _MOST_RUNS

    def _check_sizes(self, nodes: Mapping[str, Nodes]) -> None:
        terms: dict[str, list[str]] = {}
        for first, own in self.terms.items():
            for term in own:
                terms.setdefault(term, []).append(first)
        for term, sites in terms.items():
            counts = [len(nodes[n].values) for n in sites]
            if math.prod(counts) > _LARGEST:
                raise UnsupportedStructure(
                    f"{named([term])} depends on {len(sites)} latent sites, whose nodes have "
                    f"{math.prod(counts):,} combinations ("
                    + ", ".join(f"'{n}' {c}" for n, c in zip(sites[:6], counts, strict=False))
                    + f"{', ...' if len(sites) > 6 else ''}); {_LARGEST:,} is the limit. Join "
                    "normal sites as the entries of one vector, which takes one node more than "
                    "entries."
                )

    def _colours(self) -> dict[str, int]:
        """The first dimension for every factor that no factor it meets has."""
        found: dict[str, int] = {}
        for first, own in self.terms.items():
            taken = {c for other, c in found.items() if own & self.terms[other]}
            found[first] = next(c for c in range(len(self.terms)) if c not in taken)
        return found

    @torch.no_grad()
    def _works(self, nodes: Mapping[str, Nodes]) -> bool:
        """Compare a run at all nodes with runs at single combinations of them."""
        values: dict[str, Tensor] = {n: x.values for n, x in nodes.items()}
        try:
            terms = self.model.terms(values, self.positions, self.apart)
        except (RuntimeError, ValueError, IndexError):
            if len(self.apart) == sum(len(values[f]) > 1 for f in self.factors):
                raise
            return False
        generator = torch.Generator().manual_seed(0)
        for _ in range(_LOOKS):
            at = {
                p: int(torch.randint(self._fewest(p, values), (), generator=generator))
                for p in set(self.positions.values())
            }
            chosen = {n: min(at[self.positions[n]], len(v) - 1) for n, v in values.items()}
            single = {n: v[chosen[n] : chosen[n] + 1] for n, v in values.items()}
            one = self.model.terms(single, self.positions)
            choice = {self.model.node_dim(p): s for p, s in at.items()}
            if not agree(terms, one, choice):
                return False
        return True

    def _fewest(self, position: int, values: Mapping[str, Tensor]) -> int:
        counts = [len(v) for n, v in values.items() if self.positions[n] == position]
        return min([c for c in counts if c > 1], default=1)
