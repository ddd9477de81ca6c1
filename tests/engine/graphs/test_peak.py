"""What the results of a graph take up is what torch's allocator says."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.memory import peak_of
from pyro_klmodes.engine.backends import build
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.peak import peak_bytes

X = torch.linspace(0.1, 1.0, 1000, dtype=torch.float64)  # 8000 bytes


def cleaned(function):
    return clean(make_fx(function)(X), [X])


@pytest.mark.parametrize(
    ("function", "tensors"),
    [
        (lambda x: (x.exp(),), 1),
        (lambda x: (x.exp().log1p().sqrt().sin(),), 2),
        (lambda x: (x.exp(), x.log()), 2),
        (lambda x: (x.exp() + x.log() * x.sqrt(),), 4),
        (lambda x: (x.exp().view(10, 100).T.log1p().T.sqrt(),), 2),
        (lambda x: (x,), 0),
    ],
    ids=["one", "a chain", "two", "a product", "views", "none"],
)
def test_tensors_at_once(function, tensors):
    assert peak_bytes(cleaned(function).graph) == tensors * 8000


def test_a_view_keeps_its_memory():
    peak = peak_bytes(cleaned(lambda x: (x.exp()[:1] + x.log().sum(),)).graph)
    assert 16000 <= peak <= 16016


def test_it_is_what_the_allocator_counts():
    def step(x):
        kept = [x.exp(), x.view(10, 100).cumsum(1)]
        return ((kept[0].view(10, 100) * kept[1]).sum(0).sin(), kept[0].tanh())

    graph = cleaned(step)
    program = build(graph, [X], "graph")
    program([X])
    assert peak_of(lambda: program([X])) == pytest.approx(peak_bytes(graph.graph), abs=256)
