"""What ``compare`` returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType

from pyro_klmodes import plots, report, tables
from pyro_klmodes.entries import Results
from pyro_klmodes.errors import NotDefined

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Comparison"]


@dataclass(frozen=True, repr=False)
class Comparison(Results):
    """Several inferences of one model side by side.

    Prints as a table, in a notebook as a page. ``fits`` are the finished entries with all that is
    known of them (``fits[0].diagnosis``, ``.data``, ``.loo``), ``failures`` the others.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_klmodes.comparison import compare
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> found = compare({"exact": (model, model)}, num_samples=1000)
        >>> found.table().loc["exact", "verdict"], found.conclusion.headline
        ('reliable', 'The fit can be believed.')
    """

    @property
    def conclusion(self) -> tables.Conclusion:
        """Which fits can be believed, what the others miss and what to try next, in words."""
        return tables.conclude(self)

    def table(self) -> pd.DataFrame:
        """One row per fit: verdict, ELBO and evidence, k-hat, draws, LOO, costs; NaN if unknown."""
        return tables.fits_frame(self)

    def parameters(self) -> pd.DataFrame:
        """One row per parameter and fit: moments, and how far they are from the reference."""
        return tables.parameters_frame(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it but the draws, as JSON has it: what is not finite is None."""
        return tables.to_dict(self)

    def save(self, folder: str | Path) -> Path:
        """Write the page, its figures, the tables and the draws of every fit into a folder.

        ``index.html`` needs no other file and no network. ``fits.csv``, ``parameters.csv`` and
        ``results.json`` hold the numbers, ``<label>.nc`` the draws, which ArviZ reads. What an
        earlier comparison wrote into the folder is removed first, unless somebody has changed it;
        all other files stay.

        Returns:
            The path of the page.

        Raises:
            OSError: If the folder cannot be made or written to.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        tables.remove_earlier(place)
        for fit in self.fits:
            tables.write_draws(place, self, fit)
        tables.write_tables(place, self)
        return report.write_page(place, self)

    def plot_forest(self, *, dark: bool = False) -> Figure:
        """Means and intervals, see `plots.forest`.

        A line much shorter than the grey band, or than its neighbours, is overconfident; a dot off
        the grey line is biased.
        """
        return self._drawn("forest", "the fits have no parameter in common", dark=dark)

    def plot_density(self, *, dark: bool = False) -> Figure:
        """Densities over each other, see `plots.density`.

        Curves that lie on each other agree; one much narrower than the band covers a part only.
        """
        return self._drawn("density", "no parameter is a real number that varies", dark=dark)

    def plot_pair(self, *, dark: bool = False) -> Figure:
        """Contours of the parameters over which fits differ most, see `plots.pair`.

        Contours that lie on each other agree, also about dependence.
        """
        return self._drawn(
            "pair", "fewer than two parameters are real numbers that vary", dark=dark
        )

    def plot_khat(self, *, dark: bool = False) -> Figure:
        """k-hat per datum, or per site, see `plots.khat`.

        Points beyond the limit are where the guide is too far from the posterior.
        """
        return self._drawn("khat", "no fit has weights", dark=dark)

    def plot_training(self, *, dark: bool = False) -> Figure:
        """The loss of every step, see `plots.training`.

        A curve that is not level at the right edge needs more steps.
        """
        return self._drawn("training", "no fit kept its losses", dark=dark)

    def plot_modes(self, *, dark: bool = False) -> Figure:
        """Mass of every mode, see `plots.modes`.

        A bar that is missing is a mode that the fit misses.
        """
        return self._drawn("modes", "fewer than two modes were found", dark=dark)

    def plot_evidence(self, *, dark: bool = False) -> Figure:
        """Bounds and estimates of the log evidence, see `plots.evidence`.

        An estimate to the left of the vertical line misses mass.
        """
        return self._drawn("evidence", "no fit has an estimate of the evidence", dark=dark)

    def _drawn(self, name: str, otherwise: str, *, dark: bool) -> Figure:
        figure = getattr(plots, name)(self, theme=plots.DARK if dark else plots.LIGHT)
        if figure is None:
            raise NotDefined(f"there is nothing to draw: {otherwise}")
        return figure

    def _repr_html_(self) -> str:
        """The conclusion and the tables, for notebooks."""
        return report.fragment(self)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield from tables.rendered(self)

    def __str__(self) -> str:
        console = Console(width=100, no_color=True, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    __repr__ = __str__
