"""How the terms of a model depend on the sites of a block together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides.block_families import (
    BlockFamily,
    JointNormal,
    NormalGamma,
    NormalWishart,
)
from pyro_klmodes.guides.site_families import Gamma, Normal, Wishart
from pyro_klmodes.inference.cavi.comparisons import is_additive, vanishes
from pyro_klmodes.inference.cavi.coordinates import Coordinates
from pyro_klmodes.inference.cavi.joint_lines import joint_line
from pyro_klmodes.inference.cavi.structure import Found, Probe

__all__ = ["look_jointly"]


@torch.no_grad()
def look_jointly(probe: Probe, family: BlockFamily) -> Found:
    """Find out whether terms are affine in joint statistics, and whether elements meet.

    Args:
        probe: of the model.
        family: of the block, of continuous sites.
    """
    special = {NormalGamma: Gamma(), NormalWishart: Wishart()}.get(type(family), Normal())
    first = family.sites[0]
    coordinates = {
        n: probe.coordinates(n, special if n == first else Normal()) for n in family.sites
    }
    others = probe.elsewhere()
    values, combination = joint_line(family, coordinates, probe.generator)
    rows = [values]
    where: dict[int, range] = {}
    begin = count = len(combination)
    for dim in _plate_dims(family, probe):
        more = _switches(coordinates, family, dim)
        size = len(next(iter(more.values())))
        where[dim] = range(begin, begin + size)
        rows.append(more)
        begin += size
    together = {n: torch.cat([row[n] for row in rows]) for n in family.sites}
    terms, broadcasts = probe.run(together, others)
    dim = probe.model.node_dim(0)
    inside = [t for t in terms if t.depends_on(dim)]
    bent: list[str] = []
    meeting: dict[int, str] = {}
    for term in inside:
        along = term.value.movedim(dim, 0)
        if not vanishes(along[:count], combination):
            bent.append(term.name)
        for d, rows_of in where.items():
            if not is_additive(along[rows_of.start : rows_of.stop]):
                meeting.setdefault(d, term.name)
    names = frozenset(t.name for t in inside)
    return Found(names, tuple(dict.fromkeys(bent)), meeting, broadcasts=broadcasts)


def _plate_dims(family: BlockFamily, probe: Probe) -> list[int]:
    """The dimensions, from the right, whose elements have to be independent of each other."""
    found = set()
    for latent in family.latents:
        shape = probe.model.sites[latent.name].shape
        members = shape[: len(shape) - _vector_dims(family, latent.name)]
        found |= {d for d in range(-len(members), 0) if 1 < members[d] <= 4096}
    return sorted(found)


def _vector_dims(family: BlockFamily, site: str) -> int:
    """How many of a site's last dimensions belong to one element."""
    if isinstance(family, NormalWishart):
        return 2 if site == family.matrix.name else 1
    assert isinstance(family, JointNormal | NormalGamma)
    vectors = [x.name for x in family.normals.latents if family.normals.is_vector(x)]
    return 1 if site in vectors else 0


def _switches(
    coordinates: Mapping[str, Coordinates], family: BlockFamily, dim: int
) -> dict[str, Tensor]:  # {site: (2 + 2 bits, *shape)}
    """Two values of all sites, and both mixed along a dimension that some of them have."""
    found, size = {}, 0
    for name, at in coordinates.items():
        of_vector = _vector_dims(family, name)
        axis = len(at.shape) - of_vector + dim
        if axis >= 0 and at.shape[axis] > 1:
            found[name] = at.switches(axis)
            size = len(found[name])
    for name, at in coordinates.items():
        if name not in found:
            found[name] = at.random().expand(size, *at.shape)
    return found
