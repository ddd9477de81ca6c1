"""What a calibration found, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scipy import stats
from torch import Tensor

from pyro_klmodes.diagnostics.coverage import Coverage, expected_coverage, tarp
from pyro_klmodes.diagnostics.ranks import RankUniformity, rank_uniformity
from pyro_klmodes.diagnostics.symmetry import VSBCReading, vsbc_reading

__all__ = ["Calibration"]

_MOST_NAMED = 5


@dataclass(frozen=True)
class Calibration:
    """Where true values lay among the draws of guides fitted to the data they made.

    Scalars are the entries of all latent sites, in the constrained space. N is the number of
    simulations that did not fail, L the number of draws each.

    Attributes:
        kind: "sbc", which asks for uniform ranks, or "vsbc", which reads bias and width.
        names: P names of scalars.
        ranks: ``(N, P)``, of the true value among the draws.
        probabilities: ``(N, P)``, ranks made continuous, uniform in [0, 1] for the posterior.
        tarp_shares: ``(N,)``, shares of draws nearer to a random reference point than the truth.
        truths: ``(N, P)``, the true values.
        num_draws: L.
        failures: number of the simulation and message, for every fit that broke down.
    """

    kind: Literal["sbc", "vsbc"]
    names: tuple[str, ...]
    ranks: Tensor = field(repr=False)
    probabilities: Tensor = field(repr=False)
    tarp_shares: Tensor = field(repr=False)
    truths: Tensor = field(repr=False)
    num_draws: int
    failures: tuple[tuple[int, str], ...] = field(repr=False)

    @property
    def num_simulations(self) -> int:
        """N, those that did not fail."""
        return len(self.ranks)

    def uniformity(self) -> dict[str, RankUniformity]:
        """Tests of uniform ranks by scalar, see ``rank_uniformity``."""
        return {
            name: rank_uniformity(self.ranks[:, p], self.num_draws)
            for p, name in enumerate(self.names)
        }

    def readings(self, level: float = 0.05) -> dict[str, VSBCReading]:
        """Bias and width by scalar, see ``vsbc_reading``; tests are of ``level / P`` each."""
        return {
            name: vsbc_reading(self.probabilities[:, p], level=level / len(self.names))
            for p, name in enumerate(self.names)
        }

    def coverage(self) -> dict[str, Coverage]:
        """How often central intervals held the true value, by scalar."""
        return {
            name: expected_coverage(self.probabilities[:, p]) for p, name in enumerate(self.names)
        }

    def tarp(self) -> Coverage:
        """How often balls around random points held the true value, all scalars at once."""
        return tarp(self.tarp_shares)

    @property
    def tarp_p(self) -> float:
        """P-value of the Kolmogorov-Smirnov test that ``tarp_shares`` are uniform."""
        return float(stats.kstest(self.tarp_shares.numpy(), "uniform").pvalue)

    def suspicious(self, level: float = 0.05) -> Mapping[str, str]:
        """Scalars that are not calibrated, in words; a level for all together (Bonferroni)."""
        readings = self.readings(level)
        if self.kind == "vsbc":
            return {
                n: r.words for n, r in readings.items() if r.bias != "none" or r.width != "right"
            }
        tests = self.uniformity()
        found = {}
        for name, test in tests.items():
            if test.ecdf_p < level / len(tests):
                reading = readings[name]
                shape = reading.words
                if reading.bias == "none" and reading.width == "right":
                    shape = "neither shifted nor of a wrong width, but of another shape"
                found[name] = f"ranks are not uniform (p = {test.ecdf_p:.2g}); {shape}"
        return found

    @property
    def words(self) -> str:
        """The reading in a few sentences."""
        count = len(self.names)
        found = self.suspicious()
        simulated = f"{self.num_simulations} simulations, {self.num_draws} draws each"
        if found:
            first = list(found.items())[:_MOST_NAMED]
            listed = "; ".join(f"{name}: {text}" for name, text in first)
            more = f"; and {len(found) - len(first)} more" if len(found) > len(first) else ""
            text = (
                f"{len(found)} of {count} scalars are not calibrated ({simulated}). {listed}{more}."
            )
        else:
            text = f"No sign that any of {count} scalars is not calibrated ({simulated})."
        if self.tarp_p < 0.05:
            text += (
                " Regions of all latents together do not cover as they say "
                f"(p = {self.tarp_p:.2g})."
            )
        if self.failures:
            number, message = self.failures[0]
            text += f" {len(self.failures)} fits failed; number {number}: {message}"
        return text

    def __str__(self) -> str:
        return self.words
