"""A model's parameters are found in the graph, however they got there."""

import pyro
import pyro.distributions as dist
import torch

from pyro_klmodes import TailAdaptive
from pyro_klmodes.estimators.reach import reaches_beyond


def test_what_a_graph_reaches():
    z, theta = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    assert not reaches_beyond([z.exp().sum(), torch.ones(())], [z])
    assert reaches_beyond([z.exp().sum(), theta.log()], [z])
    assert reaches_beyond([theta], [z])
    assert reaches_beyond([z.exp()], [])
    assert not reaches_beyond([(z * theta.detach()).sum()], [z])


def test_a_parameter_outside_of_the_param_store_is_trained():
    # p(x | theta) = N(theta, 2) with the exact posterior as guide: every weight is the evidence,
    # so the model's gradient is that of -log p(x), (theta - x) / 2, whatever the draws.
    theta = torch.nn.Parameter(torch.tensor(0.5))
    x = torch.tensor(2.0)

    def model():
        z = pyro.sample("z", dist.Normal(theta, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        loc = pyro.param("loc", (x + theta.detach()) / 2)
        pyro.sample("z", dist.Normal(loc, 0.5**0.5))

    particles = 20000
    TailAdaptive(particles).loss_and_grads(model, guide)
    # dlog p(x, z)/dtheta = z - theta has the guide's standard deviation, sqrt(1/2)
    standard_error = 0.5**0.5 / particles**0.5
    assert abs(float(theta.grad) - (0.5 - 2.0) / 2) < 4 * standard_error
