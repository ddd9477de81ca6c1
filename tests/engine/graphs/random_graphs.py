"""Random straight-line programs of tensors, with draws of all kinds in between."""

import random

import torch

SHAPES = [(), (3,), (4, 1), (4, 3), (1, 3)]
UNARY = [
    torch.sin,
    torch.exp,
    torch.neg,
    torch.tanh,
    torch.abs,
    lambda x: x.clone().mul_(2),
    lambda x: x * 1,
    lambda x: x + 0.0,
    lambda x: x.detach(),
    lambda x: x - 0.0,
    lambda x: torch.zeros_like(x),
    lambda x: x.sum(),
    lambda x: (x == x).double().log(),
    lambda x: x.expand(4, 3),
    lambda x: x.expand(4, 3).t(),
    lambda x: x.expand(4, 3).reshape(-1)[:3],
    lambda x: x.expand(4, 3).sort(0)[0],
    lambda x: x.expand(4, 3).max(1)[0].unsqueeze(-1),
    lambda x: torch.nn.functional.softplus(x),
    lambda x: x.expand(4, 3).cumsum(0),
    lambda x: x.expand(4, 3)[torch.arange(4).unsqueeze(-1), torch.arange(3)],
    lambda x: torch.full((3,), 2.0) - x,
    lambda x: torch.tensor(0.3) * x,
    lambda x: x**2 / 1.0,
]
BINARY = [torch.add, torch.sub, torch.mul, torch.maximum, lambda x, y: torch.where(x > 0, x, y)]
DRAWS = [
    lambda x: torch.randn(3),
    lambda x: torch.rand(4, 1),
    lambda x: torch.randn_like(x),
    lambda x: torch.empty(4, 3).normal_(),
    lambda x: torch.empty(3).exponential_(2.0),
    lambda x: torch.empty(3).uniform_(-1, 1),
    lambda x: torch.empty(3).cauchy_(),
    lambda x: torch.bernoulli(torch.sigmoid(x)),
    lambda x: torch.poisson(x.abs().clamp(max=5.0)),
    lambda x: torch._standard_gamma(x.abs().clamp(0.1, 5.0)),
    lambda x: torch.normal(x, x.abs() + 0.1),
    lambda x: torch.ops.aten.native_dropout(x, 0.5, True)[0],
    lambda x: torch.randperm(3).double(),
    lambda x: torch.randint(0, 4, (3,)).double(),
    lambda x: torch._sample_dirichlet(torch.ones(4, 3)),
    lambda x: torch.empty(3).geometric_(0.3),
    lambda x: torch.multinomial(torch.ones(3), 2, replacement=True).double().sum(),
    lambda x: torch.empty(3).log_normal_().log(),
    lambda x: torch.empty(3).bernoulli_(0.4),
]


def program(seed, *, length=14, draws=True):
    """A function of three tensors of shapes (3,), (4, 1) and (), made of random operations."""

    def function(*inputs):
        rng = random.Random(seed)
        known = list(inputs)
        for _ in range(length):
            kind = rng.random()
            if draws and kind < 0.2:
                known.append(rng.choice(DRAWS)(rng.choice(known)))
                continue
            chosen, others = rng.choice(known), rng.sample(known, len(known))
            fitting = [o for o in others if fits(chosen, o)]
            if kind < 0.6:
                operation = rng.choice(UNARY)
                if fits(chosen, torch.empty(4, 3)):
                    known.append(operation(chosen))
            else:
                known.append(rng.choice(BINARY)(chosen, fitting[0]))
        return tuple(known[-4:])

    return function


def fits(x, y):
    """Whether two tensors broadcast to at most (4, 3)."""
    try:
        return len(torch.broadcast_shapes(x.shape, y.shape, (4, 3))) == 2
    except RuntimeError:
        return x is y


def example_inputs(seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g) for shape in ((3,), (4, 1), ())]
