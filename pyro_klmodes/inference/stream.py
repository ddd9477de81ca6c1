"""The batches of a fit one after the other, and how to find a place in them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import Call, call_with, is_one_shot
from pyro_klmodes.inference.random_state import random_state, set_random_state

__all__ = ["Stream"]

_END = object()


class Stream:
    """Calls of model and guide; without batches always the same one, in no epoch.

    Args:
        batches: what ``fit`` was given, or None.
        args: positional arguments after those of the batch.
        kwargs: keyword arguments beside those of the batch.

    Attributes:
        epoch: how many passes over the batches are over; None without batches.
    """

    def __init__(self, batches: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.batches = batches
        self.args = args
        self.kwargs = dict(kwargs)
        self.epoch: int | None = None if batches is None else 0
        self.generators = _generators(batches)
        self._taken = 0  # of the present epoch
        self._iterator: Iterator[Any] | None = None
        self._at_start: dict[str, Any] | None = None  # generators when the epoch began
        self._first: Call | None = None

    @property
    def batches_per_epoch(self) -> int | None:
        """None if there are no batches or their number is not known."""
        try:
            return len(self.batches)
        except TypeError:
            return None

    @property
    def ends(self) -> bool:
        """Whether there is no epoch after the present one."""
        return is_one_shot(self.batches)

    def first(self) -> Call:
        """The first call of all, which ``take`` will return too.

        Raises:
            InvalidArgument: if there is none, or if it is no batch.
        """
        if self.batches is None:
            return Call(self.args, self.kwargs)
        if self._first is None:
            self._first = self.take()
        if self._first is None:
            raise InvalidArgument(
                "batches is empty. A DataLoader with drop_last=True has no batch if the data are "
                "fewer than batch_size."
            )
        return self._first

    def take(self) -> Call | None:
        """The next call, or None at the end of an epoch.

        Raises:
            InvalidArgument: naming the batch, if it is none; or if the batches are used up.
        """
        if self.batches is None:
            return Call(self.args, self.kwargs)
        if self._first is not None:
            call, self._first = self._first, None
            return call
        if self._iterator is None:
            self._iterator = self._begin()
        batch = next(self._iterator, _END)
        if batch is _END:
            if self._taken == 0 and self.epoch:
                raise InvalidArgument(
                    f"epoch {self.epoch} has no batches: they can be iterated over only once. Pass "
                    "something whose __iter__ begins anew."
                )
            return None
        where = f"batch {self._taken} of epoch {self.epoch}"
        self._taken += 1
        return call_with(batch, self.args, self.kwargs, self.batches, where=where)

    def next_epoch(self) -> None:
        """Begin anew."""
        if self.epoch is not None:
            self.epoch += 1
        self._taken, self._iterator, self._at_start = 0, None, None

    def endless(self) -> Call:
        """The next call, of the next epoch if the present one is over."""
        call = self.take()
        if call is None:
            self.next_epoch()
            call = self.take()
        if call is None:
            raise InvalidArgument("batches is empty.")
        return call

    def state_dict(self) -> dict[str, Any]:
        """Where it is: epoch, place in it, and the generators when it began."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "taken": self._taken - (self._first is not None),
            "at_start": self._at_start,
        }
        if hasattr(self.batches, "state_dict"):
            state["batches"] = self.batches.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a place: the order of the batches is that of the generators at the start.

        The generators are left in a state that the caller has to set.
        """
        self.epoch = state["epoch"]
        self._taken, self._iterator, self._first = 0, None, None
        self._at_start = None
        if "batches" in state:
            self.batches.load_state_dict(state["batches"])
        if not state["taken"]:
            return
        set_random_state(state["at_start"], self.generators)
        self._iterator = self._begin()
        for _ in range(state["taken"]):
            if next(self._iterator, _END) is _END:
                raise InvalidArgument(
                    f"epoch {self.epoch} had more than {self._taken} batches when the checkpoint "
                    "was written. Resume with the same batches."
                )
            self._taken += 1

    def _begin(self) -> Iterator[Any]:
        self._at_start = random_state(self.generators)
        return iter(self.batches)


def _generators(batches: Any) -> tuple[torch.Generator, ...]:
    """Generators of a loader's own, which seeding torch does not reach."""
    sampler = getattr(batches, "sampler", None)
    batch_sampler = getattr(batches, "batch_sampler", None)
    inner = [getattr(s, "sampler", None) for s in (sampler, batch_sampler)]
    found: list[torch.Generator] = []
    for holder in (batches, sampler, batch_sampler, *inner):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not g for g in found):
            found.append(generator)
    return tuple(found)
