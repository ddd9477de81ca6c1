"""Minibatches: what model and guide are called with for each of them, and for all data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    TensorDataset,
    default_collate,
)

from pyro_klmodes.errors import InvalidArgument

__all__ = [
    "ByIndex",
    "Call",
    "by_index",
    "call_with",
    "check_batches",
    "is_one_shot",
    "on_all",
    "runs_other_code",
]


class Call(NamedTuple):
    """What model and guide are called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class ByIndex:
    """Minibatches of indices, see ``by_index``."""

    sampler: Any
    name: str = "subsample"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


def by_index(sampler: Iterable[Any], name: str = "subsample") -> ByIndex:
    """Minibatches as indices: model and guide get all data, and ``subsample=`` a tensor.

    For models that take their minibatch by ``pyro.plate("data", N, subsample=subsample)``.

    Args:
        sampler: a ``torch.utils.data.BatchSampler``, or any iterable of lists of indices or of
            one-dimensional tensors of integers.
        name: the keyword that model and guide take the indices by.

    Raises:
        InvalidArgument: if the sampler is not iterable or the name is not a string.

    Example:
        >>> from torch.utils.data import BatchSampler, SequentialSampler
        >>> batches = by_index(BatchSampler(SequentialSampler(range(5)), 2, drop_last=False))
        >>> [call_with(b, (), {}, batches, where="here").kwargs for b in batches][-1]
        {'subsample': tensor([4])}
    """
    if not isinstance(sampler, Iterable):
        raise InvalidArgument(f"sampler={sampler!r} is not iterable; pass a BatchSampler.")
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidArgument(f"name={name!r} must be the name of a keyword argument.")
    return ByIndex(sampler, name)


def call_with(
    batch: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    batches: Any,
    *,
    where: str,
) -> Call:
    """What model and guide are called with for a batch.

    Raises:
        InvalidArgument: saying where, for an empty batch, or one of no known kind.
    """
    if isinstance(batches, ByIndex):
        return Call(args, _joined(kwargs, {batches.name: _indices(batch, where)}, where))
    if isinstance(batch, Tensor):
        call = Call((batch, *args), dict(kwargs))
        parts: Iterable[Any] = (batch,)
    elif isinstance(batch, Mapping):
        call = Call(args, _joined(kwargs, batch, where))
        parts = batch.values()
    elif isinstance(batch, tuple | list):
        if batch and all(isinstance(x, int) for x in batch):
            raise InvalidArgument(
                f"{where} is a list of integers. If they are indices, say so: "
                "batches=by_index(sampler)."
            )
        call = Call((*batch, *args), dict(kwargs))
        parts = batch
    else:
        raise InvalidArgument(
            f"{where} is of type {type(batch).__name__}; a batch must be a tensor, a tuple or list "
            "of positional arguments, or a dict of keyword arguments."
        )
    parts = list(parts)
    if not parts or any(isinstance(x, Tensor) and x.dim() and not len(x) for x in parts):
        raise InvalidArgument(
            f"{where} is empty; leave it out of the batches (a DataLoader never has an empty one)."
        )
    return call


def _joined(kwargs: Mapping[str, Any], batch: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for name in batch:
        if not isinstance(name, str):
            raise InvalidArgument(f"{where} has the key {name!r}, which is no keyword argument.")
        if name in kwargs:
            raise InvalidArgument(
                f"{where} holds '{name}', which fit was also given as an argument; drop one."
            )
    return {**kwargs, **batch}


def _indices(batch: Any, where: str) -> Tensor:  # (B,)
    if isinstance(batch, int):
        raise InvalidArgument(
            f"{where} is the single index {batch}. Wrap the sampler: "
            "by_index(BatchSampler(sampler, batch_size, drop_last=False))."
        )
    try:
        index = torch.as_tensor(batch)
    except (TypeError, ValueError, RuntimeError):
        index = None
    if index is not None and index.dim() == 1 and not len(index):
        raise InvalidArgument(f"{where} is empty; leave it out of the sampler.")
    integers = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
    if index is None or index.dim() != 1 or index.dtype not in integers or bool((index < 0).any()):
        raise InvalidArgument(
            f"{where} must be a list of indices or a one-dimensional tensor of integers, none of "
            "them negative."
        )
    return index.long()


def is_one_shot(batches: Any) -> bool:
    """Whether something can be iterated over only once, as a generator can."""
    return isinstance(batches.sampler if isinstance(batches, ByIndex) else batches, Iterator)


def runs_other_code(batches: Any) -> bool:
    """Whether taking a batch runs other code than torch's, which may change anything."""
    if isinstance(batches, ByIndex):
        return runs_other_code(batches.sampler)
    if batches is None or type(batches) in (list, tuple):
        return False
    if type(batches) is not DataLoader or type(batches.dataset) is not TensorDataset:
        return True
    samplers = (batches.sampler, batches.batch_sampler)
    known = all(type(x).__module__.startswith("torch.utils.data") for x in samplers)
    return not known or batches.collate_fn is not default_collate


def check_batches(batches: Any, epochs: int | None) -> None:
    """Refuse what cannot be minibatches, as far as that can be seen without loading any data.

    Lists and tuples are looked through to their end.

    Raises:
        InvalidArgument: saying what to pass instead.
    """
    if isinstance(batches, Sampler):
        raise InvalidArgument(
            f"batches={type(batches).__name__} yields indices; say so: batches=by_index(sampler)."
        )
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise InvalidArgument(
            f"batches={type(batches).__name__} is a data set; pass "
            "DataLoader(dataset, batch_size=..., shuffle=True)."
        )
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise InvalidArgument(
            f"batches must be an iterable of batches, not of type {type(batches).__name__}; pass "
            "DataLoader(TensorDataset(x), batch_size=..., shuffle=True)."
        )
    if epochs is not None and epochs > 1 and is_one_shot(batches):
        raise InvalidArgument(
            f"batches can be iterated over only once, but epochs={epochs}. Pass something that can "
            "be iterated over anew: a list, a DataLoader, or a class with __iter__."
        )
    sampler = getattr(batches, "batch_sampler", None)
    if isinstance(sampler, list | tuple):
        for number, index in enumerate(sampler):
            _indices(index, f"batch {number} of batch_sampler")
    source = batches.sampler if isinstance(batches, ByIndex) else batches
    if isinstance(source, list | tuple):
        for number, batch in enumerate(source):
            call_with(batch, (), {}, batches, where=f"batch {number}")


def on_all(
    batches: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    first: Call,
    functions: Iterable[Callable[..., Any]],
) -> Call:
    """What model and guide are called with after a fit on minibatches.

    All data, where they are at hand: the tensors of a ``TensorDataset`` (or of a ``Subset`` of one)
    that a ``DataLoader`` puts together in the default way; the arguments without indices, where
    neither model nor guide insists on them. The first batch otherwise.
    """
    if isinstance(batches, ByIndex):
        insists = any(_insists_on(function, batches.name) for function in functions)
        return first if insists else Call(args, dict(kwargs))
    if isinstance(batches, DataLoader) and batches.collate_fn is default_collate:
        tensors = _tensors(batches.dataset)
        if tensors:
            return Call((*tensors, *args), dict(kwargs))
    return first


def _tensors(dataset: Any) -> tuple[Tensor, ...]:
    # subclasses may change what an item is
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if type(dataset) is Subset:
        index = torch.as_tensor(dataset.indices)
        return tuple(x[index] for x in _tensors(dataset.dataset))
    return ()


def _insists_on(function: Callable[..., Any], name: str) -> bool:
    try:
        found = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # no signature to be had
        return True
    return found is not None and found.default is inspect.Parameter.empty
