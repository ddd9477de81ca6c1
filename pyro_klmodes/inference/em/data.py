"""The data of a fit by EM, whole or in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.batches import Call, call_with, on_all
from pyro_klmodes.inference.em.e_step import RunningEStep
from pyro_klmodes.inference.em.exact import RunningExact
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["Data", "check_divisible"]


class Data:
    """What the model is called with."""

    def __init__(
        self, batches: Iterable[Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.batches, self.args, self.kwargs = batches, args, kwargs

    def first(self) -> Call:
        """The first batch, or all data.

        Raises:
            InvalidArgument: if there is none.
        """
        return Stream(self.batches, self.args, self.kwargs).first()

    def calls(self) -> Iterator[Call]:
        """One pass over the batches."""
        for number, batch in enumerate(self.batches or ()):
            yield call_with(batch, self.args, self.kwargs, self.batches, where=f"batch {number}")

    def whole(self, first: Call, model: Callable[..., Any]) -> Call:
        """All data, as far as they are at hand."""
        if self.batches is None:
            return first
        return on_all(self.batches, self.args, self.kwargs, first, (model,))


def check_divisible(e_step: RunningEStep, parameters: Parameters) -> RunningExact:
    """Refuse what batches would count once for each of them.

    Raises:
        UnsupportedStructure: naming the site, or the E-step.
    """
    if not isinstance(e_step, RunningExact):
        raise UnsupportedStructure(
            "batches: the E-step by draws or by a guide needs all data at once. Use Exact(), or "
            "fit(model, guide, IWAE(), batches=...), which trains model and guide together."
        )
    for site in scored_sites(e_step.filled.trace(parameters.initial())):
        if not plates_of(site):
            raise UnsupportedStructure(
                f"batches: site '{site['name']}' is in no plate, and would count once for every "
                "batch. Put data into pyro.plate; for priors and penalties use all data at once."
            )
    return e_step
