"""Which joint family goes with a group of sites."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.block_families.base import BlockFamily
from pyro_klmodes.guides.block_families.normal_gamma import NormalGamma
from pyro_klmodes.guides.block_families.normal_wishart import NormalWishart
from pyro_klmodes.guides.block_families.normals import JointNormal
from pyro_klmodes.guides.block_families.states import JointStates
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.supports import (
    is_boolean,
    is_positive,
    is_positive_definite,
    number_of_categories,
)
from pyro_klmodes.guides.site_families.unconstrained import is_real

__all__ = ["block_families", "block_family_for"]


def block_families(
    blocks: Sequence[Sequence[str]], latents: Mapping[str, Latent]
) -> tuple[BlockFamily, ...]:
    """The families of all blocks.

    Raises:
        InvalidArgument: naming the sites: one that is no latent, one in two blocks, a block of one,
            sites that have no joint family.
    """
    seen: dict[str, Sequence[str]] = {}
    for block in blocks:
        for name in block:
            if name not in latents:
                raise InvalidArgument(
                    f"blocks names site '{name}', which is no latent of the model; it has "
                    f"{', '.join(repr(n) for n in latents)}."
                )
            if name in seen:
                twice = "twice in" if seen[name] is block else f"in {tuple(seen[name])} and"
                raise InvalidArgument(
                    f"blocks has site '{name}' {twice} {tuple(block)}. A site has one factor: "
                    "join the blocks, or take it out of one."
                )
            seen[name] = block
        if len(block) < 2:
            raise InvalidArgument(
                f"block {tuple(block)} has one site; a block joins two or more. Leave it out: "
                "sites in no block have a factor of their own."
            )
    return tuple(block_family_for(block, latents) for block in blocks)


def block_family_for(names: Sequence[str], latents: Mapping[str, Latent]) -> BlockFamily:
    """The joint family of some sites, by their supports.

    One positive site and real ones: ``NormalGamma``. A positive definite matrix and a real vector
    of its size: ``NormalWishart``. Real sites: ``JointNormal``. Discrete ones: ``JointStates``.

    Raises:
        InvalidArgument: if there is none, naming sites and supports.
    """
    found = [latents[n] for n in latents if n in names]  # in the order of the model
    real = _nested([x for x in found if is_real(x.support)])
    positive = [x for x in found if is_positive(x.support)]
    matrices = [x for x in found if is_positive_definite(x.support)]
    discrete = [x for x in found if x.discrete]
    if len(real) == len(found):
        _check_inside(names, real)
        _check_vectors(real)
        return JointNormal(real)
    if len(positive) == 1 and len(real) == len(found) - 1:
        _check_inside(names, [positive[0], *real])
        if positive[0].event_dim == 0:
            _check_vectors(real)
        else:
            _check_entries(positive[0], real)
        return NormalGamma(positive[0], real)
    if len(matrices) == 1 and len(real) == 1 and len(found) == 2:
        _check_inside(names, [matrices[0], real[0]])
        _check_size(matrices[0], real[0])
        return NormalWishart(matrices[0], real[0])
    if len(discrete) == len(found):
        _check_states(discrete)
        return JointStates(discrete)
    kinds = ", ".join(f"'{x.name}' is on {x.support}" for x in found)
    raise InvalidArgument(
        f"block {tuple(names)} has no joint family: {kinds}. There are: real sites; real sites and "
        "one positive site; a real vector and a positive definite matrix; discrete sites. Take "
        "the others out of the block."
    )


def _nested(latents: Sequence[Latent]) -> list[Latent]:
    """Sites in few plates first, and otherwise in the order of the model."""
    return sorted(latents, key=lambda x: len(x.plates))


def _check_inside(names: Sequence[str], latents: Sequence[Latent]) -> None:
    """Every site is in all plates of those before it."""
    for outer, inner in itertools.pairwise(latents):
        missing = sorted(set(outer.plates) - set(inner.plates))
        if missing:
            raise InvalidArgument(
                f"block {tuple(names)}: site '{outer.name}' is in plate '{missing[0]}' and "
                f"'{inner.name}', which is drawn given it, is not. A joint factor needs plates "
                "that are nested, precisions in the fewest. Take one of the two out of the block."
            )


def _check_vectors(latents: Sequence[Latent]) -> None:
    for latent in latents:
        if latent.event_dim > 1:
            raise InvalidArgument(
                f"site '{latent.name}' with event shape {tuple(latent.event_shape)} cannot be in a "
                "block: its entries have to be one vector. Sample it as one and reshape it in the "
                "model."
            )


def _check_entries(tau: Latent, latents: Sequence[Latent]) -> None:
    for latent in latents:
        if latent.event_shape != tau.event_shape:
            raise InvalidArgument(
                f"sites '{tau.name}' and '{latent.name}' have event shapes "
                f"{tuple(tau.event_shape)} and {tuple(latent.event_shape)}: in a block a positive "
                "site has one number for every entry of a real one, or one for all of them and no "
                "event dimension."
            )


def _check_size(matrix: Latent, vector: Latent) -> None:
    if matrix.event_dim != 2 or vector.event_shape != matrix.event_shape[:1]:
        raise InvalidArgument(
            f"sites '{matrix.name}' and '{vector.name}' have event shapes "
            f"{tuple(matrix.event_shape)} and {tuple(vector.event_shape)}: in a block the matrix "
            "is that of the vector, of shapes (D, D) and (D,)."
        )


def _check_states(latents: Sequence[Latent]) -> None:
    first = latents[0]
    for latent in latents:
        if not is_boolean(latent.support) and number_of_categories(latent.support) is None:
            raise InvalidArgument(
                f"site '{latent.name}' with support {latent.support} cannot be in a block: its "
                "states are not 0, ..., n-1 with one n for all elements."
            )
        if latent.plates != first.plates or latent.event_shape != first.event_shape:
            raise InvalidArgument(
                f"discrete sites '{first.name}' and '{latent.name}' are in other plates, or have "
                "other event shapes: a joint table is for elements of one shape. Take one of them "
                "out of the block."
            )
