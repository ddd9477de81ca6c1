"""The Bayesian mixture: updates against scikit-learn and gradients, the bound against evidence."""

import dataclasses
import math
import warnings

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from sklearn.mixture import BayesianGaussianMixture

from models import bayesian_gaussian_mixture as bayes
from models import bayesian_gaussian_mixture_updates as updates
from models import gaussian_mixture
from models.bayesian_gaussian_mixture import Prior, Wishart
from tests.left_dimensions import check_left_dimensions, log_joint

VARIANTS = [
    ("full", True, True),
    ("full", True, False),
    ("full", False, False),
    ("diagonal", True, True),
    ("diagonal", True, False),
    ("diagonal", False, False),
]
every_variant = pytest.mark.parametrize(("kind", "coupled", "joint"), VARIANTS)


def setting(kind="full", coupled=True, *, joint=False, components=3, size=40, seed=0):
    """Few data, a prior that matters, and factors from random responsibilities."""
    x = gaussian_mixture.old_faithful_data()[:size]
    prior = Prior(
        components=components,
        concentration=0.8,
        loc=torch.tensor([0.3, -0.2]),
        strength=0.7,
        df=3.5,
        inverse_scale=torch.tensor([[1.2, 0.4], [0.4, 0.8]]),
        kind=kind,
        coupled=coupled,
    )
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, components, generator=generator, dtype=x.dtype)
    return x, prior, updates.start(x, prior, logits.softmax(-1), joint=joint)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
@pytest.mark.parametrize("coupled", [True, False])
def test_latents_may_have_dimensions_of_their_own(kind, coupled):
    x, prior, _ = setting(kind, coupled, size=5)
    check_left_dimensions(bayes.bayesian_model, (x, prior), nesting=1)


def test_draws_of_the_wishart_have_its_moments():
    scale = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    wishart = Wishart(torch.tensor(5.0), covariance_matrix=scale).expand([3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = wishart.sample((20_000,))
    assert draws.shape == (20_000, 3, 2, 2)
    # var X_ij = df (V_ij^2 + V_ii V_jj)
    diagonal = scale.diagonal()
    sd = (5 * (scale.square() + diagonal[:, None] * diagonal)).sqrt()
    assert ((draws.mean((0, 1)) - 5 * scale).abs() < 4 * sd / math.sqrt(60_000)).all()
    value = draws[0, 0]
    expected = stats.wishart.logpdf(value.numpy(), 5, scale.numpy())
    assert float(wishart.log_prob(value)[0]) == pytest.approx(expected, rel=1e-10)


def test_joint_updates_are_those_of_scikit_learn():
    x = gaussian_mixture.iris()[0]
    prior = bayes.scikit_learn_prior(x, 3)
    generator = torch.Generator().manual_seed(3)
    r = torch.rand(len(x), 3, generator=generator, dtype=x.dtype).softmax(-1)
    theirs = BayesianGaussianMixture(
        n_components=3,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0.0,
    )
    theirs._check_parameters(x.numpy())
    theirs._initialize(x.numpy(), r.numpy())
    at = updates.start(x, prior, r, joint=True)
    start = at
    for _ in range(60):
        at = updates.coordinate_updates(at, x, prior, joint=True)
        _, log_r = theirs._e_step(x.numpy())
        theirs._m_step(x.numpy(), log_r)
        np.testing.assert_allclose(at.responsibilities.numpy(), np.exp(log_r), atol=1e-8)
    np.testing.assert_allclose(at.concentration.numpy(), theirs.weight_concentration_, rtol=1e-8)
    np.testing.assert_allclose(at.df.numpy(), theirs.degrees_of_freedom_, rtol=1e-8)
    np.testing.assert_allclose(at.loc[:, 0].numpy(), theirs.means_, rtol=1e-8)
    covariances = (at.inverse_scale[:, 0] / at.df[:, None, None]).numpy()
    np.testing.assert_allclose(covariances, theirs.covariances_, rtol=1e-7)
    assert (at.responsibilities - start.responsibilities).abs().max() > 0.3


def leaf(tensor):
    return tensor.detach().clone().requires_grad_()


def gradients(at, x, prior, names, *, joint=False):
    """The largest gradient of the bound with respect to every named part."""
    leaves = {name: leaf(getattr(at, name)) for name in names}
    value = updates.elbo(dataclasses.replace(at, **leaves), x, prior, joint=joint)
    found = torch.autograd.grad(value, list(leaves.values()))
    return [float(g.abs().max()) for g in found]


@pytest.mark.parametrize(("kind", "coupled"), [(k, c) for k, c, joint in VARIANTS if not joint])
def test_every_update_makes_the_gradient_of_its_factor_zero(kind, coupled):
    x, prior, at = setting(kind, coupled)
    at = updates.update_responsibilities(at, x, prior)
    for update, names in (
        (lambda a: updates.update_weights(a, prior), ["concentration"]),
        (lambda a: updates._update_locs(a, x, prior), ["loc", "loc_covariance"]),
        (lambda a: updates._update_precisions(a, x, prior), ["df", "inverse_scale"]),
    ):
        before = gradients(at, x, prior, names)
        at = update(at)
        after = gradients(at, x, prior, names)
        assert max(after) < 1e-9
        assert min(before) > 1e-3


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_a_joint_update_makes_the_gradient_of_its_factor_zero(kind):
    x, prior, at = setting(kind, joint=True)
    before, at = at, updates.update_responsibilities(at, x, prior)

    def gradient(factors):
        size = factors.loc.shape[-1]
        strength = size / torch.einsum(
            "kbef,kbfe->kb", factors.mean_precision(), factors.loc_covariance
        )
        parts = [leaf(p) for p in (factors.loc, strength, factors.df, factors.inverse_scale)]
        means, strengths, df, inverse_scale = parts
        covariance = inverse_scale / (strengths * df[:, None])[..., None, None]
        moved = dataclasses.replace(
            at, loc=means, loc_covariance=covariance, df=df, inverse_scale=inverse_scale
        )
        value = updates.elbo(moved, x, prior, joint=True)
        return [float(g.abs().max()) for g in torch.autograd.grad(value, parts)]

    assert min(gradient(before)) > 1e-4
    assert max(gradient(updates.update_components(at, x, prior, joint=True))) < 1e-9


@every_variant
def test_responsibilities_are_the_best_categoricals(kind, coupled, joint):
    x, prior, at = setting(kind, coupled, joint=joint)

    def spread(at):
        r = leaf(at.responsibilities)
        value = updates.elbo(dataclasses.replace(at, responsibilities=r), x, prior, joint=joint)
        (gradient,) = torch.autograd.grad(value, r)
        return float((gradient.amax(-1) - gradient.amin(-1)).max())  # the same for all k at a best

    assert spread(at) > 0.1
    assert spread(updates.update_responsibilities(at, x, prior)) < 1e-9


@every_variant
def test_the_bound_never_falls(kind, coupled, joint):
    for seed in range(10):
        x, prior, at = setting(kind, coupled, joint=joint, seed=seed)
        values = [updates.elbo(at, x, prior, joint=joint)]
        for _ in range(15):
            at = updates.coordinate_updates(at, x, prior, joint=joint)
            values.append(updates.elbo(at, x, prior, joint=joint))
        rises = torch.stack(values).diff()
        assert rises.min() > -1e-10
        assert rises[0] > 0.1


@every_variant
def test_the_bound_is_the_mean_log_weight_of_draws(kind, coupled, joint):
    """Within four standard errors of 4000 draws of the factors, with the model run by Pyro."""
    x, prior, at = setting(kind, coupled, joint=joint, size=12)
    at = updates.coordinate_updates(at, x, prior, joint=joint)
    draws, full = 4000, kind == "full"
    df = at.df[:, None].expand(at.loc.shape[:2])
    q_precision = Wishart(df, precision_matrix=at.inverse_scale)
    precision = q_precision.sample((draws,))  # (S, K, B, E, E)
    covariance = at.loc_covariance
    if joint:
        strength = at.loc.shape[-1] / torch.einsum(
            "kbef,kbfe->kb", at.mean_precision(), at.loc_covariance
        )
        covariance = (strength[..., None, None] * precision).inverse()
    q_loc = dist.MultivariateNormal(at.loc, covariance)
    loc = q_loc.sample() if joint else q_loc.sample((draws,))
    q_weights, q_z = dist.Dirichlet(at.concentration), dist.Categorical(at.responsibilities)
    weights, z = q_weights.sample((draws,)), q_z.sample((draws,))
    log_q = q_weights.log_prob(weights) + q_z.log_prob(z).sum(-1)
    log_q = log_q + (q_precision.log_prob(precision) + q_loc.log_prob(loc)).sum((-1, -2))
    values = {
        "weights": weights[:, None],
        "locs": loc.flatten(-2),
        "precisions": precision[:, :, 0] if full else precision[..., 0, 0],
        "z": z,
    }
    log_p = log_joint(bayes.bayesian_model, (x, prior), {}, values, nesting=1)
    log_w = log_p - log_q
    standard_error = float(log_w.std()) / math.sqrt(draws)
    assert standard_error < 0.1
    expected = float(updates.elbo(at, x, prior, joint=joint))
    assert abs(float(log_w.mean()) - expected) < 4 * standard_error


def test_with_one_component_the_joint_bound_is_the_evidence():
    """A product of predictive multivariate t densities (Bishop 2006, exercise 2.46 ff.)."""
    x, prior, _ = setting(components=1, size=6)
    b, m, df, v = prior.strength, prior.loc, prior.df, prior.inverse_scale
    evidence = 0.0
    for row in x:
        shape = v * (b + 1) / (b * (df - 1))
        t = stats.multivariate_t(m.numpy(), shape.numpy(), df=df - 1)
        evidence += t.logpdf(row.numpy())
        v = v + b / (b + 1) * torch.outer(row - m, row - m)
        m, b, df = (b * m + row) / (b + 1), b + 1, df + 1
    at = updates.start(x, prior, torch.ones(6, 1), joint=True)
    assert float(updates.elbo(at, x, prior, joint=True)) == pytest.approx(evidence, abs=1e-9)
    apart = updates.start(x, prior, torch.ones(6, 1))
    for _ in range(50):
        apart = updates.coordinate_updates(apart, x, prior)
    assert 0.01 < evidence - float(updates.elbo(apart, x, prior)) < 0.5


def test_the_model_with_components_enumerated_is_a_mixture():
    x, prior, _ = setting(size=7)
    trace = poutine.trace(bayes.bayesian_model).get_trace(x, prior)
    weights, locs, precisions = (trace.nodes[n]["value"] for n in ("weights", "locs", "precisions"))
    at = gaussian_mixture.Mixture(weights, locs, precisions.inverse())
    expected = gaussian_mixture.log_joint(at, x)
    for k in range(3):
        z = torch.full((7,), k)
        given = {"weights": weights, "locs": locs, "precisions": precisions, "z": z}
        conditioned = poutine.condition(bayes.bayesian_model, data=given)
        found = poutine.trace(conditioned).get_trace(x, prior)
        found.compute_log_prob()
        both = found.nodes["z"]["log_prob"] + found.nodes["x"]["log_prob"]
        torch.testing.assert_close(both, expected[:, k])


def test_bad_input():
    x, prior, at = setting(coupled=False)
    with pytest.raises(ValueError, match="needs a prior with coupled=True"):
        updates.update_components(at, x, prior, joint=True)
    with pytest.raises(ValueError, match='kind must be "full" or "diagonal"'):
        dataclasses.replace(prior, kind="round")
    with pytest.raises(ValueError, match="df must be at least 2"):
        dataclasses.replace(prior, df=1.5)
