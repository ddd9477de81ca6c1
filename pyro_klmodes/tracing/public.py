"""``draws``: the log-weights of any pair, for those who want to look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.many_draws import many_draws
from pyro_klmodes.tracing.runs import Pair

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
    if not isinstance(args, tuple | list):
        raise InvalidArgument(f"args must be a tuple of arguments; pass ({type(args).__name__},).")
    return many_draws(
        Pair(model, guide, tuple(args), kwargs or {}),
        num_particles,
        vectorise=vectorize_particles,
        by_site=by_site,
    )
