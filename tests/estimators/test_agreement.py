"""Estimators of one objective have one mean: by chi-square against each other or the exact answer.

Seeds are fixed; a test fails if the means differ with p < 1e-4. Gradients are averaged over
outer particles before they are compared, so that the normal approximation holds; where nothing is
subsampled, more outer particles are worth as much as more repetitions, and cheaper.
"""

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import constraints

from models import conjugate_normal, gaussian_pair
from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    estimators,
)
from pyro_klmodes.losses import DivergenceLoss
from pyro_klmodes.objectives import Part, f_functions
from pyro_klmodes.testing import assert_same_mean, assert_vanishes_at_posterior, gradient_samples

K = 3
LOSSES = {
    "iwae": lambda **kw: IWAE(K, **kw),
    "renyi": lambda **kw: Renyi(0.5, K, **kw),
    "cubo": lambda **kw: CUBO(2, K, **kw),
    "jensen_shannon": lambda **kw: FDivergence(f_functions.jensen_shannon, K, **kw),
    "hellinger": lambda **kw: FDivergence(f_functions.hellinger, K, **kw),
    "thermodynamic": lambda **kw: Thermodynamic(3, K, **kw),
    "forward_kl": lambda **kw: ForwardKL(K, **kw),
    "tail_adaptive": lambda **kw: TailAdaptive(K, **kw),
}
ALL = {**LOSSES, "reverse_kl": lambda num_outer=1, **kw: ReverseKL(K * num_outer, **kw)}


def variants(name):
    """The estimators that an objective admits, the default first."""
    part = ALL[name]().objective.part
    if part is Part.WHOLE:
        return [estimators.pathwise, estimators.doubly, estimators.score]
    if part is Part.WAKE:
        return [estimators.fixed, estimators.doubly, estimators.score]
    return [estimators.doubly, estimators.score]


def compare(name, model, guide, args=(), kwargs=None, repetitions=75, outer=120):
    """All estimators against the first, on one set of parameters."""
    first, *others = variants(name)

    def samples(estimator, seed):
        loss = ALL[name](estimator=estimator, num_outer=outer)
        return gradient_samples(
            loss, model, guide, args, kwargs, repetitions=repetitions, seed=seed
        )

    reference = samples(first, seed=1)
    assert reference.abs().max() > 1e-3, "no signal to compare"
    for seed, estimator in enumerate(others, start=2):
        assert_same_mean(reference, samples(estimator, seed))


def gamma_poisson():
    z = pyro.sample("z", dist.Gamma(pyro.param("shape", torch.tensor(3.0)), 1.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Poisson(z * (0.3 * w).exp()), obs=torch.tensor(4.0))


#: one guide for every objective; with the other guide it is a longer test
USUAL_GUIDE = dict(zip(ALL, itertools.cycle([AutoNormal, AutoMultivariateNormal]), strict=False))


@pytest.mark.parametrize(
    ("guide_class", "name"),
    [
        pytest.param(g, n, marks=() if USUAL_GUIDE[n] is g else pytest.mark.slow)
        for g, n in itertools.product([AutoNormal, AutoMultivariateNormal], ALL)
    ],
)
def test_autoguides_on_constrained_latents_and_a_learnable_prior(guide_class, name):
    guide = guide_class(gamma_poisson, init_scale=0.5)
    guide()
    pyro.poutine.trace(gamma_poisson).get_trace()  # its parameter exists from here on
    compare(name, gamma_poisson, guide)


#: a power mean beside "iwae" and an f-divergence beside "jensen_shannon": longer tests
LIKE_OTHERS = {"renyi", "hellinger"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LIKE_OTHERS else ()) for n in ALL]
)
def test_subsampled_plate_with_an_amortised_guide(name):
    problem = conjugate_normal.problem(subsample_size=5)
    problem.guide(*problem.args, **problem.kwargs)
    compare(name, problem.model, problem.guide, problem.args, problem.kwargs, 150, outer=10)


@pytest.mark.parametrize("name", LOSSES)
def test_minibatches_have_the_mean_of_the_full_data(name):
    full, mini = conjugate_normal.problem(), conjugate_normal.problem(subsample_size=4)
    full.guide(*full.args, **full.kwargs)
    a, b = (
        gradient_samples(
            LOSSES[name](num_outer=outer), p.model, p.guide, p.args, p.kwargs, repetitions=r, seed=s
        )
        for s, (p, r, outer) in enumerate([(full, 100, 24), (mini, 200, 10)])
    )
    assert a.abs().max() > 1e-3
    assert_same_mean(a, b)


# --- discrete guides against enumeration of all draws


def discrete_model():
    z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
    pyro.sample("x", dist.Normal(3.0 * z, 1.0), obs=torch.tensor(1.7))


def discrete_guide():
    logit = pyro.param("logit", torch.tensor(-0.5))
    pyro.sample("z", dist.Bernoulli(logits=logit))


def exact_discrete_gradient(objective):
    """The gradient that the objective's part defines, summed over all 2^K draws."""
    logit = torch.tensor(-0.5, requires_grad=True)
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=K))).T  # (K, 2^K)
    log_q = dist.Bernoulli(logits=logit).log_prob(z)
    log_p = dist.Bernoulli(torch.tensor(0.3)).log_prob(z)
    log_p = log_p + dist.Normal(3.0 * z, 1.0).log_prob(torch.tensor(1.7))
    probability = log_q.sum(0).exp()
    if objective.part is Part.WHOLE:
        target = (probability * objective(log_p - log_q)).sum()
    else:
        log_w = (log_p - log_q).detach()
        wake = objective.part is Part.WAKE
        coefficient = -objective.credit(log_w) if wake else objective(log_w).expand(K, -1)
        target = (probability.detach() * (coefficient * log_q).sum(0)).sum()
    return torch.autograd.grad(target, logit)[0].reshape(1)


@pytest.mark.parametrize("name", LOSSES)
def test_discrete_guide_against_enumeration(name):
    discrete_guide()
    chosen = estimators.score if name == "cubo" else estimators.auto
    loss = LOSSES[name](num_outer=500, estimator=chosen)
    samples = gradient_samples(loss, discrete_model, discrete_guide, repetitions=80, seed=1)
    exact = exact_discrete_gradient(loss.objective)
    assert exact.abs() > 1e-3
    assert_same_mean(samples, exact)


def test_reverse_kl_of_a_discrete_guide_against_enumeration():
    discrete_guide()
    samples = gradient_samples(
        ReverseKL(500), discrete_model, discrete_guide, repetitions=200, seed=1
    )
    assert_same_mean(samples, exact_discrete_gradient(ReverseKL(2).objective))


def test_leave_one_out_baselines_reduce_the_variance():
    """The claim of the score estimator: less variance than the same estimator without baselines."""
    discrete_guide()
    with_baseline = gradient_samples(
        ReverseKL(10), discrete_model, discrete_guide, repetitions=300, seed=1
    )
    without = (
        torch.cat(
            [
                gradient_samples(
                    ReverseKL(1), discrete_model, discrete_guide, repetitions=60, seed=s
                )
                for s in range(10)
            ]
        )
        .reshape(10, 60, 1)
        .mean(0)
    )
    assert with_baseline.var() < 0.5 * without.var()


# --- a guide that mixes discrete and continuous sites, against enumeration times quadrature


def mixed_model():
    z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))
    u = pyro.sample("u", dist.Normal(z, 1.0))
    pyro.sample("x", dist.Normal(u, 0.8), obs=torch.tensor(1.2))


def mixed_guide():
    z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.2))))
    loc = pyro.param("loc", torch.tensor([0.1, 0.9]))
    scale = pyro.param("scale", torch.tensor(0.7), constraint=constraints.positive)
    pyro.sample("u", dist.Normal(loc[0] + (loc[1] - loc[0]) * z, scale))


def exact_mixed_gradient(objective):
    """K = 2: both values of each z, and a tensor grid of Gauss-Hermite nodes for each u."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    logit = torch.tensor(0.2, requires_grad=True)
    loc = torch.tensor([0.1, 0.9], requires_grad=True)
    log_scale = torch.tensor(0.7).log().requires_grad_()
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2))).T[:, :, None, None]
    shape = (2, 4, len(nodes), len(nodes))
    e = torch.stack([nodes[:, None].expand(shape[2:]), nodes[None, :].expand(shape[2:])])
    u = loc[0] + (loc[1] - loc[0]) * z + log_scale.exp() * e[:, None]
    log_q_z = dist.Bernoulli(logits=logit).log_prob(z)
    mean = loc[0] + (loc[1] - loc[0]) * z
    log_w = (
        dist.Bernoulli(torch.tensor(0.4)).log_prob(z)
        + dist.Normal(z, 1.0).log_prob(u)
        + dist.Normal(u, 0.8).log_prob(torch.tensor(1.2))
        - log_q_z
        - dist.Normal(mean, log_scale.exp()).log_prob(u)
    )
    probability = log_q_z.sum(0).exp() * weights[:, None] * weights[None, :]
    target = (probability * objective(log_w)).sum()
    gradients = torch.autograd.grad(target, [loc, logit, log_scale])
    return torch.cat([g.reshape(-1) for g in gradients])  # the store's order: loc, logit, scale


MIXED = ["iwae", "renyi", "cubo", "jensen_shannon", "thermodynamic"]
USUAL_ESTIMATOR = dict(
    zip(MIXED, itertools.cycle([estimators.mixed, estimators.score]), strict=False)
)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        pytest.param(e, n, marks=() if USUAL_ESTIMATOR[n] is e else pytest.mark.slow)
        for e, n in itertools.product([estimators.mixed, estimators.score], MIXED)
    ],
)
def test_mixed_guide_against_enumeration_and_quadrature(name, estimator):
    makers = {
        "iwae": lambda **kw: IWAE(2, **kw),
        "renyi": lambda **kw: Renyi(0.5, 2, **kw),
        "cubo": lambda **kw: CUBO(2, 2, **kw),
        "jensen_shannon": lambda **kw: FDivergence(f_functions.jensen_shannon, 2, **kw),
        "thermodynamic": lambda **kw: Thermodynamic(3, 2, **kw),
    }
    mixed_guide()
    loss = makers[name](num_outer=650, estimator=estimator)
    samples = gradient_samples(loss, mixed_model, mixed_guide, repetitions=100, seed=4)
    exact = exact_mixed_gradient(loss.objective)
    assert exact.abs().max() > 1e-3
    assert_same_mean(samples, exact)


# --- at the posterior


def posterior_as_a_guide():
    """A trainable guide that is the posterior of ``gaussian_pair``: a full-rank Gaussian."""
    problem = gaussian_pair.problem()
    guide = AutoMultivariateNormal(problem.model)
    guide(*problem.args, **problem.kwargs)
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    tril = torch.linalg.cholesky(covariance)
    guide.loc = torch.nn.Parameter(torch.zeros(2))
    guide.scale = tril.diagonal().clone()
    guide.scale_tril = tril / tril.diagonal()[:, None]
    return problem, guide


@pytest.mark.parametrize("name", ALL)
def test_path_only_gradient_vanishes_at_the_posterior(name):
    problem, guide = posterior_as_a_guide()
    loss = ALL[name](estimator=estimators.doubly)
    assert isinstance(loss, DivergenceLoss)
    assert_vanishes_at_posterior(loss, problem.model, guide, problem.args, problem.kwargs)
    pathwise = gradient_samples(ReverseKL(K), problem.model, guide, repetitions=3)
    assert pathwise.abs().max() > 1e-2  # which is not for want of anything that varies


@pytest.mark.parametrize("name", ["iwae", "renyi"])
def test_doubly_reparameterised_gradients_vary_less(name):
    """The claim of DReG, on a Gaussian pair near its posterior; variances are summed."""
    problem, guide = posterior_as_a_guide()
    guide.loc = torch.nn.Parameter(torch.tensor([0.3, 0.1]))
    variances = [
        gradient_samples(LOSSES[name](estimator=e), problem.model, guide, repetitions=150, seed=2)
        .var(0)
        .sum()
        for e in (estimators.doubly, estimators.pathwise)
    ]
    assert variances[0] < 0.7 * variances[1]
