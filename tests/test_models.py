"""The exact answers of ``models/`` against independent methods, and how the models run."""

import dataclasses
import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.poutine.util import site_is_subsample
from scipy import integrate, optimize, stats
from scipy.special import logsumexp

from models import (
    bimodal,
    conjugate_normal,
    discrete_noisy_or,
    eight_schools,
    gaussian_pair,
    mixture_small,
)
from tests.problems import FACTORIES

EXACT = [name for name, factory in FACTORIES.items() if factory().exact_guide is not None]
PARTICLES = 7

every_problem = pytest.mark.parametrize("name", FACTORIES)
every_exact_guide = pytest.mark.parametrize("name", EXACT)


def moments_on_grid(log_density, *axes):
    """Log mass, means and sds of an unnormalised density on a grid with equally spaced axes."""
    log_cell = sum(math.log(axis[1] - axis[0]) for axis in axes)
    log_mass = logsumexp(log_density) + log_cell
    weight = np.exp(log_density + log_cell - log_mass)
    grids = np.meshgrid(*axes, indexing="ij")
    means = [float((weight * grid).sum()) for grid in grids]
    sds = [
        math.sqrt((weight * (grid - mean) ** 2).sum())
        for grid, mean in zip(grids, means, strict=True)
    ]
    return float(log_mass), means, sds


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(
        torch.as_tensor(actual),
        torch.as_tensor(expected, dtype=torch.as_tensor(actual).dtype),
        rtol=0,
        atol=tolerance,
    )


def elbo_estimator(case, **options):
    """An ELBO of Pyro; at one draw it is log p - log q, with enumerated sites summed out."""
    kind = TraceEnum_ELBO if case.summed_out else Trace_ELBO
    return kind(max_plate_nesting=1, **options)


# ---------------------------------------------------------------------------------------------
# What every problem must satisfy.


@every_problem
def test_sites_and_shapes_match_the_reference(name):
    case = FACTORIES[name]()
    trace = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    latent = {n for n in trace.stochastic_nodes if not site_is_subsample(trace.nodes[n])}
    assert latent - set(case.summed_out) <= set(case.reference) | set(case.quantiles)
    for site, moments in case.reference.items():
        assert trace.nodes[site]["value"].shape == moments.mean.shape == moments.sd.shape
        assert (moments.sd > 0).all()


@every_problem
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_dtype_at_the_time_of_the_call_is_used(name, dtype):
    torch.set_default_dtype(dtype)
    case = FACTORIES[name]()
    trace = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    trace.compute_log_prob()
    assert trace.log_prob_sum().dtype == dtype
    for moments in case.reference.values():
        assert moments.mean.dtype == moments.sd.dtype == dtype


@every_problem
def test_particles_in_a_plate_agree_with_a_loop(name):
    case = FACTORIES[name]()
    prototype = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)

    def particles(*args, **kwargs):
        with pyro.plate("particles", PARTICLES, dim=-2):
            return case.model(*args, **kwargs)

    together = poutine.trace(particles).get_trace(*case.args, **case.kwargs)
    together.compute_log_prob()
    sampled = [site for site in prototype.stochastic_nodes if site in together.stochastic_nodes]
    latent = [site for site in sampled if prototype.nodes[site]["value"].is_floating_point()]
    latent += [site for site in case.summed_out if site not in latent]
    assert latent
    per_particle = sum(
        site["log_prob"]
        .expand(PARTICLES, *site["log_prob"].shape[1:])
        .reshape(PARTICLES, -1)
        .sum(1)
        for site in together.nodes.values()
        if "log_prob" in site
    )

    for k in range(PARTICLES):
        values = {
            site: together.nodes[site]["value"][k].reshape(prototype.nodes[site]["value"].shape)
            for site in latent
        }
        alone = poutine.trace(poutine.condition(case.model, values))
        close(alone.get_trace(*case.args, **case.kwargs).log_prob_sum(), per_particle[k])


@every_exact_guide
def test_exact_guide_has_the_evidence_as_weight_at_every_draw(name):
    case = FACTORIES[name]()
    weight = elbo_estimator(case)
    for _ in range(25):
        loss = weight.loss(case.model, case.exact_guide, *case.args, **case.kwargs)
        assert -loss == pytest.approx(case.log_evidence, abs=1e-10)


@every_exact_guide
def test_exact_guide_runs_under_a_particle_plate(name):
    case = FACTORIES[name]()
    weight = elbo_estimator(case, num_particles=50, vectorize_particles=True)
    loss = weight.loss(case.model, case.exact_guide, *case.args, **case.kwargs)
    assert -loss == pytest.approx(case.log_evidence, abs=1e-10)


@every_exact_guide
def test_draws_of_the_exact_guide_have_the_reference_moments_or_quantiles(name):
    case = FACTORIES[name]()
    draws = 10_000

    def particles(*args, **kwargs):
        with pyro.plate("particles", draws, dim=-2):
            return case.exact_guide(*args, **kwargs)

    trace = poutine.trace(particles).get_trace(*case.args, **case.kwargs)
    levels = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    for site, quantiles in case.quantiles.items():
        expected = quantiles(levels)  # (levels, *site)
        values = trace.nodes[site]["value"].reshape(draws, *expected.shape[1:])
        level = levels.reshape(-1, *[1] * (expected.dim() - 1))
        share = (values[:, None] < expected).to(values.dtype).mean(0)
        # 5 standard errors of a binomial share.
        assert ((share - level).abs() < 5 * (level * (1 - level) / draws).sqrt()).all()
    # Sites with quantiles have tails too heavy for an error from the fourth moment.
    for site in set(case.reference) - set(case.quantiles):
        moments = case.reference[site]
        values = trace.nodes[site]["value"].reshape(draws, *moments.mean.shape)
        centred = values - moments.mean
        # 5 standard errors: of the mean sd/sqrt(S), of the variance from its fourth moment.
        assert (centred.mean(0).abs() < 5 * moments.sd / math.sqrt(draws)).all()
        squares = centred**2
        error = squares.std(0) / math.sqrt(draws)
        assert ((squares.mean(0) - moments.sd**2).abs() < 5 * error).all()


@every_problem
def test_listed_autoguides_have_a_finite_elbo(name):
    case = FACTORIES[name]()
    visible = poutine.block(case.model, hide=list(case.summed_out))
    for guide_name in case.guides:
        pyro.clear_param_store()
        guide = getattr(pyro.infer.autoguide, guide_name)(visible)
        loss = elbo_estimator(case).loss(case.model, guide, *case.args, **case.kwargs)
        assert math.isfinite(loss)
    assert case.guides or case.guide is not None


# ---------------------------------------------------------------------------------------------
# Eight schools.


def eight_schools_log_joint(mu, tau):
    """log p(mu, tau, y) on a grid, theta integrated out, from the model's definition alone."""
    total = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5)
    for y, error in zip(eight_schools.EFFECTS, eight_schools.STANDARD_ERRORS, strict=True):
        total = total + stats.norm.logpdf(y, mu, np.sqrt(tau**2 + error**2))
    return total


def test_eight_schools_data():
    y, error = eight_schools.data()
    assert y.tolist() == [28, 8, -3, 7, -1, 1, 18, 12]
    assert error.tolist() == [15, 10, 16, 11, 9, 11, 10, 18]


def test_eight_schools_agrees_with_a_two_dimensional_grid():
    mu = np.linspace(-35.0, 45.0, 401)
    log_tau = np.linspace(-25.0, 9.0, 851)
    mu_grid, log_tau_grid = np.meshgrid(mu, log_tau, indexing="ij")
    tau = np.exp(log_tau_grid)
    log_joint = eight_schools_log_joint(mu_grid, tau) + log_tau_grid
    case = eight_schools.non_centred_problem()

    log_evidence, means, sds = moments_on_grid(log_joint, mu, log_tau)
    assert case.log_evidence == pytest.approx(log_evidence, abs=1e-8)
    close(case.reference["mu"].mean, means[0], 1e-8)
    close(case.reference["mu"].sd, sds[0], 1e-8)

    weight = np.exp(log_joint - logsumexp(log_joint))
    close(case.reference["tau"].mean, (weight * tau).sum(), 1e-7)
    second = (weight * tau**2).sum()
    close(case.reference["tau"].sd, math.sqrt(second - (weight * tau).sum() ** 2), 1e-7)

    for j in range(8):
        y, error = eight_schools.EFFECTS[j], eight_schools.STANDARD_ERRORS[j]
        precision = 1 / error**2 + 1 / tau**2
        theta = (y / error**2 + mu_grid / tau**2) / precision
        offset = (theta - mu_grid) / tau
        for site, mean, var in (
            ("theta", theta, 1 / precision),
            ("theta_t", offset, 1 / (precision * tau**2)),
        ):
            first = (weight * mean).sum()
            sd = math.sqrt((weight * (var + (mean - first) ** 2)).sum())
            close(case.reference[site].mean[j], first, 1e-6)
            close(case.reference[site].sd[j], sd, 1e-6)


def test_eight_schools_model_is_the_one_that_was_integrated():
    # p(mu, tau, theta, y) / p(theta | mu, tau, y) = p(mu, tau, y) at any theta.
    y, error = eight_schools.data()
    for _ in range(20):
        trace = poutine.trace(eight_schools.centred_model).get_trace(y, error)
        mu, tau, theta = (trace.nodes[site]["value"] for site in ("mu", "tau", "theta"))
        precision = error**-2 + tau**-2
        mean = (y / error**2 + mu / tau**2) / precision
        log_theta = dist.Normal(mean, precision.rsqrt()).log_prob(theta).sum()
        expected = eight_schools_log_joint(mu.numpy(), tau.numpy())
        assert float(trace.log_prob_sum() - log_theta) == pytest.approx(float(expected), abs=1e-8)


def test_eight_schools_quadrature_does_not_change_with_the_step():
    coarse, coarse_evidence = eight_schools.posterior_by_quadrature(step=0.04)
    fine, fine_evidence = eight_schools.posterior_by_quadrature(step=0.005)
    assert coarse_evidence == pytest.approx(fine_evidence, abs=1e-10)
    for site in fine:
        close(coarse[site].mean, fine[site].mean)
        close(coarse[site].sd, fine[site].sd)


def test_eight_schools_quadrature_agrees_with_the_nuts_draws_of_arviz():
    exact, _ = eight_schools.posterior_by_quadrature()
    summary = eight_schools.nuts_reference()
    for site, draws in eight_schools.nuts_draws().items():
        mean, sd = exact[site].mean.numpy(), exact[site].sd.numpy()
        # The Monte Carlo error from the means of 20 batches of 100 consecutive draws. 34 numbers
        # are compared, hence four standard errors (of a t distribution with 19 degrees).
        batches = draws.reshape(20, 100, *draws.shape[2:])
        mean_error = batches.mean(1).std(0, ddof=1) / math.sqrt(20)
        square_error = ((batches - mean) ** 2).mean(1).std(0, ddof=1) / math.sqrt(20)
        assert (np.abs(draws.mean((0, 1)) - mean) < 4 * mean_error).all()
        assert (np.abs(((draws - mean) ** 2).mean((0, 1)) - sd**2) < 4 * square_error).all()
        assert (mean_error < 0.1 * sd).all()  # the comparison is sharp enough to mean something
        close(summary[site].mean, draws.mean((0, 1)))


def test_eight_schools_two_forms_have_the_same_joint_density():
    y, error = eight_schools.data()
    centred = poutine.trace(eight_schools.centred_model).get_trace(y, error)
    mu, tau, theta = (centred.nodes[site]["value"] for site in ("mu", "tau", "theta"))
    values = {"mu": mu, "tau": tau, "theta_t": (theta - mu) / tau}
    conditioned = poutine.condition(eight_schools.non_centred_model, values)
    other = poutine.trace(conditioned).get_trace(y, error)
    close(other.nodes["theta"]["value"], theta)
    close(other.log_prob_sum() - 8 * tau.log(), centred.log_prob_sum())


# ---------------------------------------------------------------------------------------------
# Bimodal.


@pytest.mark.parametrize("name", ["bimodal", "bimodal_mixture"])
def test_bimodal_agrees_with_quadrature_over_the_model(name):
    case = FACTORIES[name]()
    z = torch.linspace(-30, 30, 6001)
    with poutine.trace() as recorded, pyro.plate("grid", len(z)):
        poutine.condition(case.model, {"z": z})(*case.args)
    recorded.trace.compute_log_prob()
    log_joint = sum(
        site["log_prob"] for site in recorded.trace.nodes.values() if "log_prob" in site
    )
    log_evidence, means, sds = moments_on_grid(log_joint.numpy(), z.numpy())
    assert case.log_evidence == pytest.approx(log_evidence, abs=1e-10)
    close(case.reference["z"].mean, means[0])
    close(case.reference["z"].sd, sds[0])

    # Two modes of unequal mass, far apart, and the prior covers both.
    mass_left = float((log_joint[z < 0].logsumexp(0) - log_joint.logsumexp(0)).exp())
    assert mass_left == pytest.approx(0.7, abs=0.005)
    interior = log_joint[1:-1]
    peaks = z[1:-1][(interior > log_joint[:-2]) & (interior > log_joint[2:])]
    assert len(peaks) == 2
    assert 5.5 < float(peaks[1] - peaks[0]) / math.sqrt(bimodal.posterior_variance()) < 6.5


def test_forward_kl_optimum_has_the_posterior_moments_and_reverse_kl_sits_on_a_mode():
    z = np.linspace(-40, 40, 8001)
    p = 0.7 * stats.norm.pdf(z, -3, 1) + 0.3 * stats.norm.pdf(z, 3, 1)
    log_p = np.logaddexp(
        math.log(0.7) + stats.norm.logpdf(z, -3, 1), math.log(0.3) + stats.norm.logpdf(z, 3, 1)
    )

    def cross_entropy(u):
        return -integrate.trapezoid(p * stats.norm.logpdf(z, u[0], math.exp(u[1])), z)

    def reverse(u):
        log_q = stats.norm.logpdf(z, u[0], math.exp(u[1]))
        return integrate.trapezoid(np.exp(log_q) * (log_q - log_p), z)

    options = {"xatol": 1e-7, "fatol": 1e-13}
    moments = bimodal.mixture_problem().reference["z"]
    assert abs(moments.mean) > 1  # the start (0, 1) is not the answer
    assert abs(moments.sd - 1) > 1
    forward_fit = optimize.minimize(cross_entropy, [0, 0], method="Nelder-Mead", options=options)
    close(moments.mean, forward_fit.x[0], 1e-5)
    close(moments.sd, math.exp(forward_fit.x[1]), 1e-5)
    reverse_fit = optimize.minimize(reverse, [-1, 1], method="Nelder-Mead", options=options)
    assert reverse_fit.x[0] == pytest.approx(-3, abs=0.05)
    assert math.exp(reverse_fit.x[1]) == pytest.approx(1, abs=0.05)


# ---------------------------------------------------------------------------------------------
# Conjugate normals.


def test_conjugate_normal_agrees_with_quadrature():
    case = conjugate_normal.problem()
    z = np.linspace(-14, 14, 2801)
    total = 0.0
    for n, x in enumerate(case.args[0].tolist()):
        log_joint = stats.norm.logpdf(z) + stats.norm.logpdf(x, z, 1)
        log_evidence, means, sds = moments_on_grid(log_joint, z)
        total += log_evidence
        close(case.reference["z"].mean[n], means[0])
        close(case.reference["z"].sd[n], sds[0])
    assert case.log_evidence == pytest.approx(total, abs=1e-10)


def test_hierarchical_normal_agrees_with_the_dense_joint_normal():
    case = conjugate_normal.hierarchical_problem()
    x = case.args[0]
    size = len(x)
    ones = torch.ones(size)
    cov_x = 2 * torch.eye(size) + torch.outer(ones, ones)
    evidence = dist.MultivariateNormal(torch.zeros(size), cov_x).log_prob(x)
    assert case.log_evidence == pytest.approx(float(evidence), abs=1e-10)

    # Latents (mu, z): condition the joint normal on x.
    latent_cov = torch.ones(size + 1, size + 1)
    latent_cov[1:, 1:] += torch.eye(size)
    cross = latent_cov[:, 1:]  # cov(latent, x) = cov(latent, z)
    mean = cross @ torch.linalg.solve(cov_x, x)
    cov = latent_cov - cross @ torch.linalg.solve(cov_x, cross.T)
    close(case.reference["mu"].mean, mean[0])
    close(case.reference["mu"].sd, cov[0, 0].sqrt())
    close(case.reference["z"].mean, mean[1:])
    close(case.reference["z"].sd, cov.diagonal()[1:].sqrt())


def test_data_of_any_size_are_centred_where_they_say():
    assert conjugate_normal.data(7).shape == (7,)
    close(conjugate_normal.data().mean(), 0.0)
    close(conjugate_normal.hierarchical_data().mean(), 1.0)
    # Distribution function of N(0, 2) at the data: midpoints of 20 equal intervals.
    close(
        torch.as_tensor(stats.norm.cdf(conjugate_normal.data().numpy(), 0, math.sqrt(2))),
        (np.arange(20) + 0.5) / 20,
    )


def test_minibatch_weight_is_the_scaled_evidence_of_the_minibatch():
    case = conjugate_normal.problem(subsample_size=6)
    x = case.args[0]
    for _ in range(10):
        guide = poutine.trace(case.exact_guide).get_trace(*case.args, **case.kwargs)
        replayed = poutine.replay(case.model, trace=guide)
        model = poutine.trace(replayed).get_trace(*case.args, **case.kwargs)
        batch = x[guide.nodes["data"]["value"]]
        assert batch.shape == (6,)
        expected = 20 / 6 * dist.Normal(0.0, math.sqrt(2)).log_prob(batch).sum()
        close(model.log_prob_sum() - guide.log_prob_sum(), expected)


@pytest.mark.parametrize(
    "factory",
    [conjugate_normal.problem, conjugate_normal.hierarchical_problem, mixture_small.problem],
)
def test_minibatches_average_to_the_log_density_of_all_data(factory):
    case = factory()
    x = case.args[0][:4]
    full = poutine.trace(case.model).get_trace(x)
    values = {site: full.nodes[site]["value"] for site in (*case.reference, *case.summed_out)}
    small = poutine.trace(case.model).get_trace(x, subsample_size=2)
    log_probs = []
    for minibatch in itertools.combinations(range(4), 2):
        index = torch.tensor(minibatch)
        fixed = poutine.Trace()
        fixed.add_node("data", **{**small.nodes["data"], "value": index})
        local = {
            site: value[index] if value.shape == x.shape else value
            for site, value in values.items()
        }
        model = poutine.replay(poutine.condition(case.model, local), trace=fixed)
        log_probs.append(poutine.trace(model).get_trace(x, subsample_size=2).log_prob_sum())
    close(torch.stack(log_probs).mean(), full.log_prob_sum())
    assert torch.stack(log_probs).std() > 0.1  # the minibatches do differ


def test_amortised_guide_starts_at_the_prior_and_contains_the_posterior():
    case = conjugate_normal.problem()
    start = poutine.trace(case.guide).get_trace(*case.args).nodes["z"]["fn"]
    close(start.mean, torch.zeros(20))
    close(start.stddev, torch.ones(20))

    pyro.get_param_store()["slope"] = torch.tensor(0.5)
    pyro.get_param_store()["scale"] = torch.tensor(math.sqrt(0.5))
    loss = Trace_ELBO().loss(case.model, case.guide, *case.args)
    assert -loss == pytest.approx(case.log_evidence, abs=1e-10)


# ---------------------------------------------------------------------------------------------
# Gaussian pair.


def renyi_over_alpha(alpha, p_precision, q_precision):
    """D_alpha(q || p) / alpha for zero-mean normals; KL(p || q) and KL(q || p) at 0 and 1."""
    log_det_p = np.linalg.slogdet(p_precision)[1]
    log_det_q = np.linalg.slogdet(q_precision)[1]
    if alpha == 0:
        return 0.5 * (
            np.trace(np.linalg.solve(p_precision, q_precision)) - 2 + log_det_p - log_det_q
        )
    if alpha == 1:
        return 0.5 * (
            np.trace(np.linalg.solve(q_precision, p_precision)) - 2 + log_det_q - log_det_p
        )
    tilted = alpha * q_precision + (1 - alpha) * p_precision
    if np.linalg.eigvalsh(tilted)[0] <= 0:
        return math.inf
    log_integral = 0.5 * (
        alpha * log_det_q + (1 - alpha) * log_det_p - np.linalg.slogdet(tilted)[1]
    )
    return log_integral / (alpha * (alpha - 1))


def pair_precision(correlation):
    return np.linalg.inv(np.array([[1.0, correlation], [correlation, 1.0]]))


@pytest.mark.parametrize("correlation", [0.9, -0.5])
@pytest.mark.parametrize("alpha", [-4.0, -1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0])
def test_mean_field_optimum_minimises_the_renyi_divergence(alpha, correlation):
    precision = pair_precision(correlation)
    # Start where the divergence is finite: tighter than p for large alpha, wider for small.
    smallest, largest = np.linalg.eigvalsh(precision)
    start = largest * np.array([1.2, 1.5]) if alpha >= 0.5 else smallest * np.array([0.8, 0.6])
    fit = optimize.minimize(
        lambda u: renyi_over_alpha(alpha, precision, np.diag(np.exp(u))),
        np.log(start),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-15, "maxiter": 2000},
    )
    sds = np.exp(-fit.x / 2)
    expected = gaussian_pair.mean_field_sd_ratio(alpha, correlation)
    assert abs(np.sqrt(1 / start) - expected).max() > 5e-5  # the start is not the answer
    assert sds == pytest.approx(np.full(2, expected), abs=1e-5)


def test_mean_field_optimum_at_infinite_alpha_is_the_extreme_eigenvalue():
    # D_inf bounds q/p, so q must be tighter than p in every direction, and -inf the reverse.
    smallest, largest = np.linalg.eigvalsh(pair_precision(0.9))
    ratio = gaussian_pair.mean_field_sd_ratio
    assert ratio(math.inf, 0.9) == pytest.approx(1 / math.sqrt(largest))
    assert ratio(-math.inf, 0.9) == pytest.approx(1 / math.sqrt(smallest))
    assert ratio(1e7, 0.9) == pytest.approx(ratio(math.inf, 0.9), abs=1e-6)
    assert ratio(-1e7, 0.9) == pytest.approx(ratio(-math.inf, 0.9), abs=1e-6)


def test_mean_field_factor_solves_the_quadratic_of_its_stationary_point():
    # Both algebraic forms are roots of alpha rho^2 - (2 alpha - 1) rho - (1 - alpha)(1 - r^2) = 0.
    for alpha, r in itertools.product([-3, -1e-9, 0, 1e-9, 0.49, 0.5, 0.51, 1, 3], [0.0, 0.3, 0.9]):
        rho = gaussian_pair.mean_field_precision_factor(alpha, r)
        residual = alpha * rho**2 - (2 * alpha - 1) * rho - (1 - alpha) * (1 - r**2)
        assert abs(residual) < 1e-12


@pytest.mark.parametrize("alpha", [-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf])
def test_khat_law_is_where_moments_of_the_weights_stop_to_exist(alpha):
    # E_q[(p/q)^m] is finite iff m P + (1 - m) Q is positive definite, and must stop at m = 1/k.
    precision = pair_precision(0.9)
    q_precision = np.eye(2) / gaussian_pair.mean_field_sd_ratio(alpha, 0.9) ** 2
    k = gaussian_pair.mean_field_khat(alpha, 0.9)

    def exists(order):
        return np.linalg.eigvalsh(order * precision + (1 - order) * q_precision)[0] > 0

    if alpha == -math.inf:
        assert k == pytest.approx(0, abs=1e-12)  # bounded weights: every moment exists
        assert exists(1e6)
    else:
        assert exists(1 / k - 1e-6)
        assert not exists(1 / k + 1e-6)
        eigenvalues = np.linalg.eigvals(precision @ np.linalg.inv(q_precision)).real
        assert k == pytest.approx(1 - eigenvalues.min(), abs=1e-12)


def test_pair_takes_its_correlation_and_refuses_an_impossible_one():
    case = gaussian_pair.problem(-0.4)
    site = poutine.trace(case.model).get_trace(*case.args).nodes["z"]
    close(site["fn"].covariance_matrix, [[1.0, -0.4], [-0.4, 1.0]])
    with pytest.raises(ValueError, match="correlation must lie strictly between -1 and 1"):
        gaussian_pair.problem(1.0)


# ---------------------------------------------------------------------------------------------
# Noisy-OR.


def noisy_or_by_brute_force():
    """p(state, findings) for the 16 states in plain Python."""
    joint = {}
    for state in itertools.product((0, 1), repeat=4):
        probability = 1.0
        for present, prior in zip(state, discrete_noisy_or.PRIOR, strict=True):
            probability *= prior if present else 1 - prior
        for j, seen in enumerate(discrete_noisy_or.FINDINGS):
            absent = 1 - discrete_noisy_or.LEAK[j]
            for i, present in enumerate(state):
                absent *= (1 - discrete_noisy_or.STRENGTH[i][j]) ** present
            probability *= 1 - absent if seen else absent
        joint[state] = probability
    return joint


def test_noisy_or_agrees_with_brute_force():
    case = discrete_noisy_or.problem()
    joint = noisy_or_by_brute_force()
    evidence = sum(joint.values())
    assert case.log_evidence == pytest.approx(math.log(evidence), abs=1e-12)
    table = discrete_noisy_or.posterior_table(*case.args)
    for state, probability in joint.items():
        assert float(table[state]) == pytest.approx(probability / evidence, abs=1e-12)
    for i, moments in enumerate(case.reference.values()):
        marginal = sum(p for state, p in joint.items() if state[i]) / evidence
        close(moments.mean, marginal)
        close(moments.sd, math.sqrt(marginal * (1 - marginal)))


def test_noisy_or_evidence_agrees_with_pyro_enumerating_the_model():
    case = discrete_noisy_or.problem()
    enumerated = config_enumerate(case.model, default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(enumerated, lambda _: None, *case.args)
    assert -loss == pytest.approx(case.log_evidence, abs=1e-10)


def test_noisy_or_mean_field_elbo_agrees_with_the_sum_over_states():
    case = discrete_noisy_or.problem()
    logits = torch.tensor([0.8, -0.5, -1.2, 0.1])
    pyro.param("disease_logits", logits)
    chances = torch.sigmoid(logits).tolist()
    elbo = 0.0
    for state, probability in noisy_or_by_brute_force().items():
        q = math.prod(c if s else 1 - c for c, s in zip(chances, state, strict=True))
        elbo += q * (math.log(probability) - math.log(q))
    guide = config_enumerate(case.guide, default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(case.model, guide, *case.args)
    assert -loss == pytest.approx(elbo, abs=1e-10)
    assert elbo < case.log_evidence - 0.1  # a mean-field guide cannot be exact here


# ---------------------------------------------------------------------------------------------
# Small mixture.


def mixture_grid(points):
    first = np.linspace(-11.0, 9.0, points)
    second = np.linspace(-9.0, 12.0, points)
    mu = np.stack(np.meshgrid(first, second, indexing="ij"), -1)
    log_joint = stats.norm.logpdf(mu, mixture_small.PRIOR_MEANS, 2).sum(-1)
    for x in mixture_small.DATA:
        log_joint = log_joint + np.logaddexp(
            math.log(0.35) + stats.norm.logpdf(x, mu[..., 0], 1),
            math.log(0.65) + stats.norm.logpdf(x, mu[..., 1], 1),
        )
    return log_joint, first, second, mu


def test_small_mixture_agrees_with_two_dimensional_quadrature_at_two_refinements():
    case = mixture_small.problem()
    for points in (201, 401):
        log_joint, first, second, _ = mixture_grid(points)
        log_evidence, means, sds = moments_on_grid(log_joint, first, second)
        assert case.log_evidence == pytest.approx(log_evidence, abs=1e-8)
        close(case.reference["mu"].mean, means, 1e-8)
        close(case.reference["mu"].sd, sds, 1e-8)


def test_small_mixture_assignments_and_swapped_labels_agree_with_quadrature():
    log_joint, _, _, mu = mixture_grid(401)
    weight = np.exp(log_joint - logsumexp(log_joint))
    probabilities = mixture_small.assignment_probabilities(mixture_small.data())
    close(probabilities.sum(1), torch.ones(8))
    for n, x in enumerate(mixture_small.DATA):
        first = 0.35 * stats.norm.pdf(x, mu[..., 0], 1)
        second = 0.65 * stats.norm.pdf(x, mu[..., 1], 1)
        close(probabilities[n, 0], (weight * first / (first + second)).sum(), 1e-8)
    swapped = weight[mu[..., 0] > mu[..., 1]].sum()
    assert swapped == pytest.approx(0.05, abs=0.005)  # the 5 % of the module's docstring


def test_problems_are_immutable():
    case = conjugate_normal.problem()
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.name = "another"
