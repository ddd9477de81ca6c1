"""What sleep simulates, what it gives the guide, and what it refuses."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal

from pyro_klmodes import WakeSleep, guides
from pyro_klmodes.errors import InvalidArgument, ModelGuideMismatch, UnsupportedStructure
from pyro_klmodes.tracing.dream import dream
from pyro_klmodes.tracing.runs import Pair

SLEEP = {"wake_theta": 0.0}
X = torch.tensor([0.5, -1.0, 2.0])


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    gain = pyro.param("gain", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * x, 0.7))


def test_the_guide_never_sees_the_real_data():
    seen = []

    def watching(x, **rest):
        seen.append((x.detach().clone(), dict(rest)))
        guide(x)

    def keyword(x=None, observations=None):
        model(x)

    loss = WakeSleep(**SLEEP)
    loss.loss(keyword, watching, x=X)
    seen.clear()
    for _ in range(5):
        loss.loss(keyword, watching, x=X)
    assert len(seen) == 5
    assert not any(torch.equal(x, X) for x, _ in seen)
    assert all(rest == {} for _, rest in seen)


def test_a_mask_keeps_what_is_padded():
    lengths = torch.tensor([3, 1])
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])

    def padded(x):
        with pyro.plate("data", 2):
            for t in range(3):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z_{t}", dist.Normal(torch.zeros(()), 1.0))
                    pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    seen = []

    def reading(x):
        seen.append(x.detach().clone())
        with pyro.plate("data", 2):
            for t in range(3):
                with poutine.mask(mask=t < lengths):
                    loc = pyro.param("gain", torch.tensor(0.1)) * x[:, t]
                    pyro.sample(f"z_{t}", dist.Normal(loc, 1.0))

    WakeSleep(**SLEEP).loss(padded, reading, x)
    asleep = [s for s in seen if not torch.equal(s, x)]
    assert asleep
    for simulated in asleep:
        assert bool((simulated[1, 1:] == 0).all())
        assert bool((simulated[0] != x[0]).all())


def test_latents_that_the_model_sums_out_are_drawn_in_a_dream():
    def mixture(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            c = pyro.sample(
                "c", dist.Categorical(torch.ones(2) / 2), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(z + 5.0 * c, 1.0), obs=x)

    loss = WakeSleep(4)
    assert loss.loss_and_grads(mixture, guide, X) > 0
    assert set(loss.parts) == {"wake_theta", "sleep_phi"}


def test_a_dream_has_the_minibatch_of_the_call():
    index = torch.tensor([2, 0])

    def minibatch(x):
        with pyro.plate("data", 3, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    found = dream(Pair(minibatch, guide, (X,)))
    assert found.latents["z"].shape == found.data["x"].shape == (2,)
    torch.testing.assert_close(found.indices["data"], index)
    torch.testing.assert_close(found.observed["x"].value, X[index])


def factor(x):
    model(x)
    pyro.factor("extra", x.sum())


def scaled_data(x):
    with poutine.scale(scale=0.5):
        model(x)


def nothing_observed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))


def hidden_data(x):
    model(X * 2)


def closing_over_the_data(x):
    gain = pyro.param("gain", torch.tensor(0.5))
    with pyro.plate("data", len(X)):
        pyro.sample("z", dist.Normal(gain * X, 0.7))


def one_more_site(x):
    guide(x)
    pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})


@pytest.mark.parametrize(
    ("bad_model", "bad_guide", "error", "message"),
    [
        (factor, guide, UnsupportedStructure, "site 'extra' is a pyro.factor"),
        (scaled_data, guide, UnsupportedStructure, "site 'x' is under poutine.scale"),
        (nothing_observed, guide, InvalidArgument, "observes nothing"),
        (hidden_data, guide, InvalidArgument, "site 'x' has its data from no argument"),
        (model, closing_over_the_data, InvalidArgument, "ignores the simulated data of 'x'"),
        (model, one_more_site, ModelGuideMismatch, "guide site 'u' is no latent site"),
    ],
    ids=lambda value: getattr(value, "__name__", "message"),
)
def test_what_sleep_refuses(bad_model, bad_guide, error, message):
    with pytest.raises(error, match=message):
        WakeSleep(**SLEEP).loss_and_grads(bad_model, bad_guide, X)


@pytest.mark.parametrize(
    "make",
    [AutoNormal, AutoDiagonalNormal, guides.AutoMeanField, guides.AutoFullRank],
    ids=lambda make: make.__name__,
)
def test_autoguides_that_ignore_their_data_are_refused(make):
    with pytest.raises(InvalidArgument, match=f"guide {make.__name__} ignores the simulated data"):
        WakeSleep(**SLEEP).loss_and_grads(model, make(model), X)


def test_an_encoder_that_starts_at_zero_reads_its_data_all_the_same():
    def zero(x):
        gain = pyro.param("gain", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(gain * x, 0.7))

    assert WakeSleep(**SLEEP).loss_and_grads(model, zero, X) > 0


def counts(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z), obs=x)


def test_data_without_gradients_are_compared_by_value():
    x = torch.tensor([0.0, 1.0, 1.0])

    def table(x):
        loc = pyro.param("loc", torch.tensor([-0.4, 0.4]))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[x.long()], 0.7))

    def constant(x):
        loc = pyro.param("loc", torch.tensor([-0.4, 0.4]))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[0], 0.7))

    long = torch.ones(40)
    assert WakeSleep(**SLEEP).loss_and_grads(counts, table, long) > 0
    with pytest.raises(InvalidArgument, match="guide constant ignores the simulated data"):
        WakeSleep(**SLEEP).loss_and_grads(counts, constant, x)


def test_data_in_two_forms_are_bound_by_a_function():
    """A guide that reads the series backwards, from an argument of its own."""

    def series(x, backwards):
        model(x)

    def reading(x, backwards):
        guide(backwards.flip(0))

    with pytest.raises(InvalidArgument, match="ignores the simulated data"):
        WakeSleep(**SLEEP).loss_and_grads(series, reading, X, X.flip(0))

    def bind(data, x, backwards):
        return (data["x"], data["x"].flip(0)), {}

    assert WakeSleep(**SLEEP, bind=bind).loss_and_grads(series, reading, X, X.flip(0)) > 0


def test_annealing_of_latent_sites_has_no_part_in_sleep():
    """The posterior of the model itself is learned, with the same gradient."""

    def annealed_model(x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=0.25):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def annealed_guide(x):
        with poutine.scale(scale=0.25):
            guide(x)

    found = []
    for pair in ((model, guide), (annealed_model, annealed_guide)):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        WakeSleep(**SLEEP).loss_and_grads(*pair, X)
        found.append(pyro.get_param_store()._params["gain"].grad.clone())
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wake_theta": -1.0}, "wake_theta is -1.0 at step 0"),
        ({"sleep_phi": float("nan")}, "sleep_phi is nan"),
        ({"num_particles": 0}, "num_particles=0"),
        ({"num_phi_particles": 1, "wake_phi": 1.0}, "num_phi_particles=1: wake-phi needs"),
        ({"num_simulations": 0}, "num_simulations=0"),
        ({"bound": "elba"}, "bound='elba'"),
        ({"defensive": 1.0}, "defensive=1.0"),
        ({"bind": 0}, "bind=0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        WakeSleep(**options)


def test_all_phases_off():
    with pytest.raises(InvalidArgument, match="all phases have weight zero at step 0"):
        WakeSleep(wake_theta=0.0, sleep_phi=0.0).loss(model, guide, X)
