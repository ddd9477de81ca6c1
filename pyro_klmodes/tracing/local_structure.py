"""Which plates are local, which scales leave the weights, and which sites are no part of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.terms import Term

__all__ = ["LocalStructure"]


@dataclass(frozen=True)
class LocalStructure:
    """What is local, what is outside of the weights, and which scales stay in them."""

    plates: Mapping[str, int]  # name -> batch dimension, leftmost first
    scale: float
    rest: frozenset[str]
    user_scale_inside: bool

    @classmethod
    def of(
        cls,
        terms: Sequence[Term],
        independent: Callable[[], frozenset[str]],
        *,
        linear: bool,
        settled: bool = False,
    ) -> LocalStructure:
        """Read it off the terms of a run.

        Args:
            terms: of model and guide.
            independent: names of the sites that depend on no latent value.
            linear: whether scales may differ by site.
            settled: whether such terms were accepted before, so that no value need be looked at.

        Raises:
            UnsupportedStructure: if a subsampled plate does not enclose every latent site and the
                objective is not linear.
        """
        plates, rest = _local_plates(terms, independent)
        weighted = [t for t in terms if t.name not in rest]
        scales = [t.scale for t in weighted]
        common = bool(scales) and all(not isinstance(s, Tensor) and s == scales[0] for s in scales)
        if not (linear or common or settled) and _share_one_tensor(scales):
            raise UnsupportedStructure(
                f"all sites share one poutine.scale that is a tensor (site '{weighted[0].name}'): "
                "weights of the data belong outside of a divergence that is not linear in log w, "
                "where only a number can go. Use ReverseKL, or a number."
            )
        ratios: dict[str, float] = {}
        for t in weighted:
            ratios.update(t.ratios)
        inside = set(ratios) - set(plates)
        if inside and not linear and any(t.latent for t in weighted):
            raise UnsupportedStructure(_subsampling_message(sorted(inside)[0], weighted))
        outside = math.prod(r for n, r in ratios.items() if n in plates)
        return cls(plates, outside * (float(scales[0]) if common else 1.0), rest, not common)

    def tempered(self, guide_terms: Sequence[Term]) -> str | None:
        """The first guide site whose log-density is scaled inside of the weights."""
        if self.user_scale_inside:
            for t in guide_terms:
                if isinstance(t.scale, Tensor) or t.scale != 1.0:
                    return t.name
        return None

    def weighed(self, term: Term, log_prob: Tensor) -> Tensor:
        """A term's log-probability with the scales that stay inside of the weights."""
        factor: Any = term.scale if self.user_scale_inside else 1.0
        for name, ratio in (term.ratios or {}).items():
            if name not in self.plates:
                factor = factor * ratio
        if isinstance(factor, Tensor) or factor != 1.0:
            return log_prob * factor
        return log_prob


def _share_one_tensor(scales: Sequence[float | Tensor]) -> bool:
    """Whether every scale is one and the same tensor, up to the batch dimensions it has."""
    tensors = [s for s in scales if isinstance(s, Tensor)]
    return 0 < len(tensors) == len(scales) and all(
        s.numel() == tensors[0].numel() and torch.equal(s.flatten(), tensors[0].flatten())
        for s in tensors
    )


def _local_plates(
    terms: Sequence[Term], independent: Callable[[], frozenset[str]]
) -> tuple[dict[str, int], frozenset[str]]:
    """Plates around everything that depends on a latent value, and the sites that do not."""
    latent = [t for t in terms if t.latent]
    if not latent:
        return {}, frozenset()
    names = set.intersection(*(set() if t.coupled else set(t.plates) for t in latent))
    outside = [t for t in terms if not t.latent and not names <= set(t.plates)]
    free = independent() & {t.name for t in outside} if outside else frozenset()
    for t in outside:
        if t.name not in free:
            names &= set(t.plates)
    dims = {n: d for n, d in latent[0].plates.items() if n in names}
    return dict(sorted(dims.items(), key=lambda item: item[1])), frozenset(free)


def _subsampling_message(plate: str, terms: Sequence[Term]) -> str:
    outside = next((t.name for t in terms if t.latent and plate not in t.ratios), None)
    if outside is None:
        return (
            f"subsampled plate '{plate}' is sequential: its elements have no weights of their own, "
            "and a joint weight is biased on minibatches. Use `with pyro.plate(...)` instead of a "
            f"loop over it, ReverseKL, or the full data in '{plate}'."
        )
    return (
        f"subsampled plate '{plate}' does not enclose latent site '{outside}': a divergence that "
        "is not linear in log w is biased on minibatches of such a model. Use ReverseKL, the full "
        f"data in '{plate}', or, where '{plate}' holds local latents, IWAE or Renyi "
        "(alpha >= 0) with a pathwise estimator, which then nest: exact expectation over "
        "the global latents, importance weights over the local ones."
    )
