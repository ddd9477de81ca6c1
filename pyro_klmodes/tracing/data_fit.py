"""Whether data have the shape, the precision and the values that a model's sites can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.tracing.masks import mask_of
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["check_data"]


@same_random_state()
def check_data(model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Run a model once, hidden from outer handlers, and look at what it observes.

    Raises:
        InvalidArgument: naming an observed site with data that its plates do not hold, or of
            another precision than the default, and the empty tensor if there is one and the model
            does not run with it.
        NonFiniteLoss: naming an observed site with infinite data.
    """
    try:
        with poutine.block(), torch.no_grad():
            trace = poutine.trace(model).get_trace(*args, **kwargs)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        empty = [n for n, x in _named(args, kwargs) if isinstance(x, Tensor) and not x.numel()]
        if empty:
            raise InvalidArgument(
                f"{empty[0]} is empty, and the model does not run with it ({error})."
            ) from error
        raise
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and site["is_observed"] and isinstance(site["value"], Tensor):
            _check(name, site)


def _check(name: str, site: Mapping[str, Any]) -> None:
    value, fn = site["value"], site["fn"]
    frames = {f.dim: f for f in site["cond_indep_stack"] if f.vectorized}
    cut = value.dim() - fn.event_dim
    for dim, size in enumerate(value.shape[: max(cut, 0)], start=-cut):
        allowed = frames[dim].size if dim in frames else _size(fn.batch_shape, dim)
        if size not in (1, allowed):
            where = f"plate '{frames[dim].name}' has {allowed}" if dim in frames else "no plate"
            raise InvalidArgument(
                f"data of observed site '{name}' have the shape {tuple(value.shape)}, of which "
                f"dimension {dim - fn.event_dim} has {size} elements: {where} there. Check the "
                "shape of the data, or give the model a plate or to_event(1) for it."
            )
    default = torch.get_default_dtype()
    if value.is_floating_point() and torch.promote_types(value.dtype, default) != default:
        raise InvalidArgument(
            f"data of observed site '{name}' are {value.dtype}, and the default is {default}. "
            f"Convert them, x.to({default}), or call torch.set_default_dtype({value.dtype}) first."
        )
    mask = mask_of(site)
    bad = value.isinf() if value.is_floating_point() else torch.zeros(())
    if mask is None and bool(bad.any()):
        raise NonFiniteLoss(
            f"{int(bad.sum())} of {value.numel()} values of observed site '{name}' are infinite. "
            "Check the data, or mask what is missing."
        )


def _size(shape: torch.Size, dim: int) -> int:
    return shape[dim] if -dim <= len(shape) else 1


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    positional = [(f"argument {number}", x) for number, x in enumerate(args)]
    return [*positional, *((f"argument '{n}'", x) for n, x in kwargs.items())]
