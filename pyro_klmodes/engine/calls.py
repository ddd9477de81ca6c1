"""What model and guide are called with, taken apart into tensors and everything else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Arguments", "kind_of"]

#: compared by value; anything else only by which object it is
_BY_VALUE = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.Size)


class Arguments(NamedTuple):
    """The arguments of a call.

    Attributes:
        tensors: the tensors among them, which are inputs of a graph.
        rest: everything else in its place, and ``None`` where the tensors belong.
        where: positions of the tensors.
        spec: how lists, tuples and dicts were nested.
    """

    tensors: tuple[Tensor, ...]
    rest: tuple[Any, ...]
    where: tuple[int, ...]
    spec: Any

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Take a call apart."""
        flat, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        where = tuple(i for i, x in enumerate(flat) if isinstance(x, Tensor))
        rest = tuple(None if isinstance(x, Tensor) else x for x in flat)
        return cls(tuple(flat[i] for i in where), rest, where, spec)

    def call_with(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with other tensors."""
        flat = list(self.rest)
        for i, tensor in zip(self.where, tensors, strict=True):
            flat[i] = tensor
        args, kwargs = pytree.tree_unflatten(flat, self.spec)
        return args, kwargs

    @property
    def kind(self) -> Hashable:
        """What a graph depends on: shapes and types of tensors, and everything that is none.

        Objects count by which they are: keep these arguments as long as their kind is in use.
        """
        first = {id(x): i for i, x in reversed(list(enumerate(self.tensors)))}
        return (
            self.spec,
            self.where,
            tuple((*kind_of(x), first[id(x)]) for x in self.tensors),
            tuple((type(x), repr(x)) if isinstance(x, _BY_VALUE) else id(x) for x in self.rest),
        )

    @property
    def objects(self) -> dict[str, Any]:
        """What is neither tensor nor compared by value, by name."""
        return {
            f"the argument of type {type(x).__name__} (number {i + 1})": x
            for i, x in enumerate(self.rest)
            if not isinstance(x, _BY_VALUE)
        }

    @property
    def named_tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {f"tensor {i + 1} of the arguments": x for i, x in enumerate(self.tensors)}

    @property
    def why_not_plain(self) -> str | None:
        """Which of the tensors a graph cannot take, None if it can take all."""
        for name, x in self.named_tensors.items():
            if x.requires_grad:
                return f"a gradient is wanted for {name} (requires_grad=True)"
            if x.layout is not torch.strided or type(x) not in (Tensor, torch.nn.Parameter):
                return f"{name} is not an ordinary dense tensor"
        return None


def kind_of(x: Tensor) -> tuple[Hashable, ...]:
    """What a graph depends on of a tensor, beside its numbers."""
    dense = x.layout is torch.strided
    stride = x.stride() if dense else None
    return (type(x), tuple(x.shape), stride, x.dtype, x.device, x.layout, x.requires_grad)
