"""Find out the layout of a pair by running it, and refuse what is wrong before any training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from pyro import poutine
from pyro.util import check_site_shape
from torch import Tensor

from pyro_klmodes.errors import (
    InvalidArgument,
    KLModesWarning,
    ModelGuideMismatch,
    UnsupportedStructure,
)
from pyro_klmodes.tracing.broadcasting import what_is_shared
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.matching import check_sites, is_enumerated
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import depth, plates_of, subsampled
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair, Traces, run
from pyro_klmodes.tracing.terms import guide_terms, model_terms, scored_sites
from pyro_klmodes.tracing.whole_vector import refuse_whole_vectors

__all__ = ["survey"]


@same_random_state()
def survey(
    pair: Pair,
    *,
    vectorise: bool = True,
    max_plate_nesting: int | None = None,
) -> Layout:
    """Run a pair a few times, without side effects on outer handlers, and describe it.

    A guide that creates its parameters lazily does so here, outside of any particle plate. A
    vectorised run is compared with single runs at the same draws. Where the two differ or the
    vectorised one fails, the guide alone is vectorised and the model mapped over its draws by
    torch, which is compared likewise. Where that does not do either, as with a branch on a latent
    value, particles are run one after the other, with a warning that says why.

    Raises:
        ModelGuideMismatch: if their latent sites or shapes do not match.
        UnsupportedStructure: for enumeration in the guide, batch dimensions without a plate, or an
            autoguide that holds one vector for a minibatch.
        InvalidArgument: if ``max_plate_nesting`` is too small, or a plate has size zero.
    """
    try:
        with poutine.block():
            traces = run(pair, particles=Single())
    except ZeroDivisionError as error:
        if str(error) != "size cannot be zero":  # of `pyro.plate`, which does not say whose it is
            raise
        raise InvalidArgument(
            "a plate of the model or the guide has size zero, and there is nothing to learn from. "
            "Is a batch empty? Leave it out."
        ) from error
    if not scored_sites(traces.model):
        raise ModelGuideMismatch("the model has no sample site; did it return before sampling?")
    check_sites(traces)
    _check_shapes(traces)
    refuse_whole_vectors(pair.guide, traces)
    sites = [*scored_sites(traces.guide), *scored_sites(traces.model)]
    needed = depth(sites)
    if max_plate_nesting is not None and max_plate_nesting < needed:
        raise InvalidArgument(
            f"max_plate_nesting={max_plate_nesting}, but the plates of model and guide are "
            f"{needed} deep. Pass at least {needed}, or leave it out."
        )
    drawn = {n: s for n, s in traces.guide.nodes.items() if is_latent(s)}
    layout = Layout(
        nesting=needed if max_plate_nesting is None else max_plate_nesting,
        enumerated=tuple(n for n, s in traces.model.nodes.items() if is_enumerated(n, s, traces)),
        unreparameterised=tuple(n for n, s in drawn.items() if not _has_path(s)),
        reparameterised=tuple(n for n, s in drawn.items() if _has_path(s)),
        partial_plates=_partial_plates(traces),
        numbers=sum(_numbers(s) for s in sites),
    )
    if vectorise:
        found = what_is_shared(pair, layout)
        if found.reason is not None:
            warnings.warn(
                f"particles are run one after the other, because {found.reason}. The results are "
                "the same, only slower. Make the model broadcast over a leftmost batch dimension, "
                "or pass vectorize_particles=False to silence this.",
                KLModesWarning,
                stacklevel=2,
            )
        layout.sharing, layout.independent = found.sharing, found.independent
    return layout


def _numbers(site: Mapping[str, Any]) -> int:
    """How many numbers a site takes up in the run of one particle."""
    value = site["value"].numel() if isinstance(site["value"], Tensor) else 1
    return max(math.prod(site["fn"].shape()), value, 1)


def _partial_plates(traces: Traces) -> tuple[str, ...]:
    """Subsampled plates that hold some latent sites of the model, but not all."""
    latent = [s for s in traces.model.nodes.values() if is_latent(s)]
    if not latent:
        return ()
    around = [set(subsampled(s)) & set(plates_of(s)) for s in latent]
    some, every = set().union(*around), around[0].intersection(*around[1:])
    return tuple(sorted(some - every))


def _has_path(site: Mapping[str, Any]) -> bool:
    """A rejection sampler has a path, but needs a score as well."""
    if not getattr(site["fn"], "has_rsample", False):
        return False
    return not isinstance(site["fn"].score_parts(site["value"]).score_function, Tensor)


def _check_shapes(traces: Traces) -> None:
    """Guide and model agree about the shape of every latent site, and batches are in plates."""
    for name, site in traces.guide.nodes.items():
        if not is_latent(site) or name not in traces.model:
            continue
        ours, theirs = tuple(site["value"].shape), tuple(traces.model.nodes[name]["fn"].shape())
        if _without_ones(ours) != _without_ones(theirs):
            raise ModelGuideMismatch(
                f"site '{name}' has shape {ours} in the guide and {theirs} in the model. Give both "
                "the same plates and the same event shape."
            )
        _check_plates(name, site, traces.model.nodes[name])
    for where, trace, terms in (
        ("guide", traces.guide, guide_terms(traces.guide)),
        ("model", traces.model, model_terms(traces.model)),
    ):
        for site, term in zip(scored_sites(trace), terms, strict=True):
            site["log_prob"] = term.log_prob
            try:
                check_site_shape(site, float("inf"))
            except ValueError as error:
                raise UnsupportedStructure(
                    f"{where} site '{site['name']}' has a batch dimension that no plate declares. "
                    f"Use pyro.plate for independent dimensions or .to_event() for the others. "
                    f"({' '.join(str(error).split())})"
                ) from error


def _check_plates(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Guide and model put a site into the same subsampled plates, and plates on the same axes."""
    in_guide, in_model = subsampled(ours), subsampled(theirs)
    for plate in sorted({**in_guide, **in_model}):
        if not math.isclose(in_guide.get(plate, 1.0), in_model.get(plate, 1.0)):
            raise ModelGuideMismatch(
                f"site '{name}' is in subsampled plate '{plate}' in the "
                f"{'model' if plate in in_model else 'guide'}, but not in the same way in the "
                f"other: full over batch size is {in_guide.get(plate, 1.0):g} in the guide and "
                f"{in_model.get(plate, 1.0):g} in the model, so they would not see the same "
                "minibatch. Use a plate with the same name, size and subsample_size in both."
            )
    dims = plates_of(theirs)
    for plate, dim in plates_of(ours).items():
        if dims.get(plate, dim) != dim:
            raise ModelGuideMismatch(
                f"site '{name}': plate '{plate}' has dim={dim} in the guide and dim={dims[plate]} "
                "in the model. Nest the plates in the same order, or give them the same dim."
            )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape up to leading dimensions of size one, which broadcasting ignores."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
