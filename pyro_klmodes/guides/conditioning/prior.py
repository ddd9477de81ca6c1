"""The prior of a local latent as a linear function of the latents it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_klmodes.guides.conditioning.coordinates import as_event, flat, num_coordinates
from pyro_klmodes.guides.conditioning.linear import weighted
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.tracing.prior import priors_at

__all__ = ["LinearPrior", "linear_priors"]

# Half the distance of central differences, in unconstrained space. They are exact for what is
# linear; the step is long enough for single precision.
_STEP = 0.1
# The model is run twice for each coordinate that locals may depend on.
_MOST_COORDINATES = 100
# For priors that are not normal in unconstrained space.
_DRAWS = 400
_LEVELS = (0.16, 0.5, 0.84)

Coordinate = tuple[str, int]


class LinearPrior(NamedTuple):
    """Location and log-scale of a prior in unconstrained space, as ``intercept + slopes @ g``.

    Attributes:
        initial: values at the initial point, ``(*batch, 2, d)``.
        intercept: values at g = 0, ``(*batch, 2, d)``.
        slopes: by the G unconstrained coordinates before, ``(*batch, 2, d, G)``.
    """

    initial: Tensor
    intercept: Tensor
    slopes: Tensor

    @classmethod
    def constant(
        cls,
        loc: Tensor,  # (*batch, d)
        log_scale: Tensor,  # (*batch, d)
        inputs: int,
    ) -> LinearPrior:
        """A prior that depends on nothing."""
        value = torch.stack(torch.broadcast_tensors(loc, log_scale), -2)
        return cls(value, value, value.new_zeros((*value.shape, inputs)))


def linear_priors(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    latents: Mapping[str, Latent],
    initial: Mapping[str, Tensor],  # constrained, plates of the size that these arguments ask for
    upstream: Mapping[str, tuple[str, ...]],
) -> dict[str, LinearPrior]:
    """Linearise the priors of the sites in ``upstream`` around the initial point.

    Where data come in minibatches, the average over the first one stands for all. A site is left
    out if its prior is not finite there; all are, if they depend on more than 100 coordinates, as
    the model is run twice for each.
    """
    sources = {source for before in upstream.values() for source in before}
    coordinates = [c for name in sorted(sources) for c in _coordinates(latents[name])]
    if len(coordinates) > _MOST_COORDINATES:
        return {}
    runs = priors_at(model, args, kwargs, _points(latents, initial, coordinates))
    moments = [{name: _moments(fns[name], latents[name]) for name in upstream} for fns in runs]
    found = {}
    for name, before in upstream.items():
        own = [m[name] for m in moments]
        pairs = zip(own[1::2], own[2::2], strict=True)
        slope = {c: (a - b) / (2 * _STEP) for c, (a, b) in zip(coordinates, pairs, strict=True)}
        at = [flat(latents[s], latents[s].transform.inv(initial[s])) for s in before]
        slopes = torch.stack([slope[c] for s in before for c in _coordinates(latents[s])], -1)
        g = torch.cat([x.expand(*own[0].shape[:-2], -1) for x in at], -1)
        prior = LinearPrior(own[0], own[0] - weighted(slopes, g), slopes)
        if all(bool(torch.isfinite(x).all()) for x in prior):
            found[name] = _reduced(prior, latents[name])
    return found


def _coordinates(latent: Latent) -> list[Coordinate]:
    return [(latent.name, i) for i in range(num_coordinates(latent))]


def _points(
    latents: Mapping[str, Latent],
    initial: Mapping[str, Tensor],
    coordinates: list[Coordinate],
) -> Iterator[dict[str, Tensor]]:
    """The initial point, and two more for each coordinate: all elements of a plate are moved."""
    yield dict(initial)
    for name, i in coordinates:
        latent = latents[name]
        u = latent.transform.inv(initial[name])
        step = u.new_zeros(num_coordinates(latent))
        step[i] = _STEP
        step = as_event(latent, step)
        yield {**initial, name: latent.transform(u + step)}
        yield {**initial, name: latent.transform(u - step)}


def _reduced(prior: LinearPrior, latent: Latent) -> LinearPrior:
    """One prior for all elements, if they have the same or if not all of them have been seen."""
    batch_dim = prior.intercept.dim() - 2
    if not batch_dim:
        return prior
    means = LinearPrior(*(x.mean(tuple(range(batch_dim))) for x in prior))
    parts = zip(prior[1:], means[1:], strict=True)
    same = all(torch.allclose(x, m.expand_as(x), rtol=1e-4, atol=1e-5) for x, m in parts)
    return means if latent.subsampled or same else prior


def _moments(fn: Any, latent: Latent) -> Tensor:  # (*batch, 2, d)
    """Location and log-scale of a prior in unconstrained space."""
    loc, scale = _location_and_scale(fn, latent)
    parts = (flat(latent, x) for x in (loc, scale.log()))
    return torch.stack(torch.broadcast_tensors(*parts), -2)


def _location_and_scale(fn: Any, latent: Latent) -> tuple[Tensor, Tensor]:
    inner = fn
    while isinstance(inner, dist.Independent | dist.MaskedDistribution):
        inner = inner.base_dist
    if isinstance(inner, dist.LogNormal):
        return inner.loc, inner.scale
    if isinstance(inner, dist.Normal | dist.MultivariateNormal):
        return inner.mean, inner.stddev
    # the same random numbers at every point, so that differences are smooth
    u = latent.transform.inv(fn.sample(torch.Size([_DRAWS])))
    levels = torch.tensor(_LEVELS, dtype=u.dtype, device=u.device)
    low, loc, high = torch.quantile(u, levels, dim=0)
    return loc, (high - low) / 2
