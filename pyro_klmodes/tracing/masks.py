"""What the masks of handlers and of distributions leave of a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution
from torch import Tensor

__all__ = ["mask_of", "unmasked"]


def unmasked(site: Mapping[str, Any]) -> Tensor:
    """Which elements of the batch no mask takes out."""
    keep = torch.ones(site["fn"].batch_shape, dtype=torch.bool)
    mask = mask_of(site)
    return keep if mask is None else keep & mask


def mask_of(site: Mapping[str, Any]) -> Tensor | None:
    """The masks of handlers and of the distribution together, None if there is none."""
    found: Tensor | None = None
    for mask in (site["mask"], _own_mask(site["fn"])):
        if mask is not None:
            here = torch.as_tensor(mask, device="cpu")
            found = here if found is None else found & here
    return found


def _own_mask(fn: Any) -> Tensor | bool | None:
    """The mask inside of a distribution; an event counts if any part of it does."""
    if isinstance(fn, MaskedDistribution):
        inside = _own_mask(fn.base_dist)
        mask: Tensor | bool = fn._mask
        return mask if inside is None else torch.as_tensor(mask) & torch.as_tensor(inside)
    if isinstance(fn, Independent):
        mask_in = _own_mask(fn.base_dist)
        if mask_in is None:
            return None
        whole = torch.as_tensor(mask_in).expand(fn.base_dist.batch_shape)
        events = fn.reinterpreted_batch_ndims
        return whole.flatten(-events).any(-1) if events else whole
    return None
