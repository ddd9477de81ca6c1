"""What Python does beside tensors: branches, counters, generators, values that change."""

import itertools
import random

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

from tests.engine.constructs.case import Case, Constructs

constructs = Constructs()


def points():
    return torch.linspace(-1.0, 1.5, 5)


def regression(mean, args=None, options=None):
    """A model whose mean is a function of its latent and its arguments."""

    def model(y, *rest, **named):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal(mean(mu, *rest, **named), 1.0), obs=y)

    args = args if args or options else (points(),)
    return Case(model, AutoNormal(model), args or (), options=options or {})


# --- branches on values


@constructs.refused(r"a value decides what is computed.*item\(\)")
def item_of_a_latent():
    return regression(lambda mu: mu * float(np.cos(mu.mean().item())))


@constructs.refused("a value decides what is computed.*if")
def branch_on_a_latent():
    def mean(mu):
        if mu.mean() > 0.0:
            return mu
        return 2.0 * mu

    return regression(mean)


@constructs.refused("a value decides what is computed.*if x.sum")
def branch_on_data():
    def mean(mu, x):
        if x.sum() > 0.0:
            return mu
        return 2.0 * mu

    return regression(mean, (points(), torch.ones(2)))


@constructs.refused("a value decides what is computed.*while")
def loop_until_a_latent_is_small():
    def mean(mu):
        while (mu.abs() > 0.5).any():
            mu = 0.5 * mu
        return mu

    return regression(mean)


@constructs.refused("a value decides what is computed")
def stochastic_number_of_terms():
    def mean(mu):
        terms = int(torch.randint(1, 4, ()))
        return mu * sum(0.5**i for i in range(terms))

    return regression(mean)


@constructs.refused("numpy array")
def data_turned_into_a_numpy_array():
    return regression(lambda mu, x: mu + float(np.median(x.numpy())), (points(), torch.ones(2)))


@constructs.refused("Python numbers")
def data_turned_into_a_list():
    return regression(lambda mu, x: mu + max(x.tolist()), (points(), torch.ones(2)))


# --- other generators


@constructs.compiled
def noise_of_torch_in_the_model():
    return regression(lambda mu: mu + 0.1 * torch.randn(()))


@constructs.refused("numpy's random generator")
def noise_of_numpy():
    return regression(lambda mu: mu + 0.1 * np.random.randn())


@constructs.refused("Python's random generator")
def noise_of_python():
    return regression(lambda mu: mu + 0.1 * random.random())


@constructs.refused("'generator' around mean")
def noise_of_a_generator_of_numpy():
    generator = np.random.default_rng(0)

    def mean(mu):
        return mu + 0.1 * generator.normal()

    return regression(mean)


@constructs.refused("'generator' around mean")
def noise_of_a_generator_of_torch():
    generator = torch.Generator().manual_seed(3)

    def mean(mu):
        return mu + 0.1 * torch.randn((), generator=generator)

    return regression(mean)


@constructs.refused("set its seed")
def generator_seeded_by_the_model():
    def mean(mu):
        torch.manual_seed(5)
        return mu

    return regression(mean)


# --- counters

counter = 0


@constructs.refused("global 'counter' of mean")
def global_counter():
    global counter
    counter = 0

    def mean(mu):
        global counter
        counter += 1
        return mu * min(1.0, counter / 50)

    return regression(mean)


@constructs.refused("attribute 't' of")
def counter_in_an_attribute():
    class Model:
        t = 0

        def __call__(self, y):
            self.t += 1
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal(mu * min(1.0, self.t / 50), 1.0), obs=y)

    model = Model()
    model.t = 0
    return Case(model, AutoNormal(model), (points(),))


@constructs.refused("attribute 't' of class")
def counter_in_a_class():
    class Model:
        t = 0

        def __call__(self, y):
            type(self).t += 1
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(y)):
                pyro.sample("y", dist.Normal(mu * min(1.0, self.t / 50), 1.0), obs=y)

    model = Model()
    return Case(model, AutoNormal(model), (points(),))


@constructs.refused("'seen' around mean")
def growing_list():
    seen = []

    def mean(mu):
        seen.append(1)
        return mu * min(1.0, len(seen) / 50)

    return regression(mean)


@constructs.refused("'state' around mean")
def counter_in_a_dict():
    state = {"t": 0}

    def mean(mu):
        state["t"] += 1
        return mu * min(1.0, state["t"] / 50)

    return regression(mean)


@constructs.refused("'ticks' around mean")
def counter_of_itertools():
    ticks = itertools.count()

    def mean(mu):
        return mu * min(1.0, next(ticks) / 50)

    return regression(mean)


@constructs.refused("'clock' around mean")
def counter_in_a_tensor():
    clock = torch.zeros(())

    def mean(mu):
        clock.add_(1.0)
        return mu * (clock / 50).clamp_max(1.0)

    return regression(mean)


@constructs.refused("changes tensor 2 of the arguments")
def data_changed_by_the_model():
    def mean(mu, x):
        x *= 0.9
        return mu + x.sum()

    return regression(mean, (points(), torch.ones(2)))


# --- arguments


@constructs.compiled
def lists_and_dicts_of_tensors():
    args = (points(), [torch.ones(1), torch.zeros(1)], {"a": torch.tensor(0.5)})
    return regression(lambda mu, xs, named: mu + xs[0] * named["a"] + xs[1], args)


@constructs.compiled
def keyword_arguments():
    options = {"shift": torch.tensor(0.3), "times": 2}
    return regression(lambda mu, *, shift, times=1: mu + times * shift, (points(),), options)


@constructs.compiled
def one_tensor_as_two_arguments():
    y = points()
    return regression(lambda mu, x: mu + x, (y, y))


@constructs.compiled
def numbers_among_the_arguments():
    return regression(lambda mu, times, name: mu * times + len(name), (points(), 0.5, "abc"))


@constructs.given_up("change their shapes, or what is no tensor")
def numbers_that_change_from_batch_to_batch():
    batches = [(points(), float(i)) for i in range(9)]
    return regression(lambda mu, times: mu * times, options={"batches": batches})


@constructs.compiled
def shapes_and_types_that_change_between_batches():
    y = points()
    batches = [(y, torch.ones(1)), (y.float(), torch.ones(())), (y, torch.full((1,), 2.0))]
    return regression(lambda mu, x: mu + x, options={"batches": batches})


@constructs.refused("requires_grad=True")
def argument_with_a_gradient():
    return regression(lambda mu, x: mu + x, (points(), torch.ones(1, requires_grad=True)))
