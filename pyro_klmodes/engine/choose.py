"""Which engine a fit gets, decided from what is known beforehand so that it is always the same."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

from pyro_klmodes.engine.backends import Tier
from pyro_klmodes.engine.backends.costs import compile_seconds, step_seconds
from pyro_klmodes.errors import InvalidArgument

__all__ = ["Choice", "Plan", "check_choice", "make_plan", "worth_lifting"]

Choice = Literal["auto", "eager", "graph", "inductor", "aot"]

#: steps that pay for writing the step down and checking it, one to three seconds
_WORTH_LIFTING = 500
#: a saving that is only just one is not worth a compiler
_MARGIN = 2.0


def check_choice(engine: Any) -> None:
    """Refuse what is none of the engines.

    Raises:
        InvalidArgument: naming them.
    """
    if engine not in get_args(Choice):
        raise InvalidArgument(f"engine={engine!r} must be one of {list(get_args(Choice))}.")


def worth_lifting(steps: int | None) -> bool:
    """Whether a fit of so many steps is long enough; one of unknown length may not be."""
    return steps is not None and steps >= _WORTH_LIFTING


class Plan(NamedTuple):
    """What runs the steps from which one on; the graph is interpreted before.

    Attributes:
        tier: what runs them.
        since: the first step.
        reason: in words.
    """

    tier: Tier
    since: int
    reason: str


def make_plan(
    steps: int,
    operations: int,
    *,
    compiler: bool,
) -> Plan:
    """What takes the least time.

    Args:
        steps: how many there are.
        operations: of a step.
        compiler: whether there is a C++ compiler.
    """
    if not compiler:
        return Plan("graph", 0, "There is no C++ compiler; the graph is interpreted.")
    interpreted = step_seconds("graph", operations)
    tiers: tuple[Tier, ...] = ("graph", "inductor", "aot")
    total = {
        tier: _MARGIN * compile_seconds(tier, operations) + steps * step_seconds(tier, operations)
        for tier in tiers
    }
    tier = min(tiers, key=lambda t: total[t])
    price = compile_seconds(tier, operations)
    saved = steps * (interpreted - step_seconds(tier, operations))
    if tier == "graph":
        return Plan("graph", 0, f"{steps} steps are too few to pay for a compiler.")
    # compiled meanwhile; always from the same step on, so that results are always the same
    since = math.ceil(price / interpreted)
    reason = f"Compiling takes about {price:.0f} s and saves about {saved:.0f} s."
    return Plan(tier, since, reason)
