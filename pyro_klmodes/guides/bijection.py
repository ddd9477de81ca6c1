"""Which bijection takes unconstrained real space to a support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from pyro.distributions import constraints as pyro_constraints
from pyro.distributions import transforms as pyro_transforms
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.constraints import Constraint, MixtureSameFamilyConstraint
from torch.distributions.transforms import (
    CatTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    StackTransform,
)

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.transforms import (
    StableCorrCholesky,
    StableStickBreaking,
    VectorToLowerCholesky,
    VectorToPositiveDefinite,
)

__all__ = ["bijection_to", "is_discrete"]


def bijection_to(support: Constraint, site: str) -> Transform:
    """The bijection from unconstrained real space to the support of a site.

    It is torch's and Pyro's ``biject_to`` where that is accurate, and one of
    :mod:`pyro_klmodes.guides.transforms` for simplices, Cholesky factors, positive definite and
    correlation matrices. Whatever is registered with ``biject_to.register`` is found too.

    The event dimensions of the two sides are ``transform.domain.event_dim`` and
    ``transform.codomain.event_dim``; ``transform.inverse_shape`` gives the unconstrained shape. The
    codomain may be wider than the support: torch declares ``real`` for ``greater_than``.
    Angles (``VonMises``) have the support ``real`` in torch and are left on the real line.

    Args:
        support: the constraint on the values, ``site["fn"].support``.
        site: name of the site, for the errors.

    Raises:
        UnsupportedStructure: if the support is discrete, depends on a value that is not known, is
            a manifold without such a map (the sphere), or is unknown to torch and Pyro.

    Example:
        >>> from torch.distributions import constraints
        >>> bijection_to(constraints.positive, "rate")
        ExpTransform()
        >>> transform = bijection_to(constraints.positive_definite, "cov")
        >>> transform.inverse_shape(torch.Size([3, 3]))
        torch.Size([6])
    """
    if is_discrete(support):
        _refuse_discrete(support, site)
    if isinstance(support, constraints.independent):
        base = bijection_to(support.base_constraint, site)
        return IndependentTransform(base, support.reinterpreted_batch_ndims)
    if isinstance(support, MixtureSameFamilyConstraint):
        return _of_mixture(support, site)
    if isinstance(support, constraints.cat):
        return _of_parts(support, site)
    if isinstance(support, constraints.stack):
        return _of_stack(support, site)
    if _is_positive(support):
        return ExpTransform()
    own = _OWN.get(type(support))
    return own() if own is not None else _registered(support, site)


def is_discrete(support: Constraint) -> bool:
    """Whether the values are counted; False where the constraint cannot tell."""
    try:
        return bool(support.is_discrete)
    except NotImplementedError:
        return False


def _is_positive(support: Any) -> bool:
    if type(support) not in _HALF_LINES:
        return False
    return isinstance(support.lower_bound, int | float) and support.lower_bound == 0


def _corr_matrix() -> Transform:
    factor = StableCorrCholesky()
    square = pyro_transforms.CorrMatrixCholeskyTransform().inv
    return ComposeTransform([factor, square])


# torch has positive as "greater than 0" and adds the zero to every value
_HALF_LINES = (type(constraints.positive), type(constraints.nonnegative))
_OWN: dict[type[Constraint], Callable[[], Transform]] = {
    type(constraints.simplex): StableStickBreaking,
    type(constraints.lower_cholesky): VectorToLowerCholesky,
    type(pyro_constraints.softplus_lower_cholesky): VectorToLowerCholesky,
    type(constraints.positive_definite): VectorToPositiveDefinite,
    # the singular matrices on the boundary have no density
    type(constraints.positive_semidefinite): VectorToPositiveDefinite,
    type(constraints.corr_cholesky): StableCorrCholesky,
    type(pyro_constraints.corr_matrix): _corr_matrix,
}


def _registered(support: Constraint, site: str) -> Transform:
    try:
        transform = biject_to(support)
    except NotImplementedError:
        transform = None
    if transform is None or not transform.bijective:
        raise UnsupportedStructure(
            f"site '{site}' has the support {support!r}, to which no bijection from unconstrained "
            "space is known. Register one with torch.distributions.biject_to.register, draw the "
            "site as a transform of a latent with a plainer support (pyro.deterministic), or hide "
            "it with pyro.poutine.block and give it a guide of its own in AutoGuideList."
        )
    return transform


def _of_mixture(support: Any, site: str) -> Transform:
    """Components share one support, unless their bounds are tensors over the components."""
    base = support.base_constraint
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    bounds = [getattr(base, name, None) for name in ("lower_bound", "upper_bound")]
    if any(isinstance(bound, Tensor) and bound.dim() > 0 for bound in bounds):
        raise UnsupportedStructure(
            f"site '{site}' is a mixture whose components have supports of their own, {base!r}; no "
            "one bijection reaches their union. Give the components bounds that are plain numbers."
        )
    return bijection_to(support.base_constraint, site)


def _of_parts(support: Any, site: str) -> Transform:
    parts = _elementwise_parts(support, site)
    return CatTransform(parts, dim=support.dim, lengths=support.lengths)


def _of_stack(support: Any, site: str) -> Transform:
    parts = _elementwise_parts(support, site)
    event_dims = {part.codomain.event_dim for part in parts}
    if event_dims != {-support.dim - 1}:
        raise UnsupportedStructure(
            f"site '{site}' has the support {support!r}, stacked along dimension {support.dim} of "
            f"parts with {sorted(event_dims)} event dimensions. A stack is one event if all parts "
            "have n event dimensions and dim = -n - 1: change dim, or use one site for each part."
        )
    return _SummedStack(parts, dim=support.dim)


def _elementwise_parts(support: Any, site: str) -> list[Transform]:
    if support.dim >= 0:
        raise UnsupportedStructure(
            f"site '{site}' has a support joined along dimension {support.dim}, counted from the "
            "left, which is another dimension as soon as values are drawn in batches. Count from "
            f"the right: dim={support.dim}-value.dim()."
        )
    parts = [bijection_to(part, site) for part in support.cseq]
    for part, constraint in zip(parts, support.cseq, strict=True):
        inner = part
        while isinstance(inner, IndependentTransform):
            inner = inner.base_transform
        if inner.domain.event_dim > 0:
            raise UnsupportedStructure(
                f"site '{site}' has a support joined of several, among them {constraint!r}, whose "
                "entries depend on each other. Only elementwise supports (real, positive, "
                "interval, ...) can be joined: use one site for each part."
            )
    return parts


class _SummedStack(StackTransform):
    """A stack along a dimension of the event: torch's leaves the log-determinants unsummed."""

    def log_abs_det_jacobian(
        self,
        x: Tensor,  # (*batch, n, *event)
        y: Tensor,  # (*batch, n, *event)
    ) -> Tensor:  # (*batch)
        parts = zip(self.transforms, self._slice(x), self._slice(y), strict=True)
        return torch.stack([t.log_abs_det_jacobian(a, b) for t, a, b in parts], -1).sum(-1)

    def with_cache(self, cache_size: int = 1) -> Transform:
        return _SummedStack(self.transforms, self.dim, cache_size)


def _refuse_discrete(support: Constraint, site: str) -> NoReturn:
    raise UnsupportedStructure(
        f"site '{site}' is discrete, with the support {support!r}, and has no place in "
        "unconstrained real space. Sum it out with infer={'enumerate': 'parallel'}, give it a "
        "discrete family in AutoMeanField, or hide it with pyro.poutine.block and give it a guide "
        "of its own in AutoGuideList."
    )
