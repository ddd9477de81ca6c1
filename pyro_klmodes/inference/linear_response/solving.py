"""Which way to solve with the curvature of the ELBO: elimination, or conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined, UnsupportedStructure
from pyro_klmodes.inference.linear_response.columns import Columns
from pyro_klmodes.inference.linear_response.conjugate_gradients import NotPositive
from pyro_klmodes.inference.linear_response.curvature import Curvature
from pyro_klmodes.inference.linear_response.elimination import (
    Elimination,
    eliminate,
    members_are_apart,
)
from pyro_klmodes.inference.linear_response.layout import Layout, layouts
from pyro_klmodes.inference.linear_response.site import WhiteSite

__all__ = ["Limits", "Solved", "solve"]

_ELBO = Callable[[dict[str, dict[str, Tensor]]], Tensor]


@dataclass(frozen=True)
class Limits:
    """What is taken on by elimination, and otherwise by conjugate gradients.

    Attributes:
        numbers: that elimination keeps.
        products: with the curvature that it takes.
        columns: entries that conjugate gradients solve for.
        tolerance: of the gradient, in white coordinates, for a point to count as stationary.
    """

    numbers: int = 50_000_000
    products: int = 3_000
    columns: int = 500
    tolerance: float = 0.05


@dataclass(frozen=True)
class Solved:
    """Covariances, and how far the point is from the maximum.

    Attributes:
        way: of solving.
        gradient: of the ELBO in white coordinates.
    """

    way: Elimination | Columns
    gradient: Tensor


def solve(
    elbo: _ELBO, sites: Mapping[str, WhiteSite], names: Sequence[str], limits: Limits
) -> Solved:
    """Factorise the curvature, or solve for some sites.

    Args:
        elbo: as a function of the parameters of all sites.
        sites: in white coordinates.
        names: those wanted.
        limits: to memory and time.

    Raises:
        NotDefined: if the curvature is not positive definite at a stationary point.
        InvalidArgument: if it is not at another point.
        UnsupportedStructure: if there are too many parameters.
    """
    choices = layouts(sites)
    flat = _flat(next(iter(sites.values())).start.dtype)
    for layout in choices:
        if layout.cost > limits.numbers or layout.shared + layout.local > limits.products:
            continue
        curvature = Curvature(elbo, layout)
        if not members_are_apart(curvature, layout):
            continue
        found = eliminate(curvature, layout)
        if isinstance(found, float) or found.least < flat:
            least = found if isinstance(found, float) else found.least
            _refuse_no_maximum(least, curvature.gradient, flat, limits)
        return Solved(found, curvature.gradient)
    whole = next(layout for layout in choices if layout.plate is None)
    _check_columns(whole, names, limits)
    curvature = Curvature(elbo, whole)
    try:
        return Solved(Columns(curvature, whole, names, least=flat), curvature.gradient)
    except NotPositive as error:
        _refuse_no_maximum(error.curvature, curvature.gradient, flat, limits)


def _flat(dtype: torch.dtype) -> float:
    """Curvature, relative to that of independent sites, which rounding errors may feign."""
    return float(torch.finfo(dtype).eps ** 0.4)


def _check_columns(layout: Layout, names: Sequence[str], limits: Limits) -> None:
    entries = {name: layout.rows(name).numel() for name in names}
    if sum(entries.values()) <= limits.columns:
        return
    small = [name for name, count in entries.items() if count <= limits.columns]
    hint = f", for instance sites=[{small[0]!r}]" if small else ""
    raise UnsupportedStructure(
        f"the guide has {layout.size:,} parameters, whose curvature would take "
        f"{layout.size**2 * 8 / 1e9:,.1f} GB, and no plate whose elimination leaves few enough. "
        f"Conjugate gradients solve for {limits.columns} entries at most, and the sites wanted "
        f"have {sum(entries.values()):,}: ask for fewer{hint}."
    )


def _refuse_no_maximum(least: float, gradient: Tensor, flat: float, limits: Limits) -> NoReturn:
    away = float(gradient.abs().max())
    if not away <= limits.tolerance:
        raise InvalidArgument(
            "the fit has not converged: the ELBO is not concave there (least curvature "
            f"{least:.2g}; 1 is that of independent sites), and its gradient would move parameters "
            f"by {away:.2g} standard deviations. Fit longer: CAVI(...).fit(..., steps=...), or a "
            "smaller learning rate."
        )
    if least < -flat:
        raise NotDefined(
            f"the fit is not at a maximum of the ELBO but at a saddle (least curvature {least:.2g};"
            " 1 is that of independent sites), where linear response is not defined. Mixtures have "
            "such points where components are equal: start with components apart, another seed "
            "or init_loc_fn."
        )
    raise NotDefined(
        f"the ELBO is flat in a direction (least curvature {least:.2g}; 1 is that of independent "
        "sites): its maximum is no single point, and variances along it would be infinite. Is the "
        "model symmetric under rotations, as factors and loadings are, or under a shift between "
        "sites? Fix it by a prior or a constraint."
    )
