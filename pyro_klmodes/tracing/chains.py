"""Where Markov chains stand: one for every cell of the full data, kept by index."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.tracing.along_site import along_site
from pyro_klmodes.tracing.data_sums import DataSums
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.observed import Observed
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.visits import Visit, put, select

__all__ = ["Chains", "ForeignChains"]

#: in the place of a step: this cell has no state yet
_NEVER = -1


class ForeignChains(InvalidArgument):
    """Chains belong to other sites, plates or data than those of a run."""

    @classmethod
    def of_shape(cls, site: str, before: Sequence[int], now: Sequence[int]) -> ForeignChains:
        """About a site of another shape."""
        return cls(
            f"site '{site}' has shape {tuple(now)} where its chains have {tuple(before)}. {_REMEDY}"
        )

    @classmethod
    def of_size(cls, plate: str, before: int, now: int) -> ForeignChains:
        """About a plate of another size."""
        return cls(
            f"plate '{plate}' has {now} elements where its chains are those of {before}. "
            f"{_about_batches(plate, before)}"
        )

    @classmethod
    def of_others(cls, before: Sequence[str], now: Sequence[str]) -> ForeignChains:
        """About other plates or sites."""
        return cls(f"the chains are about {sorted(before)}, the run about {sorted(now)}. {_REMEDY}")


_REMEDY = (
    "The chains of this loss belong to another model, guide or data set: use one loss object for "
    "each, or call its reset()."
)


def _about_batches(plate: str, size: int) -> str:
    return (
        "For minibatches pass the indices too and say which data they are: "
        f"pyro.plate('{plate}', N, subsample=index) in model and guide, with N the size of the "
        f"whole data set and not {size}. Call reset() if this is another data set."
    )


@dataclass
class Chains:
    """The states of all chains; a datum that was never seen has none yet.

    A cell is an element of the local plates; without any there is a single, joint chain.

    Attributes:
        plates: names of the local plates, in the order of the axes of a cell.
        values: the state at every site that the guide draws, of the full size of these plates.
        axes: for each site the axes of the local plates in its value, counted from the right.
        moved: ``(*local)``, the step in which a cell last moved (or began), -1 before it has begun.
        data: ``(*local)``, sums that tell the data of a cell, NaN before it has begun.
        renewal: share of the cells that moved in the last step.
    """

    plates: tuple[str, ...]
    values: dict[str, Tensor]
    axes: dict[str, dict[str, int]]
    moved: Tensor
    data: Tensor
    renewal: float = math.nan
    warned: bool = False

    @classmethod
    def begin(
        cls,
        draws: Draws,
        sites: Mapping[str, Mapping[str, Any]],
        sizes: Sequence[int],
    ) -> Chains:
        """Room for the chains of a pair, none of which has begun.

        Args:
            draws: draws from the guide.
            sites: a message for each of their sources.
            sizes: full sizes of the local plates.
        """
        values, axes = {}, {}
        for name in draws.sources:
            dims = plates_of(sites[name])
            axes[name] = {p: dims[p] - sites[name]["fn"].event_dim for p in draws.plates}
            shape = list(draws.values[name].shape[1:])
            for plate, size in zip(draws.plates, sizes, strict=True):
                shape[axes[name][plate]] = size
            values[name] = draws.values[name].new_zeros(shape)
        return cls(
            plates=draws.plates,
            values=values,
            axes=axes,
            moved=torch.full(tuple(sizes), _NEVER, dtype=torch.long),
            data=torch.full(tuple(sizes), math.nan, dtype=torch.float64),
        )

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Whether the local plates are as large as the chains are many.

        Raises:
            ForeignChains: naming the plate that is not.
        """
        for plate, size in zip(self.plates, self.moved.shape, strict=True):
            if sizes[plate] != size:
                raise ForeignChains.of_size(plate, size, sizes[plate])

    def at(self, site: str, visit: Visit) -> Tensor:
        """The states of a minibatch at a site."""
        return select(self.values[site], self.axes[site], visit)

    def begun(self, visit: Visit) -> Tensor:  # (*local), bool
        """Which cells of a minibatch have a state."""
        return select(self.moved, self._cell_axes, visit) != _NEVER

    def check(
        self, draws: Draws, observed: Mapping[str, Observed], visit: Visit, *, strict: bool
    ) -> None:
        """Whether draws and data are those that the chains are about.

        Data that have changed under an index may be noisy on purpose: that is a warning only,
        unless ``strict``.

        Raises:
            ForeignChains: naming sites, or the plate whose data have changed.
        """
        if set(draws.plates) != set(self.plates) or set(draws.sources) != set(self.values):
            raise ForeignChains.of_others(
                [*self.plates, *self.values], [*draws.plates, *draws.sources]
            )
        now = DataSums(observed, self.plates, draws.log_p.shape[1:])
        changed = int(now.differ(select(self.data, self._cell_axes, visit)).sum())
        if not changed:
            return
        if not strict and any(self._chosen(plate, visit[plate]) for plate in self.plates):
            self._warn_of_other_data(changed)
        else:
            self._refuse_other_data(changed)

    def advance(
        self,
        draws: Draws,
        index: Tensor,  # (*local), the particle of every cell to go on from
        sites: Mapping[str, Mapping[str, Any]],
        observed: Mapping[str, Observed],
        visit: Visit,
        step: int,
    ) -> None:
        """Let the chains of a minibatch go on."""
        for name in self.values:
            drawn = draws.values[name]
            chosen = along_site(index.unsqueeze(0), sites[name], self.plates)
            state = drawn.gather(0, chosen.expand((1, *drawn.shape[1:])).to(drawn.device))[0]
            self._put(self.values[name], state, self.axes[name], visit)
        index = index.cpu()
        before = select(self.moved, self._cell_axes, visit)
        moves = (index > 0) | (before == _NEVER)
        self._put(self.moved, before.masked_fill(moves, step), self._cell_axes, visit)
        now = DataSums(observed, self.plates, index.shape)
        self._put(self.data, now.sums, self._cell_axes, visit)
        self.renewal = float((index > 0).double().mean())

    def ages(self, step: int) -> Tensor:  # (*local)
        """Steps since each cell moved, -1 where it has not begun."""
        return (step - self.moved).masked_fill(self.moved == _NEVER, _NEVER)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as numbers and tensors of its own."""
        return {
            "plates": list(self.plates),
            "values": {name: value.clone() for name, value in self.values.items()},
            "axes": {name: dict(axes) for name, axes in self.axes.items()},
            "moved": self.moved.clone(),
            "data": self.data.clone(),
            "renewal": self.renewal,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Chains:
        """Chains that go on where others were saved."""
        return cls(
            plates=tuple(state["plates"]),
            values={name: value.clone() for name, value in state["values"].items()},
            axes={name: dict(axes) for name, axes in state["axes"].items()},
            moved=state["moved"].clone(),
            data=state["data"].clone(),
            renewal=float(state["renewal"]),
        )

    @property
    def _cell_axes(self) -> dict[str, int]:
        return {plate: i - len(self.plates) for i, plate in enumerate(self.plates)}

    def _put(self, whole: Tensor, part: Tensor, axes: Mapping[str, int], visit: Visit) -> None:
        where = [(axes[plate], visit[plate]) for plate in self.plates]
        if where:
            put(whole, part, where)
        else:
            whole.copy_(part)

    def _chosen(self, plate: str, rows: Tensor) -> bool:
        """Whether a minibatch names its elements, instead of being all of them in their order."""
        size = self.moved.shape[self._cell_axes[plate]]
        return not torch.equal(rows.cpu(), torch.arange(size))

    def _refuse_other_data(self, changed: int) -> None:
        if not self.plates:
            raise ForeignChains(
                "the data are not those of the step before, but the chain is about the posterior "
                "given these. Pass the same data in every step; for minibatches use ForwardKL, or "
                "call reset() if this is another data set."
            )
        plate, size = self.plates[-1], self.moved.shape[-1]
        raise ForeignChains(
            f"{changed} of {self.moved.numel()} elements of plate '{plate}' hold other data than "
            "in the step before, so that the chains at their positions belong to other data. "
            f"{_about_batches(plate, size)}"
        )

    def _warn_of_other_data(self, changed: int) -> None:
        if self.warned:
            return
        self.warned = True
        warnings.warn(
            f"{changed} elements of the minibatch in plate(s) {list(self.plates)} hold other data "
            "than when their chains last moved. Observe what the plate's indices say "
            "(obs=data[index]); if the data are noisy on purpose, their chains lag behind.",
            KLModesWarning,
            stacklevel=2,
        )
