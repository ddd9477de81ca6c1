"""The unconstrained coordinates of a site's event, side by side."""

from __future__ import annotations

from torch import Tensor

from pyro_klmodes.guides.latents import Latent

__all__ = ["as_event", "flat", "initial_coordinates", "num_coordinates"]


def num_coordinates(latent: Latent) -> int:
    """How many there are, d."""
    return latent.unconstrained_event_shape.numel()


def flat(
    latent: Latent,
    u: Tensor,  # (*batch, *unconstrained_event_shape)
) -> Tensor:  # (*batch, d)
    """The event in one dimension, also if it has none."""
    event_dim = len(latent.unconstrained_event_shape)
    return u.reshape(*u.shape[: u.dim() - event_dim], num_coordinates(latent))


def as_event(
    latent: Latent,
    u: Tensor,  # (*batch, d)
) -> Tensor:  # (*batch, *unconstrained_event_shape)
    """The event in its shape."""
    return u.reshape(u.shape[:-1] + latent.unconstrained_event_shape)


def initial_coordinates(latent: Latent) -> Tensor:  # (*batch_shape, d)
    """Where the guide starts, over all data."""
    return flat(latent, latent.unconstrained.detach())
