"""``draws``: the log-weights of any pair, for those who want to look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.blocks_of_draws import block_sizes, joined
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.survey import survey

__all__ = ["draws"]


def draws(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    num_particles: int = 1000,
    vectorize_particles: bool = True,
    by_site: bool = False,
) -> Draws:
    r"""Draw K particles from a guide and weigh them: :math:`\log w = \log p(x, z) - \log q(z)`.

    All particles see the same minibatch; masks are applied; model sites marked for enumeration
    are summed out; weights are per cell of the local plates, see ``Draws``. No gradients.

    Particles are drawn and weighed in blocks, so that memory stays bounded whatever K: all blocks
    but the last have 2**22 numbers in the sites of model and guide, or one particle. A model that
    does not broadcast over a batch dimension is mapped over the particles of a block.

    Args:
        model: a Pyro model.
        guide: a guide for it.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_particles: K.
        vectorize_particles: whether the particles of a block share one run, or map.
        by_site: whether to add the densities of every latent site, and with them ``log_prior`` and
            ``log_likelihood``.

    Returns:
        ``log_p`` and ``log_q`` of shape ``(K, *local)``, ``scale``, ``plates``, ``values``.

    Raises:
        InvalidArgument: if ``num_particles`` is not a positive integer.
        ModelGuideMismatch, UnsupportedStructure: as training would.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     with pyro.plate("data", 3):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))
        >>> def guide():
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("z", dist.Normal(0.0, 0.5 ** 0.5))
        >>> d = draws(model, guide, num_particles=5)
        >>> d.plates, tuple(d.log_w.shape)
        (('data',), (5, 3))
        >>> bool(torch.allclose(d.log_w, torch.tensor(-1.2655), atol=1e-4))
        True
    """
    if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 1:
        raise InvalidArgument(f"num_particles={num_particles!r} must be a positive integer.")
    if not isinstance(args, tuple | list):
        raise InvalidArgument(f"args must be a tuple of arguments; pass ({type(args).__name__},).")
    pair = Pair(model, guide, tuple(args), kwargs or {})
    layout = survey(pair, vectorise=vectorize_particles)
    whole = by_site and not layout.together  # then every particle may have sites of its own
    blocks = [num_particles] if whole else block_sizes(num_particles, layout.numbers)
    parts: list[Draws] = []
    indices: Mapping[str, Tensor] = {}
    with torch.no_grad():
        for size in blocks:
            run = partial(sample, pair, layout, size, Cut.DRAWS, by_site=by_site, fixed=indices)
            part = _without_validation(run) if parts else run()
            parts.append(part if not parts else replace(part, terms=()))  # they are large
            indices = part.indices
    return joined(parts)


def _without_validation(run: Callable[[], Draws]) -> Draws:
    """A block after the first one, which was validated: checks cost a third of the time.

    Where a log-density is not a number the block is repeated, for validation to name the site.
    """
    before = torch.get_rng_state()
    with pyro.validation_enabled(is_validate=False):
        found = run()
    if not bool((found.log_p.isnan() | found.log_q.isnan()).any()):
        return found
    torch.set_rng_state(before)
    return run()
