"""Runs of a model at several values of its latent sites, each site in a dimension of its own.

As Pyro's parallel enumeration does for discrete sites, values of a site are laid out in a batch
dimension left of all plates, its node dimension: ``(S, 1, ..., 1, *batch, *event)``. A
log-probability then has the node dimensions of just those sites that it depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.node_terms import NodeTerm, SiteView, view_of
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import depth
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.terms import model_terms, scored_sites

__all__ = ["NodeModel", "NodeTerm", "SiteView"]

_Group = tuple[str, ...]  # sites that take their nodes in step


@dataclass
class NodeModel:
    """A model with its arguments, to be run at nodes.

    Attributes:
        model: a Pyro model.
        args: what it is called with.
        kwargs: likewise.
        indices: of the minibatch, by plate.
        sites: the latent sites by name, in the order of the model.
        nesting: depth of the deepest plate.
        runs: how often the model was run.
        maps: whether torch may still be able to vectorise the model by itself.
        validates: whether distributions look at the values they are given.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    indices: dict[str, Tensor] = field(default_factory=dict)
    sites: dict[str, SiteView] = field(default_factory=dict)
    nesting: int = 0
    runs: int = 0
    maps: bool = True
    validates: bool = True

    def look(self) -> None:
        """Find out plates, minibatch and latent sites in one run of the model.

        Raises:
            InvalidArgument, NonFiniteLoss: for data that a site cannot have, naming the site.
        """
        with torch.no_grad():
            trace = self._run({})
            model_terms(trace)  # complains of data
        sites = scored_sites(trace)
        self.nesting = depth(sites)
        self.indices = {
            name: site["value"]
            for name, site in trace.nodes.items()
            if site_is_subsample(site) and len(site["value"]) != site["fn"].size
        }
        self.sites = {s["name"]: view_of(s) for s in sites if is_latent(s)}

    def node_dim(self, position: int) -> int:
        """The batch dimension of the nodes in a position, 0, 1, ..."""
        return -1 - self.nesting - position

    def laid_out(self, name: str, values: Tensor, position: int) -> Tensor:
        """Nodes ``(S, *batch, *event)`` as ``(S, 1, ..., 1, *batch, *event)``; one is no node."""
        if len(values) == 1:
            return values[0]
        batch_dim = len(self.sites[name].shape) - self.sites[name].fn.event_dim
        ones = self.nesting - batch_dim + position
        return values.reshape(len(values), *([1] * ones), *values.shape[1:])

    def laid_out_batch(
        self,
        values: Tensor,  # (S, *batch)
        position: int,
    ) -> Tensor:  # (S, 1, ..., 1, *batch)
        """Numbers for every element of a site at its nodes, as terms have them."""
        ones = self.nesting - (values.dim() - 1) + position
        return values.reshape(len(values), *([1] * ones), *values.shape[1:])

    def terms(
        self,
        values: Mapping[str, Tensor],  # {site: (S, *batch, *event)}
        positions: Mapping[str, int],
        apart: Sequence[str | Sequence[str]] = (),
    ) -> list[NodeTerm]:
        """The terms of ``log p`` at all combinations of nodes.

        Args:
            values: nodes of every latent site.
            positions: which node dimension each site has; sites in one position take their nodes
                in step.
            apart: sites that the model does not broadcast over, or groups of them that take their
                nodes in step: ``torch.vmap`` runs it at all combinations of their nodes, or it is
                run once for each of them.
        """
        groups = [(one,) if isinstance(one, str) else tuple(one) for one in apart]
        groups = [group for group in groups if len(values[group[0]]) > 1]
        chosen = {name for group in groups for name in group}
        laid = {n: self.laid_out(n, v, positions[n]) for n, v in values.items() if n not in chosen}
        if not groups:
            return self._terms(laid)
        wholes = self._mapped(laid, values, groups) if self.maps else None
        if wholes is None:
            wholes = self._one_by_one(laid, values, groups)
        first = [positions[group[0]] for group in groups]
        return [self._placed(t, positions, first) for t in wholes]

    def _mapped(
        self, laid: Mapping[str, Tensor], values: Mapping[str, Tensor], groups: Sequence[_Group]
    ) -> list[NodeTerm] | None:
        """Terms ``(*nodes of groups, *shape)`` of one run that is vectorised by torch itself.

        None if the model does something that cannot be, as a branch on a value.
        """
        seen: list[NodeTerm] = []

        def run(*chosen: dict[str, Tensor]) -> tuple[Tensor, ...]:
            here = dict(laid)
            for values_of in chosen:
                here.update(values_of)
            seen[:] = self._terms(here)
            return tuple(t.value for t in seen)

        mapped: Callable[..., tuple[Tensor, ...]] = run
        for i in reversed(range(len(groups))):
            dims = tuple(0 if i == j else None for j in range(len(groups)))
            mapped = torch.vmap(mapped, in_dims=dims, randomness="same")
        try:
            with pyro.validation_enabled(is_validate=False):  # it branches on values
                found = mapped(*({name: values[name] for name in group} for group in groups))
        except (RuntimeError, ValueError, IndexError, NotImplementedError):
            self.maps = False
            return None
        wholes = []
        for term, whole in zip(seen, found, strict=True):
            for axis in range(len(groups)):
                if whole.stride(axis) == 0:  # expanded: it does not depend on the sites
                    whole = whole.narrow(axis, 0, 1)
            wholes.append(replace(term, value=whole))
        return wholes

    def _one_by_one(
        self, laid: Mapping[str, Tensor], values: Mapping[str, Tensor], groups: Sequence[_Group]
    ) -> list[NodeTerm]:
        """Terms ``(*nodes of groups, *shape)`` of a run for every combination."""
        sizes = [len(values[group[0]]) for group in groups]
        parts = []
        for choice in itertools.product(*map(range, sizes)):
            one = {
                name: values[name][s]
                for group, s in zip(groups, choice, strict=True)
                for name in group
            }
            parts.append(self._terms({**laid, **one}))
        wholes = []
        for i, term in enumerate(parts[0]):
            stacked = torch.stack([part[i].value for part in parts])
            wholes.append(replace(term, value=stacked.reshape(*sizes, *term.value.shape)))
        return wholes

    def _placed(
        self, term: NodeTerm, positions: Mapping[str, int], of_groups: Sequence[int]
    ) -> NodeTerm:
        """Move the first dimensions to where the nodes of their sites belong."""
        furthest = 1 + self.nesting + max(positions.values())
        sizes, rest = term.value.shape[: len(of_groups)], term.value.shape[len(of_groups) :]
        whole = term.value.reshape(*sizes, *[1] * (furthest - len(rest)), *rest)
        for position in of_groups:
            axis = whole.dim() + self.node_dim(position)
            whole = whole.transpose(0, axis).squeeze(0)
        return replace(term, value=whole)

    def _terms(self, values: Mapping[str, Tensor]) -> list[NodeTerm]:
        if self.validates:
            return self._terms_as_they_are(values)
        with pyro.validation_enabled(is_validate=False):
            return self._terms_as_they_are(values)

    def _terms_as_they_are(self, values: Mapping[str, Tensor]) -> list[NodeTerm]:
        found = []
        for term in model_terms(self._run(values)):
            scale = term.scale
            for ratio in term.ratios.values():
                scale = scale * ratio
            found.append(NodeTerm(term.name, term.log_prob, term.plates, scale))
        return found

    def _run(self, values: Mapping[str, Tensor]) -> Trace:
        self.runs += 1
        pair = Pair(self.model, self.model, self.args, self.kwargs)
        with poutine.block(hide_fn=lambda msg: msg["type"] == "sample"):
            return run_model(pair, Single(), {**self.indices, **values}, enumerated=False)
