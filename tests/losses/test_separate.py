"""The guide follows one objective and the model another one, as each does alone."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, Separate, estimators, objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.testing import assert_same_mean, gradient_samples

X = torch.linspace(-2.0, 2.5, 40)


def model(x):
    slope = pyro.param("model_slope", torch.tensor(1.2))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(slope * z, 0.7), obs=x)


def guide(x):
    gain = pyro.param("guide_gain", torch.tensor(0.2))
    sd = pyro.param("guide_sd", torch.tensor(0.9), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(gain * x, sd))


def gradients(loss, repetitions=120, seed=0):
    """By parameter in alphabetical order: two of the guide, one of the model."""
    model(X), guide(X)
    return gradient_samples(loss, model, guide, (X,), repetitions=repetitions, seed=seed)


ALONE = {"reverse": ReverseKL, "forward": ForwardKL, "iwae": IWAE}
OBJECTIVES = {
    "reverse": objectives.ReverseKL(),
    "forward": objectives.ForwardKL(),
    "iwae": objectives.PowerMean(0.0),
}


@pytest.mark.parametrize(
    ("for_guide", "for_model"),
    [pair for pair in itertools.product(OBJECTIVES, ("reverse", "iwae")) if len(set(pair)) > 1],
)
def test_each_side_gets_the_gradient_it_would_get_alone(for_guide, for_model):
    K = 6
    both = gradients(Separate(OBJECTIVES[for_guide], OBJECTIVES[for_model], K))
    of_guide = gradients(ALONE[for_guide](K), seed=1)
    of_model = gradients(ALONE[for_model](K), seed=2)
    assert_same_mean(both[:, :2], of_guide[:, :2])
    assert_same_mean(both[:, 2:], of_model[:, 2:])
    # and the two bounds are told apart by this many repetitions
    other = gradients(ALONE["iwae" if for_model == "reverse" else "reverse"](K), seed=3)
    with pytest.raises(AssertionError):
        assert_same_mean(both[:, 2:], other[:, 2:])


@pytest.mark.parametrize("estimator", [estimators.doubly, estimators.score], ids=repr)
def test_other_estimators_of_the_guide(estimator):
    loss = Separate(objectives.ReverseKL(), objectives.PowerMean(0.0), 6, estimator=estimator)
    both = gradients(loss, repetitions=200)
    assert_same_mean(both[:, :2], gradients(ReverseKL(6), 200, seed=1)[:, :2])
    assert_same_mean(both[:, 2:], gradients(IWAE(6), 200, seed=2)[:, 2:])


def test_an_upper_bound_is_refused_for_the_model():
    with pytest.raises(InvalidArgument, match="no lower bound on the evidence"):
        Separate(objectives.ReverseKL(), objectives.PowerMean(-1.0, sign=1))


def test_losses_are_no_objectives():
    with pytest.raises(InvalidArgument, match="guide=ForwardKL is not one of pyro_klmodes.obj"):
        Separate(ForwardKL(8), objectives.ReverseKL())
