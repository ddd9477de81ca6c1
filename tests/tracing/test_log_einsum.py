"""Sums over enumerated values: exact, stable, and of bounded size."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import draws
from pyro_klmodes.tracing import log_einsum
from pyro_klmodes.tracing.log_einsum import einsum

LETTERS = {"a": 3, "b": 4, "c": 2, "k": 5}


def operand(names, far=1.0):
    return (far * torch.randn([LETTERS[d] for d in names])).requires_grad_()


def brute_force(equation, *operands):
    inputs, output = equation.split("->")
    order = [*output, *sorted(set(inputs) - {","} - set(output))]
    total = torch.zeros([LETTERS[d] for d in order])
    for names, x in zip(inputs.split(","), operands, strict=True):
        shape = [LETTERS[d] if d in names else 1 for d in order]
        total = total + x.permute([names.index(d) for d in order if d in names]).reshape(shape)
    summed = list(range(len(output), len(order)))
    return total.logsumexp(summed) if summed else total


EQUATIONS = [
    "k->",
    "ak->a",
    "ak,k->a",
    "ka,kb->ba",
    "ak,kb,c->cab",
    "ab,bc,ck->k",
    "ab,ba->ab",
    "ab->ba",
]


@pytest.mark.parametrize("small", [0, 2**12])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_values_and_gradients_of_both_ways(equation, small, monkeypatch):
    monkeypatch.setattr(log_einsum, "_SMALL", small)
    monkeypatch.setattr(log_einsum, "_TIMES", 0 if small == 0 else 4)
    operands = [operand(names) for names in equation.split("->")[0].split(",")]
    found, exact = einsum(equation, *operands), brute_force(equation, *operands)
    torch.testing.assert_close(found, exact)
    weights = torch.randn_like(exact)
    torch.testing.assert_close(
        torch.autograd.grad((weights * found).sum(), operands),
        torch.autograd.grad((weights * exact).sum(), operands),
    )


def test_values_a_thousand_nats_apart():
    """Relative to the largest number of each, both products would be zero."""
    a = torch.tensor([0.0, -1000.0, -3.0], requires_grad=True)
    b = torch.tensor([-1000.0, 0.0, -2000.0], requires_grad=True)
    total = einsum("k,k->", a, b)
    assert total.item() == pytest.approx(-1000.0 + math.log(2.0), abs=1e-12)
    (slope,) = torch.autograd.grad(total, a)
    torch.testing.assert_close(slope, torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize("small", [0, 2**12])
def test_impossible_states_have_no_gradient(small, monkeypatch):
    monkeypatch.setattr(log_einsum, "_SMALL", small)
    monkeypatch.setattr(log_einsum, "_TIMES", 0 if small == 0 else 4)
    never = -math.inf
    a = torch.tensor([[0.0, never], [never, never]], requires_grad=True)
    b = torch.tensor([0.5, 1.0], requires_grad=True)
    total = einsum("ak,k->a", a, b)
    assert total.tolist() == [0.5, never]
    slopes = torch.autograd.grad(total[0], (a, b))
    torch.testing.assert_close(slopes[0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(slopes[1], torch.tensor([1.0, 0.0]))
    at_never = torch.autograd.grad(einsum("ak,k->a", a, b)[1], (a, b))
    assert all(bool((x == 0).all()) for x in at_never)


def test_many_chains_of_many_states_are_multiplied_as_matrices(monkeypatch):
    """400 chains of 100 states: the product would have four million numbers."""
    written = []
    monkeypatch.setattr(log_einsum, "_written_down", lambda *_: written.append(1))
    alpha, rows = torch.randn(400, 100), torch.randn(100, 100)
    found = einsum("nk,kj->nj", alpha, rows)
    assert written == []
    torch.testing.assert_close(found[7], (alpha[7][:, None] + rows).logsumexp(0))


def test_a_mixture_with_components_far_apart():
    """log p(x) sums over components, although one is 1250 nats below the other at each datum."""
    x = torch.tensor([-25.0, 25.0, 0.0])

    def model():
        mu = pyro.sample("mu", dist.Normal(torch.tensor([-25.0, 25.0]), 1e-3).to_event(1))
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(mu[z.long()], 1.0), obs=x)

    d = draws(model, AutoNormal(pyro.poutine.block(model, hide=["z"])), num_particles=3)
    mu = d.values["mu"].unsqueeze(1)
    each = dist.Normal(mu, 1.0).log_prob(x.unsqueeze(1)) + math.log(0.5)
    prior = dist.Normal(torch.tensor([-25.0, 25.0]), 1e-3).log_prob(d.values["mu"]).sum(1)
    torch.testing.assert_close(d.log_p, each.logsumexp(2).sum(1) + prior)
