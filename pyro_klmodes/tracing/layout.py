"""What is found out once about a (model, guide) pair: depth of plates, vectorisation, gradients."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Layout", "LayoutCache", "Sharing"]

#: how particles are run: all in one run of model and guide; in one run of the guide, with the model
#: mapped over its draws by torch (see ``mapped``); or one after the other
Sharing = Literal["run", "map", "none"]


@dataclass
class Layout:
    """The static structure of a pair.

    Attributes:
        nesting: depth of the deepest plate; particles go left of it.
        sharing: what the particles can share.
        enumerated: model sites that are summed out.
        unreparameterised: guide sites whose draws carry no path.
        reparameterised: guide sites whose draws do.
        partial_plates: subsampled plates that hold some latent sites, but not all.
        unscored: reason why the guide has no density at given values, None if it has,
            "" while nobody asked.
        independent: observed sites that depend on no latent value, None while nobody asked.
        reads_data: whether the guide is known to read its data from the arguments.
        numbers: how many numbers one particle takes up in the sites of model and guide.
        settled: whether what depends on values has been decided, so that nothing looks at values
            again: while a step is written down as a graph.
    """

    nesting: int
    sharing: Sharing = "none"
    enumerated: tuple[str, ...] = ()
    unreparameterised: tuple[str, ...] = ()
    reparameterised: tuple[str, ...] = ()
    partial_plates: tuple[str, ...] = ()
    unscored: str | None = ""
    independent: frozenset[str] | None = field(default=None)
    reads_data: bool = False
    numbers: int = 1
    settled: bool = False

    @property
    def vectorised(self) -> bool:
        """Whether all particles can share one run of model and guide."""
        return self.sharing == "run"

    @property
    def together(self) -> bool:
        """Whether all particles can share one run of the guide at least."""
        return self.sharing != "none"

    @property
    def structure(self) -> tuple[Any, ...]:
        """What the arguments of model and guide can change."""
        return (
            self.nesting,
            self.enumerated,
            self.unreparameterised,
            self.reparameterised,
            self.partial_plates,
        )


class LayoutCache:
    """Layouts by (model, guide), forgotten with either of them; never copied or pickled."""

    def __init__(self) -> None:
        self._by_owner: weakref.WeakKeyDictionary[Any, dict[Hashable, Layout]]
        self._by_owner = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[LayoutCache], tuple[()]]:
        return LayoutCache, ()

    def get(self, model: Callable[..., Any], guide: Callable[..., Any]) -> Layout | None:
        """The layout of a pair seen before."""
        entry = self._entry(model, guide)
        return None if entry is None else entry[0].get(entry[1])

    def put(self, model: Callable[..., Any], guide: Callable[..., Any], layout: Layout) -> None:
        """Remember a pair as long as both live."""
        entry = self._entry(model, guide)
        if entry is not None:
            entry[0][entry[1]] = layout

    def forget(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Drop what is known of a pair."""
        entry = self._entry(model, guide)
        if entry is not None:
            entry[0].pop(entry[1], None)

    def _entry(
        self, model: Callable[..., Any], guide: Callable[..., Any]
    ) -> tuple[dict[Hashable, Layout], Hashable] | None:
        """The dictionary of a guide's layouts, and the model's key in it."""
        owner, guide_name = _owner(guide)
        model_owner, model_name = _owner(model)
        try:
            layouts = self._by_owner.setdefault(owner, {})
            return layouts, (guide_name, weakref.ref(model_owner), model_name)
        except TypeError:  # not weakly referable or not hashable: found out anew every time
            return None


def _owner(function: Callable[..., Any]) -> tuple[Any, str]:
    """A bound method is made anew at every access; its object and name are what lasts."""
    return getattr(function, "__self__", function), getattr(function, "__name__", "")
