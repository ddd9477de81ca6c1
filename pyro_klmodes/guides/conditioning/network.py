"""Conditionals with a small network on top of the linear map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.conditioning.coupling import Coupling, PerElement
from pyro_klmodes.guides.conditioning.given import Conditional
from pyro_klmodes.guides.conditioning.linear import LinearConditional
from pyro_klmodes.guides.sitewise import in_store

__all__ = ["Network"]

_PER_ELEMENT = PerElement()


@dataclass(frozen=True)
class Network:
    """Location and log-scale are a linear map of the values before plus a network's output.

    As ``Linear``, with ``W x + f(x)`` and ``V x + h(x)``, where (f, h) is a network with tanh
    units. All elements of a plate share the network. Its last layer starts at zero, its others at
    random, by PyTorch's global generator.

    Args:
        hidden: sizes of the hidden layers.
        coupling: ``PerElement()`` or ``Shared()`` slopes W, V and L in plates.

    Raises:
        InvalidArgument: if ``hidden`` is empty or holds anything but positive integers.

    Example:
        >>> Network(hidden=(16, 16)).hidden
        (16, 16)
    """

    hidden: tuple[int, ...] = (32,)
    coupling: Coupling = _PER_ELEMENT

    def __post_init__(self) -> None:
        sizes = self.hidden
        if not (isinstance(sizes, tuple) and sizes and all(_is_size(n) for n in sizes)):
            raise InvalidArgument(
                f"hidden={sizes!r} must be a tuple of positive integers; use Linear() for none."
            )

    def parameters(
        self,
        loc: Tensor,  # (*batch, d)
        scale: float,
        inputs: int,
    ) -> Conditional:
        """Parameters that start independent of the values before, of which there are G."""
        if not inputs:
            return LinearConditional(loc, scale, inputs, self.coupling)
        return _NetworkConditional(loc, scale, inputs, self.coupling, self.hidden)


class _NetworkConditional(LinearConditional):
    def __init__(
        self,
        loc: Tensor,  # (*batch, d)
        scale: float,
        inputs: int,
        coupling: Coupling,
        hidden: tuple[int, ...],
    ) -> None:
        super().__init__(loc, scale, inputs, coupling)
        outputs = 2 * loc.shape[-1]
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.Tanh()]
        last = nn.Linear(hidden[-1], outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last).to(loc)

    def shift(
        self,
        x: Tensor,  # (*batch, G)
    ) -> Tensor:  # (*batch, 2, d)
        linear = super().shift(x)
        out = in_store(self, "network")(x)
        return linear + out.reshape(*out.shape[:-1], 2, -1)


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n > 0
