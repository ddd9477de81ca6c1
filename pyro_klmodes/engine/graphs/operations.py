"""What is known about single operations: which fill with random numbers, which are pointwise."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

__all__ = [
    "FACTORIES",
    "calls_of",
    "ignores_strides",
    "is_mutable",
    "is_op",
    "is_pointwise",
    "is_random_op",
    "is_view_op",
    "schema_of",
]

aten = torch.ops.aten

# Operations that make a tensor out of nothing but numbers, whatever is in the tensor they are like.
FACTORIES: dict[Any, float | None] = {
    aten.zeros.default: 0,
    aten.zeros_like.default: 0,
    aten.new_zeros.default: 0,
    aten.ones.default: 1,
    aten.ones_like.default: 1,
    aten.new_ones.default: 1,
    aten.full.default: None,  # the value is an argument
    aten.full_like.default: None,
    aten.new_full.default: None,
    aten.scalar_tensor.default: None,
}

# Fillers and samplers by name, for those that do not carry torch's tag in every version.
_RANDOM_NAMES = frozenset(
    [
        "normal",
        "uniform",
        "exponential",
        "cauchy",
        "log_normal",
        "geometric",
        "bernoulli",
        "random",
        "rand",
        "randn",
        "randint",
        "randperm",
        "rand_like",
        "randn_like",
        "randint_like",
        "multinomial",
        "poisson",
        "binomial",
        "_standard_gamma",
        "_sample_dirichlet",
        "native_dropout",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "rrelu",
        "rrelu_with_noise",
        "normal_functional",
        "_fused_dropout",
    ]
)

# Pointwise operations that give the same bits for an element wherever it lies in memory: the
# arithmetic is correctly rounded, or one routine serves all layouts. Softplus, sigmoid, exp2 and
# powers with other exponents are missing because their vectorised code and the scalar code for
# strided elements differ in the last bit.
_ANY_LAYOUT = frozenset(
    [
        *(aten.neg.default, aten.abs.default, aten.exp.default, aten.log.default),
        *(aten.log1p.default, aten.expm1.default, aten.sqrt.default, aten.reciprocal.default),
        *(aten.tanh.default, aten.lgamma.default, aten.digamma.default, aten.erf.default),
        *(aten.sin.default, aten.cos.default, aten.sign.default, aten.relu.default),
        *(aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default),
        *(aten.logical_not.default, aten.bitwise_not.default, aten.isnan.default),
        *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar),
        *(aten.maximum.default, aten.minimum.default, aten.xlogy.Tensor),
        *(aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default),
        *(aten.bitwise_and.Tensor, aten.bitwise_or.Tensor),
        *(aten.eq.Tensor, aten.ne.Tensor, aten.lt.Tensor, aten.le.Tensor, aten.gt.Tensor),
        *(aten.ge.Tensor, aten.eq.Scalar, aten.ne.Scalar, aten.lt.Scalar, aten.le.Scalar),
        *(aten.gt.Scalar, aten.ge.Scalar, aten.where.self, aten.masked_fill.Scalar),
        *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar),
        *(aten.rsub.Scalar, aten.pow.Tensor_Scalar, aten._to_copy.default),
    ]
)
_SCALED = frozenset(
    [
        *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar),
    ]
)
_POINTWISE_TOO = (aten.softplus_backward.default, aten._to_copy.default)
_EXACT_POWERS = (-2, -1, -0.5, 0.5, 1, 2, 3)


def calls_of(graph: Graph, *targets: OpOverload) -> list[Any]:  # of nodes
    """The calls of one of these operations, in order; the graph may change meanwhile."""
    return [node for node in graph.nodes if is_op(node, *targets)]


def is_op(node: object, *targets: OpOverload) -> bool:
    """Whether something is a call of one of these operations."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def is_mutable(node: Node) -> bool:
    """Whether a call writes into one of its arguments."""
    return _writes(node.target)


def is_random_op(node: Node) -> bool:
    """Whether a call consumes random numbers."""
    return node.op == "call_function" and _draws(node.target)


def is_view_op(node: Node) -> bool:
    """Whether the result of a call shares memory with an argument that it does not write to."""
    return node.op == "call_function" and _views(node.target)


def is_pointwise(node: Node) -> bool:
    """Whether each element of a call's result is computed from one element of each argument."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or target in _POINTWISE_TOO


def schema_of(node: Node) -> Any:
    """The names and kinds of the arguments of a call of an operation of torch."""
    if not isinstance(node.target, OpOverload):
        raise TypeError(f"{node.target} is not an operation of torch")
    return node.target._schema


@functools.cache
def _writes(target: Any) -> bool:
    return isinstance(target, OpOverload) and target._schema.is_mutable


@functools.cache
def _draws(target: Any) -> bool:
    if not isinstance(target, OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded in target.tags:
        return True
    return target._schema.name.split("::")[-1].removesuffix("_") in _RANDOM_NAMES


@functools.cache
def _views(target: Any) -> bool:
    if target in (operator.getitem, aten._unsafe_view.default):
        return True
    if not isinstance(target, OpOverload) or target._schema.is_mutable:
        return False
    return any(a.alias_info is not None for a in target._schema.arguments)


def ignores_strides(node: Node) -> bool:
    """Whether a call computes each element from elements of its arguments in any layout alike."""
    if node.op != "call_function" or node.target not in _ANY_LAYOUT:
        return False
    if node.target in _SCALED:  # with a factor, compilers of torch fuse or do not fuse it
        factors: list[Any] = [node.kwargs.get("alpha", 1), *node.args[2:]]
        return all(a == 1 for a in factors)
    if node.target is aten.pow.Tensor_Scalar:
        return node.args[1] in _EXACT_POWERS
    if node.target is aten._to_copy.default:
        return set(node.kwargs) <= {"dtype"}
    return True
