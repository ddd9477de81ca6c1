"""The page of a comparison, and the part of it that notebooks show."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pyro_klmodes import tables
from pyro_klmodes.entries import Results
from pyro_klmodes.entries.distance import distance
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.numbers import two_decimals
from pyro_klmodes.report.figures import pictures

__all__ = ["PAGE", "fragment", "write_page"]

PAGE = "index.html"
MOST_ROWS = 60
# A shift or a ratio beyond these is marked.
MARKED_SHIFT, MARKED_RATIO = 0.25, 1.25
#: a sign beside each verdict, because colour alone is not seen by everybody
SIGNS = {"reliable": "✓", "reweight": "≈", "far off": "✗", "failed": "✗"}


def write_page(folder: Path, results: Results) -> Path:
    """Write the figures as PNG files and ``index.html``.

    Args:
        folder: An existing folder; tables and draws are linked to as being in it.
        results: Finished and failed fits.

    Returns:
        The path of the page.
    """
    figures = list(pictures(results))
    for figure in figures:
        (folder / f"{figure.name}.png").write_bytes(figure.light)
    page = _render("page.html.j2", results, figures=figures, with_files=True)
    path = folder / PAGE
    path.write_text(page, encoding="utf-8")
    tables.written(folder, (PAGE, *(f"{figure.name}.png" for figure in figures)))
    return path


def fragment(results: Results) -> str:
    """The conclusion and the tables as a piece of HTML, in the style of what is around it."""
    return _render("fragment.html.j2", results, with_files=False)


def _render(template: str, results: Results, **more: Any) -> str:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": tables.short_number,
        "count": tables.count,
        "two_decimals": two_decimals,
    }
    environment.globals |= {
        "with_spread": tables.with_spread,
        "evidence_of": evidence_of,
        "sign": lambda word: SIGNS.get(word, "!"),
        "marked": _marked,
    }
    rows = list(results.scalars())
    return environment.get_template(template).render(
        results=results,
        conclusion=tables.conclude(results),
        files=tables.draws_files(results),
        rows=[(p, [(fit, distance(fit, p, results)) for fit in results.fits]) for p in rows][
            :MOST_ROWS
        ],
        left_out=max(0, len(rows) - MOST_ROWS),
        **more,
    )


def _source(name: str) -> str:
    return resources.files("pyro_klmodes.report").joinpath(name).read_text(encoding="utf-8")


def _marked(z_shift: float, sd_ratio: float) -> bool:
    """Whether a parameter is off the reference by what is worth a mark."""
    return abs(z_shift) > MARKED_SHIFT or not 1 / MARKED_RATIO <= sd_ratio <= MARKED_RATIO
