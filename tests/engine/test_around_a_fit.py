"""What is around a compiled fit: handlers, losses of others, memory that is shared."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from pyro_klmodes import ForwardKL, ReverseKL, fit
from pyro_klmodes.errors import KLModesWarning
from tests.engine.runs import (
    Y,
    guide,
    guide_of_mu,
    model,
)


@pytest.mark.parametrize("loss", [Trace_ELBO()])
def test_losses_of_pyro_stay_eager(loss):
    with pytest.warns(KLModesWarning, match="Trace_ELBO is not one of this package's losses"):
        result = fit(model, guide, loss, Y, steps=5, progress=False, engine="graph")
    assert set(result.explanation.used) == {"eager"}


def test_handlers_around_a_fit_are_not_lost():
    with poutine.scale(scale=0.5), pytest.warns(KLModesWarning, match="handler of Pyro, ScaleM"):
        scaled = fit(model, guide, ReverseKL(3), Y, steps=8, progress=False, engine="graph")
    with poutine.scale(scale=0.5):
        eager = fit(model, guide, ReverseKL(3), Y, steps=8, progress=False, engine="eager")
    assert torch.equal(scaled.losses, eager.losses)


def test_argument_that_shares_memory_with_a_parameter():
    net = torch.nn.Linear(1, 5, dtype=torch.float64)

    def tied(x):
        pyro.module("net", net)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("fit", -((net(torch.ones(1)) - mu[..., None] - x) ** 2).sum(-1))

    def run(engine):
        with torch.no_grad():
            net.weight.fill_(0.3), net.bias.fill_(0.1)
        return fit(
            tied,
            guide_of_mu,
            ReverseKL(3),
            net.bias.detach(),
            steps=8,
            progress=False,
            engine=engine,
        )

    eager = run("eager")
    with pytest.warns(KLModesWarning, match="a step changes tensor 1 of the arguments"):
        graph = run("graph")
    assert torch.equal(eager.losses, graph.losses)


@pytest.mark.slow
def test_deep_copies_of_a_fitted_loss_and_guide_are_unharmed():
    loss = ForwardKL(4)
    result = fit(model, guide, loss, Y, steps=12, progress=False, engine="graph")
    assert copy.deepcopy(loss).step == loss.step == 12
    assert result.draws(4).log_w.shape == (4,)
