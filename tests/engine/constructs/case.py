"""A construct of Pyro models: a fit that holds it, and what the engine must do about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pyro_klmodes import ReverseKL


@dataclass
class Case:
    """What ``fit`` is called with. Made anew for every fit, with fresh modules and counters."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...] = ()
    loss: Callable[[], Any] = lambda: ReverseKL(3)
    steps: int | None = 12
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Construct:
    """A construct by name.

    Attributes:
        make: the fit.
        cause: what the warning must say if steps are not compiled; None if they must be.
        dtype: the default type while it runs.
        later: whether the cause comes up after some steps, which were compiled.
    """

    make: Callable[[], Case]
    cause: str | None = None
    later: bool = False
    dtype: torch.dtype = torch.float64

    def __repr__(self) -> str:
        return self.make.__name__


class Constructs:
    """A list that functions are added to by a decorator."""

    def __init__(self) -> None:
        self.all: list[Construct] = []

    def compiled(self, make):
        """The graph must give what eager code gives."""
        self.all.append(Construct(make))
        return make

    def compiled_in_single_precision(self, make):
        """Likewise, in float32."""
        self.all.append(Construct(make, dtype=torch.float32))
        return make

    def refused(self, cause):
        """Steps must be eager, with a warning that says so in words like these."""

        def add(make):
            self.all.append(Construct(make, cause))
            return make

        return add

    def given_up(self, cause):
        """Some steps may be compiled, the others must be eager, with a warning like these words."""

        def add(make):
            self.all.append(Construct(make, cause, later=True))
            return make

        return add
