"""Gaussian mixtures: the data, the likelihood by scipy and Pyro, EM against scikit-learn."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy import stats
from sklearn.mixture import GaussianMixture

from models import gaussian_mixture, old_faithful
from models.gaussian_mixture import KINDS, Mixture

SKLEARN_KINDS = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}


def start(kind, components=3):
    """Different for every component, and of the kind."""
    x = gaussian_mixture.iris()[0]
    at = gaussian_mixture.random_start(x, components, starts=4)
    for _ in range(3):
        at = gaussian_mixture.em_step(at, x, kind)[0]
    return at, x


def test_the_geyser_is_the_one_of_the_books():
    x = old_faithful.data()
    assert x.shape == (272, 2)
    np.testing.assert_allclose(x.mean(0).numpy(), [3.487783, 70.897059], atol=5e-7)
    # of R's faithful: variances and covariance
    np.testing.assert_allclose(
        x.T.cov().numpy(), [[1.302728, 13.977808], [13.977808, 184.823312]], atol=5e-7
    )
    assert x.amin(0).tolist() == [1.6, 43.0]
    assert x.amax(0).tolist() == [5.1, 96.0]
    standard = gaussian_mixture.old_faithful_data()
    assert standard.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(standard.square().mean(0), torch.ones(2))


@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical", "tied"])
def test_the_likelihood_by_scipy(kind):
    at, x = start(kind)
    for i in range(4):
        density = sum(
            float(at.weights[i, k])
            * stats.multivariate_normal.pdf(x.numpy(), at.locs[i, k], at.covariances[i, k])
            for k in range(3)
        )
        found = gaussian_mixture.log_likelihood(at, x)[i]
        assert float(found) == pytest.approx(np.log(density).sum(), rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("components", [1, 2, 4])
def test_the_model_is_the_same_likelihood(kind, components):
    x = gaussian_mixture.old_faithful_data()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.loss(gaussian_mixture.model, lambda *_: None, x, components, kind)
    store = pyro.get_param_store()

    def expected():
        with torch.no_grad():
            return float(gaussian_mixture.log_likelihood(gaussian_mixture.mixture(store), x))

    assert -loss == pytest.approx(expected(), rel=1e-12)
    with torch.no_grad():  # somewhere else
        for _, free in store.named_parameters():
            free.add_(0.3 * torch.randn_like(free))
    assert abs(expected() + loss) > 1
    found = -elbo.loss(gaussian_mixture.model, lambda *_: None, x, components, kind)
    assert found == pytest.approx(expected(), rel=1e-12)


@pytest.mark.parametrize("kind", SKLEARN_KINDS)
def test_a_step_of_em_is_that_of_scikit_learn(kind):
    at, x = start(kind)
    after, before = gaussian_mixture.em_step(at, x, kind)
    for i in range(4):
        sk_kind = SKLEARN_KINDS[kind]
        theirs = GaussianMixture(n_components=3, covariance_type=sk_kind, reg_covar=0.0)
        theirs.weights_, theirs.means_ = at.weights[i].numpy(), at.locs[i].numpy()
        shaped = {
            "full": at.covariances[i],
            "diag": at.covariances[i].diagonal(dim1=-2, dim2=-1),
            "spherical": at.covariances[i][:, 0, 0],
            "tied": at.covariances[i][0],
        }
        precisions = shaped[sk_kind].inverse() if kind in ("full", "tied") else 1 / shaped[sk_kind]
        theirs.precisions_cholesky_ = (
            torch.linalg.cholesky(precisions) if kind in ("full", "tied") else precisions.sqrt()
        ).numpy()
        mean_log, log_r = theirs._e_step(x.numpy())
        assert float(before[i]) == pytest.approx(mean_log * len(x), rel=1e-10)
        theirs._m_step(x.numpy(), log_r)
        np.testing.assert_allclose(after.weights[i].numpy(), theirs.weights_, rtol=1e-9)
        np.testing.assert_allclose(after.locs[i].numpy(), theirs.means_, rtol=1e-9)
        found = {
            "full": after.covariances[i],
            "diag": after.covariances[i].diagonal(dim1=-2, dim2=-1),
            "spherical": after.covariances[i][:, 0, 0],
            "tied": after.covariances[i][0],
        }[sk_kind]
        np.testing.assert_allclose(found.numpy(), theirs.covariances_, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", SKLEARN_KINDS)
def test_the_likelihood_rises_and_ends_where_its_gradient_is_zero(kind):
    x = gaussian_mixture.old_faithful_data()
    at = gaussian_mixture.random_start(x, 2, starts=3, seed=2)
    values = []
    while len(values) < 3 or (values[-1] - values[-2]).max() > 1e-10:
        at, before = gaussian_mixture.em_step(at, x, kind)
        values.append(before)
    rises = torch.stack(values).diff(dim=0)[int(kind in ("diagonal", "spherical")) :]
    assert rises.min() > -1e-10
    assert rises[0].min() > 1e-3

    def gradient(at):
        leaves = [part.detach().clone().requires_grad_() for part in (at.weights.log(), at.locs)]
        moved = Mixture(leaves[0].softmax(-1), leaves[1], at.covariances)
        value = gaussian_mixture.log_likelihood(moved, x).sum()
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, leaves)])

    assert gradient(at).abs().max() < 1e-3
    assert gradient(gaussian_mixture.random_start(x, 2, starts=3)).abs().max() > 1


def test_two_components_of_the_geyser_are_those_of_scikit_learn():
    x = gaussian_mixture.old_faithful_data()
    at = gaussian_mixture.random_start(x, 2, starts=5)
    for _ in range(200):
        at, value = gaussian_mixture.em_step(at, x)
    options = {"tol": 1e-12, "max_iter": 1000, "reg_covar": 0, "random_state": 0}
    theirs = GaussianMixture(n_components=2, **options).fit(x.numpy())
    expected = theirs.score(x.numpy()) * len(x)
    assert float(value.max()) == pytest.approx(expected, rel=1e-9)
    # in minutes, the log-likelihood that mclust and others report for the unscaled data
    scales = old_faithful.data().std(0, correction=0).log().sum()
    assert float(value.max() - len(x) * scales) == pytest.approx(-1130.264, abs=5e-4)


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind must be one of full, covariance, diagonal"):
        gaussian_mixture.model(gaussian_mixture.old_faithful_data(), kind="round")


def test_a_component_that_shrinks_onto_a_datum_has_no_bound():
    x = gaussian_mixture.old_faithful_data()
    values = []
    for size in (1e-2, 1e-4, 1e-6):
        covariances = torch.stack([torch.eye(2), size * torch.eye(2)])
        at = Mixture(torch.tensor([0.5, 0.5]), torch.stack([x.mean(0), x[0]]), covariances)
        values.append(float(gaussian_mixture.log_likelihood(at, x)))
    # 1/sqrt(det) grows by 100 with every step, at one datum
    assert values[2] - values[1] == pytest.approx(math.log(100), abs=0.05)
