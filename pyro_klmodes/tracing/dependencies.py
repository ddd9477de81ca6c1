"""Which sites of a model depend on which, by provenance, or nothing where that cannot be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.ops.provenance import get_provenance
from torch.overrides import TorchFunctionMode

from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["dependencies_of"]

#: what takes a value out of torch, where provenance is lost: branches, loops, numpy
_ESCAPES = {
    *("__array__", "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__"),
    *("allclose", "equal", "is_nonzero", "item", "numpy", "tolist"),
}


@same_random_state()
def dependencies_of(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What ``pyro.infer.inspect.get_dependencies`` finds, hidden from all handlers outside.

    None where provenance cannot be tracked: a prior that cannot be sampled, a branch on a latent
    value.
    """
    escapes = _Escapes()
    try:
        # validation branches on values
        with poutine.block(), pyro.validation_enabled(is_validate=False), escapes:
            found: dict[str, Any] = get_dependencies(model, args, dict(kwargs))
    except Exception:  # whatever a model does with values that are not quite tensors
        return None
    return None if escapes.seen else found


class _Escapes(TorchFunctionMode):
    """Notices when Python is told the value of a latent variable."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _ESCAPES and get_provenance(args):
            self.seen = True
        return func(*args, **(kwargs or {}))
