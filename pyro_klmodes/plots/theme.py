"""Colours for light and for dark pages, and how a fit is told from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyro_klmodes.entries import Fitted

__all__ = ["DARK", "LIGHT", "Look", "Theme", "looks"]


@dataclass(frozen=True)
class Theme:
    """Colours of one kind of page.

    The palette is Okabe and Ito's (2008), told apart by people with every common kind of colour
    vision; each page uses those that stand out from it, the strongest first.
    """

    page: str
    ink: str
    soft: str
    grid: str
    band: str
    reference: str
    palette: tuple[str, ...]


LIGHT = Theme(
    page="#ffffff",
    ink="#1d2125",
    soft="#5b646d",
    grid="#e9ebee",
    band="#d8dbdf",
    reference="#4d4d4d",
    palette=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
DARK = Theme(
    page="#171b1f",
    ink="#e6e8ea",
    soft="#a3adb6",
    grid="#2a3037",
    band="#3d454e",
    reference="#c5ccd3",
    palette=("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00"),
)
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one fit."""

    colour: str
    line: str
    marker: str


def looks(fits: Sequence[Fitted], theme: Theme, reference: str | None = None) -> list[Look]:
    """One look per fit: where guides and losses are crossed, the colour says the loss, line and
    marker say the guide; otherwise each fit has its own. The reference fit has the ink's colour.
    """
    own = [fit for fit in fits if fit.label != reference]
    losses = list(dict.fromkeys(fit.loss for fit in own))
    guides = list(dict.fromkeys(fit.guide for fit in own))
    pairs = {(fit.guide, fit.loss) for fit in own}
    every_pair = len(pairs) == len(own) == len(losses) * len(guides)
    crossed = every_pair and min(len(losses), len(guides)) > 1
    found = []
    for fit in fits:
        if fit.label == reference:
            found.append(Look(theme.ink, "-", "X"))
            continue
        place = own.index(fit)
        shade, shape = (
            (losses.index(fit.loss), guides.index(fit.guide)) if crossed else (place, place)
        )
        found.append(
            Look(
                theme.palette[shade % len(theme.palette)],
                LINES[shape % len(LINES)],
                MARKERS[shape % len(MARKERS)],
            )
        )
    return found
