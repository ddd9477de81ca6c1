"""Leave-one-out from fitted guides against leave-one-out from the posterior itself.

Eight schools: ArviZ's stored NUTS run. Radon: exact draws by quadrature over the two scales, which
the stored NUTS run of the model agrees with.
"""

import warnings

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import init_to_feasible
from pyro.optim import ClippedAdam
from scipy import stats

from models import eight_schools, hierarchical_radon
from models.hierarchical_radon_exact import coefficients_given_scales, sums_by_county
from pyro_klmodes import ForwardKL, ReverseKL, estimators, fit, loo
from pyro_klmodes.guides import AutoHierarchical, AutoMixture
from pyro_klmodes.inference_data import elpd_numbers
from pyro_klmodes.posteriors import Chains

DRAWS = 8000


def leave_one_out(source, **options):
    """Whatever the Pareto k of single data are: they are compared, not believed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*shape parameter of Pareto.*")
        return elpd_numbers(loo(source, **options))


@pytest.mark.slow
def test_eight_schools_as_by_nuts():
    case = eight_schools.non_centred_problem()
    values = {
        name: torch.as_tensor(draws, dtype=torch.float64)
        for name, draws in eight_schools.nuts_draws().items()
        if name != "theta"
    }
    nuts = leave_one_out(Chains(values, case.model, case.args))
    result = fit(
        case.model,
        AutoMixture(case.model, num_components=8),
        ForwardKL(128),
        *case.args,
        steps=1500,
        optim=ClippedAdam({"lr": 0.1, "lrd": 0.05 ** (1 / 1500), "betas": (0.8, 0.95)}),
        progress=False,
    )

    ours = leave_one_out(result, num_samples=DRAWS)

    # The 2,000 draws of NUTS know each of eight terms to about 0.02; the standard error of the
    # estimate as a forecast, 1.4, is another matter.
    assert ours.elpd == pytest.approx(nuts.elpd, abs=0.15)
    np.testing.assert_allclose(ours.pointwise, nuts.pointwise, atol=0.1)


def exact_draws(count, seed=0):
    """Draws of the radon posterior: a node of the scales, the coefficients, the intercepts."""
    y, county, floor, uranium = (part.double().numpy() for part in hierarchical_radon.data())
    county = county.astype(int)
    random = np.random.default_rng(seed)
    sums = sums_by_county(y, county, floor, uranium)
    log_a, log_y = np.meshgrid(
        np.arange(-6.0, 1.0, 0.01), np.arange(np.log(0.6), np.log(0.95), 0.004), indexing="ij"
    )
    a, noise = np.exp(log_a).ravel(), np.exp(log_y).ravel()
    mean, covariance, log_likelihood = coefficients_given_scales(sums, a**2, noise**2)
    log_mass = log_likelihood + np.log(a * noise)
    log_mass += stats.halfnorm.logpdf(a) + stats.halfnorm.logpdf(noise)
    mass = np.exp(log_mass - log_mass.max())
    node = random.choice(len(a), size=count, p=mass / mass.sum())
    factors = np.linalg.cholesky(covariance[node])
    b = mean[node] + np.einsum("nij,nj->ni", factors, random.standard_normal((count, 3)))
    a, noise = a[node, None], noise[node, None]
    pull = sums.size * a**2 / (noise**2 + sums.size * a**2)
    prior_mean = b[:, :1] + b[:, 2:] * sums.uranium
    house_mean = (sums.y - b[:, 1:2] * sums.x[:, 1]) / sums.size
    alpha = (1 - pull) * prior_mean + pull * house_mean
    alpha += np.sqrt(1 - pull) * a * random.standard_normal(alpha.shape)
    values = {
        "mu_a": b[:, 0],
        "beta": b[:, 1],
        "gamma": b[:, 2],
        "sigma_a": a[:, 0],
        "sigma_y": noise[:, 0],
        "alpha": alpha,
    }
    return {name: torch.as_tensor(x, dtype=torch.float32)[None] for name, x in values.items()}


@pytest.mark.slow
def test_radon_as_by_the_exact_posterior():
    model, args = hierarchical_radon.model, hierarchical_radon.data()
    exact = leave_one_out(Chains(exact_draws(DRAWS), model, args))
    steps = 2000
    result = fit(
        model,
        AutoHierarchical(model, init_loc_fn=init_to_feasible, init_scale=0.1),
        ReverseKL(4, estimator=estimators.doubly),
        *args,
        steps=steps,
        optim=ClippedAdam({"lr": 0.1, "lrd": 0.01 ** (1 / steps), "betas": (0.9, 0.99)}),
        progress=False,
    )

    ours = leave_one_out(result, num_samples=DRAWS)

    assert ours.num_data == exact.num_data == 891
    assert exact.pareto_k.max() < 0.7
    # 891 terms, each known to about 0.01 from either set of draws.
    assert ours.elpd == pytest.approx(exact.elpd, abs=1.0)
    np.testing.assert_allclose(ours.pointwise, exact.pointwise, atol=0.1)
