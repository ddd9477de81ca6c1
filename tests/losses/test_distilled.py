"""Distilled importance sampling: the exponent by bisection, truncation, and a curved posterior."""

import math
from itertools import pairwise
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import ForwardKL, estimators
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.losses import Distilled
from pyro_klmodes.objectives.weightings import Truncated
from pyro_klmodes.weights import effective_sample_size, raised_exponent

Y = torch.tensor([0.5, 3.0], dtype=torch.float64)


def test_the_exponent_leaves_exactly_the_share_that_was_asked_for():
    log_lik = -(torch.randn(200) ** 2) * 30
    base = 0.1 * torch.randn(200)
    for ess in (0.2, 0.5, 0.9):
        found = raised_exponent(base, log_lik, 0.0, ess_fraction=ess)
        assert 0 < found < 1
        left = effective_sample_size(base + found * log_lik)
        assert float(left) == pytest.approx(ess * 200, rel=1e-9)


def test_two_draws_in_closed_form():
    """Weights 1 and e^(-a e): ESS = (1 + x)^2 / (1 + x^2) = 1.6 at x = 1/3."""
    found = raised_exponent(torch.zeros(2), torch.tensor([0.0, -5.0]), 0.0, ess_fraction=0.8)
    assert found == pytest.approx(math.log(3) / 5, abs=1e-12)


def test_the_exponent_never_falls_and_ends_at_one():
    log_lik = torch.tensor([0.0, -5.0])
    assert raised_exponent(torch.zeros(2), log_lik, 0.6, ess_fraction=0.8) == 0.6
    assert raised_exponent(torch.zeros(2), 0.01 * log_lik, 0.6, ess_fraction=0.8) == 1.0
    assert raised_exponent(torch.tensor([0.0, 9.0]), 0 * log_lik, 0.0, ess_fraction=0.8) == 0.0


def test_draws_that_the_data_rule_out_are_left_at_exponent_zero():
    log_lik = torch.tensor([0.0, 0.0, 0.0, -math.inf])
    assert raised_exponent(torch.zeros(4), log_lik, 0.0, ess_fraction=0.7) == 1.0
    assert raised_exponent(torch.zeros(4), log_lik, 0.0, ess_fraction=0.8) < 1e-15


def test_cells_share_the_exponent():
    log_lik = torch.randn(100, 3) * torch.tensor([0.1, 3.0, 30.0])
    found = raised_exponent(torch.zeros(100, 3), log_lik, 0.0, ess_fraction=0.5)
    assert float(effective_sample_size(found * log_lik).mean()) == pytest.approx(50, rel=1e-9)


@pytest.mark.parametrize("wrong", [{"exponent": -0.1}, {"exponent": 1.1}, {"ess_fraction": 1.0}])
def test_exponents_and_shares_out_of_range_are_refused(wrong):
    arguments = {"exponent": 0.0, **wrong}
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        raised_exponent(torch.zeros(2), torch.zeros(2), **arguments)


@pytest.mark.parametrize("limit", [0.06, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("spread", [0.1, 2.0, 20.0])
def test_truncated_weights_are_cut_at_one_level(limit, spread):
    log_w = spread * torch.randn(40, 5)
    plain, found = log_w.softmax(0), Truncated(limit)(log_w)
    torch.testing.assert_close(found.sum(0), torch.ones(5))
    assert (found <= limit + 1e-12).all()
    cut = found > limit - 1e-9
    for cell in range(5):
        rest = ~cut[:, cell]
        ratio = found[rest, cell] / plain[rest, cell]
        torch.testing.assert_close(
            ratio, ratio[:1].expand_as(ratio)
        )  # the others keep their ratios
        if cut[:, cell].any() and rest.any():
            # and those that are cut were above the level
            assert plain[cut[:, cell], cell].min() * ratio[0] >= limit - 1e-9
        if (plain[:, cell] <= limit).all():
            torch.testing.assert_close(found[:, cell], plain[:, cell])


def test_fewer_positive_weights_than_the_limit_allows_become_equal():
    log_w = torch.tensor([0.0, -3.0, -math.inf, -math.inf])
    torch.testing.assert_close(Truncated(0.3)(log_w), torch.tensor([0.5, 0.5, 0.0, 0.0]))


def model():
    with pyro.plate("data", 2):
        z = pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.3)), 1.0))
        pyro.sample("y", dist.Normal(z, 0.2), obs=Y)


def guide():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Normal(pyro.param("m", torch.zeros(2)), 1.0))


def test_one_step_is_weighted_maximum_likelihood_at_the_tempered_target():
    pyro.set_rng_seed(1)
    loss = ForwardKL(200, weights=Distilled(0.5, 0.02))
    draws = loss.draws(model, guide)
    pyro.set_rng_seed(1)
    loss.loss_and_grads(model, guide)
    epsilon = raised_exponent(draws.log_prior - draws.log_q, draws.log_likelihood, 0.0)
    assert 0 < loss.epsilon < 1
    assert loss.epsilon == pytest.approx(epsilon, abs=1e-12)
    z = draws.values["z"].reshape(200, 2)
    weight = Truncated(0.02)(draws.log_prior + epsilon * draws.log_likelihood - draws.log_q)
    torch.testing.assert_close(pyro.param("m").grad, -(weight * z).sum(0))
    # the model's own parameter follows the importance-weighted bound with plain weights
    plain = draws.log_w.softmax(0)
    torch.testing.assert_close(pyro.param("a").grad, -(plain * (z - 0.3)).sum())


def test_it_is_not_the_tempered_weights():
    gradients = {}
    for name, weights in (("distilled", Distilled(0.5, 1.0)), ("tempered", "tempered")):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        ForwardKL(200, weights=weights).loss_and_grads(model, guide)
        gradients[name] = pyro.param("m").grad.clone()
    assert (gradients["distilled"] - gradients["tempered"]).abs().max() > 0.05


def test_the_exponent_is_state():
    loss = ForwardKL(100, weights=Distilled())
    assert loss.epsilon == 0.0
    loss.loss(model, guide)
    assert loss.epsilon == 0.0  # looking does not move it
    loss.loss_and_grads(model, guide)
    kept = loss.state_dict()
    assert kept == {"step": 1, "epsilon": loss.epsilon}
    assert loss.epsilon > 0
    other = ForwardKL(100, weights=Distilled())
    other.load_state_dict(kept)
    assert other.epsilon == loss.epsilon
    loss.reset()
    assert (loss.epsilon, loss.step) == (0.0, 0)
    assert ForwardKL(100).epsilon == 1.0


def test_a_step_that_is_skipped_does_not_move_the_exponent():
    def impossible():
        model()
        never = dist.Uniform(0.0, 1.0, validate_args=False)
        pyro.sample("never", never, obs=torch.tensor(2.0))

    loss = ForwardKL(100, weights=Distilled())
    loss.epsilon = 0.001  # far below what these draws allow
    with pytest.warns(KLModesWarning, match="is infinite"):
        assert loss.loss_and_grads(impossible, guide) == -math.inf  # which fit skips
    assert loss.epsilon == 0.001
    loss.loss_and_grads(model, guide)
    assert loss.epsilon > 0.01


def test_with_draws_from_the_prior():
    loss = ForwardKL(200, weights=Distilled(), defensive=0.2)
    assert math.isfinite(loss.loss_and_grads(model, guide))
    assert 0 < loss.epsilon < 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ess": 0.0}, "ess"),
        ({"ess": 1.0}, "ess"),
        ({"truncate": 0.0}, "truncate"),
        ({"truncate": 1.5}, "truncate"),
        ({"ess": "half"}, "ess"),
    ],
)
def test_shares_out_of_range(arguments, words):
    with pytest.raises(InvalidArgument, match=words):
        Distilled(**arguments)


def test_what_it_cannot_be_combined_with():
    with pytest.raises(InvalidArgument, match="more than 1/8"):
        ForwardKL(8, weights=Distilled(truncate=0.1))
    for estimator in (estimators.doubly, estimators.score):
        with pytest.raises(InvalidArgument, match="constant draws"):
            ForwardKL(32, weights=Distilled(), estimator=estimator)


def sine(noise):
    """theta uniform, x standard normal, and x - sin theta observed at zero."""

    def sine_model():
        theta = pyro.sample("theta", dist.Uniform(-math.pi, math.pi))
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x - theta.sin(), noise), obs=torch.tensor(0.0))

    return sine_model


def sine_guide():
    """The prior to begin with: theta among 16 bins, and x around a Fourier series of it."""
    bins = 16
    share = pyro.param("share", torch.zeros(bins)).log_softmax(-1)
    width = 2 * math.pi / bins
    theta = pyro.sample("theta", Bins(share, -math.pi, width))
    waves = torch.stack([torch.ones_like(theta), theta.sin(), theta.cos(), (2 * theta).sin()], -1)
    loc = (waves * pyro.param("waves", torch.zeros(4))).sum(-1)
    pyro.sample("x", dist.Normal(loc, pyro.param("log_sd", torch.tensor(0.0)).exp()))


class Bins(dist.TorchDistribution):
    """A histogram."""

    arg_constraints: ClassVar = {}
    support = dist.constraints.real

    def __init__(self, log_share, low, width, shape=()):
        self.log_share, self.low, self.width = log_share, low, width
        super().__init__(torch.Size(shape), validate_args=False)

    def expand(self, shape, _instance=None):
        return Bins(self.log_share, self.low, self.width, shape)

    def sample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        index = dist.Categorical(logits=self.log_share).sample(shape)
        return self.low + self.width * (index + torch.rand(shape))

    def log_prob(self, value):
        index = ((value - self.low) / self.width).floor().clamp(0, len(self.log_share) - 1).long()
        return self.log_share[index] - math.log(self.width)


@pytest.mark.slow
def test_the_sine_example():
    """Prangle and Viscardi's illustration, with a tolerance; against quadrature."""
    noise = 0.05
    loss = ForwardKL(200, weights=Distilled(0.5, 0.1))
    steps = 300
    optim = pyro.optim.ClippedAdam({"lr": 0.04, "lrd": 0.05 ** (1 / steps)})
    svi = pyro.infer.SVI(sine(noise), sine_guide, optim, loss=loss)
    assert ForwardKL(2000).effective_share(sine(noise), sine_guide) < 0.1
    history = []
    for _ in range(steps):
        svi.step()
        history.append(loss.epsilon)
    assert history == sorted(history)
    assert history[0] < 0.2
    assert history[-1] == 1.0

    theta = torch.linspace(-math.pi, math.pi, 20001)
    density = torch.exp(-(theta.sin() ** 2) / (2 * (1 + noise**2)))
    density = density / density.sum()
    slope, sd = 1 / (1 + noise**2), noise / math.sqrt(1 + noise**2)
    assert pyro.param("log_sd").exp().item() == pytest.approx(sd, rel=0.03)
    expected = torch.tensor([0.0, slope, 0.0, 0.0])
    torch.testing.assert_close(pyro.param("waves").detach(), expected, rtol=0, atol=0.01)
    edges = torch.linspace(-math.pi, math.pi, 17)
    exact = torch.stack([density[(theta >= a) & (theta < b)].sum() for a, b in pairwise(edges)])
    torch.testing.assert_close(pyro.param("share").softmax(-1).detach(), exact, rtol=0, atol=0.015)
    assert ForwardKL(2000).effective_share(sine(noise), sine_guide) > 0.9
