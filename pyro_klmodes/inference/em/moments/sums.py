"""Weighted sums over all elements of a site, without a table of elements times components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.factors import Factor

__all__ = ["Grid", "compressed", "padded", "scatter"]


def padded(x: Tensor, dims: int) -> Tensor:
    """The same with dimensions of size 1 on the left, ``dims`` altogether."""
    return x.reshape((1,) * (dims - x.dim()) + tuple(x.shape))


def compressed(entries: Tensor) -> Tensor:
    """A map of elements to entries, with size 1 where it does not vary.

    Example:
        >>> compressed(torch.tensor([[3, 4], [3, 4]]))
        tensor([[3, 4]])
    """
    for d in range(entries.dim()):
        if entries.shape[d] > 1 and bool((entries == entries.narrow(d, 0, 1)).all()):
            entries = entries.narrow(d, 0, 1)
    return entries


@dataclass(frozen=True)
class Grid:
    """The elements of a site: batch dimensions, then those that events are made of.

    Attributes:
        site: its name.
        weight: ``(R, *elements)``, with size 1 where it is the same.
        shape: how many elements there are in every dimension.
    """

    site: str
    weight: Tensor
    shape: torch.Size

    @classmethod
    def of(
        cls,
        factor: Factor,
        right: int,
        value: Tensor,  # (*elements), or (R, *elements)
        fn_shape: Sequence[int],
    ) -> Grid:
        """The grid of a site.

        Args:
            factor: the site.
            right: how many dimensions the elements of one event have.
            value: laid out as the elements are.
            fn_shape: elements of the distribution; where value or weight vary they say how many.

        Raises:
            InvalidArgument: if weights and value do not broadcast.
        """
        weight = factor.weight
        weight = weight.reshape(*weight.shape, *[1] * right)
        dims = max(weight.dim() - 1, len(fn_shape), value.dim() - (value.dim() == weight.dim()))
        weight = weight.reshape(len(weight), *[1] * (dims + 1 - weight.dim()), *weight.shape[1:])
        inner = padded(value, dims).shape[-dims:] if dims else torch.Size()
        shape = []
        for w, v, f in zip(weight.shape[1:], inner, padded_shape(fn_shape, dims), strict=True):
            if w != v and 1 not in (w, v):
                raise InvalidArgument(
                    f"site '{factor.name}': weights of shape {tuple(weight.shape)} do not "
                    f"broadcast against its values of shape {tuple(value.shape)}."
                )
            shape.append(f if w == v == 1 else max(w, v))
        return cls(factor.name, weight, torch.Size(shape))

    def sum(
        self,
        statistic: Tensor | None,  # (*elements, *features), or (R, *elements, *features)
        keep: Sequence[int],  # size of every element dimension, 1 where it is summed over
        features: int = 0,
    ) -> Tensor:  # (R, *keep, *features), double precision
        """``sum w t`` over the dimensions that are not kept, as one product of matrices.

        Raises:
            InvalidArgument: if a kept dimension has another size than the elements have.
        """
        dims = len(self.shape)
        keep = padded_shape(keep, dims)
        for k, n in zip(keep, self.shape, strict=True):
            if k not in (1, n):
                raise InvalidArgument(
                    f"site '{self.site}' has {n} elements in a dimension where its parameters "
                    f"were found for {k}. Look for the closed form with data of this size."
                )
        operands: list[tuple[Tensor, list[int]]] = [_labelled(self.weight, range(dims + 1))]
        if statistic is not None:
            extra = range(dims + 1, dims + 1 + features)
            own = statistic.dim() - features
            labels = [*range(dims + 1 - own, dims + 1), *extra]
            operands.append(_labelled(statistic.to(self.weight), labels, always=set(extra)))
        present = {label for _, labels in operands for label in labels}
        kept = [d + 1 for d in range(dims) if keep[d] > 1]
        extra_labels = [dims + 1 + i for i in range(features)]
        out = [0, *(d for d in kept if d in present), *extra_labels]
        if 0 not in present:  # one start
            operands[0] = (operands[0][0][None], [0, *operands[0][1]])
        flat = [part for pair in operands for part in pair]
        found = torch.einsum(*flat, out).double()
        repeated = math.prod(
            n for d, n in enumerate(self.shape) if keep[d] == 1 and d + 1 not in present
        )
        tail = found.shape[len(out) - features :]
        narrow = [keep[d] if keep[d] > 1 and d + 1 in present else 1 for d in range(dims)]
        wide = [len(found), *keep, *tail]
        return (found * repeated).reshape(len(found), *narrow, *tail).expand(wide)

    def add_up(
        self,
        statistic: Tensor | None,  # (*elements, *features), or (R, *elements, *features)
        places: Tensor,  # (*elements), integers, size 1 where they do not vary
        count: int,
        features: int = 0,
    ) -> Tensor:  # (R, count, *features), double precision
        """``sum w t`` over the elements that have the same place."""
        cells = self.sum(statistic, places.shape, features)
        return scatter(cells, padded(places, len(self.shape)), count)


def padded_shape(shape: Sequence[int], dims: int) -> tuple[int, ...]:
    """A shape with ones on the left."""
    return (*[1] * (dims - len(shape)), *shape)


def _labelled(
    x: Tensor, labels: Sequence[int], always: set[int] | frozenset[int] = frozenset()
) -> tuple[Tensor, list[int]]:
    """Without its dimensions of size 1."""
    pairs = list(zip(range(x.dim()), labels, strict=True))
    left = [(d, label) for d, label in pairs if x.shape[d] > 1 or label in always]
    return x.reshape([x.shape[d] for d, _ in left]), [label for _, label in left]


def scatter(
    cells: Tensor,  # (R, *cells, *features)
    places: Tensor,  # (*cells), integers
    count: int,
) -> Tensor:  # (R, count, *features)
    """Add up the cells that have the same place."""
    features = cells.shape[1 + places.dim() :]
    flat = cells.reshape(len(cells), -1, *features)
    total = cells.new_zeros(len(cells), count, *features)
    return total.index_add(1, places.flatten(), flat)
