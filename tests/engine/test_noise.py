"""Draws joined into fewer calls are the same draws, and leave the generator in the same state."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.graphs import split_random
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.noise import Noise

SHAPES = {
    "few": [(), (1,), (2, 4)],
    "many small": [(3,)] * 11,
    "blocks": [(16,), (2, 8), (160,)],
    "mixed": [(1,), (25,), (16,), (16,), (3,), (85,)],
    "empty": [(3,), (0,), (16,)],
    "odd": [(17,), (15,), (1,), (16, 3)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("steps", [1, 5])
def test_joined_draws_are_those_of_single_calls(shapes, dtype, steps):
    noise = Noise.of_shapes(shapes, dtype)
    torch.manual_seed(3)
    apart = [[torch.randn(s, dtype=dtype) for s in shapes] for _ in range(steps)]
    after = torch.get_rng_state()
    torch.manual_seed(3)
    together = [noise.split(row) for row in zip(*noise.columns(steps), strict=True)]
    assert torch.equal(torch.get_rng_state(), after)
    for a, b in zip(apart, together, strict=True):
        assert all(torch.equal(x, y) and x.shape == y.shape for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("shapes", "groups"),
    [
        ([(), (), (8,)], (10,)),
        ([(16,), (16,), (128,)], (160,)),
        ([(1,), (25,)], (1, 25)),
        ([(1,)] * 4 + [(85,)], (4, 85)),
        ([(8,), (8,)], (16,)),
        ([(8,), (8,), (16,)], (16, 16)),
    ],
)
def test_only_calls_that_consume_the_generator_alike_are_joined(shapes, groups):
    assert tuple(f.size for f in Noise.of_shapes(shapes, torch.float32).fills) == groups


def prelude_of(step, *inputs):
    return split_random(clean(make_fx(step)(*inputs), inputs))[0]


def test_normal_draws_are_recognised_in_a_graph():
    def step(x):
        return x + torch.empty(3).normal_(), torch.randn(2, 2)

    noise = Noise.of(prelude_of(step, torch.ones(3)))
    assert noise is not None
    assert (noise.shapes, noise.dtype) == (((3,), (2, 2)), torch.float64)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: (x + torch.rand(3),),
        lambda x: (x + torch.empty(3).normal_(1.0, 2.0),),
        lambda x: (x + torch.randn(3), torch.rand(2)),
        lambda x: (torch.normal(x, 1.0),),
        lambda x: (torch._standard_gamma(x),),
        lambda x: (x + torch.randn(3, dtype=torch.float32), torch.randn(3)),
        lambda x: (x + 1.0,),
    ],
    ids=["uniform", "scaled", "both", "of parameters", "gamma", "two types", "none"],
)
def test_other_draws_are_left_to_the_graph(step):
    assert Noise.of(prelude_of(step, torch.ones(3))) is None
