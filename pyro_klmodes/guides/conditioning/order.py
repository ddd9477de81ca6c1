"""In which order a guide draws the sites, and which of them a site can be conditioned on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pyro_klmodes.guides.latents import Latent

__all__ = ["outer_first", "visible"]


def outer_first(latents: Mapping[str, Latent]) -> list[str]:
    """Names of the sites, those in fewer plates first, else as in the model.

    A site in a plate can be conditioned on one outside, of which there is one value for all of its
    elements, but not the other way round.
    """
    return sorted(latents, key=lambda name: len(latents[name].plates))


def visible(latents: Mapping[str, Latent], order: list[str]) -> dict[str, tuple[str, ...]]:
    """The sites before each one that have exactly one value for each of its elements.

    These are the sites in the same plates or in some of them: never another element's.
    """
    return {
        name: tuple(o for o in order[:i] if _has_one_value_for(latents[o], latents[name]))
        for i, name in enumerate(order)
    }


def _has_one_value_for(outer: Latent, inner: Latent) -> bool:
    if not outer.plates.keys() <= inner.plates.keys():
        return False
    # batch dimensions without a plate are elements, too
    padding = [1] * (len(inner.batch_shape) - len(outer.batch_shape))
    padded = torch.Size(padding) + outer.batch_shape
    return len(padded) == len(inner.batch_shape) and all(
        mine in (1, theirs) for mine, theirs in zip(padded, inner.batch_shape, strict=True)
    )
