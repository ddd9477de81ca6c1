"""Many weighed draws of a pair, block by block, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.blocks_of_draws import block_sizes, joined
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Pair, RunsModel
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.survey import survey

__all__ = ["ChoosesRun", "many_draws"]

#: given the layout of a pair and the sizes of the blocks, how the model is run; None for as ever
ChoosesRun: TypeAlias = Callable[[Layout, list[int]], RunsModel | None]


def many_draws(
    pair: Pair,
    count: int,
    *,
    vectorise: bool = True,
    by_site: bool = False,
    by: ChoosesRun | None = None,
) -> Draws:
    """Draw particles from the guide of a pair and weigh them.

    Args:
        pair: a model and a guide for it.
        count: K.
        vectorise: whether the particles of a block share one run, or map.
        by_site: whether to add the densities of every latent site.
        by: chooses how the model is run, for log-weights that are the same up to rounding; the
            guide is run as ever.

    Raises:
        InvalidArgument: if the number of particles is not a positive integer.
        ModelGuideMismatch, UnsupportedStructure: as training would.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidArgument(f"num_particles={count!r} must be a positive integer.")
    layout = survey(pair, vectorise=vectorise)
    whole = by_site and not layout.together  # then every particle may have sites of its own
    blocks = [count] if whole else block_sizes(count, layout.numbers)
    chosen = None if by is None else by(layout, blocks)
    parts: list[Draws] = []
    indices: Mapping[str, Tensor] = {}
    with torch.no_grad():
        for size in blocks:
            run = partial(sample, pair, layout, size, Cut.DRAWS, by_site=by_site, fixed=indices)
            part = _without_validation(run, chosen) if parts else run(by=chosen)
            parts.append(part if not parts else replace(part, terms=()))  # they are large
            indices = part.indices
    return joined(parts)


def _without_validation(run: Callable[..., Draws], by: RunsModel | None) -> Draws:
    """A block after the first one, which was validated: checks cost a third of the time.

    Where a log-density is not a number the block is repeated, for validation to name the site.
    """
    before = torch.get_rng_state()
    with pyro.validation_enabled(is_validate=False):
        found = run(by=by)
    if not bool((found.log_p.isnan() | found.log_q.isnan()).any()):
        return found
    torch.set_rng_state(before)
    return run()
