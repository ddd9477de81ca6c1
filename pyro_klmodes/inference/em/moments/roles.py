"""Whether all sites use a parameter in one role, in a way that has a closed form."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from pyro_klmodes.inference.em.moments.arguments import MATRICES, Core, arguments
from pyro_klmodes.inference.em.moments.concentrations import rows_of
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.scale_forms import SCALE_FORMS
from pyro_klmodes.inference.em.moments.simplices import whole_rows
from pyro_klmodes.inference.em.moments.uses import PRIORS, Use

__all__ = ["roles"]

_VECTORS = ("simplex", *(f"mvn.{m}" for m in MATRICES))
_SPREADS = {*(f"normal.{f}" for f in SCALE_FORMS), *(f"mvn.{m}" for m in MATRICES)}


def roles(
    uses: list[Use],
    entries: Entries,
    reasons: dict[str, str],
) -> dict[int, str]:  # {position of a use: kind of its closed form}
    """The kind of each use that has a parameter with a closed form.

    Args:
        uses: how sites use parameters.
        entries: of the parameters.
        reasons: why parameters have no closed form; others are added.
    """
    found: dict[str, tuple[str, str]] = {}  # {parameter: (role, site)}
    ambiguous: set[str] = set()  # as a variance here, and as a precision there
    for use in uses:
        for argument, places in use.maps.items():
            if use.prior:
                continue
            role = use.role(argument)
            why = _why_not(use, argument, places, entries)
            for name in entries.owners(places):
                if why is not None:
                    reasons.setdefault(name, f"site '{use.site}' {why}")
                known, site = found.setdefault(name, (role, use.site))
                if known != role:
                    reasons.setdefault(
                        name,
                        f"it is a {_words(known)} in site '{site}', and a {_words(role)} in site "
                        f"'{use.site}'",
                    )
                    if {known, role} <= _SPREADS:
                        ambiguous.add(name)
    _beside(uses, entries, ambiguous, reasons)
    _priors(uses, entries, found, reasons)
    for name, (role, site) in found.items():
        if role not in _VECTORS and not _is_elementwise(entries.parameters[name].constraint):
            constraint = entries.parameters[name].constraint
            reasons.setdefault(
                name,
                f"its constraint {constraint!r} ties its entries together, which are each a "
                f"{_words(role)} in site '{site}'",
            )
    _shared_rows(uses, entries, found, reasons)
    for name in entries.parameters:
        if name not in found and entries.is_free(name):
            reasons.setdefault(name, "no site depends on it")
    return dict(_kinds(uses, entries, found, reasons))


def _kinds(
    uses: list[Use],
    entries: Entries,
    found: Mapping[str, tuple[str, str]],
    reasons: Mapping[str, str],
) -> Iterator[tuple[int, str]]:
    for i, use in enumerate(uses):
        names = sorted(set().union(*(entries.owners(m) for m in use.maps.values())))
        free = [n for n in names if n not in reasons]
        if free:
            yield i, found[free[0]][0].split(".")[0]


def _beside(
    uses: list[Use], entries: Entries, ambiguous: Collection[str], reasons: dict[str, str]
) -> None:
    """Means are weighed by scales, which have to be of one kind for all sites."""
    for use in uses:
        names = set().union(*(entries.owners(m) for m in use.maps.values()))
        for name in names - set(ambiguous) if names & set(ambiguous) else ():
            reasons.setdefault(
                name,
                f"site '{use.site}' has a scale beside it that is of another kind in another site",
            )


def _priors(
    uses: list[Use],
    entries: Entries,
    found: dict[str, tuple[str, str]],
    reasons: dict[str, str],
) -> None:
    """See that the priors of parameters are conjugate to what they are parameters of."""
    for use in uses:
        if not use.prior:
            continue
        places = use.maps["value"]
        names = entries.owners(places)
        together = {found[n][0] for n in names if n in found}
        for name in names:
            role, _ = found.setdefault(name, (PRIORS[use.family][0], use.site))
            why = None
            if role not in PRIORS[use.family] or len(together) > 1:
                why = f"is a {use.family} prior of a {_words(role)}"
            elif role == "mvn.loc":
                why = _rows_of_plates(use)
            elif role == "simplex" and not whole_rows(entries, places):
                why = "has a part of the probabilities as its value"
            if why is not None:
                reasons.setdefault(
                    name, f"site '{use.site}' {why}, for which there is no closed form"
                )


def _rows_of_plates(use: Use) -> str | None:
    if use.family == "Normal" and use.maps["value"].dim() == 0:
        return "is a Normal prior of a single number in a vector"
    return None


def _why_not(use: Use, argument: str, places: Tensor, entries: Entries) -> str | None:
    role = use.role(argument)
    if role == "simplex" and not whole_rows(entries, places):
        return "has probs that are not whole rows of the parameter"
    if use.family == "Beta" and len(use.maps) == 1:
        return "is a Beta of which one concentration only is a parameter"
    if role == "mvn.loc" and not any(m in use.maps for m in MATRICES):
        return _varying_covariance(use.core)
    return None


def _varying_covariance(core: Core) -> str | None:
    matrices = [x for n, x in arguments(core).items() if n in MATRICES]
    if any(x.shape[:-2].numel() > 1 for x in matrices):
        return "has a known covariance that is not the same for all data"
    return None


def _shared_rows(
    uses: list[Use],
    entries: Entries,
    found: Mapping[str, tuple[str, str]],
    reasons: dict[str, str],
) -> None:
    """Mean vectors and rows of concentrations must not have entries in common."""
    rows: dict[str, list[Tensor]] = {}
    for use in uses:
        if use.family in ("Beta", "Dirichlet") and not use.prior and _complete(use):
            places = rows_of(use)
        elif use.family == "MultivariateNormal" and {"loc", "value"} & set(use.maps):
            places = use.maps.get("loc", use.maps.get("value", torch.empty(0)))
        elif use.family == "Normal" and use.prior and _is_vector(use, entries, found):
            places = use.maps["value"]
        else:
            continue
        flat = places.reshape(-1, places.shape[-1])
        for name in entries.owners(flat):
            rows.setdefault(name, []).append(flat)
    for name, parts in rows.items():
        if len({p.shape[-1] for p in parts}) == 1:
            whole = torch.cat(parts).unique(dim=0)
            if whole.unique().numel() == whole.numel():
                continue
        reasons.setdefault(name, "its vectors have entries in common with each other")


def _complete(use: Use) -> bool:
    return use.family == "Dirichlet" or len(use.maps) == 2


def _is_vector(use: Use, entries: Entries, found: Mapping[str, tuple[str, str]]) -> bool:
    names = entries.owners(use.maps["value"])
    return any(found[n][0] == "mvn.loc" for n in names) and use.maps["value"].dim() > 0


def _is_elementwise(constraint: Any) -> bool:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    transform = transform_to(constraint)
    return bool(transform.domain.event_dim == 0 and transform.codomain.event_dim == 0)


def _words(role: str) -> str:
    names = {
        "simplex": "row of probabilities",
        "probability": "probability",
        "rate": "rate",
        "concentration": "concentration",
        "gamma.rate": "rate of a Gamma of unknown concentration",
        "gamma.concentration": "concentration of a Gamma",
        "normal.loc": "mean of a Normal",
        **{f"normal.{form}": f"{form} of a Normal" for form in SCALE_FORMS},
        "mvn.loc": "mean of a MultivariateNormal",
    }
    return names.get(role, f"{role.removeprefix('mvn.')} of a MultivariateNormal")
