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

    with pytest.raises(InvalidArgument, match="argument 1 holds the data of site 'x'"):
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


# -- real data must not leak into a dream ----------------------------------------------------------


def reading(x):
    gain = pyro.param("gain", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * x.reshape(len(x), -1)[:, 0], 0.7))


def teacher_forcing(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x_0", dist.Normal(z, 1.0), obs=x[:, 0])
        pyro.sample("x_1", dist.Normal(z + x[:, 0], 1.0), obs=x[:, 1])


def test_a_likelihood_that_reads_the_data_is_refused():
    with pytest.raises(UnsupportedStructure, match="distribution of site 'x_1' depends on the da"):
        WakeSleep(**SLEEP).loss(teacher_forcing, reading, torch.randn(5, 2))


@pytest.mark.parametrize("change", [torch.log, lambda x: x.flip(0) + 0, lambda x: 2 * x])
def test_an_argument_that_is_transformed_cannot_be_bound_by_name(change):
    x = torch.tensor([0.5, 1.5, 2.0, 4.0])

    def transformed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=change(x))

    with pytest.raises(InvalidArgument, match="it transforms or reorders the argument"):
        WakeSleep(**SLEEP, bind={"x": 0}).loss(transformed, reading, x)


def test_all_data_in_another_order_are_put_in_their_rows():
    """A shuffled plate of full size, which the guide reads by the same indices."""
    x, order = torch.randn(40), torch.randperm(40)

    def shuffled(x):
        with pyro.plate("data", 40, subsample=order) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def by_index(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        with pyro.plate("data", 40, subsample=order) as i:
            pyro.sample("z", dist.Normal(gain * x[i], 0.7))

    def gradient(model, guide):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        WakeSleep(**SLEEP).loss_and_grads(model, guide, x)
        return pyro.get_param_store()._params["gain"].grad

    torch.testing.assert_close(gradient(shuffled, by_index), gradient(model, guide))


def test_a_minibatch_with_an_element_twice_is_refused():
    index = torch.tensor([1, 0, 1])

    def repeated(x):
        with pyro.plate("data", 5, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def same_rows(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        with pyro.plate("data", 5, subsample=index):
            pyro.sample("z", dist.Normal(gain * x[index], 0.7))

    with pytest.raises(UnsupportedStructure, match="minibatch of plate 'data' has an element twi"):
        WakeSleep(**SLEEP).loss(repeated, same_rows, torch.randn(5))


def test_global_latents_with_a_minibatch_are_refused():
    def shared(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", 6, subsample_size=2) as i:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[i])

    def of_the_mean(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        pyro.sample("mean", dist.Normal(gain * x.mean(), 0.7))

    with pytest.raises(UnsupportedStructure, match="'mean' is outside of subsampled plate 'data'"):
        WakeSleep(**SLEEP).loss(shared, of_the_mean, torch.randn(6))


def test_a_second_argument_with_the_same_data_is_noticed():
    """Read by the guide beside the first, it would stay real."""

    def series(x, backwards):
        model(x)

    def both(x, backwards):
        guide(x + backwards.flip(0))

    with pytest.raises(InvalidArgument, match="argument 1 holds the data of site 'x' in another o"):
        WakeSleep(**SLEEP).loss(series, both, X, X.flip(0))
    with pytest.raises(InvalidArgument, match="function must return a pair"):
        WakeSleep(**SLEEP, bind=lambda data, x, b: (data["x"], b)).loss(series, both, X, X.flip(0))


def test_two_arguments_that_share_memory_are_both_bound():
    x = torch.randn(6)
    seen = []

    def flat(x, square):
        model(x)

    def reading_both(x, square):
        seen.append((x.detach().clone(), square.detach().clone()))
        guide(x + square.reshape(6))

    WakeSleep(**SLEEP).loss(flat, reading_both, x, x.reshape(2, 3))
    simulated, square = seen[-1]
    torch.testing.assert_close(square.reshape(6), simulated)
    assert not torch.equal(simulated, x)


def test_a_guide_with_dropout_that_ignores_its_data_is_found_out():
    counts_model = counts

    def noisy(x):
        loc = torch.nn.functional.dropout(pyro.param("loc", torch.ones(3)), 0.5)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.mean(), 0.7))

    with pytest.raises(InvalidArgument, match="guide noisy ignores the simulated data"):
        WakeSleep(**SLEEP).loss_and_grads(counts_model, noisy, torch.tensor([0.0, 1.0, 1.0]))


def test_draws_that_obs_mask_replaces_have_no_part_in_sleep():
    """The guide's scale of missing values is learned from missing ones only."""
    observed = torch.arange(400) % 2 == 0
    spread = torch.where(observed, 1.0, 3.0)

    def partly(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, spread), obs=x, obs_mask=observed)

    def imputing(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        scale = pyro.param("scale", torch.tensor(3.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(gain * torch.where(observed, x, 0.0), 0.7))
            pyro.sample("x_unobserved", dist.Normal(z, scale))

    pyro.set_rng_seed(0)
    gradients = []
    for _ in range(50):
        pyro.clear_param_store()
        WakeSleep(**SLEEP).loss_and_grads(partly, imputing, torch.randn(400))
        gradients.append(pyro.get_param_store()._params["scale"].grad.clone())
    # per step the sum of 200 terms 1 - chi-square: mean zero, standard error of the mean 2.8
    mean = torch.stack(gradients).mean()
    assert abs(float(mean)) < 3 * 20 / 50**0.5
