"""What a model can read in Python is found, named, and compared."""

import collections
import functools
import itertools
import math
import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from pyro_klmodes.engine.python_state import PythonState

degree = 1.0


class Settings:
    level = 1.0


class Base:
    def helper(self):
        return Settings.level + degree

    @property
    def doubled(self):
        return 2 * self.level

    @staticmethod
    def tripled():
        return 3 * Settings.level


class Model(Base):
    __slots__ = ("slot",)

    def __init__(self):
        self.level, self._private, self.slot = 1.0, [1.0], 1.0
        self.named = types.SimpleNamespace(level=1.0)
        self.array, self.long = np.ones(3), list(range(500))
        self.tensor, self.link = torch.ones(2), torch.tanh
        self.queue, self.flag = collections.deque([1, 2]), np.float32(1.0)
        self.generator = np.random.default_rng(0)
        self.own_random, self.own_torch = random.Random(0), torch.Generator()

    def __call__(self):
        return self.helper()


CHANGES = {
    "attribute 'level' of": lambda m: setattr(m, "level", 2.0),
    "attribute '_private' of": lambda m: m._private.append(2.0),
    "attribute '_private' of Model[0]": lambda m: m._private.__setitem__(0, 2.0),
    "attribute 'slot' of": lambda m: setattr(m, "slot", 2.0),
    "attribute 'level' of attribute 'named'": lambda m: setattr(m.named, "level", 2.0),
    "attribute 'array' of": lambda m: m.array.__setitem__(1, 2.0),
    "attribute 'long' of": lambda m: m.long.__setitem__(400, -1),
    "attribute 'tensor' of": lambda m: m.tensor.add_(1.0),
    "attribute 'link' of": lambda m: setattr(m, "link", torch.sin),
    "attribute 'queue' of": lambda m: m.queue.append(3),
    "attribute 'queue' of Model[1]": lambda m: m.queue.__setitem__(1, 5),
    "attribute 'flag' of": lambda m: setattr(m, "flag", np.float32(2.0)),
    "attribute 'generator' of": lambda m: m.generator.normal(),
    "attribute 'own_random' of": lambda m: m.own_random.random(),
    "attribute 'own_torch' of": lambda m: torch.rand((), generator=m.own_torch),
    "attribute 'new' of": lambda m: setattr(m, "new", 1),
    "numpy's random generator": lambda m: np.random.rand(),
    "Python's random generator": lambda m: random.random(),
    "torch's default data type": lambda m: torch.set_default_dtype(torch.float32),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_named(name):
    model = Model()
    state = PythonState(model)
    assert state.changed() is None
    CHANGES[name](model)
    assert name in state.changed()


def test_globals_and_classes_that_methods_read(monkeypatch):
    state = PythonState(Model())
    monkeypatch.setitem(globals(), "degree", 2.0)
    assert state.changed() == "global 'degree' of helper"
    monkeypatch.undo()
    assert state.changed() is None
    monkeypatch.setattr(Settings, "level", 3.0)
    assert state.changed() == "attribute 'level' of class Settings"


def test_closures_defaults_partials_and_attributes_of_functions():
    cell, default, bound = [1], {"a": 1}, {"b": 1}

    def model(x, scale=default):
        def inner():
            return cell[0]

        return inner() + model.count

    model.count = 0
    state = PythonState(functools.partial(model, bound))
    for change, name in (
        (lambda: cell.append(2), "'cell' around model"),
        (lambda: default.update(a=2), "a default of model['a']"),
        (lambda: bound.update(b=2), "argument 0 of partial['b']"),
        (lambda: setattr(model, "count", 1), "attribute 'count' of model"),
    ):
        assert state.changed() is None
        change()
        assert state.changed() == name
        state = PythonState(functools.partial(model, bound))


def test_functions_behind_decorators_of_libraries():
    count = [0]

    @torch.no_grad()
    @functools.lru_cache
    def model():
        return count[0]

    state = PythonState(model)
    count[0] += 1
    assert state.changed() == "'count' around model[0]"


def test_modules_with_their_buffers_and_modes():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Dropout())

    def model(x):
        return net(x)

    state = PythonState(model)
    net[0].weight.data.add_(1.0)  # learned
    assert state.changed() is None
    net[2].eval()
    assert state.changed() == "'training' of '2' of 'net' around model"
    net[2].train()
    net(torch.ones(2, 1))
    assert "of '1' of 'net' around model" in state.changed()


def test_two_objects_of_one_name_are_both_watched():
    first, second = Model(), Model()

    def one():
        return first.level + second.level

    state = PythonState(first, second, one)
    first.level = 2.0
    assert state.changed() is not None
    first.level, second.level = 1.0, 2.0
    assert state.changed() is not None


def test_iterators_cannot_be_watched():
    ticks = itertools.count()

    def model():
        return next(ticks)

    assert PythonState(model).changed() == "'ticks' around model"


def test_equal_values_made_anew_are_no_change():
    options = {"pair": (1.0, math.nan), "negative": 0.0}

    def model():
        return options

    state = PythonState(model)
    options["pair"] = (1.0, math.nan)
    assert state.changed() is None
    options["negative"] = -0.0
    assert state.changed() == "'options' around model['negative']"


def test_object_in_the_place_of_one_that_is_gone():
    class Thing:
        pass

    holder = {"thing": object()}

    def model():
        return holder

    state = PythonState(model)
    for _ in range(100):  # one of them may get the memory of the first
        holder["thing"] = object()
        assert state.changed() == "'holder' around model['thing']"


def test_more_than_can_be_watched_is_refused():
    things = [[object() for _ in range(100)] for _ in range(100)]
    many = [things, *([[object() for _ in range(100)] for _ in range(100)] for _ in range(3))]

    def model():
        return many

    assert PythonState(model).changed() == "more values than can be watched"
