"""Weighted likelihood at constant draws is the gradient of the divergence itself.

The draws are the quantiles of the guide, so that averages over particles are integrals, and the
exact divergences come from quadrature on a grid that does not move with the guide.
"""

import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import Normal

from models import bimodal
from pyro_klmodes import CUBO, FDivergence, ReverseKL, estimators, fit, objectives
from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives import f_functions

LOC, SCALE = 0.4, 1.3
GRID = torch.linspace(-14.0, 14.0, 20_001, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


def log_target(z):
    """An unnormalised normal, so that normalisation matters: log Z = 0.7."""
    return Normal(0.0, 1.0).log_prob(z) + 0.7


def exact_divergences(log_scale, loc):
    q = Normal(loc, log_scale.exp()).log_prob(GRID)
    log_w = log_target(GRID) - q

    def integral(x):
        return x.sum() * STEP

    def expectation(beta):
        tempered = q + beta * log_w
        return integral(tempered.exp() * log_w) / integral(tempered.exp())

    def f_divergence(f):
        return integral(q.exp() * f(log_w - 0.7))

    nodes = (0.0, 0.3, 0.7, 1.0)
    return {
        "forward_kl": expectation(1.0),
        "cubo": integral((q + 2 * log_w).exp()).log() / 2,
        "renyi": -integral((q + 0.5 * log_w).exp()).log() / 0.5,
        "jensen_shannon": f_divergence(f_functions.jensen_shannon),
        "hellinger": f_divergence(f_functions.hellinger),
        "chi_square": f_divergence(f_functions.chi_square),
        "total_variation": f_divergence(f_functions.total_variation),
        "f_forward_kl": f_divergence(f_functions.forward_kl),
        "thermodynamic": sum((high - low) * expectation(high) for low, high in pairwise(nodes)),
    }


OBJECTIVES = {
    "forward_kl": objectives.ForwardKL(),
    "cubo": objectives.PowerMean(-1.0, sign=1),
    "renyi": objectives.PowerMean(0.5),
    "jensen_shannon": objectives.FDivergence(f_functions.jensen_shannon),
    "hellinger": objectives.FDivergence(f_functions.hellinger),
    "chi_square": objectives.FDivergence(f_functions.chi_square),
    "total_variation": objectives.FDivergence(f_functions.total_variation),
    "f_forward_kl": objectives.FDivergence(f_functions.forward_kl),
    "thermodynamic": objectives.Thermodynamic((0.0, 0.3, 0.7, 1.0), "right"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weighted_likelihood_is_the_gradient_of_the_divergence(name):
    loc = torch.tensor(LOC, requires_grad=True)
    log_scale = torch.tensor(math.log(SCALE), requires_grad=True)
    exact = torch.autograd.grad(exact_divergences(log_scale, loc)[name], (loc, log_scale))

    K = 400_000
    z = Normal(LOC, SCALE).icdf((torch.arange(K) + 0.5) / K)
    log_q = Normal(loc, log_scale.exp()).log_prob(z)
    credit = OBJECTIVES[name].wake_credit(log_target(z) - log_q)
    ours = torch.autograd.grad(-(credit * log_q).sum(), (loc, log_scale))
    assert max(abs(g) for g in exact) > 1e-2
    torch.testing.assert_close(torch.stack(ours), torch.stack(exact), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "objective",
    [
        objectives.ReverseKL(),
        objectives.PowerMean(0.0),
        objectives.PowerMean(2.0),
        objectives.PowerMean(-1.0),
        objectives.FDivergence(f_functions.reverse_kl),
        objectives.FDivergence(f_functions.alpha_divergence(1.5)),
        objectives.Thermodynamic((0.0, 1.0)),
        objectives.TailAdaptive(),
    ],
)
def test_objectives_that_seek_are_refused(objective):
    assert not objective.has_wake
    with pytest.raises(IncompatibleEstimator):
        objective.wake_credit(torch.zeros(3))


def test_one_particle_is_refused():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    loss = FDivergence(f_functions.hellinger, 1, log_evidence=0.0, estimator=estimators.fixed)
    with pytest.raises(IncompatibleEstimator, match="num_particles=1"):
        loss.loss(model, model)


def test_cubo_covers_both_modes_and_does_not_collapse():
    """From a wide start to the optimum of the exact bound over normals: mean -1.17, sd 2.93."""
    problem = bimodal.problem()
    result = fit(
        problem.model,
        AutoNormal(problem.model, init_scale=8.0),
        CUBO(2, 500),
        *problem.args,
        steps=800,
        optim=pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 800)}),
        progress=False,
    )
    mean, sd = optimum_of_cubo()
    assert abs(8.0 - sd) > 5 * 0.1
    assert abs(result.guide.locs.z.item() - mean) < 0.1
    assert abs(result.guide.scales.z.item() - sd) < 0.1


def optimum_of_cubo():
    """Minimise the exact bound on a grid by L-BFGS."""
    exact = bimodal.problem().exact_guide
    trace = pyro.poutine.trace(exact).get_trace(*bimodal.problem().args)
    log_p = trace.nodes["z"]["fn"].log_prob(GRID)
    parameters = torch.tensor([-1.0, 1.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        q = Normal(parameters[0], parameters[1].exp()).log_prob(GRID)
        value = torch.logsumexp(2 * log_p - q, 0)
        value.backward()
        return value

    optimizer.step(closure)
    return parameters[0].item(), parameters[1].exp().item()


def test_the_reverse_kl_refuses_to_hold_draws_fixed():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(IncompatibleEstimator, match="ReverseKL moves the draws"):
        ReverseKL(4, estimator=estimators.fixed).loss(model, model)
