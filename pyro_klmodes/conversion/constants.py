"""What a model is called with besides the data it observes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_klmodes.tracing.observed import parameter_names

__all__ = ["constants"]


def constants(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    observed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The tensors and arrays among the arguments that are not observed, by parameter name."""
    names = parameter_names(model)
    names += [f"argument_{i}" for i in range(len(names), len(args))]
    found = {}
    for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.as_tensor(value)
        if isinstance(value, Tensor) and not any(_same(value, x) for x in observed.values()):
            found[name] = value.detach()
    return found


def _same(value: Tensor, observed: Tensor) -> bool:
    """Whether an argument is what a site observes, up to what is masked out."""
    if value.shape != observed.shape:
        return False
    seen = ~observed.isnan()
    return bool((value.to(observed)[seen] == observed[seen]).all()) and bool(seen.any())
