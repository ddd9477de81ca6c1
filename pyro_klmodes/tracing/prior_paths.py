"""Latent values as functions of a prior's parameters, with the noise behind them held constant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.distributions as plain
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    PowerTransform,
    Transform,
)

from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.terms import Term

__all__ = ["PathAtLeaf", "path_at_leaf", "prior_path"]

# Classes, and not their subclasses, which may be something else; Pyro's and those of torch, of
# which transformed ones are made.
_LOCATION_SCALE = {
    *(dist.Normal, dist.Laplace, dist.Cauchy, dist.StudentT),
    *(plain.Normal, plain.Laplace, plain.Cauchy, plain.StudentT),
}
_SCALE = {dist.HalfNormal, dist.HalfCauchy, plain.HalfNormal, plain.HalfCauchy}
_EXPONENTIAL = {dist.Exponential, plain.Exponential}
_MULTIVARIATE = {
    *(dist.MultivariateNormal, plain.MultivariateNormal),
    *(dist.LowRankMultivariateNormal, plain.LowRankMultivariateNormal),
    *(dist.OMTMultivariateNormal, dist.MultivariateStudentT),
}
_WRAPPERS = (plain.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


def prior_path(
    fn: Any,
    value: Tensor,
) -> Tensor | None:
    r"""The transform :math:`T(\epsilon; \theta)` of a distribution at the noise behind a value.

    It equals the value; its gradient is that of the value along the distribution's parameters with
    :math:`\epsilon = T^{-1}(z; \theta)` held constant.

    Args:
        fn: a distribution: of a location-scale family, multivariate normal or Student-t,
            exponential, half-normal, half-Cauchy, any of these transformed (log-normal, Gumbel,
            Weibull, flows with an inverse), and ``to_event``, ``mask`` and ``expand`` of them.
        value: in its support.

    Returns:
        The value with that gradient, or None if the distribution has no such transform: it is
        discrete, its support moves with a parameter, or a parameter shapes more than location and
        scale (Gamma, degrees of freedom).

    Example:
        >>> scale = torch.tensor(2.0, requires_grad=True)
        >>> path = prior_path(dist.LogNormal(0.0, scale), torch.tensor(1.0).exp())
        >>> round(path.item(), 4), torch.autograd.grad(path, scale)[0].round(decimals=4)
        (2.7183, tensor(1.3591))
    """
    z = value.detach().clone()  # a new object, or transforms would answer from what they have seen
    if isinstance(fn, _WRAPPERS):
        return prior_path(fn.base_dist, z)
    kind = type(fn)
    if kind in _LOCATION_SCALE:
        if _learns(getattr(fn, "df", None)):
            return None
        return fn.loc + fn.scale * ((z - fn.loc) / fn.scale).detach()
    if kind in _SCALE:
        return fn.scale * (z / fn.scale).detach()
    if kind in _EXPONENTIAL:
        return (z * fn.rate).detach() / fn.rate
    if kind in _MULTIVARIATE:
        return None if _learns(getattr(fn, "df", None)) else _affine(fn.loc, fn.scale_tril, z)
    if isinstance(fn, plain.TransformedDistribution):
        return _transformed(fn, z)
    return None if _learns(fn.log_prob(z)) else z


def _learns(parameter: Any) -> bool:
    return isinstance(parameter, Tensor) and parameter.requires_grad


def _affine(
    loc: Tensor,  # (*batch, D)
    scale_tril: Tensor,  # (*batch, D, D)
    z: Tensor,  # (*batch, D)
) -> Tensor:  # (*batch, D)
    with torch.no_grad():
        centred = (z - loc).unsqueeze(-1)
        factor = scale_tril.expand((*centred.shape[:-1], centred.shape[-2]))
        noise = torch.linalg.solve_triangular(factor, centred, upper=False)
    moved: Tensor = loc + (scale_tril @ noise).squeeze(-1)
    return moved


def _transformed(fn: Any, z: Tensor) -> Tensor | None:
    parts = _flat(fn.transforms)
    if not all(part.bijective for part in parts):
        return None
    with torch.no_grad():
        x = z
        for part in reversed(parts):
            x = part.inv(x)
    path = prior_path(fn.base_dist, x)
    ends = _ends(fn.base_dist.support)
    for part in parts:
        if path is None or _moves(part, ends, path):
            return None
        path = part(path)
        ends = _ends_after(part, ends)
    return path


def _flat(transforms: Sequence[Transform]) -> list[Transform]:
    flat: list[Transform] = []
    for t in transforms:
        flat += _flat(t.parts) if isinstance(t, ComposeTransform) else [t]
    return flat


#: where a support ends: nowhere, at zero, or elsewhere
Ends = Literal["nowhere", "zero", "elsewhere"]


def _ends(support: Any) -> Ends:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.real:
        return "nowhere"
    return "zero" if support in (constraints.positive, constraints.nonnegative) else "elsewhere"


def _ends_after(transform: Transform, ends: Ends) -> Ends:
    if isinstance(transform, AffineTransform | PowerTransform):
        return ends
    after = _ends(transform.codomain)
    return after if "nowhere" in (ends, after) else "elsewhere"


def _moves(transform: Transform, ends: Ends, path: Tensor) -> bool:
    """Whether a parameter of the transform would move the ends of the support."""
    if ends == "nowhere":
        return False
    if ends == "zero" and isinstance(transform, AffineTransform | PowerTransform):
        return _learns(getattr(transform, "loc", None))
    return _learns(transform(path.detach().clone()))


@dataclass(frozen=True)
class PathAtLeaf:
    """The path of a latent value along its prior, in the coordinates in which the guide draws it.

    Attributes:
        leaf: what the guide draws, at which all densities were evaluated.
        path: same shape and value, with the gradient along the prior's parameters.
        keep: ones and zeros, which elements no mask takes out of the prior, broadcastable.
    """

    leaf: Tensor
    path: Tensor
    keep: Tensor


def path_at_leaf(
    term: Term,
    leaves: Iterable[Tensor],
) -> PathAtLeaf | None:
    """The path of a latent site of the model, or None if there is none.

    The guide draws the value itself, or unconstrained values of this site alone.
    """
    assert term.site is not None
    fn, value = term.site["fn"], term.site["value"]
    path = prior_path(fn, value)
    if path is None:
        return None
    keep = unmasked(term.site).to(value)
    for leaf in leaves:
        if leaf is value:
            return PathAtLeaf(leaf, path, _in_front(keep, leaf))
    unconstrain = biject_to(fn.support).inv
    u = unconstrain(value.detach().clone())
    for leaf in leaves:
        if leaf.numel() == u.numel() and torch.allclose(u.reshape(leaf.shape), leaf.detach()):
            moved = unconstrain(path).reshape(leaf.shape)
            return PathAtLeaf(leaf, moved, _in_front(keep, u).expand(u.shape).reshape(leaf.shape))
    return None


def _in_front(
    keep: Tensor,  # (*batch)
    like: Tensor,  # (*batch, *event)
) -> Tensor:
    return keep.reshape(keep.shape + (1,) * (like.dim() - keep.dim()))
