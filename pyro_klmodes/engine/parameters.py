"""The tensors that are learned, and a way to put others in their place for a while."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn import Module

from pyro_klmodes.engine.calls import kind_of

__all__ = ["Parameters"]


class Parameters:
    """Unconstrained parameters by name, with all the places that hold them.

    Args:
        leaves: the tensors by name, in the order in which a graph takes them; one that has two
            names, as some do in Pyro's autoguides, is taken once.
        modules: modules that may hold some of them, beside Pyro's param store.
    """

    def __init__(self, leaves: Mapping[str, Tensor], modules: Iterable[Module]) -> None:
        once: dict[int, tuple[str, Tensor]] = {}
        for name, leaf in leaves.items():
            once.setdefault(id(leaf), (name, leaf))
        self.names = tuple(name for name, _ in once.values())
        self.leaves = tuple(leaf for _, leaf in once.values())
        self._position = {id(leaf): i for i, leaf in enumerate(self.leaves)}
        self.modules = list({id(m): m for root in modules for m in root.modules()}.values())
        self._held = list(self._places())

    @property
    def kind(self) -> Hashable:
        """What a graph depends on beside the numbers: shapes, and which of them are learned."""
        return tuple(kind_of(leaf) for leaf in self.leaves)

    def changed(self) -> str | None:
        """What has been done to a parameter that a graph of it does not know, or None."""
        for holder, key, at in self._held:
            if holder.get(key) is not self.leaves[at]:
                return f"parameter '{self.names[at]}' was removed, or is another tensor now"
        for name, leaf in zip(self.names, self.leaves, strict=True):
            if leaf._backward_hooks or getattr(leaf, "_post_accumulate_grad_hooks", None):
                return f"parameter '{name}' has a hook that changes its gradient"
        return None

    def position(self, tensor: Tensor) -> int | None:
        """Which of the parameters a tensor is, also if it only shares the memory of one."""
        at = self._position.get(id(tensor))
        if at is not None or tensor.layout is not torch.strided or not tensor.numel():
            return at
        memory = tensor.untyped_storage().data_ptr()
        for i, leaf in enumerate(self.leaves):
            if leaf.numel() and leaf.untyped_storage().data_ptr() == memory:
                return i
        return None

    def name_of(self, tensor: Tensor) -> str:
        """What to call a tensor that is no parameter: by the module that has it, or its shape."""
        for module in self.modules:
            for name, x in (*module._parameters.items(), *module._buffers.items()):
                if x is tensor:
                    return f"'{name}' of a {type(module).__name__}"
        return f"a tensor of shape {tuple(tensor.shape)}"

    @contextmanager
    def replaced_by(self, others: Sequence[Tensor]) -> Iterator[None]:
        """Put other tensors in the place of the parameters, wherever these are held."""
        with ExitStack() as stack:
            for holder, key, at in list(self._places()):
                stack.callback(holder.__setitem__, key, holder[key])
                holder[key] = others[at]
            for module in self.modules:
                if isinstance(module, torch.nn.RNNBase):  # it has a list of its own of them
                    flat = module._flat_weights
                    stack.callback(setattr, module, "_flat_weights", flat)
                    module._flat_weights = [self._other(x, others) for x in flat]
            stack.enter_context(_named_in_store(self.names, others))
            yield

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Put parameters and buffers back to their values, whatever happens to them."""
        kept = [*self.leaves, *(b for m in self.modules for b in m._buffers.values())]
        before = [(x, x.detach().clone()) for x in kept if x is not None]
        try:
            yield
        finally:
            with torch.no_grad():
                for x, value in before:
                    if not torch.equal(x, value):
                        x.copy_(value)

    def _other(self, x: Any, others: Sequence[Tensor]) -> Any:
        at = self._position.get(id(x))
        return x if at is None else others[at]

    def _places(self) -> Iterator[tuple[MutableMapping[str, Any], str, int]]:
        """Every place that holds a parameter: a dict, the key there, and which one it is."""
        holders = [pyro.get_param_store()._params, *(m._parameters for m in self.modules)]
        for holder in holders:
            for key, value in holder.items():
                at = self._position.get(id(value))
                if at is not None:
                    yield holder, key, at


@contextmanager
def _named_in_store(names: Sequence[str], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Pyro's store looks names up by tensor, too."""
    store = pyro.get_param_store()
    before = dict(store._param_to_name)
    store._param_to_name.update(
        {tensor: name for name, tensor in zip(names, tensors, strict=True) if name in store}
    )
    try:
        yield
    finally:
        store._param_to_name.clear()
        store._param_to_name.update(before)
