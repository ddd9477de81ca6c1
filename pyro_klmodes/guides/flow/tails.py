"""A last layer that gives a flow heavy tails, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow.tail_transforms import ParetoTails, StudentTails, TailTransform

__all__ = ["StudentTailLayer", "TailLayer", "TailWeights"]


@dataclass(frozen=True)
class TailLayer:
    r"""The tail transform of Hickling and Prangle, a last layer of exact Pareto tails.

    Each coordinate becomes

    .. math:: x = \frac{\mathrm{sign}(z)}{\lambda}
        \left( \mathrm{erfc}(|z| / \sqrt 2)^{-\lambda} - 1 \right),

    with a tail weight :math:`\lambda` for :math:`z > 0` and one for :math:`z < 0`. Of standard
    normal z, :math:`P(|x| > s) = (1 + \lambda s)^{-1/\lambda}`: tails of index :math:`1/\lambda`,
    those of a Student t with as many degrees of freedom. **In the limit** :math:`\lambda \to 0`
    **the tails are exponential, not Gaussian**; the slope at zero is :math:`\sqrt{2/\pi}` for every
    :math:`\lambda`. For coordinates whose tails may be light, ``StudentTailLayer`` has the identity
    as its limit.

    The z of a flow is standard normal far out if its layers are made of ``Spline()``, which are the
    identity there. ``Affine()`` layers stretch it, by s say, and :math:`s^2 \lambda` is the weight.

    The tail layer comes after those, because networks learn badly from heavy-tailed inputs, and
    before the location and scale, which do not change a tail.

    Args:
        weights: :math:`\lambda` for large positive values, for all coordinates or one each; the
            initial ones if they are learned.
        negative: the same for large negative values, ``weights`` if None.
        learn: whether the weights are learned.

    Raises:
        InvalidArgument: if a weight is negative or not finite, or learned and zero; in ``build``,
            if there are not as many weights as coordinates.

    References:
        Hickling and Prangle (2025), Flexible tails for normalizing flows.

    Example:
        >>> TailLayer(weights=1.0, learn=False)
        TailLayer(weights=1.0, negative=None, learn=False)
        >>> transform = TailLayer(weights=1.0).build(torch.zeros(1)).transform()
        >>> x, log_det = transform.to_values(torch.tensor([1.959964]))  # exceeded in size by 5 %
        >>> x.detach()
        tensor([19.])
    """

    weights: float | tuple[float, ...] = 0.1
    negative: float | tuple[float, ...] | None = None
    learn: bool = True

    _transform: ClassVar[type[TailTransform]] = ParetoTails

    def __post_init__(self) -> None:
        for name, given in (("weights", self.weights), ("negative", self.negative)):
            if given is None:
                continue
            for weight in given if isinstance(given, tuple) else (given,):
                if not 0 <= weight < math.inf:
                    raise InvalidArgument(
                        f"{name} has the tail weight {weight}; it must be finite and not negative."
                    )
                if self.learn and weight == 0:
                    raise InvalidArgument(
                        f"{name} has a tail weight of zero, from which nothing is learned, because "
                        "weights stay positive; begin with a small one, or say learn=False."
                    )

    def build(
        self,
        like: Tensor,  # (D,)
    ) -> TailWeights:
        """New weights for vectors of the length, type and device of ``like``."""
        negative = self.weights if self.negative is None else self.negative
        return TailWeights(
            _of_length("weights", self.weights, like),
            _of_length("negative", negative, like),
            self._transform,
            learn=self.learn,
        )


@dataclass(frozen=True)
class StudentTailLayer(TailLayer):
    r"""A last layer of nearly Student t tails, with the identity as its limit.

    Each coordinate becomes

    .. math:: x = \mathrm{sign}(z) \sqrt{(e^{\lambda z^2} - 1) / \lambda},

    Wallace's approximation of the quantiles of a Student t with :math:`1/\lambda` degrees of
    freedom by those of a normal, without its factor close to one. The slope at zero is one, and
    :math:`\lambda \to 0` is the identity, so light tails can be learned too. The tail index is
    :math:`1/\lambda`, up to a logarithm: the survival function falls like
    :math:`s^{-1/\lambda} / \sqrt{\log s}`.

    Args:
        weights: :math:`\lambda` for large positive values, for all coordinates or one each; the
            initial ones if they are learned.
        negative: the same for large negative values, ``weights`` if None.
        learn: whether the weights are learned.

    Raises:
        InvalidArgument: as for ``TailLayer``.

    References:
        Wallace (1959), Bounds on normal approximations to Student's and the chi-square
        distributions, Annals of Mathematical Statistics 30.

    Example:
        >>> transform = StudentTailLayer(weights=0.0, learn=False).build(torch.zeros(1)).transform()
        >>> transform.to_values(torch.tensor([2.0]))
        (tensor([2.]), tensor(0.))
    """

    _transform: ClassVar[type[TailTransform]] = StudentTails


class TailWeights(PyroModule):
    """The weights of a tail layer, learned in their logarithms or fixed."""

    def __init__(
        self,
        positive: Tensor,  # (D,)
        negative: Tensor,  # (D,)
        transform: type[TailTransform],
        *,
        learn: bool,
    ) -> None:
        super().__init__()
        self.kind = transform
        if learn:
            self.positive = PyroParam(positive, constraints.positive)
            self.negative = PyroParam(negative, constraints.positive)
        else:
            self.register_buffer("positive", positive)
            self.register_buffer("negative", negative)

    def transform(self) -> TailTransform:
        """The transform at the current weights."""
        return self.kind(self.positive, self.negative)


def _of_length(
    name: str,
    weights: float | tuple[float, ...],
    like: Tensor,  # (D,)
) -> Tensor:  # (D,)
    if isinstance(weights, tuple) and len(weights) != like.numel():
        raise InvalidArgument(
            f"{name} has {len(weights)} tail weights for {like.numel()} coordinates; give one for "
            "each of them, or a number for all."
        )
    given = torch.as_tensor(weights, dtype=like.dtype, device=like.device)
    return given.expand(like.shape).clone()
