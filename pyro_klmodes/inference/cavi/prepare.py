"""From a model and its arguments to a plan: look, probe, choose families and rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides import AutoBlocks, AutoMeanField
from pyro_klmodes.guides.block_families import block_families
from pyro_klmodes.guides.latents import Latent, latents_of
from pyro_klmodes.guides.site_families import Bernoulli, Categorical, Normal
from pyro_klmodes.inference.cavi.blocks import choose_block
from pyro_klmodes.inference.cavi.choice import Choice, choose
from pyro_klmodes.inference.cavi.conjugate import conjugate_family
from pyro_klmodes.inference.cavi.expectation import Expectation
from pyro_klmodes.inference.cavi.plan import Plan
from pyro_klmodes.inference.cavi.report import ConjugacyReport
from pyro_klmodes.inference.cavi.state import GuideState
from pyro_klmodes.inference.cavi.structure import Probe
from pyro_klmodes.inference.cavi.sweep import Sweeper
from pyro_klmodes.tracing.node_runs import NodeModel
from pyro_klmodes.tracing.prototype import prototype_of
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["Prepared", "prepare"]


@dataclass
class Prepared:
    """A model ready for sweeps.

    Attributes:
        guide: the guide, with parameters.
        state: its parameters.
        plan: what was decided.
        sweeper: of the sites, at the parameters that the guide had.
    """

    guide: AutoMeanField
    state: GuideState
    plan: Plan
    sweeper: Sweeper

    def store(self) -> None:
        """Write the present parameters to the guide."""
        self.state.update(self.sweeper.params, self.plan.model.indices)
        self.state.write()

    def at(self, model: NodeModel) -> None:
        """Go on with another minibatch."""
        self.state.update(self.sweeper.params, self.plan.model.indices)
        self.plan.bind(model)
        params = self.state.batch(model.indices)
        self.sweeper = Sweeper(self.sweeper.expectation, params, self.sweeper.lengths)


def prepare(
    model: Callable[..., Any],
    guide: AutoMeanField | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    exact: bool,
    blocks: Sequence[Sequence[str]] = (),
    full_call: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None,
) -> Prepared:
    """Look at a model and decide how every site is updated.

    Args:
        model: a Pyro model.
        guide: for it; None to make one with conjugate families.
        args: what both are called with.
        kwargs: likewise.
        exact: whether sites that are not conjugate are refused.
        blocks: sites that share a factor in the guide to make.
        full_call: arguments with all data, if those are a minibatch: the guide is made for them.

    Raises:
        UnsupportedStructure, InvalidArgument, NotDefined: naming the site and what to change.
    """
    run = NodeModel(model, args, kwargs)
    run.look()
    if not run.sites:
        raise UnsupportedStructure(
            "the model has no latent sites: all of them are observed or blocked, and there is "
            "nothing to update."
        )
    whole = full_call or (args, kwargs)
    if guide is None:
        guide = _made(model, run, whole, blocks)
    guide(*whole[0], **whole[1])
    if whole != (args, kwargs):
        guide(*args, **kwargs)
    _check_guide(guide, run)
    probe = Probe(run, guide.latents)
    choices: dict[str, Choice] = {}
    better = {}
    joint = [choose_block(probe, block) for block in getattr(guide, "blocks", ())]
    in_blocks = {name: block for block in joint for name in block.sites}
    for name in run.sites:
        if name in in_blocks:
            choices[name] = in_blocks[name].choices[name]
            continue
        latent, family = guide.latents[name], guide.families[name]
        choices[name] = choose(latent, family, _found(probe, name, family, latent))
        if not choices[name].exact and choices[name].found.bent:
            other, found = conjugate_family(latent, probe)
            better[name] = other if not found.bent and other != family else None
    reports = {n: c.report(better.get(n)) for n, c in choices.items() if n not in in_blocks}
    for block in joint:
        reports.update(block.report())
    report = ConjugacyReport({n: reports[n] for n in choices})
    if exact and not report.conjugate:
        lines = "\n".join(f"  {report[name]}" for name in report.others)
        raise UnsupportedStructure(
            f"exact=True, and {len(report.others)} of {len(choices)} sites are not conditionally "
            f"conjugate:\n{lines}\nChange their families or priors, or use exact=False."
        )
    plan = Plan(run, choices, report, joint)
    state = GuideState(guide)
    expectation = Expectation(plan)
    sweeper = Sweeper(expectation, state.batch(run.indices))
    plan.settle(sweeper.nodes())
    return Prepared(guide, state, plan, sweeper)


def _found(probe: Probe, name: str, family: Any, latent: Latent) -> Any:
    """What the probe finds; families without statistics are refused later, by name."""
    discrete = isinstance(family, Bernoulli | Categorical)
    known = hasattr(family, "sufficient_statistics")
    return probe(name, family if discrete or known else Normal())


def _made(
    model: Callable[..., Any],
    run: NodeModel,
    call: tuple[tuple[Any, ...], Mapping[str, Any]],
    blocks: Sequence[Sequence[str]],
) -> AutoMeanField:
    """A guide with a conjugate family for every site that has one, and a joint one for blocks.

    Sites marked for enumeration are latent here: the guide is given the model without the marks.
    """
    bare = poutine.infer_config(model, config_fn=_unmarked)
    first = AutoMeanField(bare)
    with same_random_state(), torch.no_grad():
        latents = latents_of(prototype_of(bare, run.args, run.kwargs, first.init_loc_fn))
    probe = Probe(run, latents)
    block_families(blocks, latents)  # complains of blocks
    alone = [name for name in run.sites if not any(name in block for block in blocks)]
    families = {name: conjugate_family(latents[name], probe)[0] for name in alone}
    if blocks:
        return AutoBlocks(bare, blocks, families=families)
    return AutoMeanField(bare, families=families)


def _unmarked(site: Mapping[str, Any]) -> dict[str, Any]:
    return {"enumerate": None} if "enumerate" in site["infer"] else {}


def _check_guide(guide: AutoMeanField, run: NodeModel) -> None:
    for name, view in run.sites.items():
        if name not in guide.latents:
            marked = " It is marked for enumeration; take the mark off." if view.enumerated else ""
            raise InvalidArgument(
                f"the guide has no site '{name}', which the model draws: it was made for another "
                f"model.{marked} Leave the guide out to have one made."
            )
    for name in guide.latents:
        if name not in run.sites:
            raise InvalidArgument(
                f"the guide has the site '{name}', which is no latent of the model: it was made "
                "for another model."
            )
