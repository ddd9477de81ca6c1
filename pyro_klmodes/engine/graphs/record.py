"""Write down the tensor operations of a function."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node, _symbolic_trace
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_klmodes.engine.graphs.composites import stands_for_others
from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.python_numbers import PythonNumbers
from pyro_klmodes.engine.graphs.values import append_held, without_data

__all__ = ["is_recorded", "record"]

_LIFT = torch.ops.aten.lift_fresh.default
_LIFT_COPY = torch.ops.aten.lift_fresh_copy.default
_TENSORS = (Tensor, torch.nn.Parameter)
_OTHERS = (
    *(bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """Run a function once, and return the graph of what it did.

    Tensors that it finds elsewhere, or makes of numbers, are constants of the graph. That is
    ``make_fx``, for plain tensors only and several times faster.

    Args:
        function: of tensors, giving a flat tuple of tensors.
        inputs: each a tensor of its own: inputs are known by which tensor they are.

    Raises:
        RuntimeError: if the function looks at a number that depends on its inputs.

    Example:
        >>> import torch
        >>> graph = record(lambda x, y: (x * y,), [torch.ones(2), torch.ones(2)])
        >>> [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
        ['aten.mul.Tensor']
    """
    recorder = _Recorder(inputs)
    token = _ACTIVE.set(recorder)
    try:
        with _no_kept_casts(), _no_compiled_functions(), recorder:
            results = function(*inputs)
    finally:
        _ACTIVE.reset(token)
    return recorder.finished(results)


def is_recorded(x: Tensor) -> bool:
    """Whether what depends on a tensor is being written down."""
    recorder = _ACTIVE.get()
    return recorder is not None and (x.requires_grad or recorder.knows(x))


@contextmanager
def _no_kept_casts() -> Iterator[None]:
    """Casts of parameters that autocast keeps from before would be constants."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def _no_compiled_functions() -> Iterator[None]:
    """Have torch refuse to run what it has compiled, as nobody sees what its kernels do.

    It does while it traces itself. Nor may it compile, as for ``torch.cond``: it would keep what it
    finds out under a mode.
    """
    set_stance: Any = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    before = _symbolic_trace._is_fx_tracing_flag
    _symbolic_trace._is_fx_tracing_flag = True
    try:
        with nullcontext() if set_stance is None else set_stance("force_eager"):
            yield
    finally:
        _symbolic_trace._is_fx_tracing_flag = before


class _Recorder(TorchDispatchMode):
    """Sees every operation below autograd and ``vmap``, where all tensors are plain."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._graph = Graph()
        self._held: dict[str, Any] = {}
        self._nodes = WeakTensorKeyDictionary()  # of inputs, and of what was computed
        self._numbers = PythonNumbers()
        for i, x in enumerate(inputs):
            self._note(x, self._graph.placeholder(f"input_{i}"))

    def knows(self, x: Tensor) -> bool:
        """Whether a tensor is the result of a node."""
        return x in self._nodes

    def finished(self, results: Any) -> GraphModule:
        """The graph, given what the function returned."""
        self._graph.output(map_aggregate(results, self._written))
        return module_of(self._held, self._graph)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do one operation, and write it down."""
        named = dict(kwargs or {})
        tensors = list(_tensors_in((*args, *named.values())))
        recorded = [x for x in tensors if x in self._nodes]
        if any(type(x) not in _TENSORS and x not in self._nodes for x in tensors):
            return NotImplemented  # tensors of another kind do it themselves
        if stands_for_others(func, tensors):
            with self:
                return func.decompose(*args, **named)
        if torch.Tag.data_dependent_output in func.tags:
            if not self._numbers.hold(recorded):
                raise RuntimeError(f"{func} would get value out of a tracing tensor")
            return self._numbers.compute(func, args, named)
        if func is _LIFT:  # constants may not be written to, and what is made of numbers may
            func = _LIFT_COPY
        result = func(*args, **named)
        written = map_aggregate(args, self._written), map_aggregate(named, self._written)
        self._numbers.note(func, args, named, recorded, result)
        self._note(result, self._graph.call_function(func, *written))
        return result

    def _note(self, result: Any, node: Node) -> None:
        """Remember of which node something is the result; parts of a tuple get nodes too."""
        node.meta["val"] = without_data(result)
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(result, list | tuple):
            for i, part in enumerate(result):
                self._note(part, self._graph.call_function(operator.getitem, (node, i)))

    def _written(self, value: Any) -> Any:
        """How an argument stands in the graph."""
        if isinstance(value, Tensor):
            if value not in self._nodes:
                return append_held(self._graph, self._held, value)
            return self._nodes[value]
        if not isinstance(value, _OTHERS):
            raise NotImplementedError(f"an argument is of the kind {type(value).__name__}")
        return value


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


_ACTIVE: ContextVar[_Recorder | None] = ContextVar("_ACTIVE", default=None)
