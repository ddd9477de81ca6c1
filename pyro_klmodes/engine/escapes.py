"""Ways out of torch by which numbers reach Python unseen while a step is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.graphs.record import is_recorded

__all__ = ["NoEscape"]

#: these hand out the memory of a tensor, which no operation of the graph can tell
_TO_NUMPY = (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
_TO_PYTHON = (Tensor.tolist, Tensor.__reduce_ex__, Tensor.__deepcopy__)


class NoEscape(TorchFunctionMode):
    """Refuses to hand out numbers of tensors that depend on what goes into the graph.

    ``item`` and branches raise by themselves while torch traces; these would not.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every call of torch inside."""
        if (func in _TO_NUMPY or func in _TO_PYTHON) and is_recorded(args[0]):
            kind = "a numpy array" if func in _TO_NUMPY else "Python numbers"
            raise CannotLift(f"a tensor is turned into {kind}, which a graph cannot follow")
        return func(*args, **(kwargs or {}))
