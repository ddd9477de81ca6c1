"""Layouts of elementwise operations are remembered, and told apart by all that decides them."""

import torch
from torch.fx import Graph

from pyro_klmodes.engine.graphs.composites import stands_for_others
from pyro_klmodes.engine.graphs.operations import calls_of
from pyro_klmodes.engine.graphs.pointwise import has_known_layout, pointwise
from pyro_klmodes.engine.graphs.values import append_call, same_layout, val
from tests.engine.graphs.made import aten, graph_of


def bare(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_layouts_are_those_of_torch():
    for target, args, kwargs in [
        (aten.add.Tensor, (bare(3, 4).t(), bare(4, 1)), {}),
        (aten.add.Tensor, (bare(3), bare(3, dtype=torch.float64)), {"alpha": 2}),
        (aten.mul.Tensor, (bare(2), bare(dtype=torch.float64)), {}),
        (aten.pow.Tensor_Scalar, (bare(3, dtype=torch.int64), 0.5), {}),
        (aten._to_copy.default, (bare(2, 3).t(),), {"dtype": torch.bool}),
        (aten.where.self, (bare(3, dtype=torch.bool), bare(2, 3), bare()), {}),
    ]:
        found = pointwise(target, args, kwargs)
        assert same_layout(found, target(*args, **kwargs))


def test_numbers_of_different_kinds_are_not_taken_for_each_other():
    x = bare(3, dtype=torch.int64)
    dtypes = [pointwise(aten.mul.Tensor, (x, number), {}).dtype for number in (1, 1.0, True)]
    assert dtypes == [torch.int64, torch.get_default_dtype(), torch.int64]
    dtypes = [
        pointwise(aten.mul.Tensor, (bare(3, dtype=torch.bool), n), {}).dtype for n in (True, 1)
    ]
    assert dtypes == [torch.bool, torch.int64]


def test_the_default_dtype_is_looked_at():
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            x = bare(3, dtype=torch.int64)
            assert pointwise(aten.div.Tensor, (x, x), {}).dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_other_operations_are_not_remembered():
    assert has_known_layout(aten.exp.default, (bare(3),), {})
    assert not has_known_layout(aten.sum.default, (bare(3),), {})
    assert not has_known_layout(aten.cat.default, ([bare(3)],), {})
    assert not has_known_layout(torch.exp, (bare(3),), {})


def test_every_node_has_a_layout_of_its_own():
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = bare(1, 3)
    first, second = (append_call(graph, aten.exp.default, x) for _ in range(2))
    val(first).squeeze_(0)
    assert val(second).shape == (1, 3)


def test_calls_are_found_in_order():
    graph = graph_of(lambda x: (x.exp().log().exp() + 1,), torch.ones(3))
    found = calls_of(graph.graph, aten.exp.default, aten.log.default)
    assert [n.target for n in found] == [
        *(aten.exp.default, aten.log.default, aten.exp.default),
    ]
    assert calls_of(graph.graph, aten.sin.default) == []


def test_operations_that_are_made_of_others():
    x = torch.ones(2, 2)
    assert stands_for_others(aten.matmul.default, [x, x])
    assert not stands_for_others(aten.mm.default, [x, x])
    assert not stands_for_others(aten.size.default, [x])
    assert not stands_for_others(aten.empty.memory_format, [])
