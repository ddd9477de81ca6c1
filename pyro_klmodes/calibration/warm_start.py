"""Start a guide at the parameters of an earlier fit of a guide of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.result import FitResult

__all__ = ["Start"]


@dataclass(frozen=True)
class Start:
    """Fitted parameters, kept apart from the guide that has them.

    Attributes:
        of_module: parameters of a guide that is a module, by name.
        in_store: unconstrained values in Pyro's param store, by name, for other guides.
        constraints: of ``in_store``.
    """

    of_module: Mapping[str, Tensor]
    in_store: Mapping[str, Tensor]
    constraints: Mapping[str, Any]

    @classmethod
    def of(cls, fit: FitResult) -> Start:
        """Those of a fit."""
        guide = fit.guide.unbound
        if isinstance(guide, torch.nn.Module):
            return cls({n: p.detach().clone() for n, p in guide.named_parameters()}, {}, {})
        state = fit.guide.state
        values = {n: p.detach().clone() for n, p in state["params"].items()}
        return cls({}, values, dict(state["constraints"]))

    def at(
        self,
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Callable[..., Any]:
        """A guide that has these parameters when it is first called in a fit."""
        if not isinstance(guide, torch.nn.Module):
            return _Started(guide, self)
        with pyro.get_param_store().scope(), seeded(0):
            guide(*args, **kwargs)  # many guides have no parameters before
        with torch.no_grad():
            for name, p in guide.named_parameters():
                p.copy_(self.of_module[name])
        return guide


class _Started:
    """A guide that is a function, whose parameters are put into a store that has none."""

    def __init__(self, guide: Callable[..., Any], start: Start) -> None:
        self.guide = guide
        self.start = start

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        store = pyro.get_param_store()
        missing = [name for name in self.start.in_store if name not in store]
        if missing:
            store.set_state(
                {
                    "params": {n: self.start.in_store[n].clone().requires_grad_() for n in missing},
                    "constraints": {n: self.start.constraints[n] for n in missing},
                }
            )
        return self.guide(*args, **kwargs)
