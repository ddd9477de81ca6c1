"""Which rule serves a site, given how the terms depend on it; and why none does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pyro_klmodes.errors import NotDefined, UnsupportedStructure
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    ExponentialFamily,
    Gamma,
    MultivariateNormal,
    Normal,
    SiteFamily,
    default_for,
)
from pyro_klmodes.inference.cavi.report import SiteReport
from pyro_klmodes.inference.cavi.rules.base import Rule
from pyro_klmodes.inference.cavi.rules.discrete import NumbersRule, StatesRule
from pyro_klmodes.inference.cavi.rules.gamma import GammaRule
from pyro_klmodes.inference.cavi.rules.normal import NormalRule
from pyro_klmodes.inference.cavi.rules.simplices import BetaRule, DirichletRule
from pyro_klmodes.inference.cavi.rules.wishart import WishartRule
from pyro_klmodes.inference.cavi.structure import Found

__all__ = ["Choice", "choose", "named"]


@dataclass(frozen=True)
class Choice:
    """How a site is dealt with.

    Attributes:
        latent: the site.
        family: of ``q``.
        found: how terms depend on it.
    """

    latent: Latent
    family: Any
    found: Found

    @property
    def exact(self) -> bool:
        """Whether a full step is the exact coordinate update."""
        return not self.found.bent and not self.found.elsewhere

    def rule(self, shape: torch.Size) -> Rule:
        """The rule for a value of a shape, minibatches at their size."""
        family, latent = self.family, self.latent
        if isinstance(family, Normal | MultivariateNormal):
            batch_dim = len(latent.batch_shape)
            u_shape = torch.Size([*shape[:batch_dim], *latent.unconstrained_event_shape])
            return NormalRule(
                family,
                latent.support,
                batch_dim,
                u_shape,
                tuple(self.found.meeting),
                quadratic=not self.found.bent,
            )
        if isinstance(family, Bernoulli) and self.found.elsewhere:
            return NumbersRule(family)
        if isinstance(family, Bernoulli | Categorical):
            return StatesRule(family)
        if isinstance(family, Gamma):
            return GammaRule(family)
        if isinstance(family, Beta):
            return BetaRule(family)
        if isinstance(family, Dirichlet):
            return DirichletRule(family)
        return WishartRule(family)

    def report(self, better: SiteFamily | None) -> SiteReport:
        """In words.

        Args:
            better: a family for which the site is conjugate, if this one is not.
        """
        found, family = self.found, self.family
        name = self.latent.name
        if found.elsewhere:
            return SiteReport(
                name,
                repr(family),
                conjugate=True,
                why="all terms are affine in each element; elements meet in "
                f"{named(found.elsewhere)}",
                update="all elements at once, in shorter steps where that overshoots",
            )
        if not found.bent:
            meet = (
                f", its elements meet in {named(found.meeting.values())}" if found.meeting else ""
            )
            return SiteReport(
                name,
                repr(family),
                conjugate=True,
                why=f"all {len(found.terms)} terms are affine in its statistics{meet}",
                update="exact coordinate update",
            )
        remedy = f'families={{"{name}": {better!r}}} makes it so.' if better else ""
        return SiteReport(
            name,
            repr(family),
            conjugate=False,
            why=f"{named(found.bent)} not affine in its statistics",
            update="natural-gradient steps with expectations by Gauss-Hermite points (quasi-random "
            "ones beyond three entries that meet), shortened where they overshoot",
            remedy=remedy,
        )


def named(terms: Any) -> str:
    """Terms in words."""
    names = sorted(set(terms))
    words = " and ".join(f"'{n}'" for n in names[:3]) + (" and others" if len(names) > 3 else "")
    return ("term " if len(names) == 1 else "terms ") + words


def choose(latent: Latent, family: Any, found: Found) -> Choice:
    """The way to deal with a site.

    Raises:
        NotDefined: if the family is no exponential family.
        UnsupportedStructure: naming site and term, if no expectation is exact or can be made so.
    """
    name = latent.name
    if not isinstance(family, ExponentialFamily):
        raise NotDefined(
            f"site '{name}' has the family {family!r}, which is no exponential family and has no "
            f'coordinate update. Use families={{"{name}": {default_for(latent.support, name)!r}}}, '
            "or fit the guide with gradients: pyro_klmodes.fit."
        )
    choice = Choice(latent, family, found)
    if isinstance(family, Bernoulli | Categorical):
        _check_discrete(name, family, found)
    elif not isinstance(family, Normal):
        _check_meeting(name, family, found, latent)
        if found.bent and not isinstance(family, MultivariateNormal):
            raise UnsupportedStructure(
                f"site '{name}' with the family {family!r} is not conjugate: {named(found.bent)} "
                "not affine in its statistics, so that their expectations have no closed form. Use "
                f'families={{"{name}": Normal()}}, a normal in unconstrained space, for which '
                "there are Gauss-Hermite expectations."
            )
    return choice


def _check_discrete(name: str, family: Any, found: Found) -> None:
    if not found.elsewhere:
        return
    if isinstance(family, Categorical) or found.bent:
        at = named(found.bent or sorted(found.elsewhere))
        raise UnsupportedStructure(
            f"site '{name}': in {at} a value depends on several elements of it at once, and the "
            "states of each would have to be summed over by itself. Put the term inside of all "
            f"plates of '{name}', give every element a site of its own, or let elements of a "
            "Bernoulli enter as numbers."
        )


def _check_meeting(name: str, family: Any, found: Found, latent: Latent) -> None:
    own = {len(latent.batch_shape)} if isinstance(family, MultivariateNormal) else set()
    for dim, term in found.meeting.items():
        if dim not in own:
            raise UnsupportedStructure(
                f"site '{name}' with the family {family!r}: its elements meet in term '{term}', "
                "which is no sum over them, so that they cannot share nodes. Give every element a "
                f'site of its own, or use families={{"{name}": Normal()}}.'
            )
