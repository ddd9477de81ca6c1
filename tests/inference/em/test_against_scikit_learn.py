"""Gaussian mixtures: scikit-learn from the same starts, on the same data."""

import pytest
import torch
from sklearn.mixture import GaussianMixture

from models import gaussian_mixture
from pyro_klmodes.inference.em import EM, KMeansPlusPlus

KINDS = {"full": "full", "diagonal": "diag", "spherical": "spherical", "tied": "tied"}
DATA = {
    "geyser": (gaussian_mixture.old_faithful_data, 2),
    "iris": (lambda: gaussian_mixture.iris()[0], 3),
}


def starting_precisions(kind, x, components):
    """Those of the covariances that the model starts with."""
    scale = x.std(0).numpy()
    one = {
        "full": torch.as_tensor(scale**-2).diag().expand(components, -1, -1),
        "diagonal": torch.as_tensor(scale**-2).expand(components, -1),
        "spherical": torch.full((components,), float(scale.mean()) ** -2),
        "tied": torch.as_tensor(scale**-2).diag(),
    }
    return one[kind].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DATA)
def test_the_maximum_is_that_of_scikit_learn(name, kind):
    make, components = DATA[name]
    x = make()
    ranks = ((torch.arange(components) + 0.5) / components * len(x)).long()
    theirs = GaussianMixture(
        components,
        covariance_type=KINDS[kind],
        tol=0.0,
        reg_covar=0.0,
        max_iter=500,
        weights_init=[1 / components] * components,
        means_init=x[x[:, 0].argsort()[ranks]].numpy(),
        precisions_init=starting_precisions(kind, x, components),
    )
    theirs.set_params(tol=1e-13).fit(x.numpy())
    expected = theirs.score(x.numpy()) * len(x)

    result = EM(gaussian_mixture.model).fit(
        x, components=components, kind=kind, steps=500, tolerance=1e-9
    )

    assert result.log_likelihood == pytest.approx(expected, rel=1e-6)
    assert set(result.closed_form) == set(result.params)
    torch.testing.assert_close(
        result.params["locs"], torch.as_tensor(theirs.means_), atol=1e-4, rtol=0
    )
    start = -result.losses[0]
    assert abs(start - expected) > 5 * 1e-6 * abs(expected)
    at_maximum = gaussian_mixture.log_likelihood(gaussian_mixture.mixture(result.params), x)
    assert float(at_maximum) == pytest.approx(result.log_likelihood, rel=1e-10)


def test_restarts_find_what_a_loop_over_scikit_learn_finds():
    x, _ = gaussian_mixture.iris()
    loop = [
        GaussianMixture(3, n_init=1, init_params="k-means++", random_state=seed, reg_covar=1e-6)
        .fit(x.numpy())
        .score(x.numpy())
        for seed in range(5)
    ]

    result = EM(gaussian_mixture.model, starts=KMeansPlusPlus(10), floor=1e-4).fit(
        x, components=3, kind="full", steps=200
    )

    assert result.log_likelihood >= max(loop) * len(x) - 1e-3
    assert len(result.restarts.log_likelihood) == 10
