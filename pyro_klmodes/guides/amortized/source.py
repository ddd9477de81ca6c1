"""Where the data that feed the encoder are found in every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined
from pyro_klmodes.guides.amortized.rows import Rows
from pyro_klmodes.tracing.observed import Observed, observed_sites

__all__ = ["Call", "FromArgument", "FromSite", "Source", "argument"]


@dataclass(frozen=True)
class Call:
    """A model and what it is called with."""

    model: Callable[..., Any] | None  # None once it has been pickled
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Source(ABC):
    """A place to take the data from, and where the plates are in them."""

    rows: Rows

    @abstractmethod
    def minibatch(
        self,
        call: Call,
        plates: Mapping[str, Any],
    ) -> Tensor:  # (*rows, *datum_shape)
        """The data of the plates' elements."""

    @abstractmethod
    def whole(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """All the data that the call has."""

    @abstractmethod
    def example(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """Data to set up the encoder with: as many as there are."""


@dataclass(frozen=True)
class FromArgument(Source):
    """An argument of the model, or something inside of one.

    Attributes:
        position: its position, None for one that is passed by name only.
        name: its name, None if the model does not tell.
        path: keys and indices that lead from the argument to the tensor.
    """

    position: int | None
    name: str | None
    path: tuple[Any, ...] = ()

    def minibatch(
        self,
        call: Call,
        plates: Mapping[str, Any],
    ) -> Tensor:  # (*rows, *datum_shape)
        """The rows of the argument that the plates ask for."""
        return self.rows.minibatch(self.tensor(call), plates)

    def whole(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """All rows of the argument."""
        return self.rows.first(self.tensor(call))

    def example(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """All rows of the argument."""
        return self.whole(call)

    def tensor(self, call: Call) -> Tensor:
        """The argument as it is passed.

        Raises:
            InvalidArgument: if it is missing or no tensor.
        """
        found = argument(call, self.position, self.name)
        try:
            for key in self.path:
                found = found[key]
        except (LookupError, TypeError):
            found = None
        if not isinstance(found, Tensor):
            raise InvalidArgument(
                f"{self.rows.what} feeds the encoder and must be a tensor, but is "
                f"{'missing' if found is None else type(found).__name__}."
            )
        return found


@dataclass(frozen=True)
class FromSite(Source):
    """An observed site whose value is not an argument: the model is run up to it in every call."""

    site: str

    def minibatch(
        self,
        call: Call,
        plates: Mapping[str, Any],
    ) -> Tensor:  # (*rows, *datum_shape)
        """What the site observes at the indices of the plates."""
        indices = {name: plate.indices for name, plate in plates.items()}
        return self.rows.minibatch(self._observed(call, indices).value, plates)

    def whole(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """What the site observes, if that is all there is.

        Raises:
            NotDefined: if it observes a minibatch.
        """
        observed = self._observed(call, {})
        for plate in sorted(observed.subsampled & self.rows.axes.keys()):
            raise NotDefined(
                f"{self.rows.what} observes a minibatch of plate '{plate}', and which data it is "
                "taken from is not known. Call this with the data in full, or have the model take "
                "them as an argument."
            )
        return self.rows.first(observed.value)

    def example(
        self,
        call: Call,
    ) -> Tensor:  # (*rows, *datum_shape)
        """What the site observes, a minibatch or all."""
        return self.rows.first(self._observed(call, {}).value)

    def _observed(self, call: Call, indices: Mapping[str, Tensor]) -> Observed:
        if call.model is None:
            raise NotDefined(
                f"{self.rows.what} is read by running the model, and a guide that has been pickled "
                "has none. Have the model take these data as an argument and name it by data=."
            )
        found = observed_sites(call.model, call.args, call.kwargs, indices=indices, only=self.site)
        if self.site not in found:
            raise InvalidArgument(f"{self.rows.what} is not observed with these arguments.")
        return found[self.site]


def argument(call: Call, position: int | None, name: str | None) -> Any:
    """An argument by name or position, None if it is not passed."""
    if name is not None and name in call.kwargs:
        return call.kwargs[name]
    if position is not None and -len(call.args) <= position < len(call.args):
        return call.args[position]
    return None
