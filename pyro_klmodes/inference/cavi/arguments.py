"""Arguments of coordinate ascent, looked at before anything is run."""

from __future__ import annotations

from typing import Any

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.blocks import checked_blocks
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.result import FittedGuide

__all__ = ["check_counts", "checked_step", "own_blocks", "own_guide"]


def own_guide(guide: Any) -> AutoMeanField | None:
    """The guide, also of an earlier result.

    Raises:
        InvalidArgument: if it is of another kind.
    """
    if isinstance(guide, FittedGuide):
        guide = guide.to_train()
    if guide is None or isinstance(guide, AutoMeanField):
        return guide
    raise InvalidArgument(
        f"guide is {shown(guide)}; coordinate ascent has updates for the sites of an "
        "AutoMeanField. Pass AutoMeanField(model), or no guide to have one made."
    )


def own_blocks(blocks: Any, guide: AutoMeanField | None) -> tuple[tuple[str, ...], ...]:
    """Groups of names, of a guide that is to be made.

    Raises:
        InvalidArgument: if they are something else, or if there is a guide.
    """
    found = checked_blocks(blocks)
    if found and guide is not None:
        raise InvalidArgument(
            f"blocks={blocks!r} says which guide to make, and there is one. Pass "
            f"guide=AutoBlocks(model, {list(found)!r}) alone, or blocks= alone."
        )
    return found


def checked_step(step: Any) -> Any:
    """The length of steps, or the function of their number.

    Raises:
        InvalidArgument: if it is neither.
    """
    if step is None or (callable(step) and not isinstance(step, type)):
        return step
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= 1:
        raise InvalidArgument(
            f"step={shown(step)} must be a number in (0, 1], or a function of the number of the "
            "step such as RobbinsMonro()."
        )
    return step


def check_counts(steps: Any, epochs: Any, tolerance: Any, seed: Any, batches: Any) -> None:
    """Refuse numbers that are none.

    Raises:
        InvalidArgument: naming the argument.
    """
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 0
        ):
            raise InvalidArgument(f"{name}={shown(value)} must be a non-negative integer.")
    if epochs is not None and (batches is None or steps is not None):
        raise InvalidArgument(
            f"epochs={epochs} counts passes over batches: give batches=, and not steps= too."
        )
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or tolerance < 0:
        raise InvalidArgument(f"tolerance={shown(tolerance)} must be a number, 0 or more.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidArgument(f"seed={shown(seed)} must be an integer.")
