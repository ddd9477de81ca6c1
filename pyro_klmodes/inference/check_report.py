"""What ``check`` finds: each site as the loss sees it, and how the weights are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout, Sharing
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.runs import Traces
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["CheckReport", "SiteReport", "site_reports"]

_SHARING: dict[Sharing, str] = {
    "run": "share one run",
    "map": "share one run of the guide, the model is mapped over its draws",
    "none": "run one after the other",
}


@dataclass(frozen=True)
class SiteReport:
    """One site of a pair, as the loss sees it."""

    name: str
    role: str  # "latent", "auxiliary", "observed", "summed out"
    plates: tuple[str, ...]
    scale: float | str  # plate ratios and poutine.scale together
    gradient: str  # "path", "score", or "" for sites that the guide does not draw


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found.

    Prints as a table of the sites: "role" is latent, observed, summed out (enumerated) or auxiliary
    (of the guide alone); "scale" is what their log-probability is multiplied by; "gradient" is the
    path through a reparameterised draw or the score of its density, empty where the guide draws
    nothing.

    Attributes:
        sites: every site, in order.
        granularity: local plates, by whose elements the weights are; empty: one joint weight.
        sharing: "run" if all particles share one run of model and guide; "map" if they share one of
            the guide, and the model is mapped over its draws; "none" if they have one each.
        estimator: the estimator of the loss, "" without one.
        problems: what is legitimate but probably not meant, and what to change, in words.
        remarks: what is right as it is, and good to know.
    """

    sites: tuple[SiteReport, ...]
    granularity: tuple[str, ...] | None
    sharing: Sharing
    estimator: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def vectorised(self) -> bool:
        """Whether particles share one run of model and guide."""
        return self.sharing == "run"

    def print(self) -> None:
        """Show the report in the terminal."""
        table = Table("site", "role", "plates", "scale", "gradient", title="model and guide")
        for s in self.sites:
            table.add_row(s.name, s.role, ", ".join(s.plates), f"{s.scale}", s.gradient)
        console = Console()
        console.print(table)
        console.print(f"weights: {self._weights()}; particles {self._layout()}")
        for problem in self.problems:
            console.print(f"problem: {problem}", markup=False)
        for remark in self.remarks:
            console.print(f"remark: {remark}", markup=False)

    def _weights(self) -> str:
        if self.granularity is None:
            return "not available, see the remarks"
        if not self.granularity:
            return "one joint weight per particle"
        return f"one per particle and element of {', '.join(self.granularity)}"

    def _layout(self) -> str:
        together = _SHARING[self.sharing]
        return f"{together}; estimator {self.estimator}" if self.estimator else together


def site_reports(traces: Traces, layout: Layout) -> list[SiteReport]:
    """Every site of a pair, those of the guide alone first."""
    model = {s["name"]: s for s in scored_sites(traces.model)}
    guide = {s["name"]: s for s in scored_sites(traces.guide)}
    sites = {**{n: s for n, s in guide.items() if n not in model}, **model}
    return [
        SiteReport(
            name,
            _role(name, site, layout, in_model=name in model),
            tuple(plates_of(site)),
            _scale(site),
            _gradient(name, layout) if name in guide else "",
        )
        for name, site in sites.items()
    ]


def _role(name: str, site: Mapping[str, Any], layout: Layout, *, in_model: bool) -> str:
    if not in_model:
        return "auxiliary"
    if name in layout.enumerated:
        return "summed out"
    return "latent" if is_latent(site) else "observed"


def _scale(site: Mapping[str, Any]) -> float | str:
    scale = site["scale"]
    return "tensor" if isinstance(scale, Tensor) and scale.numel() > 1 else round(float(scale), 6)


def _gradient(name: str, layout: Layout) -> str:
    return "score" if name in layout.unreparameterised else "path"
