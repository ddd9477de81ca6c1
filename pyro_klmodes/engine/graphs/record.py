"""Write down the tensor operations of a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["record"]


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """Run a function once, and return the graph of what it did.

    That is ``make_fx``, told beforehand in which mode the shapes of results are noted; otherwise it
    sets up a new one for every operation, a third of its time.

    Args:
        function: of tensors, giving tensors.
        inputs: each a tensor of its own: inputs are known by which tensor they are.

    Example:
        >>> import torch
        >>> graph = record(lambda x, y: (x * y,), [torch.ones(2), torch.ones(2)])
        >>> [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
        ['aten.mul.Tensor']
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*inputs)
