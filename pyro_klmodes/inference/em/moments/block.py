"""What closed forms of one kind have in common: statistics that add up, and a maximiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import Core, core_of
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.outcome import Fault
from pyro_klmodes.inference.em.moments.sums import Grid
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["EMPTY", "Block", "Update", "complaints", "elements", "finite"]

#: a member with less than this share of the largest weight has none
EMPTY = 1e-15


@dataclass
class Update:
    """New values of the entries of all parameters, changed in place.

    Attributes:
        flat: ``(R, P)``, double precision.
        held: ``(P,)``, entries that others take care of.
        floor: smallest variance.
        faults: so far.
    """

    flat: Tensor
    held: Tensor
    floor: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def write(
        self,
        places: Tensor,  # (n,), entries
        values: Tensor,  # (R, n)
    ) -> None:
        """Set entries that are not held."""
        free = ~self.held[places]
        self.flat[:, places[free]] = values[:, free]


class Block(ABC):
    """All sites of one kind and the parameters that they share.

    Args:
        key: what its statistics are called.
        uses: how the sites use parameters.
        entries: of all parameters.
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        self.key = key
        self.uses = uses
        self.entries = entries

    @abstractmethod
    def sufficient(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {statistic: (R, ...)}
        """Weighted sums over data, of the sites that are there."""

    @abstractmethod
    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """Write what maximises the expected log-likelihood, given what is held."""

    def present(self, factors: Mapping[str, Factor]) -> Iterator[tuple[int, Use, Factor, Core]]:
        """The uses whose sites are there."""
        for i, use in enumerate(self.uses):
            if use.site in factors:
                factor = factors[use.site]
                yield i, use, factor, core_of(factor.fn)

    def sites(self, entry: int) -> str:
        """The sites that an entry is used in, for messages."""
        names = [
            u.site for u in self.uses if any(bool((m == entry).any()) for m in u.maps.values())
        ]
        return ", ".join(f"'{n}'" for n in sorted(set(names))[:3])


def complaints(
    block: Block,
    update: Update,
    bad: Tensor,  # (R, n)
    places: Tensor,  # (n,), entries
    what: str,
    event_dim: int = 0,
) -> None:
    """Note a fault for every start and parameter with a bad member, the first of them."""
    seen = set()
    for start, i in bad.nonzero().tolist():
        entry = int(places[i])
        name = block.entries.owner(entry)
        if bool(update.held[entry]) or (start, name) in seen:
            continue
        seen.add((start, name))
        index = block.entries.index(entry, event_dim)
        update.faults.append(Fault(start, name, index, what.format(sites=block.sites(entry))))


def elements(use: Use, factor: Factor, core: Core, *, vectors: bool = False) -> Grid:
    """The grid of single numbers of a site, or of whole vectors."""
    fn = core.fn
    own = len(fn.event_shape)
    value = factor.value
    if vectors:
        value = value[..., 0]
    shape = fn.batch_shape if vectors else fn.batch_shape + fn.event_shape
    return Grid.of(factor, core.right + (0 if vectors else own), value, shape)


def finite(
    factor: Factor,
    core: Core,
    event_dim: int = 0,
    fill: float = 1.0,
) -> Tensor:
    """The values, with another one where they are not finite and do not count.

    Args:
        factor: the site.
        core: its distribution.
        event_dim: how many event dimensions ``core`` has.
        fill: the other one.

    Raises:
        InvalidArgument: if a value counts that is not finite.
    """
    value = factor.value
    good = value.isfinite()
    if bool(good.all()):
        return value
    weight = factor.weight.reshape(*factor.weight.shape, *[1] * (core.right + event_dim))
    count = (weight.abs().sum(0) > 0) & ~good
    if core.mask is not None:
        count = count & core.mask.reshape(*core.mask.shape, *[1] * event_dim)
    if bool(count.any()):
        raise InvalidArgument(
            f"site '{factor.name}' has values that are nan or infinite and not masked. Mask what "
            "is missing (poutine.mask), or leave it out."
        )
    return torch.where(good, value, torch.full_like(value, fill))
