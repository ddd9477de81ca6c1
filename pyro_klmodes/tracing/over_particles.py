"""Call a function of one particle for all of them at once, with ``torch.func.vmap``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import pyro
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.lean import Lean

__all__ = ["NotMapped", "over_particles", "same_for_all"]

Tensors = TypeVar("Tensors")


class NotMapped(UnsupportedStructure):
    """A model does what torch cannot map over particles, as to branch on a value; it says what."""


def over_particles(
    function: Callable[[dict[str, Tensor]], Tensors],
    values: Mapping[str, Tensor],  # {name: (K, *shape)}
    *,
    randomness: Literal["error", "same", "different"] = "error",
) -> Tensors:
    """What a function gives at the values of each particle, in one call; gradients flow through.

    The function sees the shapes of one particle and no others, so nothing has to broadcast. It is
    called once: what it does besides computing tensors, it does once. Distributions do not check
    their arguments inside, as a check is a branch on values.

    Args:
        function: of a dictionary of tensors; it returns tensors, in tuples, lists, or dictionaries.
        values: the same names with a dimension of size K in front.
        randomness: whether random numbers are an error, the same for all, or every particle's own.

    Returns:
        What the function returns, with a dimension of size K in front of every tensor.

    Raises:
        NotMapped: if torch cannot do that.

    Example:
        >>> county = torch.tensor([0, 0, 1])
        >>> over_particles(lambda z: z["a"][county], {"a": torch.arange(4.0).reshape(2, 2)})
        tensor([[0., 0., 1.],
                [2., 2., 3.]])
    """
    if not values:
        raise NotMapped("there is no latent value to map over")
    try:
        with pyro.validation_enabled(is_validate=False):
            if randomness == "different":
                return _with_noise(function, values)
            mapped = torch.func.vmap(function, randomness=randomness)
            if torch.is_grad_enabled():
                return mapped(dict(values))
            try:
                with Lean():
                    return mapped(dict(values))
            except RuntimeError:  # it may write to what is repeated
                return mapped(dict(values))
    except UnsupportedStructure:
        raise
    except Exception as error:  # whatever a model does with values that it must not look at
        raise NotMapped(f"{type(error).__name__}: {_first_sentence(error)}") from error


def _with_noise(
    function: Callable[[dict[str, Tensor]], Tensors], values: Mapping[str, Tensor]
) -> Tensors:
    def one(zero: Tensor, here: dict[str, Tensor]) -> Tensors:
        with _RoomForEach(zero):
            return function(here)

    count = len(next(iter(values.values())))
    return torch.func.vmap(one, randomness="different")(torch.zeros(count), dict(values))


class _RoomForEach(TorchFunctionMode):
    """Inside, room that is made for random numbers is every particle's own.

    Distributions make an empty tensor and fill it, which torch takes for one tensor of all
    particles, with the same numbers for them.
    """

    def __init__(self, zero: Tensor) -> None:
        super().__init__()
        self._zero = zero

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.empty, torch.empty_like, torch.Tensor.new_empty):
            return torch.zeros_like(made) + self._zero.to(made)
        return made


def _first_sentence(error: Exception) -> str:
    """What torch says first; it goes on with advice to those who wrote the call."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")


def same_for_all(
    x: Tensor,  # (K, *shape), K > 1, as `over_particles` gave it
) -> bool:
    """Whether a tensor follows from no value of a particle: torch has repeated it, not computed."""
    return x.stride(0) == 0
