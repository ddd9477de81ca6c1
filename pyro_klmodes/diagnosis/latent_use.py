"""What the latents of the data are used for, as numbers and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pyro_klmodes.diagnostics import ActiveUnits, MutualInformation
from pyro_klmodes.numbers import short_number, with_spread

__all__ = ["Collapse", "SiteUse"]

Word = Literal["in use", "partly collapsed", "collapsed"]
COLOURS = {"in use": "green", "partly collapsed": "yellow", "collapsed": "red"}


@dataclass(frozen=True)
class SiteUse:
    r"""One latent site of the data.

    Attributes:
        rate: nats per datum, :math:`E_q[\log q(z|x) - \log p(z)]`; shared by sites that the guide
            draws together.
        units: which of its units differ between data.
    """

    rate: float
    units: ActiveUnits


@dataclass(frozen=True)
class Collapse:
    r"""What the latents of the data are used for, in nats per datum.

    The negated ELBO is ``distortion + rate`` (plus the rates of global latents), and the rate is
    ``information + aggregate_gap``. Prints as a table with these numbers; "aggregate against prior"
    is ``aggregate_gap``, "active units" are those whose mean differs between data, and "largest
    variance of a mean" is how much it does where it does most.

    Attributes:
        plate: whose elements are the data.
        num_data: how many there are, without those that are masked out.
        distortion: :math:`-E_q[\log p(x|z)]`.
        rate: :math:`E_q[\log q(z|x) - \log p(z)]`, of all latents in the plate.
        rate_error: its standard error, over draws.
        information: the mutual information of data and latents; None if the guide has no density
            at given values.
        sites: rate and active units by site.
        notes: what could not be computed.
    """

    plate: str
    num_data: int
    distortion: float
    rate: float
    rate_error: float
    information: MutualInformation | None
    sites: Mapping[str, SiteUse]
    notes: tuple[str, ...] = field(default=())

    @property
    def aggregate_gap(self) -> float | None:
        """Divergence of the aggregate :math:`q(z)` from the prior: rate less information.

        It is no larger than this: what the estimate of the information lacks is in it.
        """
        return None if self.information is None else self.rate - self.information.value

    @property
    def active(self) -> int:
        """Number of active units of all sites."""
        return sum(use.units.count for use in self.sites.values())

    @property
    def units(self) -> int:
        """Number of units of all sites."""
        return sum(use.units.active.numel() for use in self.sites.values())

    @property
    def word(self) -> Word:
        """By the active units: all, some, or none of them."""
        if self.active == 0:
            return "collapsed"
        return "in use" if self.active == self.units else "partly collapsed"

    @property
    def sentence(self) -> str:
        """The word, in a sentence."""
        if self.word == "collapsed":
            return (
                f"none of {self.units} units of the latents differs between the {self.num_data} "
                "data: the guide says the same of all of them."
            )
        if self.word == "in use":
            return f"all {self.units} units of the latents differ between the data."
        return (
            f"{self.active} of {self.units} units differ between the data; idle: "
            f"{', '.join(self._idle())}."
        )

    def _idle(self, most: int = 8) -> list[str]:
        names = []
        for site, use in self.sites.items():
            idle = [str(i) for i in (~use.units.active).reshape(-1).nonzero()[:, 0].tolist()]
            shown = [*idle[:most], "…"] if len(idle) > most else idle
            if idle:
                names.append(f"{site}[{', '.join(shown)}]" if use.units.active.dim() else site)
        return names

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield Text.assemble((self.word, f"bold {COLOURS[self.word]}"), f": {self.sentence}")
        yield self._nats()
        yield self._by_site()
        for note in self.notes:
            yield Text(f"note: {note}", style="dim")

    def _nats(self) -> Table:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(f"per element of '{escape(self.plate)}'")
        table.add_column("nats", justify="right")
        table.add_row("distortion, −E log p(x|z)", short_number(self.distortion))
        table.add_row("rate, KL(q(z|x) ‖ p(z))", with_spread(self.rate, self.rate_error))
        if self.information is not None:
            found = self.information
            bound = f", at most {short_number(found.limit)}" if found.saturated else ""
            table.add_row(f"  information{bound}", with_spread(found.value, found.error))
            table.add_row("  aggregate against prior", short_number(self.aggregate_gap))
        return table

    def _by_site(self) -> Table:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in ("latent", "rate", "active units", "largest variance of a mean"):
            table.add_column(heading, justify="left" if heading == "latent" else "right")
        for site, use in self.sites.items():
            table.add_row(
                escape(site),
                short_number(use.rate),
                f"{use.units.count} of {use.units.active.numel()}",
                short_number(float(use.units.variance.max())),
            )
        return table

    def __str__(self) -> str:
        console = Console(width=100, no_color=True, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()
