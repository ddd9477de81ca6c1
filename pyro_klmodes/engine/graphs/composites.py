"""Operations of torch that are made of others."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload

__all__ = ["stands_for_others"]

_ATEN = torch.ops.aten
_KIND = "CompositeImplicitAutograd"
_SIZES = (_ATEN.size.default, _ATEN.stride.default, _ATEN.storage_offset.default)


def stands_for_others(
    operation: OpOverload,
    on: Sequence[Tensor],  # of one device
) -> bool:
    """Whether eager code runs other operations in the place of one.

    It gets as far as a trace where nothing looks for gradients, as inside of the derivative of
    another operation.
    """
    if not _is_composite(operation):
        return False
    device = torch._C._dispatch_key_for_device(on[0].device.type) if on else "CPU"
    return not torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), device)


@functools.cache
def _is_composite(operation: OpOverload) -> bool:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return operation not in _SIZES and has_kernel(operation.name(), _KIND)
