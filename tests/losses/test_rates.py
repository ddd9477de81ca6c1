"""beta and free bits: rates at a price, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch.distributions import kl_divergence

from pyro_klmodes import IWAE, ReverseKL, draws, estimators
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.losses.schedules import cyclical, linear
from pyro_klmodes.testing import assert_same_mean, gradient_samples

X = torch.tensor([0.3, -1.1, 2.0])
PATHWISE, DOUBLY, SCORE = estimators.pathwise, estimators.doubly, estimators.score


def start(**values):
    for name, value in values.items():
        pyro.param(name, torch.as_tensor(value))


def linear_gaussian_start():
    start(a=0.4, b=-0.3, c=0.1, m=[0.5, -0.2, 0.8], s=[0.2, -0.5, -1.0])


def model():
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(pyro.param("a"), pyro.param("b").exp()))
        pyro.sample("x", dist.Normal(z, pyro.param("c").exp()), obs=X)


def guide():
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Normal(pyro.param("m"), pyro.param("s").exp()))


def rate_and_distortion():
    """Of the linear Gaussian pair, for all data."""
    m, s, c = pyro.param("m"), pyro.param("s").exp(), pyro.param("c").exp()
    q, prior = dist.Normal(m, s), dist.Normal(pyro.param("a"), pyro.param("b").exp())
    square = (X - m) ** 2 + s**2
    distortion = 0.5 * math.log(2 * math.pi) + c.log() + square / (2 * c**2)
    return kl_divergence(q, prior).sum(), distortion.sum()


def gradient_of(value):
    """With respect to all parameters, in the order of ``gradient_samples``."""
    parameters = [p for _, p in sorted(pyro.get_param_store().named_parameters())]
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    parts = [
        torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1)
        for p, g in zip(parameters, found, strict=True)
    ]
    return torch.cat(parts).detach()


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize(
    ("estimator", "particles"), [(PATHWISE, 5), (DOUBLY, 5), (SCORE, 40)], ids=repr
)
def test_reverse_kl_has_the_gradient_of_distortion_and_rate_at_its_price(
    estimator, particles, beta
):
    linear_gaussian_start()
    rate, distortion = rate_and_distortion()
    loss = ReverseKL(particles, beta=beta, estimator=estimator)
    found = gradient_samples(loss, model, guide, repetitions=80, seed=1)
    assert_same_mean(found, gradient_of(distortion + beta * rate))


def test_the_value_is_distortion_and_rate_at_its_price():
    linear_gaussian_start()
    rate, distortion = rate_and_distortion()
    values = torch.tensor([ReverseKL(500, beta=0.3).loss(model, guide) for _ in range(40)])
    error = values.std() / 40**0.5
    assert abs(values.mean() - (distortion + 0.3 * rate)) < 4 * error
    assert error < 0.05


@pytest.mark.parametrize("estimator", [PATHWISE, DOUBLY, SCORE], ids=repr)
def test_iwae_has_the_gradient_of_its_bound_and_of_the_rate(estimator):
    linear_gaussian_start()
    of_rate = gradient_of(rate_and_distortion()[0])

    def samples(seed, **price):
        loss = IWAE(3, 40, estimator=estimator, **price)
        return gradient_samples(loss, model, guide, repetitions=50, seed=seed)

    plain = samples(1)
    assert_same_mean(samples(2, beta=2.5) - 1.5 * of_rate, plain)
    # all rates are below the floor, which takes them out
    assert_same_mean(samples(3, free_bits=50.0) + of_rate, plain)


def hierarchy(batch):
    mu = pyro.sample("mu", dist.Normal(pyro.param("a"), 1.0))
    with pyro.plate("data", 3, subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(mu, pyro.param("b").exp()))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X[rows])


def hierarchical_guide(batch):
    pyro.sample("mu", dist.Normal(pyro.param("g"), 0.5))
    with pyro.plate("data", 3, subsample_size=batch) as rows:
        pyro.sample("z", dist.Normal(pyro.param("m")[rows], pyro.param("s").exp()[rows]))


def rates_of_the_hierarchy():
    g, m, s = pyro.param("g"), pyro.param("m"), pyro.param("s").exp()
    of_mu = kl_divergence(dist.Normal(g, 0.5), dist.Normal(pyro.param("a"), 1.0))
    scale = pyro.param("b").exp()
    # KL to N(mu, scale) on average over mu
    of_z = kl_divergence(dist.Normal(m, s), dist.Normal(g, scale)) + 0.5**2 / (2 * scale**2)
    distortion = 0.5 * math.log(2 * math.pi) + ((X - m) ** 2 + s**2) / 2
    return of_mu, of_z.sum(), distortion.sum()


@pytest.mark.parametrize("estimator", [PATHWISE, DOUBLY, SCORE], ids=repr)
def test_minibatches_and_global_latents(estimator):
    start(a=0.4, b=-0.3, g=0.7, m=[0.5, -0.2, 0.8], s=[0.2, -0.5, -1.0])
    of_mu, of_z, distortion = rates_of_the_hierarchy()
    loss = ReverseKL(40, beta=0.3, estimator=estimator)
    found = gradient_samples(loss, hierarchy, hierarchical_guide, (2,), repetitions=100, seed=1)
    assert_same_mean(found, gradient_of(distortion + 0.3 * (of_mu + of_z)))


def test_free_bits_are_per_site_and_element():
    """Here mu is below the floor, and z above it."""
    start(a=0.4, b=-0.3, g=0.7, m=[0.5, -0.2, 0.8], s=[0.2, -0.5, -1.0])
    of_mu, of_z, distortion = rates_of_the_hierarchy()
    floor = 0.5
    assert of_mu < floor < of_z / 3 < 1.2
    loss = ReverseKL(200, beta=0.6, free_bits=floor)
    values = torch.tensor([loss.loss(hierarchy, hierarchical_guide, 3) for _ in range(50)])
    expected = distortion + 0.6 * (floor + of_z)
    assert abs(values.mean() - expected) < 4 * values.std() / 50**0.5
    batches = torch.tensor([loss.loss(hierarchy, hierarchical_guide, 2) for _ in range(100)])
    assert abs(batches.mean() - expected) < 4 * batches.std() / 100**0.5
    high = ReverseKL(200, free_bits=1.2).loss(hierarchy, hierarchical_guide, 3)
    assert abs(high - (distortion + 4 * 1.2)) < 1.0  # both at the floor, z with three elements


def test_below_the_floor_the_guide_sees_the_likelihood_alone():
    linear_gaussian_start()
    for estimator in (PATHWISE, DOUBLY, SCORE):
        below, without = (
            gradient_samples(
                ReverseKL(4, estimator=estimator, **price), model, guide, repetitions=3, seed=2
            )
            for price in ({"free_bits": 100.0}, {"beta": 0.0})
        )
        torch.testing.assert_close(below, without, rtol=0, atol=1e-12)
        assert below.abs().max() > 0.1


def test_a_poutine_scale_multiplies_rates_and_floor():
    linear_gaussian_start()

    def scaled(function):
        return pyro.poutine.scale(function, 7.0)

    for price in ({"beta": 0.3}, {"free_bits": 0.4}, {"free_bits": 4.0, "beta": 2.0}):
        values = []
        for pair in ((model, guide), (scaled(model), scaled(guide))):
            pyro.set_rng_seed(0)
            values.append(ReverseKL(50, **price).loss(*pair))
        assert values[1] == pytest.approx(7.0 * values[0], rel=1e-12)


def test_masked_elements_have_no_rate_and_no_floor():
    linear_gaussian_start()
    keep = torch.tensor([True, False, True])

    def masked(function):
        return pyro.poutine.mask(function, keep)

    loss = ReverseKL(50, free_bits=100.0)
    found = draws(masked(model), masked(guide), num_particles=4, by_site=True)
    assert found.sites["z"].elements == 2.0
    assert (found.sites["z"].log_ratio[:, 1] == 0.0).all()
    distortion = -found.log_likelihood.sum(1)
    assert torch.allclose(distortion, -(found.log_p - found.sites["z"].log_p).sum(1))
    assert loss.loss(masked(model), masked(guide)) > 200.0


def test_a_discrete_latent_by_the_score_function():
    start(p=0.3, a=0.2)

    def discrete():
        z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a")))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=torch.tensor(1.5))

    def discrete_guide():
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("p")))

    q = dist.Bernoulli(logits=pyro.param("p"))
    rate = kl_divergence(q, dist.Bernoulli(logits=pyro.param("a")))
    x = torch.tensor(1.5)
    log_lik = dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x)
    distortion = -(1 - q.probs) * log_lik[0] - q.probs * log_lik[1]
    expected = gradient_of(distortion + 3.0 * rate)
    for estimator in (estimators.auto, SCORE):
        loss = ReverseKL(20, beta=3.0, estimator=estimator)
        found = gradient_samples(loss, discrete, discrete_guide, repetitions=80, seed=3)
        assert_same_mean(found, expected)


def test_the_price_follows_its_schedule_and_begins_anew():
    linear_gaussian_start()
    loss = ReverseKL(3, beta=linear(0.0, 2.0, steps=4))

    def value(price):
        pyro.set_rng_seed(5)
        return price.loss(model, guide)

    for expected in (0.0, 0.5, 1.0, 1.5, 2.0, 2.0):
        assert value(loss) == pytest.approx(value(ReverseKL(3, beta=expected)), abs=1e-12)
        loss.loss_and_grads(model, guide)
    loss.reset()
    assert value(loss) == pytest.approx(value(ReverseKL(3, beta=0.0)), abs=1e-12)
    periodic = ReverseKL(3, beta=cyclical(0.0, 1.0, period=4))
    periodic.load_state_dict({"step": 9})
    assert value(periodic) == pytest.approx(value(ReverseKL(3, beta=0.5)), abs=1e-12)


def linear_autoencoder(x, **price):
    """Fit x ~ N(w z, 1) with z | x ~ N(a x, e^s); returns rate per datum and w."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    start(w=0.8, a=0.8, s=-0.7)

    def decoder():
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(pyro.param("w") * z, 1.0), obs=x)

    def encoder():
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a") * x, pyro.param("s").exp()))

    loss = ReverseKL(16, estimator=DOUBLY, **price)
    svi = pyro.infer.SVI(decoder, encoder, pyro.optim.Adam({"lr": 0.05}), loss=loss)

    def rate():
        q = dist.Normal(pyro.param("a") * x, pyro.param("s").exp())
        return float(kl_divergence(q, dist.Normal(0.0, 1.0)).mean().detach())

    before = rate()
    for _ in range(250):
        svi.step()
    return before, rate(), float(pyro.param("w").abs().detach())


def test_free_bits_keep_a_latent_that_would_collapse():
    """Maximum likelihood is w = 0 where data vary less than the noise (Lucas et al., 2019)."""
    x = torch.linspace(-1.2, 1.2, 20)
    assert x.square().mean() < 1.0
    before, collapsed, weight = linear_autoencoder(x)
    assert before > 0.3
    assert collapsed < 0.01
    assert weight < 0.2
    _, kept, weight = linear_autoencoder(x, free_bits=0.5)
    assert 0.45 < kept < 0.6
    assert weight > 0.2


def test_one_vector_for_all_latents_has_one_rate():
    linear_gaussian_start()
    joint = AutoMultivariateNormal(model)
    joint()
    found = draws(model, joint, num_particles=3, by_site=True)
    assert list(found.sites) == ["z"]
    assert torch.equal(found.sites["z"].log_q, found.log_q)
    assert ReverseKL(beta=0.5).loss(model, joint) < math.inf


def test_without_a_price_nothing_is_computed(monkeypatch):
    linear_gaussian_start()

    def never(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr("pyro_klmodes.tracing.weighing.densities_by_site", never)
    ReverseKL(2).loss_and_grads(model, guide)
    with pytest.raises(AssertionError):
        ReverseKL(2, beta=0.5).loss(model, guide)


def test_an_infinite_rate_is_infinite_and_not_nan():
    def narrow():
        pyro.sample("z", dist.Uniform(0.0, 1.0, validate_args=False))

    def wide():
        pyro.sample("z", dist.Normal(pyro.param("at", torch.tensor(5.0)), 1.0))

    with pytest.warns(UserWarning, match="infinite"):
        assert ReverseKL(4, beta=0.5).loss(narrow, wide) == math.inf


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan, "high", None])
def test_prices_out_of_range_are_refused(value):
    with pytest.raises(InvalidArgument, match="beta"):
        ReverseKL(beta=value)
    with pytest.raises(InvalidArgument, match="free_bits"):
        ReverseKL(free_bits=value)


def test_iwae_refuses_a_rate_below_its_price():
    linear_gaussian_start()
    with pytest.raises(InvalidArgument, match="no minimum"):
        IWAE(4, beta=0.9)
    falling = IWAE(4, beta=linear(2.0, 0.5, steps=2))
    falling.loss_and_grads(model, guide)
    falling.loss_and_grads(model, guide)
    with pytest.raises(InvalidArgument, match="beta is 0.5 at step 2"):
        falling.loss_and_grads(model, guide)
    assert IWAE(1, 4, beta=0.5).loss(model, guide) < math.inf


def test_the_bound_less_a_share_of_the_rate_has_no_minimum():
    """What the refusal says: with 16 particles a guide far too wide has less than a good one."""
    linear_gaussian_start()
    value = {}
    for width in (0.7, 20.0):
        pyro.param("s").data.fill_(math.log(width))
        pyro.param("m").data.copy_(X / 2)
        rate, _ = rate_and_distortion()
        bound = IWAE(16, 2000).loss(model, guide)
        value[width] = bound - 0.1 * float(rate.detach())
    assert value[20.0] < value[0.7] - 10.0


def test_nested_bounds_have_no_rates():
    start(a=0.4, b=-0.3, g=0.7, m=[0.5, -0.2, 0.8], s=[0.2, -0.5, -1.0])
    assert IWAE(4).loss(hierarchy, hierarchical_guide, 2) < math.inf
    with pytest.raises(UnsupportedStructure, match="subsampled plate 'data'"):
        IWAE(4, beta=2.0).loss(hierarchy, hierarchical_guide, 2)
