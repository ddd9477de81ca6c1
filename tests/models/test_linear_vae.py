"""A linear autoencoder: the closed form is the optimum of the bound, which is tight there."""

import math

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from models import linear_vae
from models.linear_vae import EIGENVALUES, LinearVAE

NOISES = [0.3, 1.0, 1.8]


def at_optimum(noise=1.0, latents=6, **options):
    x = linear_vae.data(100)
    return LinearVAE(8, latents, noise, **options).set_to_optimum(x), x


def test_the_data_have_their_mean_and_eigenvalues_exactly():
    x = linear_vae.data(100)
    found = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    torch.testing.assert_close(found, torch.tensor(EIGENVALUES), rtol=0, atol=1e-12)
    torch.testing.assert_close(x.mean(0), torch.linspace(-1, 1, 8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
def test_the_bound_at_the_closed_form_is_the_maximum_likelihood(noise):
    pair, x = at_optimum(noise)
    best = linear_vae.max_log_likelihood(x, 6, noise)
    assert linear_vae.elbo(pair, x).item() == pytest.approx(best, abs=1e-10)
    assert linear_vae.log_likelihood(pair, x).sum().item() == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize("learn_noise", [False, True])
def test_all_gradients_are_zero_there_and_nowhere_near(learn_noise):
    pair, x = at_optimum(learn_noise=learn_noise)
    parameters = list(pair.parameters())
    assert len(parameters) == 5 + learn_noise

    def steepest():
        gradients = torch.autograd.grad(linear_vae.elbo(pair, x), parameters)
        return [float(g.abs().max()) for g in gradients]

    assert max(steepest()) < 1e-10
    with torch.no_grad():
        for p in parameters:
            p.add_(0.1 * torch.randn_like(p))
    assert min(steepest()) > 1e-3


@pytest.mark.parametrize("noise", NOISES)
def test_as_many_latents_are_used_as_eigenvalues_are_above_the_noise(noise):
    pair, x = at_optimum(noise)
    above = sum(value > noise**2 for value in EIGENVALUES[:6])
    assert linear_vae.active(x, 6, noise) == above
    # The variance of a posterior mean over the data: 1 - noise^2 / eigenvalue, or nothing.
    spread = pair.encoder(x)[0].var(0, correction=0)
    expected = (1 - noise**2 / torch.tensor(EIGENVALUES[:6])).clamp(min=0)
    torch.testing.assert_close(spread, expected, rtol=0, atol=1e-10)
    assert int((spread > 1e-2).sum()) == above


def test_no_other_start_climbs_higher():
    pair, x = at_optimum()
    best = linear_vae.elbo(pair, x).item()
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        other = LinearVAE(8, 6)
        start = linear_vae.elbo(other, x).item()
        assert best - start > 10
        optimiser = torch.optim.LBFGS(
            other.parameters(), max_iter=400, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def closure(other=other, optimiser=optimiser):
            optimiser.zero_grad()
            loss = -linear_vae.elbo(other, x)
            loss.backward()
            return loss

        optimiser.step(closure)
        found.append(linear_vae.elbo(other, x).item())
    assert found == pytest.approx([best, best], abs=1e-6)


def test_the_noise_that_is_learnt_is_the_mean_of_what_is_left():
    pair, _ = at_optimum(learn_noise=True)
    left = math.sqrt(sum(EIGENVALUES[6:]) / 2)
    assert pair.decoder.log_scale.exp().item() == pytest.approx(left, abs=1e-12)


def test_the_bound_is_that_of_many_draws():
    pair, x = LinearVAE(8, 3), linear_vae.data(20)
    estimator = Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1)
    losses = torch.tensor([-estimator.loss(pair.model, pair.guide, x) for _ in range(50)])
    error = float(losses.std()) / math.sqrt(50)
    exact = linear_vae.elbo(pair, x).item()
    assert abs(float(losses.mean()) - exact) < 4 * error
    assert error < 1e-3 * abs(exact)


def test_every_draw_weighs_what_its_datum_is_likely():
    pair, x = at_optimum()
    guide = poutine.trace(pair.guide).get_trace(x)
    model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x)
    for trace in (guide, model):
        trace.compute_log_prob()
    log_w = sum(model.nodes[n]["log_prob"] for n in ("z", "x")) - guide.nodes["z"]["log_prob"]
    torch.testing.assert_close(log_w, linear_vae.log_likelihood(pair, x), rtol=0, atol=1e-10)


def test_too_few_data_are_refused():
    with pytest.raises(ValueError, match="num_data must be at least 9, got 8"):
        linear_vae.data(8)
