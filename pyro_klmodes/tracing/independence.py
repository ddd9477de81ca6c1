"""Which observed sites depend on no latent value: constants, as far as the weights go."""

from __future__ import annotations

from typing import Any

import pyro
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.ops.provenance import get_provenance
from torch.overrides import TorchFunctionMode

from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair

__all__ = ["find_independent"]

#: what takes a value out of torch, where provenance is lost: branches, loops, numpy
_ESCAPES = {
    *("__array__", "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__"),
    *("allclose", "equal", "is_nonzero", "item", "numpy", "tolist"),
}


@same_random_state()
def find_independent(
    pair: Pair,
) -> frozenset[str]:
    """Names of the model's sites whose distribution depends on no latent value, by provenance.

    Where provenance cannot be tracked (a prior that cannot be sampled, a branch on a latent value),
    no site is called independent, which costs only granularity of the weights.
    """
    escapes = _Escapes()
    try:
        # validation branches on values
        with poutine.block(), pyro.validation_enabled(is_validate=False), escapes:
            found = get_dependencies(pair.model, pair.args, dict(pair.kwargs))
    except Exception:  # whatever a model does with values that are not quite tensors
        return frozenset()
    if escapes.seen:
        return frozenset()
    upstream = found["prior_dependencies"]
    return frozenset(name for name, sources in upstream.items() if set(sources) <= {name})


class _Escapes(TorchFunctionMode):
    """Notices when Python is told the value of a latent variable."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _ESCAPES and get_provenance(args):
            self.seen = True
        return func(*args, **(kwargs or {}))
