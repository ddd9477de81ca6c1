"""Autoencoders: the joint density by hand, the likelihood by two quadratures, both minibatches."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import nn

from models import images, networks, vae
from models.vae import VAE, BernoulliPixels, FlowPrior, GaussianPixels, NormalPrior


def small(latents=2, *, prior=None, pixels=None, size=64):
    encoder = networks.Encoder(size, 12, latents)
    decoder = networks.Decoder(latents, 12, size)
    return VAE(encoder, decoder, prior or NormalPrior(latents), pixels or BernoulliPixels())


def few(number=6):
    return images.digits()[0][0][:number]


PAIRS = {
    "bernoulli": lambda: small(),
    "gaussian": lambda: small(pixels=GaussianPixels()),
    "flow prior": lambda: small(3, prior=FlowPrior(3)),
    "convolutional": lambda: VAE(
        networks.ConvolutionalEncoder(8, 2, 2),
        networks.ConvolutionalDecoder(2, 2, 8),
        NormalPrior(2),
        BernoulliPixels(),
    ),
}
every_pair = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)


def test_the_joint_density_is_that_of_the_docstring():
    pair, x = small(), few()
    trace = poutine.trace(pair.model).get_trace(x)
    z = trace.nodes["z"]["value"]
    p = pair.decoder(z).sigmoid()
    by_hand = (x * p.log() + (1 - x) * (1 - p).log()).sum()
    by_hand = by_hand - 0.5 * (z**2).sum() - z.numel() * math.log(2 * math.pi) / 2
    torch.testing.assert_close(trace.log_prob_sum(), by_hand)


@every_pair
def test_a_network_gives_every_particle_what_it_gives_it_alone(make):
    pair, x = make(), few()
    z = torch.randn(4, len(x), pair.prior.latents)
    together = pair.decoder(z)
    assert together.shape == (4, *x.shape)
    for k in range(4):
        torch.testing.assert_close(together[k], pair.decoder(z[k]))
    stacked = x.expand(3, *x.shape)
    torch.testing.assert_close(pair.encoder(stacked)[0][2], pair.encoder(x)[0])


@every_pair
def test_indices_of_a_batch_see_what_the_batch_does_times_the_share_of_it(make):
    pair, x = make(), few(12)
    index = torch.tensor([7, 0, 3, 11])
    guide = poutine.trace(pair.guide).get_trace(x[index])
    alone = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x[index])
    values = {"z": guide.nodes["z"]["value"]}
    whole = poutine.trace(poutine.condition(pair.model, values)).get_trace(x, subsample=index)
    torch.testing.assert_close(whole.log_prob_sum(), 12 / 4 * alone.log_prob_sum())
    other = poutine.trace(poutine.condition(pair.guide, values)).get_trace(x, subsample=index)
    torch.testing.assert_close(other.log_prob_sum(), 12 / 4 * guide.log_prob_sum())


@every_pair
def test_every_parameter_learns_and_parameters_are_those_of_the_module(make):
    pair, x = make(), few()
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    for _ in range(2):
        svi.step(x)
    # Couplings that start at the identity give their first layer no gradient in the first step.
    assert all(not torch.equal(p, before[name]) for name, p in pair.named_parameters())


@pytest.mark.parametrize("pixels", [BernoulliPixels(), GaussianPixels(0.4)])
def test_the_log_likelihood_does_not_change_with_the_grid(pixels):
    pair, x = small(pixels=pixels), few()
    fine = vae.log_likelihood(pair, x, step=0.08)
    torch.testing.assert_close(fine, vae.log_likelihood(pair, x, step=0.1), rtol=0, atol=1e-7)
    wide = vae.log_likelihood(pair, x, end=8.0, step=0.1)
    torch.testing.assert_close(fine, wide, rtol=0, atol=1e-6)


def test_the_log_likelihood_is_the_integral_by_gauss_hermite_quadrature():
    pair, x = small(), few()
    node, weight = (torch.as_tensor(a) for a in _hermite(60))
    z = torch.cartesian_prod(node, node)
    log_weight = torch.cartesian_prod(weight.log(), weight.log()).sum(-1)
    with torch.no_grad():
        log_x = dist.Bernoulli(logits=pair.decoder(z)[:, None]).to_event(1).log_prob(x)
    expected = (log_x + log_weight[:, None]).logsumexp(0)
    torch.testing.assert_close(vae.log_likelihood(pair, x), expected, rtol=0, atol=1e-7)


def _hermite(count):
    import numpy as np

    node, weight = np.polynomial.hermite_e.hermegauss(count)
    return node, weight / weight.sum()


def test_a_bound_of_many_particles_comes_up_to_the_log_likelihood():
    pair, x = small(), few()
    exact = vae.log_likelihood(pair, x).sum().item()
    elbo = -Trace_ELBO(num_particles=200, vectorize_particles=True, max_plate_nesting=1).loss(
        pair.model, pair.guide, x
    )
    bounds = [
        -RenyiELBO(alpha=0, num_particles=1000, vectorize_particles=True, max_plate_nesting=1).loss(
            pair.model, pair.guide, x
        )
        for _ in range(10)
    ]
    bound = torch.tensor(bounds)
    error = float(bound.std()) / math.sqrt(10)
    assert abs(float(bound.mean()) - exact) < 0.05 + 4 * error
    assert exact - elbo > 5 * (0.05 + 4 * error)


def test_a_flow_prior_integrates_to_one_and_is_the_density_of_its_draws():
    prior = FlowPrior(2)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.1)
    distribution = prior(torch.zeros(1))
    axis = torch.linspace(-9, 9, 401)
    with torch.no_grad():
        log_p = distribution.log_prob(torch.cartesian_prod(axis, axis))
        draws = distribution.sample((20_000,))
    mass = log_p.logsumexp(0).exp() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-5)
    weight = log_p.exp() * (axis[1] - axis[0]) ** 2
    mean = weight @ torch.cartesian_prod(axis, axis)
    assert mean.abs().max() > 0.05  # it has moved away from the standard normal
    # 5 standard errors of the mean of 20000 draws
    assert ((draws.mean(0) - mean).abs() < 5 * draws.std(0) / math.sqrt(20_000)).all()


def test_a_flow_prior_moves_the_density_of_the_model():
    pair, x = small(2, prior=FlowPrior(2)), few()
    values = {"z": torch.randn(6, 2)}
    trace = poutine.trace(poutine.condition(pair.model, values)).get_trace(x)
    trace.compute_log_prob()
    expected = pair.prior(x).log_prob(values["z"])
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], expected)


def test_pictures_are_between_zero_and_one():
    for task in (vae.training(), vae.gaussian_training(), vae.convolutional_training(20, 10)):
        (x,) = task.test[:5]
        shown, again = task.reconstructions(x)
        side = math.isqrt(x.shape[1])
        assert task.samples(4).shape == (4, side, side)
        assert shown.shape == again.shape == (5, side, side)
        assert all(0 <= p.min() <= p.max() <= 1 for p in (shown, again, task.samples(4)))
        torch.testing.assert_close(shown.flatten(1), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowPrior(1), "at least 2 latents, got 1"),
        (lambda: networks.ConvolutionalEncoder(10, 2, 2), "multiple of 4, got 10"),
        (lambda: networks.ConvolutionalDecoder(2, 2, 0), "multiple of 4, got 0"),
        (lambda: vae.log_likelihood(small(3), few()), "over 2 latents, got 3"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
