"""Modules: networks in model and guide, running averages, dropout, networks over time."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from tests.engine.constructs.case import Case, Constructs

constructs = Constructs()


def data(n=4):
    return torch.linspace(-1.0, 1.0, 2 * n).reshape(n, 2)


def seeded(make):
    torch.manual_seed(1)
    return make()


def autoencoder(encoder, decoder):
    """A pair that registers its networks with Pyro."""

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return Case(model, guide, (data(),))


def layers(*inside):
    return seeded(lambda: nn.Sequential(nn.Linear(2, 3), *inside, nn.Linear(3, 2)))


def decoder():
    return seeded(lambda: nn.Linear(1, 2))


@constructs.compiled
def networks_registered_with_pyro():
    return autoencoder(layers(nn.Tanh()), decoder())


@constructs.compiled
def network_with_dropout():
    return autoencoder(layers(nn.Dropout(0.3)), decoder())


@constructs.refused("changes .*'num_batches_tracked' of '1' of 'encoder' around guide")
def network_with_running_averages():
    return autoencoder(layers(nn.BatchNorm1d(3)), decoder())


@constructs.compiled
def network_with_running_averages_in_evaluation():
    return autoencoder(layers(nn.BatchNorm1d(3)).eval(), decoder())


@constructs.compiled
def recurrent_encoder():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.out(self.cell(x[..., None])[0][:, -1])

    return autoencoder(seeded(Recurrent), decoder())


@constructs.compiled
def bayesian_network_as_a_module():
    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[nn.Linear](2, 1)
            prior = dist.Normal(0.0, 1.0)
            self.linear.weight = PyroSample(prior.expand([1, 2]).to_event(2))
            self.linear.bias = PyroSample(prior.expand([1]).to_event(1))

        def forward(self, x, y):
            mean = self.linear(x).squeeze(-1)
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    net = seeded(Net)
    return Case(net, AutoNormal(net), (data(), data()[:, 0]))


def one_mean(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


@constructs.compiled
def plain_module_as_guide():
    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x):
            loc, log_scale = self.net(x)
            pyro.sample("mu", dist.Normal(loc, log_scale.exp()))

    return Case(one_mean, seeded(Guide), (data()[:, 0],))


@constructs.compiled
def module_of_pyro_as_guide():
    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.1))
            self.scale = PyroParam(torch.tensor(0.4), constraint=constraints.positive)

        def forward(self, x):
            pyro.sample("mu", dist.Normal(self.loc, self.scale))

    return Case(one_mean, Guide(), (data()[:, 0],))


@constructs.compiled
def method_of_a_module_as_model_and_guide():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(1, 2)
            self.inner = nn.Linear(2, 1)

        def model(self, x):
            pyro.module("both", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.out(z), 0.5).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("both", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.inner(x), 0.6).to_event(1))

    both = seeded(Both)
    return Case(both.model, both.guide, (data(),))


@constructs.compiled
def network_with_frozen_layers():
    encoder = layers(nn.Tanh())
    encoder[0].requires_grad_(False)
    return autoencoder(encoder, decoder())


class Cube(torch.autograd.Function):
    """A function with a derivative of its own, not the true one."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3.0 * x.abs().clamp_max(2.0)


@constructs.compiled
def function_with_a_derivative_of_its_own():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(Cube.apply(mu), 1.0), obs=x)

    return Case(model, AutoNormal(model), (data()[:, 0],))


@constructs.compiled
def parts_without_gradient():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with torch.no_grad():
            shift = mu * 0.5
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu + shift + mu.detach(), 1.0), obs=x)

    return Case(model, AutoNormal(model), (data()[:, 0],))
