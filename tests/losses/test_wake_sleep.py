"""The phases of wake-sleep against closed forms, quadrature, and the losses they are made of."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, WakeSleep, fit, guides
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.losses.schedules import alternating, cyclical, linear
from pyro_klmodes.testing import assert_same_mean, gradient_samples

SLOPE, NOISE = 1.5, 0.8
#: the posterior of z ~ N(0, 1) given x ~ N(SLOPE z, NOISE): N(GAIN x, SD)
GAIN = SLOPE / (SLOPE**2 + NOISE**2)
SD = NOISE / math.sqrt(SLOPE**2 + NOISE**2)


def model(x, subsample_size=None):
    slope = pyro.param("slope", torch.tensor(SLOPE))
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(slope * z, NOISE), obs=x[index])


def guide(x, subsample_size=None):
    gain = pyro.param("gain", torch.tensor(0.1))
    bias = pyro.param("bias", torch.tensor(0.3))
    sd = pyro.param("sd", torch.tensor(1.3), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal(gain * x[index] + bias, sd))


X = torch.tensor([-2.0, -0.5, 0.4, 1.0, 2.5, 3.0])


def gradients(loss, **options):
    for each in (model, guide):
        each(X)
    samples = gradient_samples(loss, model, guide, (X,), **options)
    names = sorted(pyro.get_param_store())
    return {name: samples[:, i] for i, name in enumerate(names)}


def exact_sleep_gradient(gain=0.1, bias=0.3, sd=1.3):
    """Of -E log q(z | x) under the model, for one datum; by (gain, bias, log sd)."""
    variance_x = SLOPE**2 + NOISE**2
    # residual z - gain x - bias, and its products with x and 1
    with_x = SLOPE - gain * variance_x
    square = 1 - 2 * gain * SLOPE + gain**2 * variance_x + bias**2
    return torch.tensor([-with_x / sd**2, bias / sd**2, 1 - square / sd**2])


@pytest.mark.parametrize("size", [None, 30], ids=["all data", "minibatches"])
def test_sleep_has_the_exact_gradient_and_teaches_the_guide_only(size):
    loss, x = WakeSleep(wake_theta=0.0, num_simulations=2), X.repeat(15)
    model(x), guide(x)
    samples = gradient_samples(
        loss, model, guide, (x,), {"subsample_size": size}, repetitions=100, seed=3
    )
    names = sorted(pyro.get_param_store())

    assert bool((samples[:, names.index("slope")] == 0).all())
    phi = samples[:, [names.index(n) for n in ("gain", "bias", "sd")]]
    assert_same_mean(phi, len(x) * exact_sleep_gradient())
    assert loss.parts.keys() == {"sleep_phi"}


def test_the_wake_phases_are_those_of_the_losses_they_are_named_after():
    """Same seed, same draws: bitwise the gradients of IWAE, ReverseKL and ForwardKL."""
    options = {"repetitions": 20, "seed": 5}
    theta = gradients(WakeSleep(8, sleep_phi=0.0), **options)
    elbo = gradients(WakeSleep(8, sleep_phi=0.0, bound="elbo"), **options)
    phi = gradients(WakeSleep(8, wake_theta=0.0, wake_phi=1.0, sleep_phi=0.0), **options)
    both = gradients(WakeSleep(8, wake_phi=1.0, sleep_phi=0.0), **options)
    forward = gradients(ForwardKL(8), **options)

    torch.testing.assert_close(theta["slope"], gradients(IWAE(8), **options)["slope"])
    torch.testing.assert_close(elbo["slope"], gradients(ReverseKL(8), **options)["slope"])
    assert not torch.allclose(theta["slope"], elbo["slope"])
    for name in ("gain", "bias", "sd"):
        assert bool((theta[name] == 0).all())
        torch.testing.assert_close(phi[name], forward[name])
    assert bool((phi["slope"] == 0).all())
    for name, gradient in forward.items():
        torch.testing.assert_close(both[name], gradient)


def test_the_default_is_another_signal_than_any_single_phase():
    options = {"repetitions": 20, "seed": 5}
    default = gradients(WakeSleep(8), **options)
    reweighted = gradients(WakeSleep(8, wake_phi=1.0, sleep_phi=0.0), **options)
    iwae = gradients(IWAE(8), **options)
    for other in (reweighted, iwae):
        assert not torch.allclose(default["gain"].mean(), other["gain"].mean(), rtol=0.05)


def test_phases_add_up_with_their_weights():
    weighted = {"wake_theta": 0.5, "wake_phi": 2.0, "sleep_phi": 3.0}
    loss = WakeSleep(8, **weighted)
    model(X), guide(X)
    pyro.set_rng_seed(0)
    value = loss.loss_and_grads(model, guide, X)
    assert value == pytest.approx(sum(w * loss.parts[n] for n, w in weighted.items()), rel=1e-6)
    pyro.set_rng_seed(0)
    loss.reset()
    assert loss.loss(model, guide, X) == pytest.approx(value, rel=1e-6)


def test_every_phase_has_its_own_number_of_particles():
    loss = WakeSleep(4, wake_phi=1.0, num_phi_particles=64, num_simulations=3)
    phi = {"wake_theta": 0.0, "wake_phi": 1.0, "sleep_phi": 0.0}
    few, many = WakeSleep(4, **phi), WakeSleep(4, num_phi_particles=64, **phi)
    options = {"repetitions": 100, "seed": 1}
    # the mean of 64 weighted draws varies less than that of 4
    assert gradients(many, **options)["gain"].std() < gradients(few, **options)["gain"].std() / 2
    loss.loss(model, guide, X)
    assert loss.parts.keys() == {"wake_theta", "wake_phi", "sleep_phi"}


def test_schedules_turn_phases_on_and_off():
    loss = WakeSleep(4, wake_theta=1.0, sleep_phi=alternating(0.0, 1.0), wake_phi=linear(1, 0, 2))
    seen = []
    for _ in range(4):
        loss.loss_and_grads(model, guide, X)
        seen.append(set(loss.parts) - {"wake_theta"})
    assert seen == [{"wake_phi"}, {"wake_phi", "sleep_phi"}, set(), {"sleep_phi"}]
    assert loss.state_dict() == {"step": 4}
    other = WakeSleep(4)
    other.load_state_dict(loss.state_dict())
    assert other.step == 4
    loss.reset()
    assert loss.step == 0


def test_schedules():
    ramp, waves = linear(0.0, 1.0, 10), cyclical(0.0, 2.0, period=10, rising=0.2)
    assert [ramp(t) for t in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert [waves(t) for t in (0, 1, 2, 9, 10, 11)] == [0.0, 1.0, 2.0, 2.0, 0.0, 1.0]


# -- recovery of the exact posterior map -----------------------------------------------------------


class AmortizedAutoNormal(AutoNormal):
    """Pyro's AutoNormal with a location that is read off the data."""

    def __init__(self, model):
        super().__init__(model, init_scale=0.9)
        self.gain = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        self.x = x
        return super().forward(x)

    def _get_loc_and_scale(self, name):
        loc, scale = super()._get_loc_and_scale(name)
        return loc.mean() + self.gain * self.x, scale.mean().expand_as(self.x)


def plain_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(SLOPE * z, NOISE), obs=x)


def hand_written(x):
    return guide(x)


def moments_of(pair_guide, points):
    """Mean and standard deviation given each of five data, by 4000 draws."""
    x = points.repeat(40)
    with torch.no_grad():
        draws = torch.stack(
            [pyro.poutine.trace(pair_guide).get_trace(x).nodes["z"]["value"] for _ in range(100)]
        ).reshape(4000, len(points))
    return draws.mean(0), draws.std(0)


@pytest.mark.parametrize(
    "make_guide",
    [
        lambda: hand_written,
        lambda: AmortizedAutoNormal(plain_model),
        lambda: guides.AutoAmortized(plain_model, encoder=torch.nn.Linear(1, 8)),
    ],
    ids=["hand-written", "AutoNormal", "AutoAmortized"],
)
def test_sleep_recovers_the_posterior_map(make_guide):
    """The real data are constant; the map is right far from them all the same."""
    data = torch.full((200,), 0.7)
    tuned = make_guide()
    result = fit(
        plain_model,
        tuned,
        WakeSleep(wake_theta=0.0),
        data,
        steps=400,
        optim=pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.02 ** (1 / 400), "clip_norm": 1e6}),
        progress=False,
    )
    x = torch.linspace(-3.0, 3.0, 5)
    start = make_guide()
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    before, _ = moments_of(start, x)
    mean, sd = moments_of(result.guide, x)
    # standard errors of 4000 draws: .008 of a mean, .006 of a standard deviation
    tolerance = 0.06
    assert float((before - GAIN * x).abs().max()) > 5 * tolerance
    assert float((mean - GAIN * x).abs().max()) < tolerance
    assert float((sd - SD).abs().max()) < tolerance


# -- weights per datum -----------------------------------------------------------------------------

SQUARED, SPREAD = 1.472, 0.25


def two_signs(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z**2, SPREAD), obs=x)


def one_normal(x):
    loc = pyro.param("loc", torch.tensor(0.3))
    sd = pyro.param("sd", torch.tensor(2.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, sd))


def test_weights_per_datum_cover_both_modes_however_many_data():
    """Local posteriors with two modes: joint weights lose one as data grow, weights per datum not.

    The optimum of the forward KL divergence has the posterior's standard deviation, by quadrature.
    """
    z = np.linspace(-5, 5, 20001)
    density = np.exp(-0.5 * z**2 - 0.5 * ((SQUARED - z**2) / SPREAD) ** 2)
    exact = math.sqrt((density * z**2).sum() / density.sum())
    assert exact == pytest.approx(1.19, abs=0.005)
    fitted = []
    for count in (1, 16, 64):
        steps = 500 if count == 1 else 250
        result = fit(
            two_signs,
            one_normal,
            WakeSleep(200, wake_phi=1.0, sleep_phi=0.0),
            torch.full((count,), SQUARED),
            steps=steps,
            optim=pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.05 ** (1 / steps)}),
            progress=False,
        )
        fitted.append(float(result.params["sd"]))
    assert abs(2.5 - exact) > 5 * 0.05
    assert fitted == pytest.approx([exact] * 3, abs=0.05)


def test_defensive_particles_find_the_other_mode():
    """A guide in one mode; with draws from the prior it learns of the other one."""
    data = torch.full((16,), SQUARED)

    def narrow(x):
        loc = pyro.param("loc", torch.tensor(1.2))
        sd = pyro.param("sd", torch.tensor(0.1), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, sd))

    def fitted(defensive):
        result = fit(
            two_signs,
            narrow,
            WakeSleep(200, wake_phi=1.0, sleep_phi=0.0, defensive=defensive),
            data,
            steps=300,
            optim=pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.1 ** (1 / 300)}),
            progress=False,
        )
        return float(result.params["sd"])

    assert fitted(0.0) < 0.2
    assert fitted(0.2) == pytest.approx(1.19, abs=0.1)


def test_it_is_a_drop_in_for_svi_and_a_module():
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=WakeSleep(4))
    assert isinstance(svi.step(X), float)
    assert isinstance(svi.evaluate_loss(X), float)
    loss = WakeSleep(4, wake_phi=1.0).differentiable_loss(model, guide, X)
    assert loss.shape == ()
    assert loss.requires_grad


# -- defensive particles from a guide of one's own -------------------------------------------------


def three_ways(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.8, 0.15, 0.05])))
        pyro.sample("x", dist.Normal(3.0 * k, 1.0), obs=x)


def narrow_choice(x):
    logits = pyro.param("logits", torch.tensor([3.0, 0.0, -1.0]))
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=logits))


def uniform(x):
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(torch.ones(3) / 3))


@pytest.mark.parametrize("broad", [None, uniform], ids=["prior", "uniform"])
def test_defensive_weights_are_exact_for_any_broad_distribution(broad):
    """Two draws of three values for each of a hundred equal data: the gradient by enumeration."""
    share, x = 0.3, torch.full((100,), 4.0)
    prior = torch.tensor([0.8, 0.15, 0.05])
    q = torch.tensor([3.0, 0.0, -1.0]).softmax(0)
    proposal = (1 - share) * q + share * (prior if broad is None else torch.ones(3) / 3)
    joint = prior * dist.Normal(3.0 * torch.arange(3.0), 1.0).log_prob(x[0]).exp()
    w = joint / proposal
    expected = torch.zeros(3)
    for i in range(3):
        for j in range(3):
            share_i = w[i] / (w[i] + w[j])
            for k, weight in ((i, share_i), (j, 1 - share_i)):
                score = torch.eye(3)[k] - q
                expected -= proposal[i] * proposal[j] * weight * score
    narrow_choice(x)
    loss = WakeSleep(2, wake_phi=1.0, sleep_phi=0.0, defensive=share, broad=broad)
    samples = gradient_samples(loss, three_ways, narrow_choice, (x,), repetitions=60, seed=1)
    assert expected.abs().max() > 0.03
    assert_same_mean(samples, 100 * expected)


def test_a_broad_guide_is_not_trained_and_must_draw_every_site():
    def trained(x):
        logits = pyro.param("broad_logits", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits))

    def other(x):
        pyro.sample("another", dist.Normal(0.0, 1.0))

    x = torch.tensor([4.0, 1.0])
    wake = {"wake_phi": 1.0, "sleep_phi": 0.0, "defensive": 0.5}
    narrow_choice(x), trained(x)
    WakeSleep(4, **wake, broad=trained).loss_and_grads(three_ways, narrow_choice, x)
    store = pyro.get_param_store()
    assert store._params["broad_logits"].grad is None
    assert store._params["logits"].grad is not None
    with pytest.raises(UnsupportedStructure, match="other does not draw site 'k'"):
        ForwardKL(4, defensive=0.5, broad=other).loss(three_ways, narrow_choice, x)
    with pytest.raises(InvalidArgument, match="broad= draws the defensive particles"):
        ForwardKL(4, broad=other)
    with pytest.raises(InvalidArgument, match="broad=3 must be a guide"):
        WakeSleep(4, defensive=0.1, broad=3)
