"""Values of the sites of a block for probing a model: points where joint statistics cancel.

As in ``coordinates``, a function that is affine in the joint statistics t of a block gives
``sum_s l_s f(x_s) = 0`` for points with ``sum_s l_s = 0`` and ``sum_s l_s t(x_s) = 0``.
"""

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
from pyro_klmodes.inference.cavi.coordinates import Coordinates, annihilator

__all__ = ["joint_line"]

#: by how much values move, and precisions are multiplied
_STEPS = (-1.5, -0.4, 0.7, 1.6)
_SHIFTS, _FACTORS = (-1.2, 0.9, 0.3, -0.5, 1.4, -0.1), (0.4, 1.7, 0.7, 1.2, 0.5, 2.1)

_Line = tuple[dict[str, Tensor], Tensor]


def joint_line(
    family: BlockFamily, coordinates: Mapping[str, Coordinates], generator: torch.Generator
) -> _Line:  # {site: (S, *shape)}, (S,)
    """Points, and the combination of them that vanishes for what is jointly conjugate.

    Args:
        family: of the block.
        coordinates: of its sites.
        generator: of directions.
    """
    if isinstance(family, NormalWishart):
        return _matrices(family, coordinates, generator)
    assert isinstance(family, JointNormal | NormalGamma)
    normals = [x.name for x in family.normals.latents]
    bases = {name: at.random() for name, at in coordinates.items()}
    some = bases[normals[0]]
    if isinstance(family, JointNormal):
        t = some.new_tensor(_STEPS)
        values = {}
        statistics = [torch.ones_like(t), t, t * t]
    else:
        # multiples of a precision, along with values on a line
        t, s = some.new_tensor(_SHIFTS), some.new_tensor(_FACTORS)
        tau = family.tau.name
        values = {tau: _column(s, bases[tau]) * bases[tau]}
        statistics = [torch.ones_like(t), s.log(), s, s * t, s * t * t]
    for name in normals:
        base = bases[name]
        direction = torch.randn(base.shape, generator=generator, dtype=base.dtype)
        values[name] = base + _column(t, base) * direction
    return values, annihilator(torch.stack(statistics))


def _matrices(
    family: NormalWishart, coordinates: Mapping[str, Coordinates], generator: torch.Generator
) -> _Line:
    """``A L_s A'`` and ``b + A'^-1 m_s`` with A and b of their own for every element."""
    matrix, vector = family.matrix.name, family.vector.name
    of_matrix, of_vector = coordinates[matrix].random(), coordinates[vector].random()
    size, dtype = of_vector.shape[-1], of_vector.dtype
    rows, columns = torch.tril_indices(size, size)
    count = len(rows) + size + 4  # one more than there are statistics
    root = torch.randn(count, size, size, generator=generator, dtype=dtype)
    inner = torch.eye(size, dtype=dtype) + root @ root.mT / size
    shift = torch.randn(count, size, generator=generator, dtype=dtype)
    pushed = (inner @ shift.unsqueeze(-1)).squeeze(-1)
    statistics = torch.cat(
        [
            torch.ones_like(shift[:, :1]),
            torch.linalg.slogdet(inner).logabsdet[:, None],
            inner[:, rows, columns],
            pushed,
            (shift * pushed).sum(-1, keepdim=True),
        ],
        -1,
    )
    factor = torch.linalg.cholesky(of_matrix)
    matrices = factor @ _spread(inner, of_matrix) @ factor.mT
    moved = torch.linalg.solve_triangular(
        factor.mT, _spread(shift, of_vector).unsqueeze(-1), upper=True
    )
    values = {
        matrix: 0.5 * (matrices + matrices.mT),
        vector: of_vector + moved.squeeze(-1),
    }
    return values, annihilator(statistics.mT)


def _column(t: Tensor, base: Tensor) -> Tensor:  # (S, 1, ..., 1)
    return t.reshape(-1, *[1] * base.dim())


def _spread(
    points: Tensor,  # (S, *event)
    like: Tensor,  # (*batch, *event)
) -> Tensor:  # (S, 1, ..., 1, *event)
    ones = [1] * (like.dim() - points.dim() + 1)
    return points.reshape(len(points), *ones, *points.shape[1:])
