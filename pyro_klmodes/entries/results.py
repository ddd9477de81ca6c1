"""All outcomes of a comparison side by side: what tables, plots and the page are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pyro_klmodes.entries.entry import Failed, Fitted, Outcome
from pyro_klmodes.entries.moments import Moments, element_names
from pyro_klmodes.entries.reference import Reference

__all__ = ["Parameter", "Results", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How a comparison was run, for whoever wants to run it again.

    Attributes:
        num_draws: Posterior draws of each guide.
        seed: Of the draws.
        command: The command line, empty if there was none.
        steps: Steps of each fit, None if fits differ or nobody knows.
    """

    num_draws: int = 4000
    seed: int = 0
    command: str = ""
    steps: int | None = None


class Parameter(NamedTuple):
    """One scalar parameter.

    Attributes:
        name: Such as ``theta[3]``.
        site: The site it belongs to.
        element: Its place among the elements of the site, in row-major order.
    """

    name: str
    site: str
    element: int

    def of(self, moments: Mapping[str, Moments]) -> tuple[float, float] | None:
        """Its mean and standard deviation, None if they are not there."""
        if self.site not in moments:
            return None
        found = moments[self.site]
        return float(found.mean.flat[self.element]), float(found.sd.flat[self.element])


@dataclass(frozen=True)
class Results:
    """Outcomes of a comparison, in the order they were given.

    Attributes:
        outcomes: Finished and failed fits.
        reference: What they are held against.
        name: Of the model or the comparison.
        source: Where model and data come from, empty if nobody says.
        settings: How it was run.
    """

    outcomes: tuple[Outcome, ...]
    reference: Reference = field(default_factory=Reference)
    name: str = "Comparison"
    source: str = ""
    settings: Settings = field(default_factory=Settings)

    @property
    def fits(self) -> list[Fitted]:
        """The finished ones."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Fitted)]

    @property
    def failures(self) -> list[Failed]:
        """The others."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Failed)]

    @property
    def recipes(self) -> dict[str, list[Fitted]]:
        """How the fits were trained, in words, each with the fits that it is true of."""
        found: dict[str, list[Fitted]] = {}
        for fit in self.fits:
            if fit.recipe is not None:
                found.setdefault(fit.recipe.words, []).append(fit)
        return found

    @property
    def common_sites(self) -> dict[str, tuple[int, ...]]:
        """The sites that every fit has in the same shape, with that shape."""
        if not self.fits:
            return {}
        first, *others = self.fits
        return {
            site: moments.mean.shape
            for site, moments in first.moments.items()
            if all(
                site in fit.moments and fit.moments[site].mean.shape == moments.mean.shape
                for fit in others
            )
        }

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The other sites, each with the labels of the fits that have it."""
        found: dict[str, list[str]] = {}
        for fit in self.fits:
            for site in fit.moments:
                if site not in self.common_sites:
                    found.setdefault(site, []).append(fit.label)
        return found

    def scalars(self) -> Iterator[Parameter]:
        """Every scalar parameter that all fits have, in the order of the first one."""
        for site, shape in self.common_sites.items():
            for element, name in enumerate(element_names(site, shape)):
                yield Parameter(name, site, element)
