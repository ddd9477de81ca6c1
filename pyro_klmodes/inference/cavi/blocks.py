"""Sites that share a factor: whether the model is jointly conjugate, and the rule for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.block_families import (
    BlockFamily,
    JointNormal,
    JointStates,
    NormalGamma,
    NormalWishart,
)
from pyro_klmodes.guides.site_families import Normal
from pyro_klmodes.inference.cavi.choice import Choice, named
from pyro_klmodes.inference.cavi.joint_structure import look_jointly
from pyro_klmodes.inference.cavi.report import SiteReport
from pyro_klmodes.inference.cavi.rules.base import JointRule
from pyro_klmodes.inference.cavi.rules.joint_normal import JointNormalRule
from pyro_klmodes.inference.cavi.rules.joint_states import JointStatesRule
from pyro_klmodes.inference.cavi.rules.normal_wishart import NormalWishartRule
from pyro_klmodes.inference.cavi.structure import Found, Probe
from pyro_klmodes.tracing.node_runs import SiteView

__all__ = ["BlockChoice", "choose_block"]

_MOST_STATES = 100_000


@dataclass(frozen=True)
class BlockChoice:
    """How a block is dealt with.

    Attributes:
        family: of its factor.
        found: how terms depend on all of its sites together.
        choices: what was found out about each of them.
    """

    family: BlockFamily
    found: Found
    choices: Mapping[str, Choice]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return self.family.sites

    def rule(self) -> JointRule:
        """The rule for all sites."""
        if isinstance(self.family, JointStates):
            return JointStatesRule(self.family)
        if isinstance(self.family, NormalWishart):
            return NormalWishartRule(self.family)
        assert isinstance(self.family, JointNormal | NormalGamma)
        return JointNormalRule(self.family)

    def report(self) -> dict[str, SiteReport]:
        """In words, by site."""
        terms = frozenset().union(*(c.found.terms for c in self.choices.values()))
        why = f"all {len(terms)} terms are affine in the statistics of the block"
        return {
            name: SiteReport(
                name,
                repr(self.family),
                conjugate=True,
                why=why,
                update="exact coordinate update of the block",
            )
            for name in self.sites
        }


def choose_block(probe: Probe, family: BlockFamily) -> BlockChoice:
    """Look at a block.

    Raises:
        UnsupportedStructure: naming sites, terms and what to change, if the block has no exact
            update.
    """
    views = {name: probe.model.sites[name] for name in family.sites}
    _check_minibatch(family, views)
    _check_masks(family, views)
    choices = {}
    for latent in family.latents:
        own: Any = None if latent.discrete else Normal()
        if isinstance(family, NormalGamma) and latent is family.tau:
            own = NormalGamma.family
        if isinstance(family, NormalWishart) and latent is family.matrix:
            own = NormalWishart.family
        choices[latent.name] = Choice(latent, own, probe(latent.name, own))
    if isinstance(family, JointStates):
        _check_states(family, choices)
        return BlockChoice(family, Found(), choices)
    found = look_jointly(probe, family)
    if found.bent:
        raise UnsupportedStructure(_not_conjugate(family, found))
    if found.meeting:
        raise UnsupportedStructure(
            f"block {family!r}: elements of a plate meet in {named(found.meeting.values())}, which "
            "is no sum over them, so that they cannot share nodes. Put the elements in one vector, "
            "with .to_event(1), or take the site out of the block."
        )
    return BlockChoice(family, found, choices)


def _not_conjugate(family: BlockFamily, found: Found) -> str:
    start = (
        f"block {family!r} is not jointly conjugate: {named(found.bent)} not affine in its joint "
        "statistics"
    )
    names = " and ".join(f"'{n}'" for n in family.sites[1:])
    if isinstance(family, NormalGamma):
        tau = family.tau.name
        return (
            f"{start}. Given '{tau}', terms must be quadratic in {names} with precisions in units "
            f"of '{tau}', also the priors: Normal(m, ({tau} * k).rsqrt()). Or leave the block out, "
            "for independent factors."
        )
    if isinstance(family, NormalWishart):
        matrix = family.matrix.name
        return (
            f"{start}. Given '{matrix}', terms must be normal in {names} with multiples of it as "
            f"precision, also the prior: MultivariateNormal(m, precision_matrix=k * {matrix}). Or "
            "leave the block out, for independent factors."
        )
    return (
        f"{start}: they must be quadratic in all of {', '.join(repr(n) for n in family.sites)} "
        "together. A product of two sites is not; leave such sites out of one block."
    )


def _check_minibatch(family: BlockFamily, views: Mapping[str, SiteView]) -> None:
    first, *rest = (views[n] for n in family.sites)
    for view in rest:
        if not math.isclose(view.ratio, first.ratio):
            raise UnsupportedStructure(
                f"block {family!r}: site '{view.name}' sees a minibatch and '{first.name}' does "
                "not. The factor of a block is updated as a whole: pass all data, or take "
                f"'{view.name}' out of the block."
            )


def _check_masks(family: BlockFamily, views: Mapping[str, SiteView]) -> None:
    for view in views.values():
        if view.mask is not None and not bool(view.mask.all()):
            raise UnsupportedStructure(
                f"block {family!r}: site '{view.name}' is masked in places, where its factor would "
                "have no update. Take it out of the block, or mask observed sites only."
            )


def _check_states(family: JointStates, choices: Mapping[str, Choice]) -> None:
    total = math.prod(family.numbers)
    if total > _MOST_STATES:
        raise UnsupportedStructure(
            f"block {family!r} has {total:,} combinations of states; {_MOST_STATES:,} is the "
            "limit. Make smaller blocks."
        )
    for name, choice in choices.items():
        if choice.found.elsewhere:
            raise UnsupportedStructure(
                f"block {family!r}: in {named(choice.found.elsewhere)} a value depends on several "
                f"elements of '{name}' at once, which a table for each element does not hold. Give "
                "every element a site of its own, all in one block."
            )
