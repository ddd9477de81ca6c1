"""From a block of draws to the arrays of every group."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pyro_klmodes.conversion.blocks import Block, derived_seed
from pyro_klmodes.conversion.constants import constants
from pyro_klmodes.errors import KLModesWarning, NotDefined, UnsupportedStructure
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.tracing.at_values import ModelAt, Pointwise
from pyro_klmodes.tracing.discrete import sample_discrete
from pyro_klmodes.tracing.predict import predict, prior

__all__ = ["Array", "Arrays", "Groups"]

# what random numbers are used for; the draws of the guide have purpose 0
_DISCRETE, _PREDICTIVE, _PRIOR = 1, 2, 3


@dataclass(frozen=True)
class Array:
    """Values of a variable and the plates its axes stand for.

    Attributes:
        values: ``(chains * s, *shape)`` in groups of draws, ``shape`` in groups of data.
        axes: name of a plate -> axis, counted from the right.
        data: for a likelihood without its masked-out elements, which elements of the flattened
            batch are left; they lie on one axis of their own.
    """

    values: Tensor
    axes: Mapping[str, int] = field(default_factory=dict)
    data: Tensor | None = None


Groups = dict[str, dict[str, Array]]


class Arrays:
    """Evaluates the model at blocks of draws.

    Args:
        at: the model.
        wanted: names of the groups to make.
        seed: of all random numbers other than the draws themselves.
        lenient: whether a group that the model does not have is left out with a warning.
        extra: what is known about all draws, for ``constant_data``.
    """

    def __init__(
        self,
        at: ModelAt,
        wanted: frozenset[str],
        seed: int,
        *,
        lenient: bool,
        extra: Mapping[str, Array],
    ) -> None:
        self.at = at
        self.wanted = set(wanted)
        self.seed = seed
        self.lenient = lenient
        self.extra = extra

    def of(self, block: Block) -> Groups:
        """All groups of a block; those of data come with the first one."""
        values = {n: v for n, v in block.values.items() if n in self.at.sites}
        groups: Groups = {}
        if self.wanted & {"posterior", "posterior_predictive"}:
            with seeded(derived_seed(self.seed, _DISCRETE, block.number)):
                everything = {**values, **sample_discrete(self.at, values)}
        if "posterior" in self.wanted:
            groups["posterior"] = self._posterior(everything)
        if "posterior_predictive" in self.wanted:
            with seeded(derived_seed(self.seed, _PREDICTIVE, block.number)):
                made = self._try("posterior_predictive", lambda: predict(self.at, everything))
            groups["posterior_predictive"] = self._named(made)
        if self.wanted & {"prior", "prior_predictive"}:
            groups |= self._prior(block)
        if "log_likelihood" in self.wanted:
            found = self._try("log_likelihood", lambda: self.at.log_likelihood(values))
            groups["log_likelihood"] = {
                self.public(name): _without_masked(datum) for name, datum in found.items()
            }
        if "sample_stats" in self.wanted:
            groups["sample_stats"] = _statistics(block)
        if block.number == 0:
            groups |= self._data()
        return groups

    def public(self, site: str) -> str:
        """The user's name of a site that ``obs_mask`` has split in two."""
        base = site.removesuffix("_observed")
        return base if base != site and f"{base}_unobserved" in self.at.sites else site

    def _posterior(self, values: Mapping[str, Tensor]) -> dict[str, Array]:
        kinds = {info.kind for info in self.at.sites.values()}
        found = dict(values)
        if "deterministic" in kinds:
            found |= self.at.deterministic(values)
        return {
            name: Array(found[name].reshape(-1, *info.shape), info.axes)
            for name, info in self.at.sites.items()
            if name in found
        }

    def _prior(self, block: Block) -> Groups:
        count = len(block) * block.chains
        with seeded(derived_seed(self.seed, _PRIOR, block.number)):
            drawn = self._try("prior", lambda: prior(self.at, count))
        observed = {n for n in drawn if self.at.sites[n].kind == "observed"}
        made = {
            "prior": self._named({n: x for n, x in drawn.items() if n not in observed}),
            "prior_predictive": self._named({n: x for n, x in drawn.items() if n in observed}),
        }
        return {group: held for group, held in made.items() if group in self.wanted}

    def _named(self, values: Mapping[str, Tensor]) -> dict[str, Array]:
        return {self.public(n): Array(value, self.at.sites[n].axes) for n, value in values.items()}

    def _data(self) -> Groups:
        observed = self.at.observed()
        groups: Groups = {}
        if "observed_data" in self.wanted:
            groups["observed_data"] = self._named(observed)
        if "constant_data" in self.wanted:
            pair = self.at.pair
            found = constants(self.at.model, pair.args, pair.kwargs, observed)
            groups["constant_data"] = {**{n: Array(x) for n, x in found.items()}, **self.extra}
        return groups

    def _try(self, group: str, make: Callable[[], Any]) -> Any:
        """Leave a group out that was not asked for by name and that the model does not have."""
        try:
            return make()
        except (UnsupportedStructure, NotDefined) as error:
            if not self.lenient:
                raise
            warnings.warn(f"the group {group} is left out: {error}", KLModesWarning, stacklevel=4)
            self.wanted -= {group, f"{group}_predictive"}
            return {}


def _without_masked(datum: Pointwise) -> Array:
    """A masked-out element is no datum: leave-one-out must not count it."""
    if bool(datum.counts.all()):
        return Array(datum.log_prob, datum.axes)
    rows = datum.counts.flatten().nonzero()[:, 0]
    flat = datum.log_prob.reshape(len(datum.log_prob), -1)
    return Array(flat[:, rows.to(flat.device)], data=rows)


def _statistics(block: Block) -> dict[str, Array]:
    found = dict(block.statistics)
    if block.log_p is not None:
        found["log_p"] = block.log_p.reshape(len(block), -1).sum(1)
    if block.log_q is not None and block.log_w is not None:
        found["log_q"] = block.log_q.reshape(len(block), -1).sum(1)
        found["log_weight"] = block.log_w.reshape(len(block), -1).sum(1)
    return {name: Array(value) for name, value in found.items()}
