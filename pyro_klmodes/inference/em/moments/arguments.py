"""The distribution inside of its wrappers, and its arguments as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch import distributions as torch_dist

from pyro_klmodes.inference.em.moments.entries import unexpanded

__all__ = ["MATRICES", "Core", "NotRead", "arguments", "core_of", "everything_in", "family"]

#: how a covariance may be given
MATRICES = ("covariance_matrix", "precision_matrix", "scale_tril")

_NAMES = (
    *("Bernoulli", "Beta", "Binomial", "Categorical", "Dirichlet", "Exponential", "Gamma"),
    *("Geometric", "LogNormal", "Multinomial", "MultivariateNormal", "Normal", "OneHotCategorical"),
    *("OneHotCategoricalStraightThrough", "Poisson"),
)
# a class of the user's own that inherits from one of these may have another density
_FAMILIES = {getattr(m, name): name for name in _NAMES for m in (dist, torch_dist)}
_FAMILIES[dist.OneHotCategoricalStraightThrough] = "OneHotCategorical"
_FAMILIES[torch_dist.OneHotCategoricalStraightThrough] = "OneHotCategorical"

_ELEMENTWISE = {
    "Bernoulli": ("probs",),
    "Binomial": ("total_count", "probs"),
    "Exponential": ("rate",),
    "Gamma": ("concentration", "rate"),
    "Geometric": ("probs",),
    "LogNormal": ("loc", "scale"),
    "Normal": ("loc", "scale"),
    "Poisson": ("rate",),
}


class NotRead(Exception):
    """An argument is given in a way that has no closed form; the message says which."""


@dataclass(frozen=True)
class Core:
    """A distribution without ``Independent``, masks and expansions around it.

    Attributes:
        fn: the distribution.
        right: how many of its batch dimensions, on the right, are made event dimensions.
        mask: masks of the distribution's own, of whole events or of parts of them, against the
            batch of ``fn``. Those of handlers are in the weights already.
    """

    fn: Any
    right: int = 0
    mask: Tensor | None = None


def core_of(fn: Any) -> Core:
    """Take the wrappers off.

    Example:
        >>> core_of(dist.Normal(torch.zeros(2, 3), 1.0).to_event(1).mask(torch.tensor(True))).right
        1
    """
    right = 0
    masks: list[tuple[Tensor, int]] = []
    while True:
        if isinstance(fn, torch_dist.Independent):
            right += fn.reinterpreted_batch_ndims
        elif isinstance(fn, dist.MaskedDistribution):
            masks.append((torch.as_tensor(fn._mask), right))
        elif not isinstance(fn, dist.ExpandedDistribution):
            break
        fn = fn.base_dist
    mask: Tensor | None = None
    for m, at in masks:
        here = m.reshape(*m.shape, *[1] * (right - at))
        mask = here if mask is None else mask & here
    return Core(fn, right, mask)


def family(core: Core) -> str | None:
    """The name of a family that has closed forms, or None."""
    return _FAMILIES.get(type(core.fn))


def arguments(core: Core) -> dict[str, Tensor]:
    """The arguments of a distribution with a closed form, without expanded dimensions.

    Vectors and matrices keep their last dimensions: ``probs`` of a Categorical is ``(*batch, C)``,
    ``covariance_matrix`` is ``(*batch, D, D)``.

    Raises:
        NotRead: if it is given by logits.
    """
    name, fn = family(core), core.fn
    if name in ("Categorical", "OneHotCategorical", "Multinomial"):
        inner = fn if name == "Categorical" else fn._categorical
        return {"probs": unexpanded(_probs(inner))}
    if name == "Beta":
        both = {n: getattr(fn, n) for n in ("concentration1", "concentration0")}
        return {n: unexpanded(x) for n, x in both.items()}
    if name == "Dirichlet":
        return {"concentration": unexpanded(fn.concentration)}
    if name == "MultivariateNormal":
        given = {n: fn.__dict__[n] for n in MATRICES if n in fn.__dict__}
        return {"loc": unexpanded(fn.loc), **{n: unexpanded(x) for n, x in given.items()}}
    source = fn.base_dist if name == "LogNormal" else fn
    found = {}
    for argument in _ELEMENTWISE[name or ""]:
        x = _probs(source) if argument == "probs" else getattr(source, argument)
        found[argument] = unexpanded(torch.as_tensor(x))
    return found


def _probs(fn: Any) -> Tensor:
    if "probs" not in fn.__dict__:
        raise NotRead("is given by logits; give it probs for a closed form")
    probs: Tensor = fn.probs
    return probs


def everything_in(x: Any, path: str = "", depth: int = 8) -> dict[str, Tensor]:
    """All tensors inside of a distribution of any kind, by where they are."""
    if isinstance(x, Tensor):
        return {path: x}
    if isinstance(x, int | float | bool):
        return {path: torch.as_tensor(x)}
    if depth == 0:
        return {}
    if isinstance(x, dict):
        parts = x.items()
    elif isinstance(x, list | tuple):
        parts = dict(enumerate(x)).items()
    else:
        parts = getattr(x, "__dict__", {}).items()
    found: dict[str, Tensor] = {}
    for name, part in parts:
        found.update(everything_in(part, f"{path}.{name}", depth - 1))
    return found
