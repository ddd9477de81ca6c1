"""A model at many given values of its latent sites, for the full data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.many_runs import ManyRuns, Pieces, Way, value_piece
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.pointwise import likelihoods, unmasked
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import run_model
from pyro_klmodes.tracing.sites import SiteInfo
from pyro_klmodes.tracing.terms import model_terms
from pyro_klmodes.tracing.visits import Piece, stitch

__all__ = ["ModelAt", "Pointwise"]


@dataclass(frozen=True)
class Pointwise:
    """The log-likelihood of one observed site, or of several that belong together.

    Attributes:
        log_prob: ``(s, *batch)``, zero where masked out.
        counts: ``(*batch)``, which elements are data.
        axes: for each plate its axis, counted from the right.
    """

    log_prob: Tensor
    counts: Tensor
    axes: Mapping[str, int]


class ModelAt(ManyRuns):
    """A model at many given values of its latent sites, see ``ManyRuns`` for its arguments."""

    def log_likelihood(
        self,
        values: Mapping[str, Tensor],  # {site: (s, *site_shape)}
    ) -> dict[str, Pointwise]:
        """Pointwise log-likelihood of every observed site, and which elements are data.

        Without any scale; masked-out elements are zero and no data; enumerated sites are summed
        out, see ``likelihoods``.

        Raises:
            UnsupportedStructure: as ``likelihoods``, and if a mask depends on a latent value.
        """
        found = self.over(values, self._likelihood, "likelihood")
        result = {}
        for name in [name for what, name in found if what == "log_prob"]:
            mask = found["counts", name].value
            if not torch.equal(mask.all(0), mask.any(0)):
                raise UnsupportedStructure(
                    f"the mask of observed site '{name}' depends on a latent value, so every draw "
                    "has other data. Leave log_likelihood out."
                )
            piece = found["log_prob", name]
            result[name] = Pointwise(piece.value, mask[0], piece.axes)
        return result

    def log_joint(
        self,
        values: Mapping[str, Tensor],  # {site: (s, *site_shape)}
    ) -> Tensor:  # (s,)
        """The log-density of data and latents, masked and scaled, enumerated sites summed out.

        Raises:
            UnsupportedStructure: if the model draws minibatches.
        """
        for plate in self.sizes:
            raise UnsupportedStructure(
                f"plate '{plate}' draws minibatches, so the model has another density in every "
                "run. Give it the full data."
            )
        total: Tensor = self.over(values, self.joint, "joint")["joint"].value
        return total

    def deterministic(
        self,
        values: Mapping[str, Tensor],  # of all latent sites, {site: (s, *site_shape)}
    ) -> dict[str, Tensor]:
        """Values of the ``pyro.deterministic`` sites, ``(s, *site_shape)``."""
        found = self.over(values, self._deterministic, "plain", check=self.all_of_it)
        return {name: piece.value for (_, name), piece in found.items()}

    @same_random_state()
    def observed(self) -> dict[str, Tensor]:  # {site: site_shape}
        """What is observed, of the full data; real numbers that are masked out are NaN."""
        parts: dict[str, list[Any]] = {}
        for visit in self.visits:
            with poutine.block(), torch.no_grad():
                trace = run_model(self.pair, Single(), visit, enumerated=False)
            for name, info in self.sites.items():
                if info.kind == "observed":
                    whole = _or_nan(trace.nodes[name], info)
                    parts.setdefault(name, []).append((visit, Piece(whole, info.axes)))
        return {name: stitch(pieces, self.sizes).value for name, pieces in parts.items()}

    # -- runs --------------------------------------------------------------------------------------

    def _likelihood(self, at: Mapping[str, Tensor], particles: Particles) -> Pieces:
        trace = run_model(self.pair, particles, at, enumerated=bool(self.enumerated))
        found = likelihoods(trace, self.sites, particles)
        return {("log_prob", n): piece for n, piece in found.log_prob.items()} | {
            ("counts", n): piece for n, piece in found.counts.items()
        }

    def joint(self, at: Mapping[str, Tensor], particles: Particles) -> Pieces:
        """The log-density of data and latents in one run."""
        trace = run_model(self.pair, particles, at, enumerated=bool(self.enumerated))
        dim = particles.dim if isinstance(particles, Together) else None
        total: Any = torch.zeros(particles.count if isinstance(particles, Together) else 1)
        for term in (model_terms_summed if self.enumerated else model_terms)(trace):
            total = total + to_cells(term.log_prob * term.scale, dim, [])
        return {"joint": Piece(total)}

    def _deterministic(self, at: Mapping[str, Tensor], particles: Particles) -> Pieces:
        return self._values(run_model(self.pair, particles, at, enumerated=False), particles)

    def all_of_it(self, at: Mapping[str, Tensor], particles: Particles) -> Pieces:
        """Everything that tells whether draws are mixed up in a run without enumeration."""
        trace = run_model(self.pair, particles, at, enumerated=False)
        found = likelihoods(trace, self.sites, particles)
        densities = {("log_prob", name): piece for name, piece in found.log_prob.items()}
        return {**densities, **self._values(trace, particles)}

    def _values(self, trace: Trace, particles: Particles) -> Pieces:
        return {
            ("value", name): value_piece(
                torch.as_tensor(trace.nodes[name]["value"]), info, particles
            )
            for name, info in self.sites.items()
            if info.kind == "deterministic"
        }

    def way_of(self, values: Mapping[str, Tensor]) -> Way:
        """How draws of all latent sites can share a run without enumeration."""
        shaped = {n: self._shaped(n, v) for n, v in values.items()}
        return self._way("plain", shaped, self.all_of_it)


def _or_nan(site: Mapping[str, Any], info: SiteInfo) -> Tensor:  # (*batch, *event)
    """An observed value, NaN where a mask takes it out."""
    value = torch.as_tensor(site["value"]).expand((*info.batch_shape, *info.event_shape))
    if not value.is_floating_point():
        return value
    counts = unmasked(site).reshape((*info.batch_shape, *[1] * len(info.event_shape)))
    return value.where(counts.to(value.device), value.new_tensor(math.nan))
