"""Data drawn anew have the moments of the closed forms."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.predict import predict, prior

COUNT = 8000
X = torch.zeros(5, dtype=torch.float64)


def model(x, size=None):
    mu = pyro.sample("mu", dist.Normal(torch.ones(()), 2.0))
    pyro.factor("penalty", -mu.square())
    with pyro.plate("data", len(x), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.deterministic("twice", 2 * z)
        pyro.sample("x", dist.Normal(z, 0.5), obs=x[rows])


def assert_normal(draws, mean, sd):
    """First two moments within four standard errors, for normal draws in the first dimension."""
    error = sd / len(draws) ** 0.5
    assert bool(((draws.mean(0) - mean).abs() < 4 * error).all())
    assert bool(((draws.std(0) - sd).abs() < 4 * error / 2**0.5).all())


@pytest.mark.parametrize("size", [None, 2])
def test_predictions_given_latent_values(size):
    z = torch.arange(5.0).expand(COUNT, 5)
    values = {"mu": torch.zeros(COUNT), "z": z}
    drawn = predict(ModelAt(model, (X, size), {}, values.keys()), values)
    assert list(drawn) == ["x"]
    assert_normal(drawn["x"], z[0], 0.5)
    correlation = torch.corrcoef(drawn["x"].T) - torch.eye(5)
    assert float(correlation.abs().max()) < 4 / COUNT**0.5


@pytest.mark.parametrize("size", [None, 2])
def test_the_prior_ignores_data_and_factors_and_holds_globals_fixed(size):
    drawn = prior(ModelAt(model, (X, size), {}, {"mu", "z"}), COUNT)
    assert_normal(drawn["mu"], 1.0, 2.0)
    assert_normal(drawn["z"] - drawn["mu"][:, None], 0.0, 1.0)
    assert_normal(drawn["x"] - drawn["z"], 0.0, 0.5)
    torch.testing.assert_close(drawn["twice"], 2 * drawn["z"])
    local = torch.corrcoef((drawn["z"] - drawn["mu"][:, None]).T) - torch.eye(5)
    assert float(local.abs().max()) < 4 / COUNT**0.5


def test_both_go_draw_by_draw_where_a_model_does_not_broadcast():
    def mean_of_all():
        with pyro.plate("data", 5):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z.mean(), 0.5), obs=torch.zeros(()))

    z = torch.randn(2000, 5)
    at = ModelAt(mean_of_all, (), {}, {"z"})
    assert_normal(predict(at, {"z": z})["x"] - z.mean(1), 0.0, 0.5)
    drawn = prior(at, 2000)
    assert_normal(drawn["x"] - drawn["z"].mean(1), 0.0, 0.5)


def test_what_is_partly_observed_is_predicted_whole():
    mask = torch.tensor([True, False, True])

    def partly():
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mu, 0.5), obs=torch.zeros(3), obs_mask=mask)

    values = {"mu": torch.full((COUNT,), 2.0), "x_unobserved": torch.zeros(COUNT, 3)}
    drawn = predict(ModelAt(partly, (), {}, values.keys()), values)
    assert_normal(drawn["x_observed"], torch.tensor(2.0), 0.5)


def test_a_site_that_cannot_be_sampled_says_so():
    class Unsampled(dist.Normal):
        def rsample(self, sample_shape=()):
            raise NotImplementedError

        sample = rsample

    def odd():
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", Unsampled(z, 1.0).mask(mask=True), obs=torch.zeros(()))

    at = ModelAt(odd, (), {}, {"z"})
    with pytest.raises(NotDefined, match="cannot be sampled"):
        predict(at, {"z": torch.zeros(4)})


def by_index(calls, smallest):
    calls.append(1)
    a = pyro.sample("a", dist.Normal(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])).to_event(1))
    with pyro.plate("data", 5):
        x = a[torch.tensor([0, 2, 1, 2, 0])]
        pyro.sample("x", dist.Normal(x, a[0].clamp(min=smallest) + 2.5), obs=X)


def test_the_prior_of_a_model_that_does_not_broadcast_is_mapped():
    calls = []
    at = ModelAt(by_index, (calls, -1.0), {}, {"a"})
    calls.clear()
    drawn = prior(at, COUNT)
    assert len(calls) < 20
    a, noise = drawn["a"], drawn["x"] - drawn["a"][:, [0, 2, 1, 2, 0]]
    assert_normal(a, 0.0, torch.tensor([1.0, 2.0, 3.0]))
    assert_normal(noise / (a[:, :1].clamp(min=-1.0) + 2.5), 0.0, 1.0)
    assert drawn["x"].unique().numel() == 5 * COUNT
    assert float((torch.corrcoef(a.T) - torch.eye(3)).abs().max()) < 4 / COUNT**0.5


def test_a_prior_that_leaves_the_support_is_complained_of_in_a_map_too():
    at = ModelAt(by_index, ([], -9.0), {}, {"a"})
    pyro.set_rng_seed(0)
    with pytest.raises(ValueError, match="Expected parameter scale"):
        prior(at, 2000)
