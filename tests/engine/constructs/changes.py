"""What changes between steps: by callbacks, by loaders, by handlers around a fit."""

import types

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import nn

from pyro_klmodes import ReverseKL
from tests.engine.constructs.case import Case, Constructs

constructs = Constructs()
WHEN = 5


def points():
    return torch.linspace(-1.0, 1.5, 5)


def at_once(change):
    """A callback that does something after one step."""

    def callback(info):
        if info.step == WHEN:
            change(info)

    return callback


def annealed(model, change, **options):
    return Case(model, AutoNormal(model), (points(),), options={"callbacks": [change], **options})


def normal_mean(y, factor):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu * factor, 1.0), obs=y)


def plain(y):
    normal_mean(y, 1.0)


temperature = 0.5


@constructs.given_up("global 'temperature' of model has changed")
def global_number_changed_by_a_callback():
    global temperature
    temperature = 0.5

    def model(y):
        normal_mean(y, temperature)

    def warm(info):
        global temperature
        temperature = 0.9

    return annealed(model, at_once(warm))


@constructs.given_up("attribute 'factor' of")
def attribute_changed_by_a_callback():
    class Model:
        def __init__(self):
            self.factor = 0.5

        def __call__(self, y):
            normal_mean(y, self.factor)

    model = Model()
    return annealed(model, at_once(lambda info: setattr(model, "factor", 0.9)))


@constructs.given_up("attribute '_options'.*_options.*factor|factor")
def private_attribute_deep_inside_changed():
    class Model:
        def __init__(self):
            self._options = types.SimpleNamespace(factor=0.5)

        def __call__(self, y):
            normal_mean(y, self._options.factor)

    model = Model()
    return annealed(model, at_once(lambda info: setattr(model._options, "factor", 0.9)))


class Settings:
    factor = 0.5


@constructs.given_up("attribute 'factor' of class Settings")
def attribute_of_a_class_changed():
    Settings.factor = 0.5

    def model(y):
        normal_mean(y, Settings.factor)

    return annealed(model, at_once(lambda info: setattr(Settings, "factor", 0.9)))


@constructs.given_up("attribute 'factor' of model")
def attribute_of_a_function_changed():
    def model(y):
        normal_mean(y, model.factor)

    model.factor = 0.5
    return annealed(model, at_once(lambda info: setattr(model, "factor", 0.9)))


@constructs.given_up("attribute 'link' of")
def function_of_a_module_exchanged():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.link = torch.tanh

        def forward(self, y):
            normal_mean(y, self.link(torch.tensor(0.5)))

    model = Model()
    return annealed(model, at_once(lambda info: setattr(model, "link", torch.sin)))


class WithFactor:
    """A model that reads a tensor which is an attribute."""

    def __init__(self):
        self.factor = torch.tensor(0.5)

    def __call__(self, y):
        normal_mean(y, self.factor)


@constructs.given_up("attribute 'factor' of|'factor'")
def tensor_attribute_changed_in_place():
    model = WithFactor()
    return annealed(model, at_once(lambda info: model.factor.fill_(0.9)))


@constructs.given_up("attribute 'factor' of")
def tensor_attribute_replaced():
    model = WithFactor()
    return annealed(model, at_once(lambda info: setattr(model, "factor", torch.tensor(0.9))))


@constructs.compiled
def argument_changed_in_place():
    factor = torch.tensor(0.5)
    change = at_once(lambda info: factor.fill_(0.9))
    options = {"callbacks": [change]}
    return Case(normal_mean, AutoNormal(normal_mean), (points(), factor), options=options)


@constructs.given_up("argument of type SimpleNamespace")
def object_among_the_arguments_changed():
    config = types.SimpleNamespace(factor=0.5)

    def model(y, config):
        normal_mean(y, config.factor)

    options = {"callbacks": [at_once(lambda info: setattr(config, "factor", 0.9))]}
    return Case(model, AutoNormal(model), (points(), config), options=options)


@constructs.given_up("'factor'.*of argument|factor|data")
def values_of_a_handler_changed():
    data = {"factor": torch.tensor(0.5)}

    def model(y):
        normal_mean(y, pyro.sample("factor", dist.Normal(0.0, 1.0)))

    given = poutine.condition(model, data=data)
    return annealed(given, at_once(lambda info: data.update(factor=torch.tensor(0.9))))


# --- networks


def network(change):
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.4), nn.Tanh(), nn.Linear(3, 2))

    def guide(y):
        pyro.module("encoder", encoder)
        loc, log_scale = encoder(y)
        pyro.sample("mu", dist.Normal(loc, log_scale.exp()))

    options = {"callbacks": [at_once(lambda info: change(encoder))]}
    return Case(plain, guide, (points(),), options=options)


@constructs.given_up("'training' of")
def network_switched_to_evaluation():
    return network(lambda encoder: encoder.eval())


@constructs.compiled
def layer_frozen_by_a_callback():
    return network(lambda encoder: encoder[0].requires_grad_(False))


@constructs.given_up("'weight' of a Linear, which model or guide reads, is learned now")
def layer_set_free_by_a_callback():
    case = network(lambda encoder: encoder[0].requires_grad_(True))
    case.guide.__closure__[0].cell_contents[0].requires_grad_(False)
    return case


@constructs.given_up("parameter 'encoder.*weight' was removed, or is another tensor")
def weights_replaced_by_others():
    def change(encoder):
        encoder[0].weight = nn.Parameter(torch.ones(3, 5))

    return network(change)


@constructs.given_up("hook that changes its gradient")
def hook_on_a_gradient():
    return network(lambda encoder: encoder[0].weight.register_hook(lambda g: g * 0.5))


@constructs.given_up("'weight' of a Linear, which model or guide reads, was changed in place")
def frozen_network_that_follows():
    follower = nn.Linear(1, 1).requires_grad_(False)
    with torch.no_grad():
        follower.weight.fill_(0.5)

    def model(y):
        normal_mean(y, follower(torch.ones(1)).squeeze())

    def change(info):
        with torch.no_grad():
            follower.weight.fill_(0.9)

    return annealed(model, at_once(change))


# --- parameters, loss, optimizer


@constructs.compiled
def values_of_parameters_changed():
    def change(info):
        with torch.no_grad():
            for p in info.parameters().values():
                p.add_(0.5)

    return annealed(plain, at_once(change))


@constructs.given_up("parameter 'loc' was removed, or is another tensor")
def parameter_set_in_the_store():
    def guide(y):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 0.5))

    def change(info):
        pyro.get_param_store()["loc"] = torch.tensor(2.0)

    options = {"callbacks": [at_once(change)]}
    return Case(plain, guide, (points(),), options=options)


@constructs.given_up("'num_particles' of the loss")
def number_of_particles_changed():
    loss = ReverseKL(3)
    case = annealed(plain, at_once(lambda info: setattr(loss, "num_particles", 5)))
    case.loss = lambda: loss
    return case


@constructs.compiled
def learning_rate_changed():
    optim = Adam({"lr": 0.05})

    def change(info):
        for each in optim.optim_objs.values():
            each.param_groups[0]["lr"] = 0.001

    return annealed(plain, at_once(change), optim=optim)


@constructs.given_up("torch's default data type")
def default_data_type_changed():
    def model(y):
        normal_mean(y, torch.full((), 1.0 / 3.0).double())

    return annealed(model, at_once(lambda info: torch.set_default_dtype(torch.float32)))


# --- batches


@constructs.given_up("a shape depends on values: a boolean mask, which differ between batches")
def mask_that_selects_others_in_every_batch():
    def model(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("fit", -((y[seen] - mu[..., None]) ** 2).mean(-1))

    y = points()
    batches = [(y, y > 0.0), (y, y > 0.0), (y, y > 1.0)]
    return Case(model, AutoNormal(model), options={"batches": batches})


@constructs.compiled
def batches_of_different_structure():
    def model(y, z=None):
        normal_mean(y, 1.0 if z is None else z.sum())

    batches = [{"y": points()}, {"y": points(), "z": torch.ones(2) / 3}]
    return Case(model, AutoNormal(model), options={"batches": batches})


@constructs.given_up("parameter 'late' is made by a later step only")
def parameter_that_only_some_batches_need():
    def guide(y, late):
        loc = pyro.param("loc", torch.tensor(0.1))
        if late:
            loc = loc + pyro.param("late", lambda: torch.randn(()))
        pyro.sample("mu", dist.Normal(loc, 0.5))

    def model(y, late):
        plain(y)

    batches = [(points(), False), (points(), False), (points(), True)]
    return Case(model, guide, options={"batches": batches})


@constructs.given_up("'phase' around model")
def loader_that_changes_what_the_model_reads():
    phase = {"factor": 0.5}

    def model(y):
        normal_mean(y, phase["factor"])

    class Batches:
        def __iter__(self):
            for factor in (0.5, 0.6, 0.7):
                phase["factor"] = factor
                yield points()

    return Case(model, AutoNormal(model), options={"batches": Batches()})
