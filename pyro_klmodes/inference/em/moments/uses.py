"""How a site uses the parameters: which argument selects which entries, seen from several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.em.moments.arguments import (
    MATRICES,
    Core,
    NotRead,
    arguments,
    core_of,
    everything_in,
    family,
)
from pyro_klmodes.inference.em.moments.entries import Entries, unexpanded
from pyro_klmodes.inference.em.moments.scale_forms import SCALE_FORMS
from pyro_klmodes.inference.em.moments.sums import compressed

__all__ = ["Use", "read", "same", "vector_length"]

Seen = tuple[Any, Tensor]  # the distribution of a site and its value

#: families whose prior on a parameter has a closed form, and what it can be the parameter of
PRIORS = {
    "Normal": ("normal.loc", "mvn.loc"),
    "MultivariateNormal": ("mvn.loc",),
    "Dirichlet": ("simplex",),
    "Beta": ("probability",),
    "Gamma": ("rate",),
    "Exponential": ("rate",),
}
_ROLES = {
    **{(f, a): f"normal.{a}" for f in ("Normal", "LogNormal") for a in ("loc", *SCALE_FORMS)},
    **{("MultivariateNormal", a): f"mvn.{a}" for a in ("loc", *MATRICES)},
    **{(f, "probs"): "simplex" for f in ("Categorical", "OneHotCategorical", "Multinomial")},
    **{(f, "probs"): "probability" for f in ("Bernoulli", "Binomial", "Geometric")},
    **{(f, "rate"): "rate" for f in ("Poisson", "Exponential")},
    **{("Gamma", a): f"gamma.{a}" for a in ("concentration", "rate")},
    **{("Beta", a): "concentration" for a in ("concentration1", "concentration0")},
    ("Dirichlet", "concentration"): "concentration",
}


@dataclass(frozen=True)
class Use:
    """A site whose distribution has arguments that are parameters.

    Attributes:
        site: its name.
        family: of the distribution, without what is around it.
        maps: the entries that an argument selects, laid out like it, with size 1 where they are
            the same. A scale may be one of ``SCALE_FORMS``. The matrices of a MultivariateNormal
            have the number of their first entry.
            ``value`` of a prior: the value of the site is the parameter.
        example: distribution and value in one run, for what does not depend on parameters.
    """

    site: str
    family: str
    maps: dict[str, Tensor]
    example: Seen = field(repr=False)

    @property
    def prior(self) -> bool:
        """Whether the site is the prior of a parameter."""
        return "value" in self.maps

    @property
    def core(self) -> Core:
        """The distribution of the example without what is around it."""
        return core_of(self.example[0])

    def role(self, argument: str) -> str:
        """What an argument is a parameter of, the same for families that share closed forms."""
        if self.family == "Gamma" and set(self.maps) == {"rate"}:
            return "rate"
        return _ROLES[self.family, argument]


def read(
    site: str,
    runs: Sequence[Seen],
    entries: Entries,
) -> Use | None:
    """What a site selects; None if it does not depend on any parameter.

    Raises:
        NotRead: if it depends on parameters in another way; the message says how, and needs the
            name of the site in front.
    """
    if all(same(everything_in(runs[0]), everything_in(run)) for run in runs[1:]):
        return None
    cores = [core_of(fn) for fn, _ in runs]
    name = family(cores[0])
    values = [unexpanded(value) for _, value in runs]
    moving_value = _changes(values)
    if name is None:
        raise NotRead(f"has the distribution {type(cores[0].fn).__name__}")
    if _changes([c.mask for c in cores if c.mask is not None]):
        raise NotRead("has a mask that depends on it")
    given = [arguments(core) for core in cores]
    if name == "MultivariateNormal":
        maps = _of_normal(given, entries)
    else:
        maps = {}
        for argument in given[0]:
            seen = [g[argument] for g in given]
            if argument == "scale" and _changes(seen):
                maps.update(_of_scale(seen, entries))
                continue
            found = _selected(argument, seen, entries)
            if found is not None:
                maps[argument] = found
    if moving_value:
        found = entries.find(values)
        if found is None:
            raise NotRead("has a value that changes from run to run and is no parameter")
        if maps or name not in PRIORS:
            raise NotRead(f"is a {name} prior for which there is no closed form")
        maps = {"value": compressed(found)}
    return Use(site, name, maps, runs[0])


def _selected(argument: str, seen: Sequence[Tensor], entries: Entries) -> Tensor | None:
    if not _changes(seen):
        return None
    found = entries.find(seen) if len({x.shape for x in seen}) == 1 else None
    if found is None:
        some = "" if argument == "total_count" else _advice(argument)
        raise NotRead(f"has a {argument} that is computed from it, not selected{some}")
    return compressed(found)


def _advice(argument: str) -> str:
    return f". Where {argument} itself can be the parameter, constrained, it has a closed form"


def _of_scale(seen: Sequence[Tensor], entries: Entries) -> dict[str, Tensor]:
    """What a scale selects, if need be by its square, its inverse square or its logarithm."""
    if len({x.shape for x in seen}) == 1:
        for name, form in SCALE_FORMS.items():
            found = entries.find([form.of_scale(x) for x in seen])
            if found is not None:
                return {name: compressed(found)}
    raise NotRead(f"has a scale that is computed from it, not selected{_advice('scale')}")


def _of_normal(given: Sequence[dict[str, Tensor]], entries: Entries) -> dict[str, Tensor]:
    """The vectors and the matrices that a MultivariateNormal selects."""
    maps = {}
    loc = _selected("loc", [g["loc"] for g in given], entries)
    if loc is not None:
        maps["loc"] = loc
    matrices = [n for n in MATRICES if all(n in g for g in given)]
    if not any(_changes([g[n] for g in given]) for n in matrices):
        return maps
    for name in matrices:
        found = _matrices([g[name] for g in given], entries)
        if found is not None:
            return {**maps, name: found}
    raise NotRead(f"has a {matrices[0]} that is computed from it, not selected")


def _matrices(
    seen: Sequence[Tensor],  # (*batch, D, D) each
    entries: Entries,
) -> Tensor | None:  # (*batch), the number of the first entry
    """Which matrix of a parameter every matrix is."""
    if len({x.shape for x in seen}) > 1:
        return None
    corner = entries.find([x[..., 0, 0] for x in seen])
    if corner is None:
        return None
    corner = compressed(corner)
    size = seen[0].shape[-1]
    for first in corner.unique().tolist():
        owner = entries.owner(first)
        shape = entries.parameters[owner].value.shape
        if shape[-2:] != (size, size) or (first - entries.offsets[owner]) % size**2:
            return None
    numbers = corner[..., None, None] + torch.arange(size**2).reshape(size, size)
    for x, probe in zip(seen, entries.probes, strict=True):
        flat = entries.flat({n: v[None] for n, v in probe.items()})[0]
        selected = flat[numbers]
        if not torch.allclose(x.double().cpu(), selected, rtol=entries.rounding(x), atol=1e-300):
            return None
    return corner


def _changes(seen: Sequence[Tensor]) -> bool:
    return any(x.shape != seen[0].shape or not _equal(x, seen[0]) for x in seen[1:])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all that two distributions have in common is equal."""
    common = one.keys() & other.keys()
    return all(_equal(unexpanded(one[n]), unexpanded(other[n])) for n in common)


def _equal(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape:
        return False
    return bool(((x == y) | ((x != x) & (y != y))).all())


def vector_length(use: Use) -> int:
    """How long the vectors of a multivariate site are."""
    if use.family == "Beta":
        return 2
    if use.prior:
        return use.maps["value"].shape[-1]
    return int(use.core.fn.event_shape[-1])
