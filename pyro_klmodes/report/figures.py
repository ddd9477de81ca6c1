"""The figures of the page, each with a sentence on how to read it and an alternative text."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pyro_klmodes import plots
from pyro_klmodes.entries import Results
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.entries.mode_masses import mode_masses
from pyro_klmodes.numbers import short_number
from pyro_klmodes.plots.khat import per_datum

__all__ = ["Picture", "pictures"]

GREY = " Grey: the reference, its mean and one standard deviation to each side."
IN_THE_TABLE = "The means and standard deviations are in the table above."


class Words(NamedTuple):
    """What stands around a figure."""

    title: str
    reading: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """A figure of the page, for light and for dark."""

    name: str
    words: Words
    light: bytes
    dark: bytes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page; the PNG has half as many pixels again, to be sharp."""
        width, height = struct.unpack(">II", self.light[16:24])
        return 2 * width // 3, 2 * height // 3

    @property
    def light_uri(self) -> str:
        """The light PNG as an address that needs no request."""
        return _uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark one."""
        return _uri(self.dark)


def pictures(results: Results) -> Iterator[Picture]:
    """The figures that there is something to draw for, in the order of the page."""
    words: dict[str, Callable[[Results], Words]] = {
        "evidence": _evidence,
        "modes": _modes,
        "forest": _forest,
        "density": _density,
        "pair": _pair,
        "khat": _khat,
        "training": _training,
    }
    if not results.fits:
        return
    for name, about in words.items():
        draw = getattr(plots, name)
        light, dark = (draw(results, theme=theme) for theme in (plots.LIGHT, plots.DARK))
        if light is not None:
            yield Picture(name, about(results), plots.png(light), plots.png(dark))


def _labels(results: Results) -> str:
    return ", ".join(fit.label for fit in results.fits)


def _evidence(results: Results) -> Words:
    told = [(fit.label, evidence_of(fit.diagnosis).estimate) for fit in results.fits]
    numbers = "; ".join(f"{label} {short_number(x)}" for label, x in told if x is not None)
    exact = results.reference.log_evidence
    known = "" if exact is None else f" The exact value is {short_number(exact)}."
    return Words(
        "Evidence",
        "A short line that ends at the vertical one is a good fit; an estimate to the left of it "
        "misses mass, and a long line means that guide and posterior differ.",
        f"Log evidence of every fit, from the evidence lower bound to the estimate by weights. "
        f"Estimates: {numbers}.{known}",
    )


def _modes(results: Results) -> Words:
    masses = mode_masses(results)
    shares = []
    if masses is not None:
        rows = [("found without a guide", masses.found)]
        rows += [
            (fit.label, of_fit) for fit, of_fit in zip(masses.fits, masses.of_fits, strict=True)
        ]
        shares = [f"{label} {', '.join(f'{x:.0%}' for x in held[:12])}" for label, held in rows]
    return Words(
        "Mass of the modes",
        "Coloured bars should be as high as the grey one beside them; a bar that is missing is a "
        "mode that the fit misses.",
        f"Share of the mass at each mode. {'; '.join(shares)}.",
    )


def _forest(results: Results) -> Words:
    return Words(
        "Posterior intervals",
        "Each marker is a posterior mean, the thick line holds half of the draws and the thin line "
        "94 % of them; a line much shorter than its neighbours is overconfident."
        + GREY
        * bool(results.reference.moments),
        "Forest plot: mean, 50 % and 94 % interval of every parameter for "
        f"{_labels(results)}. {IN_THE_TABLE}",
    )


def _density(results: Results) -> Words:
    return Words(
        "Posterior densities",
        "Curves that lie on each other agree; "
        + (
            "a curve much narrower than the grey band covers only part of the posterior." + GREY
            if results.reference.moments
            else "where they do not, the choice of guide or loss matters."
        ),
        f"Posterior density curves per parameter for {_labels(results)}. {IN_THE_TABLE}",
    )


def _pair(results: Results) -> Words:
    points = any(fit.label == results.reference.label for fit in results.fits)
    return Words(
        "Dependence",
        "Each outer contour holds 90 % of a fit's draws, the inner one half of them; a round "
        "contour over a tilted or curved one ignores that two parameters depend on each other."
        + " Grey points: draws of the reference."
        * points,
        "Contours of the joint density of the parameters over which the fits differ most, for "
        f"{_labels(results)}.",
    )


def _khat(results: Results) -> Words:
    weighed = [fit for fit in results.fits if fit.diagnosis.weights is not None]
    values = "; ".join(
        f"{fit.label} {short_number(fit.diagnosis.weights.k_hat)}"
        for fit in weighed
        if fit.diagnosis.weights
    )
    local = per_datum(results)
    where = "each cell of the local plates" if local else "each latent site by itself"
    return Words(
        "Where the weights are heavy",
        "Points beyond the limit are "
        + ("data" if local else "sites")
        + " for which the guide is too far from the posterior to be put right by weights"
        + (
            "; a horizontal line is a fit with one weight for all of the data."
            if local
            else "; one that sticks out is where to look first."
        ),
        f"Pareto k-hat of {where}. Over all: {values}.",
    )


def _training(results: Results) -> Words:
    kept = ", ".join(fit.label for fit in results.fits if fit.training.size)
    return Words(
        "Training",
        "A running median of the loss, each kind on its own scale: a curve that is not level at "
        "the right edge needs more steps. A forward loss may rise towards its level, because its "
        "weights come from the guide that is fitted.",
        f"Running median of the loss against the training step for {kept}.",
    )


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
