"""One self-contained page per comparison: tables and figures, no request to anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from pyro_klmodes import plots, tables
from pyro_klmodes.comparison import Failed, Fitted, Outcome
from pyro_klmodes.model_spec import Target
from pyro_klmodes.reliability import verdict

__all__ = ["write_page"]

PAGE = "index.html"
MOST_TABLE_ROWS = 60


@dataclass(frozen=True)
class Figure:
    """A figure of the page: its PNG, how to read it, and its words for who cannot see it."""

    name: str
    title: str
    reading: str
    alt: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The PNG as an address that needs no request."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


def write_page(
    folder: Path, target: Target, outcomes: Sequence[Outcome], settings: tables.Settings
) -> Path:
    """Write the figures as PNG files and ``index.html``.

    Args:
        folder: An existing folder.
        target: The model and what is known about it.
        outcomes: Finished and failed fits.
        settings: How the comparison was run.

    Returns:
        The path of the page.
    """
    fits = [outcome for outcome in outcomes if isinstance(outcome, Fitted)]
    figures = list(_figures(fits, target)) if fits else []
    for figure in figures:
        (folder / f"{figure.name}.png").write_bytes(figure.png)
    rows = list(tables.parameter_rows(fits, target.reference))
    page = _template().render(
        target=target,
        settings=settings,
        fits=[(fit, *verdict(fit.weights, target.log_evidence)) for fit in fits],
        failures=[outcome for outcome in outcomes if isinstance(outcome, Failed)],
        rows=rows[:MOST_TABLE_ROWS],
        left_out=max(0, len(rows) - MOST_TABLE_ROWS),
        figures=figures,
    )
    path = folder / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = tables.short_number
    environment.globals |= {"with_spread": tables.with_spread, "file_name": tables.file_name}
    source = resources.files("pyro_klmodes").joinpath("report.html.j2")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _figures(fits: Sequence[Fitted], target: Target) -> Iterator[Figure]:
    labels = ", ".join(fit.label for fit in fits)
    has_reference = bool(target.reference)
    grey = " Grey: the reference, its mean and one standard deviation to each side."
    yield Figure(
        name="forest",
        title="Posterior intervals",
        reading=(
            "Each dot is a posterior mean, the thick line holds half of the draws and the thin "
            "line 94 % of them; a line much shorter than its neighbours is overconfident."
            + grey
            * has_reference
        ),
        alt=f"Forest plot: mean, 50 % and 94 % interval of every parameter for {labels}. "
        "The means and standard deviations are in the table above.",
        png=plots.forest_plot(fits, target.reference),
    )
    density = plots.density_plot(fits, target.reference)
    if density is not None:
        yield Figure(
            name="density",
            title="Posterior densities",
            reading="Each curve is the density of one fit's draws: colour tells the loss, line "
            "style the guide; "
            + (
                "a curve much narrower than the grey band covers only part of the posterior."
                if has_reference
                else "where curves of the same guide disagree, the choice of loss matters."
            ),
            alt=f"Posterior density curves per parameter for {labels}. "
            "The means and standard deviations are in the table above.",
            png=density,
        )
    yield Figure(
        name="training",
        title="Training",
        reading=(
            "Running median of the loss during training, each kind of loss on its own scale; a "
            "curve that is not level at the right edge needs more steps, and a forward loss may "
            "rise towards its level, because its weights come from the guide that is fitted."
        ),
        alt=f"Loss against step for {labels}.",
        png=plots.training_plot(fits),
    )
