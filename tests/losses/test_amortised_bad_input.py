"""What users of encoders and decoders get wrong: scales of data, masks, batches of odd sizes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.messenger import Messenger

from models import deep_markov, images
from models.networks import Decoder, Encoder
from models.vae import VAE, BernoulliPixels, NormalPrior
from pyro_klmodes import IWAE, ForwardKL, ReverseKL, check, fit
from pyro_klmodes.errors import InvalidArgument

LOSSES = {
    "reverse_kl": lambda: ReverseKL(3),
    "iwae": lambda: IWAE(3),
    "forward_kl": lambda: ForwardKL(3),
}
every_loss = pytest.mark.parametrize("make_loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def vae():
    return VAE(Encoder(64, 8, 2), Decoder(2, 8, 64), NormalPrior(2), BernoulliPixels())


@pytest.fixture
def dmm():
    transition, emitter = deep_markov.GatedTransition(2, 4), deep_markov.Emitter(2, 4, 3)
    return deep_markov.DeepMarkov(transition, emitter, latents=2, size=3, hidden=4)


def grey(number=5):
    return images.digits(binary=False)[0][0][:number]


@every_loss
@pytest.mark.parametrize(("factor", "top"), [(16, "16"), (1, "1")])
def test_pixels_that_are_not_zero_or_one_are_named_with_their_range(vae, make_loss, factor, top):
    x = factor * grey()
    bad = int(((x != 0) & (x != 1)).sum())
    message = (
        rf"model site 'x' \(Bernoulli\).* {bad} of 320 numbers are outside of its support "
        rf"Boolean\(\).*all values in \[0, {top}\].*Rescale the data"
    )
    loss = make_loss()
    for attempt in (
        lambda: loss.loss_and_grads(vae.model, vae.guide, x),
        lambda: check(vae.model, vae.guide, x, loss=loss),
        lambda: fit(vae.model, vae.guide, loss, x, steps=1, progress=False),
    ):
        with pytest.raises(InvalidArgument, match=message):
            attempt()
    assert all(p.grad is None for p in vae.parameters())


@every_loss
def test_a_batch_of_one_is_a_batch(vae, make_loss):
    x = grey(2).round()
    values = [make_loss().loss_and_grads(vae.model, vae.guide, part) for part in x.split(1)]
    assert all(map(torch.isfinite, map(torch.tensor, values)))
    assert all(torch.isfinite(p.grad).all() for p in vae.parameters())
    assert any(p.grad.abs().max() > 0 for p in vae.encoder.parameters())


@every_loss
def test_an_empty_batch_is_told_from_a_fault_in_the_model(vae, dmm, make_loss):
    x, lengths = deep_markov.curved_data(3, 4)
    for pair, batch in ((vae, (grey().round(),)), (dmm, (x, lengths))):
        nothing = [part[:0] for part in batch]
        loss = make_loss()
        with pytest.raises(InvalidArgument, match="size zero.*batch empty"):
            loss.loss_and_grads(pair.model, pair.guide, *nothing)
        loss.loss_and_grads(pair.model, pair.guide, *batch)
        with pytest.raises(InvalidArgument, match="size zero.*batch empty"):  # the layout is known
            loss.loss_and_grads(pair.model, pair.guide, *nothing)


@every_loss
def test_a_division_by_zero_of_the_models_own_is_left_alone(make_loss):
    def model(x):
        pyro.sample("z", dist.Normal(1 / len(x), 1.0))

    with pytest.raises(ZeroDivisionError, match="division by zero"):
        make_loss().loss(model, model, [])


class GivenNoise(Messenger):
    """Latents of sequences as mean plus standard deviation times given noise, (K, steps, B, 2)."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg):
        if msg["name"].startswith("z_") and msg["value"] is None:
            normal = msg["fn"].base_dist
            msg["value"] = normal.loc + normal.scale * self.noise[:, int(msg["name"][2:]) - 1]


@every_loss
def test_a_sequence_of_length_zero_is_worth_nothing(dmm, make_loss):
    x, lengths = deep_markov.curved_data(6, 4)
    lengths[[1, 4]] = 0
    rest, noise = torch.tensor([0, 2, 3, 5]), torch.randn(3, 4, 6, 2)

    def value_and_gradient(noise, *batch):
        dmm.zero_grad()
        with GivenNoise(noise):
            value = make_loss().loss_and_grads(dmm.model, dmm.guide, *batch)
        return value, [p.grad.clone() for p in dmm.parameters()]

    value, grads = value_and_gradient(noise, x, lengths)
    expected, expected_grads = value_and_gradient(noise[:, :, rest], x[rest], lengths[rest])
    assert value == pytest.approx(expected, abs=1e-9)
    for found, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found, wanted)


@every_loss
def test_sequences_that_all_have_length_zero_have_no_gradient(dmm, make_loss):
    x, lengths = deep_markov.curved_data(3, 4)
    assert make_loss().loss_and_grads(dmm.model, dmm.guide, x, 0 * lengths) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in dmm.parameters())
