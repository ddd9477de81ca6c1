"""Joint factors: exact posteriors in one sweep, textbook updates, and scikit-learn's mixture."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import BayesianGaussianMixture

from models import bayesian_gaussian_mixture as bayes
from models import bayesian_gaussian_mixture_updates as updates
from models import (
    bayesian_linear_regression,
    conjugate_normal,
    discrete_noisy_or,
    gaussian_mixture,
)
from models import variational_em_bias as two_factors
from pyro_klmodes import diagnose, to_arviz
from pyro_klmodes.guides import AutoBlocks
from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
from pyro_klmodes.inference import by_index
from pyro_klmodes.inference.cavi import CAVI, RobbinsMonro
from pyro_klmodes.inference.em import EM, CoordinateAscent
from tests.inference.cavi.helpers import assert_monotone

COMPONENTS = [("locs", "precisions")]


def covariance(q):
    return q["scale_tril"] @ q["scale_tril"].mT


# -- Normal-Gamma ----------------------------------------------------------------------------------


def test_one_sweep_of_a_conjugate_regression_is_the_posterior():
    problem = bayesian_linear_regression.problem()
    expected = bayesian_linear_regression.posterior(*problem.args)
    result = CAVI(problem.model, blocks=[("w", "tau")], exact=True).fit(*problem.args, steps=1)
    w, tau = result.site_params["w"], result.site_params["tau"]
    assert torch.allclose(w["loc"], expected.mean, atol=1e-12)
    assert torch.allclose(covariance(w).inverse(), expected.precision, rtol=1e-9, atol=1e-8)
    assert float(tau["concentration"]) == pytest.approx(expected.concentration, rel=1e-12)
    assert float(tau["rate"]) == pytest.approx(float(expected.rate), rel=1e-12)
    assert float(result.elbos[0]) == pytest.approx(problem.log_evidence, abs=1e-8)

    apart = CAVI(problem.model).fit(*problem.args)
    assert float(apart.elbos[-1]) < problem.log_evidence - 1e-3
    # log w is the log evidence at every draw
    log_w = result.draws(20).log_w
    assert torch.allclose(log_w, torch.full_like(log_w, problem.log_evidence), atol=1e-7)


def mean_and_precision(y):
    tau = pyro.sample("tau", dist.Gamma(3.0, 2.0))
    mu = pyro.sample("mu", dist.Normal(0.5, (2 * tau).rsqrt()))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


@pytest.mark.parametrize("size", [1, 30, 2000])
def test_unknown_mean_and_precision(size):
    y = 3 + 0.7 * torch.randn(size)
    result = CAVI(mean_and_precision, blocks=[["mu", "tau"]]).fit(y)
    mu, tau = result.site_params["mu"], result.site_params["tau"]
    loc = (2 * 0.5 + y.sum()) / (2 + size)
    rate = 2 + 0.5 * ((y - loc).square().sum() + 2 * (loc - 0.5) ** 2)
    assert torch.allclose(mu["loc"], loc, rtol=1e-10)
    assert torch.allclose(mu["scale_tril"].square(), torch.tensor(1 / (2 + size)), rtol=1e-9)
    assert torch.allclose(tau["concentration"], torch.tensor(3 + size / 2), rtol=1e-10)
    assert torch.allclose(tau["rate"], rate, rtol=1e-9)
    assert result.steps <= 3


def test_the_result_is_diagnosed_and_exported():
    result = CAVI(mean_and_precision, blocks=[("mu", "tau")]).fit(torch.tensor([0.3, 1.0, 2.5]))
    found = diagnose(result, num_samples=200, num_starts=1)
    assert found.weights.effective_draws == pytest.approx(200)
    posterior = to_arviz(result, num_samples=100).posterior
    assert posterior["mu"].shape == posterior["tau"].shape == (1, 100)


def test_several_normal_sites_of_one_precision():
    def model(x, y):
        tau = pyro.sample("tau", dist.Gamma(3.0, 2.0))
        b = pyro.sample("b", dist.Normal(1.0, tau.rsqrt()))
        scale = (0.5 * tau).rsqrt()[..., None].expand(*tau.shape, 2)
        w = pyro.sample("w", dist.Normal(0.0, scale).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(b + (w * x).sum(-1), tau.rsqrt()), obs=y)

    x, y = torch.randn(12, 2), torch.randn(12)
    result = CAVI(model, blocks=[("b", "w", "tau")]).fit(x, y, steps=1)
    design = torch.cat([torch.ones(12, 1), x], 1)
    prior = torch.diag(torch.tensor([1.0, 0.5, 0.5]))
    precision = prior + design.T @ design
    start = torch.tensor([1.0, 0.0, 0.0])
    mean = torch.linalg.solve(precision, prior @ start + design.T @ y)
    q = result.site_params
    assert torch.allclose(torch.cat([q["b"]["loc"][None], q["w"]["loc"]]), mean, atol=1e-10)
    covariances = precision.inverse()
    assert torch.allclose(q["b"]["scale_tril"][0, 0] ** 2, covariances[0, 0])
    slope = covariances[1:, 0] / covariances[0, 0]
    assert torch.allclose(q["w"]["slope"][:, 0], slope)
    given = covariances[1:, 1:] - slope[:, None] * covariances[0, 1:]
    assert torch.allclose(covariance(q["w"]), given)
    log_w = result.draws(20).log_w
    assert float(log_w.std()) < 1e-9  # the guide is the posterior
    assert abs(log_w.mean() - result.elbos[0]) < 1e-9


def test_a_precision_of_groups_in_fewer_plates():
    """One tau for every group, with several means in it."""

    def model(y):
        with pyro.plate("groups", y.shape[-1], dim=-1):
            tau = pyro.sample("tau", dist.Gamma(3.0, 2.0))
            with pyro.plate("places", y.shape[-2], dim=-2):
                mu = pyro.sample("mu", dist.Normal(0.5, (2 * tau).rsqrt()))
                with pyro.plate("data", y.shape[-3], dim=-3):
                    pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)

    y = torch.randn(4, 3, 2)
    result = CAVI(model, blocks=[("mu", "tau")]).fit(y, steps=1)
    loc = (1 + y.sum(0)) / 6
    rate = 2 + 0.5 * ((y - loc).square().sum((0, 1)) + 2 * (loc - 0.5).square().sum(0))
    q = result.site_params
    assert torch.allclose(q["mu"]["loc"], loc)
    assert torch.allclose(q["mu"]["scale_tril"], torch.tensor(1 / 6).sqrt().expand(3, 2, 1, 1))
    assert torch.allclose(q["tau"]["concentration"], torch.full((2,), 3 + 4 * 3 / 2))
    assert torch.allclose(q["tau"]["rate"], rate)
    log_w = result.draws(20).log_w  # of every group
    assert float(log_w.std(0).max()) < 1e-9
    assert float(log_w.sum(-1).mean() - result.elbos[0]) < 1e-9


# -- Normal-Wishart --------------------------------------------------------------------------------


def test_unknown_mean_and_precision_matrix():
    def model(y):
        wishart = BartlettWishart(torch.tensor(5.0), torch.eye(3))
        precision = pyro.sample("precision", wishart)
        around = dist.MultivariateNormal(torch.zeros(3), precision_matrix=2 * precision)
        mu = pyro.sample("mu", around)
        with pyro.plate("data", len(y)):
            normal = dist.MultivariateNormal(mu, precision_matrix=precision)
            pyro.sample("y", normal, obs=y)

    y = 1 + torch.randn(8, 3) @ torch.randn(3, 3)
    result = CAVI(model, blocks=[("mu", "precision")]).fit(y, steps=1)
    mu, matrix = result.site_params["mu"], result.site_params["precision"]
    loc = y.sum(0) / 10
    away = y - loc
    inverse = torch.eye(3) + away.T @ away + 2 * torch.outer(loc, loc)
    assert torch.allclose(mu["loc"], loc)
    assert torch.allclose(mu["strength"], torch.tensor(10.0))
    assert torch.allclose(matrix["df"], torch.tensor(13.0))
    assert torch.allclose(covariance(matrix).inverse(), inverse)
    log_w = result.draws(20).log_w
    assert float(log_w.std()) < 1e-8
    assert abs(log_w.mean() - result.elbos[0]) < 1e-8


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_every_sweep_of_a_mixture_is_that_of_the_textbook(kind):
    x = gaussian_mixture.old_faithful_data()
    prior = bayes.scikit_learn_prior(x, 3, kind=kind)
    r = (2 * torch.randn(len(x), 3)).softmax(-1)
    with pyro.get_param_store().scope():
        sweeper = CAVI(bayes.bayesian_model, blocks=COMPONENTS).prepare(x, prior).sweeper
        sweeper.params["z"]["logits"] = r.log()
        sweeper.forget()
        sweeper.sweep(sites=["weights", "locs"])
        at = updates.start(x, prior, r, joint=True)
        begin = sweeper.elbo
        for _ in range(10):
            sweeper.sweep(sites=["z"])
            sweeper.sweep(sites=["weights", "precisions"])
            at = updates.coordinate_updates(at, x, prior, joint=True)
            q = sweeper.params
            loc, scales = q["locs"]["loc"], q["precisions"]
            assert torch.allclose(q["weights"]["concentration"], at.concentration, rtol=1e-9)
            assert torch.allclose(loc, at.loc.flatten(1), rtol=1e-9, atol=1e-9)
            if kind == "full":
                assert torch.allclose(q["locs"]["strength"], prior.strength + at.df - prior.df)
                inverse = covariance(scales).inverse()
                assert torch.allclose(scales["df"], at.df, rtol=1e-9)
            else:
                inverse = 2 * scales["rate"].reshape(3, 2, 1)
                assert torch.allclose(
                    2 * scales["concentration"], at.df[:, None].expand(3, 2), rtol=1e-9
                )
            expected = at.inverse_scale.reshape(inverse.shape)
            assert torch.allclose(inverse, expected, rtol=1e-8, atol=1e-9)
            elbo = float(updates.elbo(at, x, prior, joint=True))
            assert sweeper.elbo == pytest.approx(elbo, rel=1e-10)
        assert sweeper.elbo > begin + 10


def test_a_mixture_converges_to_that_of_scikit_learn():
    x = gaussian_mixture.old_faithful_data()
    theirs = BayesianGaussianMixture(
        n_components=2,
        weight_concentration_prior_type="dirichlet_distribution",
        covariance_type="full",
        reg_covar=0.0,
        random_state=0,
        tol=1e-13,
        max_iter=1000,
    ).fit(x.numpy())
    # where scikit-learn starts
    start = KMeans(2, n_init=1, random_state=np.random.RandomState(0)).fit(x.numpy()).labels_
    prior = bayes.scikit_learn_prior(x, 2)
    with pyro.get_param_store().scope():
        sweeper = CAVI(bayes.bayesian_model, blocks=COMPONENTS).prepare(x, prior).sweeper
        sweeper.params["z"]["logits"] = 80 * torch.eye(2)[torch.as_tensor(start).long()]
        sweeper.forget()
        sweeper.sweep(sites=["weights", "locs"])
        first = sweeper.params["locs"]["loc"].numpy()
        assert sweeper.converge(tolerance=1e-10) < 1000
        q = sweeper.params
    np.testing.assert_allclose(q["locs"]["loc"].numpy(), theirs.means_, rtol=1e-6)
    assert abs(first - theirs.means_).max() > 1e-4
    covariances = covariance(q["precisions"]).inverse() / q["precisions"]["df"][:, None, None]
    np.testing.assert_allclose(covariances.numpy(), theirs.covariances_, rtol=1e-6)
    weights = q["weights"]["concentration"] / q["weights"]["concentration"].sum()
    np.testing.assert_allclose(weights.numpy(), theirs.weights_, atol=1e-6)


def test_the_bound_is_that_of_scikit_learn_up_to_a_constant():
    x = gaussian_mixture.old_faithful_data()
    theirs = BayesianGaussianMixture(
        n_components=2,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0.0,
    )
    r = (2 * torch.randn(len(x), 2)).softmax(-1)
    theirs._check_parameters(x.numpy())
    theirs._initialize(x.numpy(), r.numpy())
    prior = bayes.scikit_learn_prior(x, 2)
    ours, bounds = [], []
    with pyro.get_param_store().scope():
        sweeper = CAVI(bayes.bayesian_model, blocks=COMPONENTS).prepare(x, prior).sweeper
        sweeper.params["z"]["logits"] = r.log()
        sweeper.forget()
        sweeper.sweep(sites=["weights", "locs"])
        for _ in range(12):
            sweeper.sweep(sites=["z"])
            sweeper.sweep(sites=["weights", "locs"])
            ours.append(sweeper.elbo)
            mean_log, log_r = theirs._e_step(x.numpy())
            theirs._m_step(x.numpy(), log_r)
            bounds.append(theirs._compute_lower_bound(log_r, mean_log))
    # it leaves out what does not depend on the approximation
    gaps = np.array(ours) - np.array(bounds)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-8)
    assert ours[-1] - ours[0] > 0.1


# -- normals and states ----------------------------------------------------------------------------


def test_two_normal_sites_have_their_covariance():
    precision = torch.tensor([[2.0, 1.6], [1.6, 3.0]])

    def pair():
        a = pyro.sample("a", dist.Normal(1.0, precision.inverse()[0, 0].sqrt()))
        slope = -precision[0, 1] / precision[1, 1]
        pyro.sample("b", dist.Normal(-0.5 + slope * (a - 1.0), precision[1, 1].rsqrt()))

    result = CAVI(pair, blocks=[("b", "a")]).fit()
    a, b = result.site_params["a"], result.site_params["b"]
    assert torch.allclose(a["loc"], torch.tensor(1.0))
    assert torch.allclose(b["loc"], torch.tensor(-0.5))
    assert torch.allclose(covariance(a)[0, 0], precision.inverse()[0, 0])
    assert torch.allclose(b["slope"][0, 0], -precision[0, 1] / precision[1, 1])
    assert torch.allclose(covariance(b)[0, 0], 1 / precision[1, 1])
    assert abs(result.elbos[-1]) < 1e-12


def test_normals_below_a_global_one():
    problem = conjugate_normal.hierarchical_problem()
    result = CAVI(problem.model, blocks=[("mu", "z")]).fit(*problem.args, steps=1)
    assert float(result.elbos[0]) == pytest.approx(problem.log_evidence, abs=1e-10)
    q = result.site_params
    assert torch.allclose(q["z"]["slope"], torch.full((20, 1, 1), 0.5))
    assert torch.allclose(q["z"]["loc"], problem.reference["z"].mean)
    assert torch.allclose(q["mu"]["scale_tril"][0, 0], problem.reference["mu"].sd)
    apart = CAVI(problem.model).fit(*problem.args)
    assert float(apart.elbos[-1]) < problem.log_evidence - 0.1


def test_three_levels_of_vectors():
    """Vectors in nested plates, each linear in those above: the ELBO is the evidence."""
    turn = torch.tensor([[1.0, 0.5], [-0.3, 0.8]])

    def model(x):
        top = pyro.sample("top", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        with pyro.plate("groups", 3, dim=-1):
            loc = (turn @ top.unsqueeze(-1)).squeeze(-1)
            middle = pyro.sample("middle", dist.Normal(loc, 0.7).to_event(1))
            with pyro.plate("items", 2, dim=-2):
                low = pyro.sample("low", dist.Normal(middle.sum(-1) + top[..., 0], 0.5))
                pyro.sample("x", dist.Normal(low, 0.9), obs=x)

    x = torch.randn(2, 3)
    result = CAVI(model, blocks=[("low", "middle", "top")]).fit(x, steps=1)
    # x is linear in independent normals
    by_top = (turn.sum(0) + torch.tensor([1.0, 0.0])) * 1.5
    same_group = torch.eye(3).repeat(2, 2)
    total = (by_top @ by_top) + 2 * 0.7**2 * same_group + (0.5**2 + 0.9**2) * torch.eye(6)
    evidence = dist.MultivariateNormal(torch.zeros(6), total).log_prob(x.flatten())
    assert float(result.elbos[0]) == pytest.approx(float(evidence), rel=1e-10)
    log_w = result.draws(10).log_w
    assert torch.allclose(log_w, evidence.expand(10), rtol=1e-9)


def test_causes_of_one_datum_have_their_joint_posterior():
    problem = discrete_noisy_or.problem()
    sites = discrete_noisy_or.SITES
    result = CAVI(problem.model, blocks=[sites]).fit(*problem.args)
    assert float(result.elbos[-1]) == pytest.approx(problem.log_evidence, abs=1e-10)
    table = discrete_noisy_or.posterior_table(*problem.args)
    for i, site in enumerate(sites):
        joint = table.sum(tuple(range(i + 1, len(sites)))) if i + 1 < len(sites) else table
        chance = joint[..., 1] / joint.sum(-1)
        assert torch.allclose(result.site_params[site]["logits"].sigmoid(), chance)
    pair = CAVI(problem.model, blocks=[sites[:2]]).fit(*problem.args, seed=1)
    apart = CAVI(problem.model).fit(*problem.args, seed=1)
    assert apart.elbos[-1] < pair.elbos[-1] - 1e-3 < result.elbos[-1] - 2e-3


def two_causes(x):
    """States of two kinds for every datum, of which it sees the sum."""
    shares = torch.tensor([0.2, 0.5, 0.3])
    with pyro.plate("data", len(x)):
        on = pyro.sample("on", dist.Bernoulli(0.3))
        kind = pyro.sample("kind", dist.Categorical(shares))
        pyro.sample("x", dist.Normal(2.0 * on + kind, 0.8), obs=x)


def test_a_table_for_every_datum():
    x = torch.tensor([0.1, 1.9, 2.4, 4.2])
    result = CAVI(two_causes, blocks=[("on", "kind")]).fit(x)
    on, kind = torch.arange(2.0)[:, None, None], torch.arange(3.0)[:, None]
    log_p = dist.Bernoulli(0.3).log_prob(on) + torch.tensor([0.2, 0.5, 0.3]).log()[:, None]
    log_p = log_p + dist.Normal(2.0 * on + kind, 0.8).log_prob(x)
    evidence = log_p.logsumexp((0, 1)).sum()
    assert float(result.elbos[-1]) == pytest.approx(float(evidence), rel=1e-12)
    given = log_p.log_softmax(1).exp().permute(2, 0, 1)
    assert torch.allclose(result.site_params["kind"]["logits"].softmax(-1), given)
    assert torch.allclose(result.draws(20).log_w.reshape(20, -1).sum(-1), evidence.expand(20))


# -- steps, starts, batches ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_the_elbo_never_falls_from_twenty_starts(kind):
    x = torch.randn(30, 2) * torch.tensor([1.0, 3.0])
    prior = bayes.scikit_learn_prior(x, 2, kind=kind)
    with pyro.get_param_store().scope():
        sweeper = CAVI(bayes.bayesian_model, blocks=COMPONENTS).prepare(x, prior).sweeper
        for _ in range(20):
            sweeper.params["z"]["logits"] = 3 * torch.randn(30, 2)
            sweeper.forget()
            elbos = [sweeper.elbo]
            for _ in range(3):
                sweeper.sweep()
                elbos.append(sweeper.elbo)
            rises = torch.tensor(elbos).diff()
            assert float(rises.min()) > -1e-9
            assert float(rises[0]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_elbo_never_falls_whatever_the_size(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(3, 40, (), generator=generator))
    x = torch.randn(size, 2, generator=generator) * torch.tensor([1.0, 3.0])
    prior = bayes.scikit_learn_prior(x, 2, kind="full" if seed % 2 else "diagonal")
    result = CAVI(bayes.bayesian_model, blocks=COMPONENTS).fit(x, prior, seed=seed, steps=8)
    assert result.steps > 1
    assert_monotone(result)


def mixture(x, subsample=None):
    """Components in a plate, picked by plain indexing, of all data or of a given minibatch."""
    with pyro.plate("components", 2):
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, (0.1 * tau).rsqrt()))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
        pyro.sample("x", dist.Normal(mu[z], tau[z].rsqrt()), obs=x[index])


def test_minibatches_of_a_model_that_does_not_broadcast():
    x = torch.cat([torch.randn(40) - 4, torch.randn(60) + 4])
    blocks = [("mu", "tau")]
    full = CAVI(mixture, blocks=blocks).fit(x)
    assert full.conjugacy.conjugate
    assert full.expectation.plan.apart == (("tau", "mu"),)
    assert_monotone(full)
    batches = [torch.arange(i, len(x), 4) for i in range(4)]
    step = RobbinsMonro(1, 0.7)
    result = CAVI(mixture, blocks=blocks, step=step).fit(x, batches=by_index(batches), epochs=8)
    ours, theirs = (r.site_params["mu"]["loc"].sort().values for r in (result, full))
    assert (ours - theirs).abs().max() < 0.1  # two thirds of a posterior standard deviation
    assert (full.site_params["mu"]["loc"].diff()).abs() > 5
    assert result.guide.parameters_of("z")["logits"].shape == (len(x), 2)


def test_a_guide_goes_on():
    problem = bayesian_linear_regression.problem()
    guide = AutoBlocks(problem.model, [("w", "tau")])
    first = CAVI(problem.model, guide).fit(*problem.args, steps=1)
    second = CAVI(problem.model, first.guide).fit(*problem.args)
    assert second.steps == 1
    assert second.converged
    assert torch.allclose(second.guide.median(*problem.args)["w"], problem.reference["w"].mean)


def test_a_block_in_the_e_step_takes_the_bias_of_mean_field_away():
    x = two_factors.data(1.0, 0.25, number=4)
    guide = AutoBlocks(two_factors.model, [("z_1", "z_2")])
    e_step = CoordinateAscent(guide)
    result = EM(two_factors.model, e_step=e_step).fit(x, variance=0.25, steps=60, progress=False)
    second_moment = float(x.square().mean())
    w = result.params["w"]
    assert float(w) == pytest.approx(two_factors.exact_weight(second_moment, 0.25), abs=1e-4)
    exact = float(two_factors.log_likelihood(w, 0.25, second_moment))
    assert result.log_likelihood / len(x) == pytest.approx(exact, abs=1e-7)
    assert abs(two_factors.variational_weight(second_moment, 0.25) - float(w)) > 0.1
