"""Global latents with minibatches of local ones: expectations outside, weights inside."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.matching import check_sites
from pyro_klmodes.tracing.particles import Nested
from pyro_klmodes.tracing.plates import subsampled
from pyro_klmodes.tracing.runs import Pair, run
from pyro_klmodes.tracing.sampling import StaleLayout
from pyro_klmodes.tracing.terms import Term, guide_terms, model_terms
from pyro_klmodes.tracing.weighing import without_dead_cells

__all__ = ["sample_nested"]


def sample_nested(
    pair: Pair,
    layout: Layout,
    particles: int,
    outer: int,
) -> Draws:
    r"""Draw M global values and, for each of them, K local values of every datum.

    For global latents g and local latents in a subsampled plate, and a lower bound L_K,

    .. math:: E_{q(g)} \Big[ \log \frac{p(g)}{q(g)} + \frac NB \sum_{n \in B} L_K(w_n \mid g) \Big]

    is an unbiased estimate of a lower bound on the evidence whatever the minibatch, which the joint
    weight of global and local latents does not allow. The result is that of ``sample``: the
    weights are the local ones, ``(K, M, *local)``, and ``rest`` holds the global term.

    Raises:
        UnsupportedStructure: if there are several such plates, scales that differ by site, a
            messenger guide, or a pair that cannot be vectorised.
    """
    plate = _one_plate(pair, layout)
    shape = Nested(outer, particles, plate, layout.nesting)
    traces = run(pair, particles=shape, enumerated=bool(layout.enumerated))
    check_sites(traces)
    if not any(plate in subsampled(s) for s in traces.model.nodes.values() if is_latent(s)):
        raise StaleLayout(f"plate '{plate}' was subsampled before.")
    p = (model_terms_summed if layout.enumerated else model_terms)(traces.model)
    q = guide_terms(traces.guide, model=traces.model)
    local = [t for t in (*p, *q) if plate in t.plates]
    scale = _common_scale([*p, *q])
    plates = _cells(local)
    ratio = math.prod(r for t in local[:1] for r in t.ratios.values())

    zero = local[0].log_prob.new_zeros(())

    def cells(terms: Sequence[Term]) -> Tensor:  # (K, M, *local), or (K, *local)
        dims = [shape.dim, *plates.values()]
        parts = [to_cells(t.log_prob, shape.dim - 1, dims) for t in terms if plate in t.plates]
        # an enumerated site may be the only local one: then the guide has no term, and K is one
        summed = sum(parts, start=zero.reshape((1,) * (2 + len(plates)))).transpose(0, 1)
        return summed if outer > 1 else summed.squeeze(1)

    _refuse_local_values_outside([*p, *q], plate, shape.dim)

    def outside(terms: Sequence[Term]) -> Tensor:  # scalar: the mean over outer particles
        parts = [
            to_cells(t.log_prob, shape.dim - 1, []).mean() * math.prod(t.ratios.values())
            for t in terms
            if plate not in t.plates
        ]
        return sum(parts, start=zero)

    log_p, log_q, _ = without_dead_cells(cells(p), cells(q), zero)
    return Draws(
        log_p=log_p,
        log_q=log_q,
        scale=scale * ratio,
        plates=tuple(plates),
        values={n: s["value"].detach() for n, s in traces.guide.nodes.items() if is_latent(s)},
        sources=(),
        indices=traces.indices,
        rest=scale * (outside(p) - outside(q)),
        outer=outer,
        terms=[("model", t) for t in p] + [("guide", t) for t in q],
    )


def _one_plate(pair: Pair, layout: Layout) -> str:
    if len(layout.partial_plates) != 1:
        raise UnsupportedStructure(
            f"local latents in several subsampled plates {list(layout.partial_plates)}: weights "
            "cannot be nested in all of them. Use ReverseKL or the full data in all but one."
        )
    plate = layout.partial_plates[0]
    if pair.messenger is not None or not layout.vectorised:
        raise UnsupportedStructure(
            f"subsampled plate '{plate}' needs weights nested in global draws, which needs a guide "
            "that is not a messenger and a pair that broadcasts over particles. Use ReverseKL or "
            f"the full data in '{plate}'."
        )
    return plate


def _refuse_local_values_outside(terms: Sequence[Term], plate: str, dim: int) -> None:
    """A site outside of the plate that depends on local latents belongs to no cell."""
    for t in terms:
        inner = t.log_prob.shape[dim] if t.log_prob.dim() >= -dim else 1
        if plate not in t.plates and inner > 1:
            raise UnsupportedStructure(
                f"site '{t.name}' outside of the subsampled plate '{plate}' depends on latent "
                "values inside of it, so a minibatch gives a biased evidence. Use the full data "
                f"in '{plate}'."
            )


def _common_scale(terms: Sequence[Term]) -> float:
    first = terms[0].scale
    for t in terms:  # a site of both model and guide is two terms
        if isinstance(t.scale, Tensor) or t.scale != first:
            raise UnsupportedStructure(
                f"site '{t.name}' has a poutine.scale of its own inside of a nested bound. Use one "
                "scale for all sites, ReverseKL, or the full data."
            )
    return float(first)


def _cells(local: Sequence[Term]) -> dict[str, int]:
    """Plates common to all local terms, leftmost first; other subsampled plates are refused."""
    names = set.intersection(*(set(t.plates) for t in local))
    for t in local:
        for plate in set(t.ratios) - names:
            raise UnsupportedStructure(
                f"subsampled plate '{plate}' (site '{t.name}') does not enclose all local latents. "
                f"Use ReverseKL or the full data in '{plate}'."
            )
    dims = {n: d for n, d in local[0].plates.items() if n in names}
    return dict(sorted(dims.items(), key=lambda item: item[1]))
