"""The mean gradient at parameters that stand still tells a biased fit from one that is not."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import optimize

from pyro_klmodes import ForwardKL, ReverseKL, estimators
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference import frozen_gradient
from pyro_klmodes.losses import ScoreClimbing

P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
FITS = 4


def three_states():
    with pyro.plate("fits", FITS):
        pyro.sample("z", dist.Categorical(P))


def logits_guide():
    """Four fits at once, none of which sees another's parameters."""
    logits = pyro.param("logits", torch.zeros(FITS, 3))
    with pyro.plate("fits", FITS):
        pyro.sample("z", dist.Categorical(logits=logits))


def constant(step):
    return 1.0


def falling(step):
    return 1.0 / (1.0 + step / 20)


def fitted(loss, rate, steps=400):
    """Gradient steps that end at the mean of their iterates; the guide's probabilities there."""
    total = 0.0
    for step in range(steps):
        loss.loss_and_grads(three_states, logits_guide)
        logits = pyro.param("logits").unconstrained()
        with torch.no_grad():
            logits -= rate(step) * logits.grad
            logits.grad = None
            if step >= 100:
                total = total + logits / (steps - 100)
    with torch.no_grad():
        logits.copy_(total)
    return total.softmax(-1)


def test_a_constant_rate_is_found_out_and_a_falling_one_is_not():
    """The gradient of a logit is q - p. Chains that lag behind make the guide too sure of itself.

    At rate 1 the average of 2000 fits was (.78, .19, .04).
    """
    found = {}
    for name, rate in (("constant", constant), ("falling", falling)):
        pyro.clear_param_store()
        loss = ScoreClimbing(3)
        q = fitted(loss, rate)
        frozen = frozen_gradient(three_states, logits_guide, loss, repeats=160, burn_in=30)
        assert ((q - P).abs().max() > 0.1) == (name == "constant")
        found[name] = frozen
    assert found["constant"].p_value < 1e-3
    assert "does not vanish" in str(found["constant"])
    assert found["falling"].p_value > 0.01
    assert "zero up to its error" in str(found["falling"])


#: hardly anything in the middle, where a guide with one parameter must have something
ODD = torch.tensor([0.7, 0.05, 0.25], dtype=torch.float64)
TILT = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)


CHAINS = 50


def odd_states():
    with pyro.plate("chains", CHAINS):
        pyro.sample("z", dist.Categorical(ODD))


def tilted_guide():
    tilt = pyro.param("tilt", torch.tensor(0.0))
    with pyro.plate("chains", CHAINS):
        pyro.sample("z", dist.Categorical(logits=tilt * TILT))


def gap(tilt):
    """The gradient of the divergence."""
    return float((((tilt * TILT).softmax(-1) - ODD) * TILT).sum())


def gap_of_two_weights(tilt):
    """The mean gradient with two self-normalised weights, over all pairs of draws."""
    q = (tilt * TILT).softmax(-1)
    w = ODD / q
    expected = 2 * (q.unsqueeze(1) * q * w.unsqueeze(1) / (w.unsqueeze(1) + w)).sum(1)
    return float(((q - expected) * TILT).sum())


def test_it_finds_the_bias_of_two_weights():
    """ForwardKL(2) ends where its own mean gradient vanishes; that of the divergence does not."""
    optimum = optimize.brentq(gap, -5.0, 5.0)
    end = optimize.brentq(gap_of_two_weights, -5.0, 5.0)
    assert (optimum, end) == pytest.approx((0.734, 2.191), abs=1e-3)
    pyro.param("tilt", torch.tensor(end))
    own, chains = (
        frozen_gradient(odd_states, tilted_guide, loss, repeats=100, burn_in=40, batches=10)
        for loss in (ForwardKL(2), ScoreClimbing(16))  # with few, stretches are no longer than ages
    )
    assert own.p_value > 0.01
    assert chains.p_value < 1e-4
    error = float(chains.mean_error["tilt"])
    assert float(chains.mean["tilt"]) == pytest.approx(CHAINS * gap(end), abs=4 * error)
    assert gap(end) > 0.4


# -- the numbers themselves ------------------------------------------------------------------------


def normal_model():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def normal_guide():
    loc = pyro.param("loc", torch.tensor(0.5))
    unused = pyro.param("unused", torch.tensor(1.0))
    pyro.sample("z", dist.Normal(loc + 0.0 * unused, 1.0))


def test_errors_are_those_of_the_means_of_stretches():
    found = frozen_gradient(normal_model, normal_guide, ForwardKL(2), repeats=60, burn_in=7)
    # the same gradients one by one: a stretch is a batch of its own
    single = frozen_gradient(
        normal_model, normal_guide, ForwardKL(2), repeats=60, burn_in=7, batches=60
    )
    torch.testing.assert_close(found.mean["loc"], single.mean["loc"])
    # of independent gradients both errors estimate the same, that of 20 means within 16 %
    assert float(found.mean_error["loc"]) == pytest.approx(float(single.mean_error["loc"]), rel=0.5)
    assert found.guide == ("loc", "unused")
    assert found.model == ()


def test_elements_without_any_gradient_say_nothing():
    found = frozen_gradient(normal_model, normal_guide, ForwardKL(2), repeats=20, burn_in=0)
    assert float(found.mean["unused"]) == 0.0
    assert math.isnan(float(found.ratio["unused"]))
    assert "'loc'" in str(found)


def test_nothing_is_changed():
    loss = ScoreClimbing(3)
    loss.loss_and_grads(normal_model, normal_guide)
    grad = pyro.param("loc").unconstrained().grad.clone()
    before, state = loss.state_dict(), torch.get_rng_state()
    frozen_gradient(normal_model, normal_guide, loss, repeats=10, burn_in=2, batches=5)
    after = loss.state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(pyro.param("loc").unconstrained().grad, grad)
    assert after["step"] == before["step"] == 1
    assert torch.equal(after["chains"]["values"]["z"], before["chains"]["values"]["z"])
    assert pyro.param("loc").item() == 0.5


def test_the_same_seed_gives_the_same_numbers():
    one, other = (
        frozen_gradient(
            normal_model, normal_guide, ScoreClimbing(3), repeats=10, burn_in=2, batches=5, seed=7
        )
        for _ in range(2)
    )
    assert torch.equal(one.mean["loc"], other.mean["loc"])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batches": 4}, "batches=4 must be an integer of at least 5"),
        ({"burn_in": -1}, "burn_in=-1 must be an integer of at least 0"),
        ({"repeats": 10}, "repeats=10 must be an integer of at least"),
        ({"repeats": 2.5}, "repeats=2.5 must be an integer"),
        ({"repeats": 50}, "repeats=50 must be a multiple of batches=20"),
    ],
)
def test_numbers_out_of_range(numbers, message):
    with pytest.raises(InvalidArgument, match=message):
        frozen_gradient(normal_model, normal_guide, ReverseKL(2), **numbers)


def test_something_else_than_a_loss():
    with pytest.raises(InvalidArgument, match="is not a loss"):
        frozen_gradient(normal_model, normal_guide, "elbo")


def conjugate(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def conjugate_guide(x):
    loc = pyro.param("loc", lambda: x.double().mean().float() * len(x) / (len(x) + 1))
    pyro.sample("z", dist.Normal(loc, pyro.param("sd", torch.tensor((1.0 + len(x)) ** -0.5))))


@pytest.mark.parametrize("size", [4, 400, 20_000])
def test_rounding_is_no_gradient(size):
    """At the posterior the terms of the doubly reparameterised gradient cancel in every draw."""
    x = torch.linspace(0.1, 2.0, size)
    conjugate_guide(x)
    loss = ReverseKL(4, estimator=estimators.doubly)
    found = frozen_gradient(conjugate, conjugate_guide, loss, x, repeats=100, burn_in=0)
    assert found.p_value > 0.01
    assert "is zero up to its error" in str(found)
    # off it they do not: loc by 1e-5 posterior standard deviations
    with torch.no_grad():
        pyro.param("loc").unconstrained().add_(1e-5 * (size + 1) ** -0.5)
    off = frozen_gradient(conjugate, conjugate_guide, loss, x, repeats=100, burn_in=0)
    assert off.p_value < 0.01
