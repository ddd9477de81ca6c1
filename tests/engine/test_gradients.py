"""Gradients of the lifted graph are those of eager code, for every loss, guide and model."""

import pytest

from pyro_klmodes.engine.errors import CannotLift
from tests.engine.zoo import GUIDES, LOSSES, MODELS, NoPair, distance

#: the inverse of Pyro's flow, which densities at given values need, indexes by a tensor's elements
INDEXED = "auto_iaf"
#: discrete latents, or a guide that is part of the model
OWN_GUIDE = {"noisy_or", "ising", "linear_vae"}
#: minibatches of data that share latents need a loss that is linear in the log-weights
MINIBATCHES = {"radon_minibatch": "reverse_kl", "logistic_minibatch": "reverse_kl_doubly"}
#: losses for discrete guides
DISCRETE = {"noisy_or": "iwae", "ising": "forward_kl"}
TOLERANCE = 1e-12


def guide_for(model):
    return "own" if model in OWN_GUIDE else "auto_normal"


def small_model(guide):
    return "conjugate_normal" if guide == "own" else "gaussian_pair"


def check(loss, guide, model):
    """Whether eager code takes such a pair; if so, its graph must be right."""
    try:
        apart = distance(loss, guide, model)
    except NoPair:
        return False
    except CannotLift as error:
        if guide != INDEXED:
            raise
        return "a value decides what is computed" in str(error)
    assert apart <= TOLERANCE
    return True


def every_model_with_some_loss():
    fixed = {**MINIBATCHES, **DISCRETE}
    others = [name for name in LOSSES if name not in fixed.values()]
    free = [model for model in MODELS if model not in fixed]
    turns = {model: others[i % len(others)] for i, model in enumerate(free)}
    return [(loss, model) for model, loss in {**turns, **fixed}.items()]


def test_no_loss_is_left_out():
    assert {loss for loss, _ in every_model_with_some_loss()} == set(LOSSES)


@pytest.mark.parametrize(("loss", "model"), every_model_with_some_loss())
def test_every_loss_and_every_model(loss, model):
    assert check(loss, guide_for(model), model)


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide(guide):
    assert check("iwae", guide, small_model(guide))


# --- every two of them; eager code refuses some, but none of a loss, a guide or a model altogether


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_model(loss):
    assert sum(check(loss, guide_for(model), model) for model in MODELS) > len(MODELS) / 2


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_guide(loss):
    pairs = [check(loss, guide, small_model(guide)) for guide in GUIDES]
    assert sum(pairs) > len(GUIDES) / 2


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_guide_with_every_model(model):
    losses = list(LOSSES)
    pairs = [
        check(losses[i % len(losses)], guide, model) or check("reverse_kl", guide, model)
        for i, guide in enumerate(GUIDES)
    ]
    assert any(pairs)
