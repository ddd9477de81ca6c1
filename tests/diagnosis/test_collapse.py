"""Whether latents are in use: linear Gaussian guides, where everything is known."""

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import kl_divergence

from pyro_klmodes import ReverseKL, fit, guides
from pyro_klmodes.diagnosis import collapse
from pyro_klmodes.errors import InvalidArgument

N = 150


def data():
    return torch.linspace(-2.5, 2.5, N)


def model(x, *, prior=1.0):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), prior).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def guide_with(slope, scale):
    """The first unit follows the data, the second is its prior."""

    def guide(x, **_kwargs):
        with pyro.plate("data", len(x)):
            loc = torch.stack([slope * x, torch.zeros_like(x)], -1)
            width = torch.tensor([scale, 1.0])
            pyro.sample("z", dist.Normal(loc, width).to_event(1))

    return guide


def exact_information(x, slope, scale):
    """Which of the data a draw is for, by quadrature."""
    z = torch.linspace(-12.0, 12.0, 6001)
    each = dist.Normal(slope * x[:, None], scale).log_prob(z)
    aggregate = torch.logsumexp(each, 0) - math.log(len(x))
    return float((each.exp() * (each - aggregate)).mean(0).sum() * (z[1] - z[0]))


def test_one_unit_in_use_and_one_idle():
    x = data()
    found = collapse((model, guide_with(0.5, 0.7)), args=(x,), compared_with=N)
    rate = kl_divergence(dist.Normal(0.5 * x, 0.7), dist.Normal(0.0, 1.0)).mean()
    distortion = 0.5 * math.log(2 * math.pi) + ((0.5 * x) ** 2 + 0.49).mean() / 2
    assert found.num_data == N
    assert found.rate_error < 0.02
    assert abs(found.rate - rate) < 4 * found.rate_error
    assert found.distortion == pytest.approx(float(distortion), abs=0.05)
    exact = exact_information(x, 0.5, 0.7)
    # draws alone vary here, and not the data: the error over data is larger than needed
    assert abs(found.information.value - exact) < 0.02
    assert found.aggregate_gap == pytest.approx(float(rate) - exact, abs=0.05)
    assert found.word == "partly collapsed"
    assert found.sites["z"].units.active.tolist() == [True, False]
    assert found.sites["z"].units.variance[0] == pytest.approx(float((0.5 * x).var()), rel=0.05)
    assert "1 of 2 units" in found.sentence
    assert "z[1]" in found.sentence


def test_a_collapsed_guide():
    found = collapse((model, guide_with(0.0, 1.0)), args=(data(),))
    assert found.word == "collapsed"
    assert found.active == 0
    assert found.rate == pytest.approx(0.0, abs=1e-12)
    assert found.information.value == pytest.approx(0.0, abs=1e-12)


def test_a_rate_without_information_is_a_mismatch_of_aggregate_and_prior():
    found = collapse((model, guide_with(0.0, 0.1)), args=(data(),), kwargs={"prior": 1.0})
    assert found.word == "collapsed"
    assert found.rate > 1.0
    assert found.information.value == pytest.approx(0.0, abs=1e-12)
    assert found.aggregate_gap == pytest.approx(found.rate)


def test_all_in_use():
    def both(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.stack([x, -x], -1), 0.5).to_event(1))

    found = collapse((model, both), args=(data(),))
    assert found.word == "in use"
    assert "all 2 units" in found.sentence


def test_it_prints_what_it_found():
    text = str(collapse((model, guide_with(0.5, 0.7)), args=(data(),)))
    for words in ("partly collapsed", "distortion", "rate", "information", "aggregate", "1 of 2"):
        assert words in text


def test_too_few_data_to_compare_with_is_said():
    found = collapse((model, guide_with(20.0, 0.01)), args=(data(),), compared_with=20)
    assert found.information.saturated
    assert found.information.value <= math.log(20)
    assert f"at most {math.log(20):.2f}" in str(found)


def test_minibatches_masks_and_global_latents():
    x = data()
    keep = torch.arange(N) < 100

    def hierarchy():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", N, subsample_size=50) as rows, pyro.poutine.mask(mask=keep[rows]):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide():
        mu = pyro.sample("mu", dist.Normal(0.3, 0.1))
        with pyro.plate("data", N, subsample_size=50) as rows, pyro.poutine.mask(mask=keep[rows]):
            pyro.sample("z", dist.Normal(0.5 * x[rows] + mu, 0.7))

    found = collapse((hierarchy, guide))
    # given mu, which drops out; averaged over the two minibatches that are not masked
    exact = sum(exact_information(x[a : a + 50], 0.5, 0.7) for a in (0, 50)) / 2
    rate = kl_divergence(dist.Normal(0.5 * x[:100], 0.7), dist.Normal(0.0, 1.0)).mean()
    assert found.num_data == 100
    assert found.information.limit == pytest.approx(math.log(50))
    assert abs(found.information.value - exact) < 0.02
    assert abs(found.rate - rate) < 4 * found.rate_error
    assert found.word == "in use"


def test_guides_with_auxiliary_draws_and_discrete_latents():
    x = torch.tensor([-3.0, -3.0, 3.0, 3.0])

    def classes():
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.5])))
            z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(6.0 * c - 3.0, z), obs=x)

    def guide():
        with pyro.plate("data", 4):
            sure = torch.tensor([[0.99, 0.01], [0.01, 0.99]])
            pyro.sample("c", dist.Categorical(sure[(x > 0).long()]))
            u = pyro.sample("u", dist.Normal(0.0, 0.1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    found = collapse((classes, guide), num_samples=500)
    assert found.sites["c"].units.active.tolist() == [True, True]
    assert found.sites["z"].units.count == 0
    entropy = -(0.99 * math.log(0.99) + 0.01 * math.log(0.01))
    assert found.information.value == pytest.approx(math.log(2) - entropy, abs=0.02)


@pytest.mark.parametrize("branches", [False, True])
def test_models_that_see_one_particle(branches):
    """Mapped over the draws, or run one by one, with a warning, where torch cannot do that."""

    def one_by_one(x):
        assert x.dim() == 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            assert z.dim() == 1
            pyro.sample("x", dist.Normal(z.abs() * z.sign() if branch(z) else z, 1.0), obs=x)

    def branch(z):
        return branches and bool(z[0] > 0)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))

    x = torch.linspace(-2.0, 2.0, 12)
    warned = pytest.warns(UserWarning, match="one after the other") if branches else nullcontext()
    with warned:
        found = collapse((one_by_one, guide), args=(x,), num_samples=10)
    assert found.information.value == pytest.approx(exact_information(x, 0.5, 0.7), abs=0.3)
    assert found.word == "in use"


def test_a_fit_of_autoguides():
    x = data()[::10]

    def scalar(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    result = fit(scalar, AutoNormal(scalar), ReverseKL(8), x, steps=5, progress=False)
    assert collapse(result).num_data == len(x)
    amortised = guides.AutoAmortized(scalar)
    fitted = fit(scalar, amortised, ReverseKL(8), x, steps=5, progress=False)
    assert collapse(fitted).sites["z"].units.variance.shape == ()


def test_guides_without_a_distribution_of_one_datum_are_refused():
    x = data()[:4]
    for guide, words in (
        (guides.AutoFullRank(model), "all data together"),
        (AutoMultivariateNormal(model), "no latent site in a plate"),
    ):
        guide(x)
        with pytest.raises(InvalidArgument, match=words):
            collapse((model, guide), args=(x,))


def test_what_cannot_be_asked():
    pair = (model, guide_with(0.5, 0.7))
    for wrong in ({"num_samples": 1}, {"compared_with": 1}, {"plate": "rows"}):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            collapse(pair, args=(data(),), **wrong)
    with pytest.raises(InvalidArgument, match="two to tell"):
        collapse(pair, args=(torch.ones(1),))


def partly_observed_pair(x, seen, spread):
    """z of every datum, and a second latent that is observed for some of them."""

    def model():
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def guide():
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
            pyro.sample("x_unobserved", dist.Normal(spread * x, 1.0))

    return model, guide


def test_what_obs_mask_replaces_says_nothing_about_the_data():
    x, some = data(), torch.arange(N) % 2 == 0
    found = collapse(partly_observed_pair(x, some, 0.0)).information
    # the draws that were replaced are far apart, and of no posterior
    other = collapse(partly_observed_pair(x, some, 50.0)).information
    assert abs(found.value - exact_information(x, 0.5, 0.5**0.5)) < 0.03
    assert abs(other.value - exact_information(x, 0.5, 0.5**0.5)) < 0.03


def test_data_without_a_latent_of_their_own_are_none():
    x, seen = data(), torch.arange(N) < 100

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", N):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=seen)

    def guide():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", N):
            pyro.sample("x_unobserved", dist.Normal(mu, 1.0))

    found = collapse((model, guide))
    assert found.num_data == N - 100
    assert found.information is None
    assert "no latents in common" in str(found.notes)
