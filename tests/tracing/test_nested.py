"""Minibatches of local latents below global ones: exact expectation outside, weights inside."""

import math
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger

from models import conjugate_normal
from pyro_klmodes import (
    CUBO,
    IWAE,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    draws,
    estimators,
)
from pyro_klmodes.errors import UnsupportedStructure

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
PAIRS = [torch.tensor(b) for b in combinations(range(4), 2)]
ROOT_HALF = math.sqrt(0.5)
LOG_EVIDENCE = conjugate_normal.hierarchical_log_evidence(X)


def model(index, x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample=index):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def exact_guide(index, x=X):
    mean, variance = conjugate_normal.global_posterior(x)
    mu = pyro.sample("mu", dist.Normal(mean, math.sqrt(variance)))
    with pyro.plate("data", len(x), subsample=index):
        pyro.sample("z", dist.Normal((mu + x[index]) / 2, ROOT_HALF))


def guide(index, x=X):
    """Too wide, in the wrong place, and without the dependence on mu."""
    loc = pyro.param("loc", torch.tensor(0.3))
    mu = pyro.sample("mu", dist.Normal(loc, 0.8))
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x), subsample=index):
        pyro.sample("z", dist.Normal(slope * x[index] + 0.1 * mu, 1.0))


NESTING = [
    IWAE(3),
    IWAE(3, num_outer=4),
    IWAE(1),
    Renyi(0.5, 3),
    Renyi(2.0, 3),
    Thermodynamic((0.0, 1.0), 3),
    IWAE(3, estimator=estimators.pathwise),
]


@pytest.mark.parametrize("loss", NESTING, ids=lambda loss: type(loss).__name__)
def test_with_the_exact_guide_the_mean_over_minibatches_is_the_evidence(loss):
    """All six minibatches at the same global draws: no Monte Carlo error is left."""
    values = []
    for index in PAIRS:
        pyro.set_rng_seed(1)
        values.append(loss.loss(model, exact_guide, index))
    assert sum(values) / 6 == pytest.approx(-LOG_EVIDENCE, rel=1e-10)
    assert max(values) - min(values) > 0.1


def full_data_bound(loss, repeats):
    """The same nested bound by hand on all data: M x repeats global values, K local ones each."""
    K, M = loss.num_particles, loss.num_outer * repeats
    mu = 0.3 + 0.8 * torch.randn(M)
    z = 0.4 * X + 0.1 * mu[:, None] + torch.randn(K, M, 4)
    log_w = (
        dist.Normal(mu[:, None], 1.0).log_prob(z)
        + dist.Normal(z, 1.0).log_prob(X)
        - dist.Normal(0.4 * X + 0.1 * mu[:, None], 1.0).log_prob(z)
    )
    log_ratio = dist.Normal(0.0, 1.0).log_prob(mu) - dist.Normal(0.3, 0.8).log_prob(mu)
    return loss.objective(log_w).sum(-1) - log_ratio


@pytest.mark.parametrize("loss", [IWAE(3), Renyi(0.5, 3)], ids=lambda loss: type(loss).__name__)
def test_the_bound_on_minibatches_is_that_on_full_data_and_below_the_evidence(loss):
    """Within 4 standard errors of about 0.05."""
    sample = torch.tensor([loss.loss(model, guide, PAIRS[i % 6]) for i in range(800)])
    exact = full_data_bound(loss, 100_000)
    error = float(sample.std()) / math.sqrt(len(sample))
    assert error < 0.1
    assert abs(sample.mean() - exact.mean()) < 4 * error
    assert exact.mean() > -LOG_EVIDENCE + 0.1


def test_gradients_on_minibatches_are_unbiased_for_full_data():
    """Chi-square of two mean gradients against autograd through the bound by hand."""
    loss = IWAE(4, num_outer=4)
    found = []
    for i in range(600):
        pyro.clear_param_store()
        pyro.param("loc", torch.tensor(2.0))
        pyro.param("slope", torch.tensor(1.0))
        loss.loss_and_grads(model, guide, PAIRS[i % 6])
        params = pyro.get_param_store()._params
        found.append(torch.stack([params["loc"].grad, params["slope"].grad]))
    found = torch.stack(found)

    loc = torch.tensor(2.0).requires_grad_()
    slope = torch.tensor(1.0).requires_grad_()
    M = 200_000
    mu = loc + 0.8 * torch.randn(M)
    mean = slope * X + 0.1 * mu[:, None]
    z = mean + torch.randn(4, M, 4)
    log_w = (
        dist.Normal(mu[:, None], 1.0).log_prob(z)
        + dist.Normal(z, 1.0).log_prob(X)
        - dist.Normal(mean, 1.0).log_prob(z)
    )
    prior = dist.Normal(0.0, 1.0).log_prob(mu) - dist.Normal(loc, 0.8).log_prob(mu)
    exact = torch.stack(
        torch.autograd.grad((loss.objective(log_w).sum(-1) - prior).mean(), [loc, slope])
    )
    gap = found.mean(0) - exact
    covariance = found.T.cov() / len(found)
    chi_square = float(gap @ torch.linalg.solve(covariance, gap))
    assert chi_square < 13.8  # 0.1 percent, 2 degrees of freedom
    assert (exact.abs() > 5 * covariance.diagonal().sqrt()).all()


def test_a_common_scale_multiplies_the_nested_bound():
    pyro.set_rng_seed(1)
    plain = IWAE(3).loss(model, guide, PAIRS[2])
    pyro.set_rng_seed(1)
    scaled = IWAE(3).loss(
        poutine.scale(model, scale=0.3), poutine.scale(guide, scale=0.3), PAIRS[2]
    )
    assert scaled == pytest.approx(0.3 * plain, rel=1e-10)


def test_observations_beside_the_local_plate_belong_to_the_global_part():
    """y ~ N(mu, 1) is one more datum, at weight one, for the global latent."""

    def with_y(index):
        with poutine.trace() as tracer:
            model(index)
        mu = tracer.trace.nodes["mu"]["value"]
        pyro.sample("y", dist.Normal(mu, 1.0), obs=torch.ones(()))

    pyro.set_rng_seed(1)
    plain = IWAE(3).loss(model, guide, PAIRS[2])
    pyro.set_rng_seed(1)
    d = IWAE(3).draws(with_y, guide, PAIRS[2])
    pyro.set_rng_seed(1)
    value = IWAE(3).loss(with_y, guide, PAIRS[2])
    log_y = dist.Normal(d.values["mu"], 1.0).log_prob(torch.ones(())).mean()
    assert value == pytest.approx(plain - float(log_y), rel=1e-10)


def test_one_loss_serves_full_data_and_minibatches_in_any_order():
    """The structure found in one call is not imposed on the next."""
    case = conjugate_normal.hierarchical_problem()
    x = case.args[0]
    loss = IWAE(3)
    for size in (None, 7, None, 7):
        pyro.set_rng_seed(4)
        again = loss.loss(case.model, case.exact_guide, x, size)
        pyro.set_rng_seed(4)
        fresh = IWAE(3).loss(case.model, case.exact_guide, x, size)
        assert again == fresh
    assert loss.loss(case.model, case.exact_guide, x) == pytest.approx(-case.log_evidence)


def test_an_autoguide_with_parameters_for_all_data_trains_on_minibatches():
    case = conjugate_normal.hierarchical_problem(subsample_size=5)
    auto = AutoNormal(case.model)
    svi = pyro.infer.SVI(case.model, auto, pyro.optim.Adam({"lr": 0.05}), IWAE(4))
    before = abs(float(auto_median(auto, case)["mu"] - case.reference["mu"].mean))
    for _ in range(200):
        svi.step(*case.args, **case.kwargs)
    after = abs(float(auto_median(auto, case)["mu"] - case.reference["mu"].mean))
    assert before > 5 * 0.15
    assert after < 0.15


def auto_median(auto, case):
    auto(*case.args, **case.kwargs)
    return auto.median(*case.args, **case.kwargs)


@pytest.mark.parametrize(
    "loss",
    [
        ForwardKL(4),
        CUBO(2, 4),
        TailAdaptive(4),
        Thermodynamic(3, 4),
        IWAE(4, estimator=estimators.score),
        IWAE(4, estimator=estimators.doubly),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_what_has_no_nested_bound_is_refused_with_the_way_out(loss):
    with pytest.raises(UnsupportedStructure, match="plate 'data' does not enclose .*'mu'.*Reverse"):
        loss.loss(model, guide, PAIRS[0])


def test_draws_without_a_loss_are_refused_too():
    with pytest.raises(UnsupportedStructure, match="plate 'data'"):
        draws(model, guide, (PAIRS[0],), num_particles=3)


def test_reverse_kl_needs_no_nesting():
    values = []
    for index in PAIRS:
        pyro.set_rng_seed(1)
        values.append(ReverseKL(3).loss(model, exact_guide, index))
    assert sum(values) / 6 == pytest.approx(-LOG_EVIDENCE, rel=1e-10)


def test_a_site_outside_that_depends_on_local_latents_is_refused():
    def tied(index):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])
        pyro.sample("y", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=torch.ones(()))

    with pytest.raises(UnsupportedStructure, match="site 'y' outside of the subsampled plate"):
        IWAE(3).loss(tied, guide, PAIRS[0])


def test_a_scale_on_some_sites_is_refused():
    def tempered(index):
        with poutine.scale(scale=0.5):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    with pytest.raises(UnsupportedStructure, match="poutine.scale of its own"):
        IWAE(3).loss(tempered, guide, PAIRS[0])


def test_local_latents_in_two_subsampled_plates_are_refused():
    def two(index):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for name in ("a", "b"):
            with pyro.plate(name, 4, subsample=index):
                pyro.sample(f"z_{name}", dist.Normal(mu, 1.0))

    with pytest.raises(UnsupportedStructure, match=r"several subsampled plates \['a', 'b'\]"):
        IWAE(3).loss(two, two, PAIRS[0])


def test_messenger_guides_and_forced_loops_are_refused():
    case = conjugate_normal.hierarchical_problem(subsample_size=5)
    messenger = AutoNormalMessenger(case.model)
    with pytest.raises(UnsupportedStructure, match="plate 'data' needs weights nested"):
        IWAE(3).loss(case.model, messenger, *case.args, **case.kwargs)
    with pytest.raises(UnsupportedStructure, match="plate 'data' needs weights nested"):
        IWAE(3, vectorize_particles=False).loss(model, guide, PAIRS[0])


SHIFT = torch.tensor([-1.0, 1.5], dtype=torch.float64)
SHIFTED = torch.tensor([0.3, -1.2, 2.0, 0.8], dtype=torch.float64)


def shifted_model(batch=2, local=False):
    """A global mean; per datum an enumerated shift and, if asked for, a normal in between."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 4, subsample_size=batch) as index:
        c = pyro.sample("c", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
        loc = mu + SHIFT[c]
        if local:
            loc = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(loc, 1.0), obs=SHIFTED[index])


def shifted_guide(batch=2, local=False):
    pyro.sample("mu", dist.Normal(0.4, 0.6))
    with pyro.plate("data", 4, subsample_size=batch) as index:
        if local:
            pyro.sample("z", dist.Normal(SHIFTED[index], 0.8))


@pytest.mark.parametrize("outer", [1, 3])
def test_a_nested_bound_whose_only_local_sites_are_enumerated(outer):
    """Nothing local is sampled: the mean over minibatches is the global ELBO, by quadrature."""
    grid = torch.linspace(-5.0, 5.0, 4001)
    q = dist.Normal(0.4, 0.6).log_prob(grid)
    each = dist.Normal(grid[:, None, None] + SHIFT, 1.0).log_prob(SHIFTED[:, None])
    marginal = (each.logsumexp(-1) + math.log(0.5)).sum(-1)
    inside = marginal + dist.Normal(0.0, 1.0).log_prob(grid) - q
    exact = (q.exp() * inside).sum() * (grid[1] - grid[0])
    loss = IWAE(4, num_outer=outer)
    values = -torch.tensor([loss.loss(shifted_model, shifted_guide) for _ in range(600)])
    error = values.std() / len(values) ** 0.5
    assert error < 0.1
    assert abs(values.mean() - exact) < 4 * error


def test_a_nested_bound_with_local_and_enumerated_sites():
    """Per global value, the mean of the bound by its definition, on weights written by hand."""
    draws = 200_000
    mu = 0.4 + 0.6 * torch.randn(draws, 1, 1)
    z = SHIFTED + 0.8 * torch.randn(draws, 4, 4)  # (global draws, K, data)
    prior = dist.Normal(mu.unsqueeze(-1) + SHIFT, 1.0).log_prob(z.unsqueeze(-1))
    log_w = prior.logsumexp(-1) + math.log(0.5) + dist.Normal(z, 1.0).log_prob(SHIFTED)
    log_w = log_w - dist.Normal(SHIFTED, 0.8).log_prob(z)
    outside = dist.Normal(0.0, 1.0).log_prob(mu) - dist.Normal(0.4, 0.6).log_prob(mu)
    by_hand = outside.flatten() + (log_w.logsumexp(1) - math.log(4)).sum(-1)

    loss = IWAE(4, num_outer=12)
    values = -torch.tensor([loss.loss(shifted_model, shifted_guide, 2, True) for _ in range(600)])
    error = (values.var() / len(values) + by_hand.var() / draws).sqrt()
    assert error < 0.1
    assert abs(values.mean() - by_hand.mean()) < 4 * error
