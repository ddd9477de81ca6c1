"""Labels that are known for some: the joint density by hand, the likelihood by enumeration."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

from models import semi_supervised
from models.semi_supervised import SemiSupervised


def batch(number=8):
    (x, y, known), _ = semi_supervised.data()
    return x[:number], y[:number], known[:number]


def pair(latents=2):
    return SemiSupervised(64, 12, latents)


def test_known_labels_take_the_place_of_draws_and_the_others_do_not():
    ssl, (x, y, known) = pair(), batch(200)
    assert 0 < known.sum() < len(known)
    guide = poutine.trace(ssl.guide).get_trace(x, y, known)
    model = poutine.trace(poutine.replay(ssl.model, guide)).get_trace(x, y, known)
    drawn = guide.nodes["y_unobserved"]["value"]
    label = torch.where(known, y, drawn)
    assert torch.equal(model.nodes["y"]["value"], label)
    assert not torch.equal(drawn[known], y[known])
    model.compute_log_prob()
    z = model.nodes["z"]["value"]
    joined = torch.cat([z, torch.eye(10)[label]], -1)
    by_hand = dist.Bernoulli(logits=ssl.decoder(joined)).to_event(1).log_prob(x)
    torch.testing.assert_close(model.nodes["x"]["log_prob"], by_hand)
    of_label = model.nodes["y_unobserved"]["log_prob"] + model.nodes["y_observed"]["log_prob"]
    torch.testing.assert_close(of_label, torch.full((200,), -math.log(10)))


def test_the_labels_of_data_without_one_are_not_looked_at():
    ssl, (x, y, known) = pair(), batch(200)
    values = {"z": torch.randn(200, 2), "y_unobserved": torch.zeros(200, dtype=torch.long)}
    found = []
    for labels in (y, torch.where(known, y, 9 - y), torch.where(known, y, 99)):
        total = 0.0
        for program in (ssl.model, ssl.guide):
            conditioned = poutine.condition(program, values)
            total += poutine.trace(conditioned).get_trace(x, labels, known).log_prob_sum()
        found.append(total)
    assert found[0] == found[1] == found[2]


def test_the_likelihood_does_not_change_with_the_grid():
    ssl, (x, _, _) = pair(), batch()
    fine = semi_supervised.log_likelihood(ssl, x, step=0.07)
    torch.testing.assert_close(semi_supervised.log_likelihood(ssl, x), fine, rtol=0, atol=1e-7)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_bound_of_many_particles_comes_up_to_the_likelihood(labelled):
    ssl, (x, y, _) = pair(), batch(4)
    ssl.label_weight = 0.0
    known = torch.full((4,), labelled)
    by_label = semi_supervised.log_likelihood(ssl, x)
    exact = by_label.gather(1, y[:, None])[:, 0] if labelled else by_label.logsumexp(-1)
    options = {"vectorize_particles": True, "max_plate_nesting": 1}
    bound = RenyiELBO(alpha=0, num_particles=2000, **options)
    elbo = Trace_ELBO(num_particles=500, **options)
    bounds = torch.tensor([-bound.loss(ssl.model, ssl.guide, x, y, known) for _ in range(10)])
    error = float(bounds.std()) / math.sqrt(10)
    total = float(exact.sum())
    assert abs(float(bounds.mean()) - total) < 0.02 + 4 * error
    assert total + elbo.loss(ssl.model, ssl.guide, x, y, known) > 5 * (0.02 + 4 * error)


def test_every_parameter_learns_from_a_mixed_batch():
    ssl, arguments = pair(), batch(50)
    before = {name: p.detach().clone() for name, p in ssl.named_parameters()}
    svi = SVI(ssl.model, ssl.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(2):
        svi.step(*arguments)
    assert all(not torch.equal(p, before[name]) for name, p in ssl.named_parameters())


def test_every_class_has_ten_labels_and_the_test_set_none():
    (x, y, known), (x_test, _, known_test) = semi_supervised.data()
    assert (len(x), len(x_test)) == (1400, 397)
    assert y[known].bincount().tolist() == [10] * 10
    assert not known_test.any()


def test_pictures_of_digits_and_labels():
    task = semi_supervised.training()
    shown, again = task.reconstructions(*task.test[:5])
    assert shown.shape == again.shape == (5, 8, 8)
    assert task.samples(20).shape == (20, 8, 8)


def test_more_than_two_latents_have_no_quadrature():
    with pytest.raises(ValueError, match="over 2 latents, got 3"):
        semi_supervised.log_likelihood(pair(3), batch()[0])
