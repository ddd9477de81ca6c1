"""The data of a fit by EM, whole or in batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.batches import ByIndex, Call, call_with, on_all
from pyro_klmodes.inference.em.e_step import RunningEStep
from pyro_klmodes.inference.em.exact import RunningExact
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.tracing.plates import plates_of, subsampled
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["Data", "check_divisible", "refuse_minibatches"]


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

    def lengths(self, first: Call) -> set[int] | None:
        """First dimensions of the tensors of the first batch, None for a batch of indices."""
        if isinstance(self.batches, ByIndex):
            return None
        own = list(first.args[: len(first.args) - len(self.args)])
        own += [x for n, x in first.kwargs.items() if n not in self.kwargs]
        return {len(x) for x in own if isinstance(x, Tensor) and x.dim()}

    def calls(self) -> Iterator[Call]:
        """One pass over the batches."""
        for number, batch in enumerate(self.batches or ()):
            yield call_with(batch, self.args, self.kwargs, self.batches, where=f"batch {number}")

    def whole(self, first: Call, model: Callable[..., Any]) -> Call:
        """All data, as far as they are at hand."""
        if self.batches is None:
            return first
        return on_all(self.batches, self.args, self.kwargs, first, (model,))


def check_divisible(
    e_step: RunningEStep, parameters: Parameters, lengths: Collection[int] | None
) -> RunningExact:
    """Refuse what batches would count once for each of them.

    Args:
        e_step: of the first batch.
        parameters: of the model.
        lengths: of the tensors in the first batch; None if it has indices instead.

    Raises:
        UnsupportedStructure: naming the site, or the E-step.
    """
    if not isinstance(e_step, RunningExact):
        raise UnsupportedStructure(
            "batches: the E-step by draws or by a guide needs all data at once. Use Exact(), or "
            "fit(model, guide, IWAE(), batches=...), which trains model and guide together."
        )
    for site in scored_sites(e_step.filled.trace(parameters.initial())):
        plates = plates_of(site)
        sizes = {f.size for f in site["cond_indep_stack"] if f.name in plates}
        if not plates or (lengths is not None and not sizes & set(lengths)):
            raise UnsupportedStructure(
                f"batches: site '{site['name']}' is in no plate over the data of a batch (the "
                "first dimension of its tensors), and would count once for every batch. Put data "
                "into pyro.plate; for priors and penalties use all data at once."
            )
    return e_step


def refuse_minibatches(e_step: RunningEStep, parameters: Parameters) -> None:
    """A model that takes a minibatch by itself has another likelihood in every step.

    Raises:
        UnsupportedStructure: naming the plate.
    """
    for site in scored_sites(e_step.filled.trace(parameters.initial())):
        for plate in subsampled(site):
            raise UnsupportedStructure(
                f"site '{site['name']}' is in subsampled plate '{plate}', and EM needs all data in "
                "every step. Take the subsample away; or hand batches over: EM(model, "
                "online=StepSizes()).fit(..., batches=...)."
            )
