"""AutoFlow on a model: with every kind of loss, copied, and refused."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, log_density
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow import (
    AutoFlow,
    Autoregressive,
    Coupling,
    GaussianBase,
    StudentTailLayer,
)
from tests.guides.flow.flows import ARCHITECTURES, BASES, TAILS


def model():
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("groups", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, scale))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor([-1.0, 0.5, 2.0]))


def one_latent():
    pyro.sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    "loss",
    [
        ReverseKL(num_particles=4),
        ForwardKL(num_particles=4),
        IWAE(num_particles=4),
        Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
        RenyiELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
    ],
)
@pytest.mark.parametrize("architecture", ["spline, fast density", "affine coupling"])
def test_every_parameter_moves_with_every_kind_of_loss(loss, architecture):
    guide = AutoFlow(
        model,
        architecture=ARCHITECTURES[architecture],
        base=BASES["student"],
        tails=TAILS["student tails"],
    )
    guide()
    before = [p.detach().clone() for p in guide.parameters()]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss)
    for _ in range(3):
        svi.step()
    for (name, now), then in zip(guide.named_parameters(), before, strict=True):
        assert now.isfinite().all(), name
        assert (now - then).abs().max() > 1e-4, name


def test_the_density_of_a_run_is_that_of_its_values():
    guide = AutoFlow(model, base=BASES["mixture"], tails=TAILS["student tails"])
    trace = poutine.trace(guide).get_trace()
    trace.compute_log_prob()
    values = {name: trace.nodes[name]["value"] for name in ("scale", "mean")}
    torch.testing.assert_close(log_density(guide, values), trace.log_prob_sum())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_the_same_density(copied):
    guide = AutoFlow(model, tails=TAILS["pareto tails"])
    values = guide.sample(3)
    torch.testing.assert_close(copied(guide).log_prob(values), guide.log_prob(values))


def test_a_single_coordinate_is_autoregressive_by_default():
    guide = AutoFlow(one_latent)
    assert guide()["x"].shape == ()
    with pytest.raises(InvalidArgument, match="use Autoregressive"):
        AutoFlow(one_latent, architecture=Coupling())()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"architecture": "spline"}, "architecture='spline' must be a value such as Coupling"),
        ({"architecture": Autoregressive}, "must be a value such as Coupling"),
        ({"base": StudentTailLayer()}, "base=StudentTailLayer.* such as GaussianBase"),
        ({"tails": GaussianBase()}, "tails=GaussianBase.* such as TailLayer"),
    ],
)
def test_other_choices_are_refused(choices, message):
    with pytest.raises(InvalidArgument, match=message):
        AutoFlow(model, **choices)
