"""Where parameters are held, and what is done to them."""

import pyro
import pytest
import torch
from torch import nn

from pyro_klmodes.engine.parameters import Parameters


def prepared():
    net = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 1))
    pyro.module("net", net)
    pyro.param("rate", torch.tensor(0.5), constraint=pyro.distributions.constraints.positive)
    return net, Parameters(dict(pyro.get_param_store().named_parameters()), [net])


def test_all_places_are_served_and_put_back():
    net, parameters = prepared()
    before = dict(net.named_parameters())
    others = [torch.zeros_like(leaf) for leaf in parameters.leaves]
    with parameters.replaced_by(others):
        assert pyro.param("rate").item() == 1.0
        assert not net[0](torch.ones(2)).any()
        assert not net[1](torch.ones(1, 2))[0].any()
    assert dict(net.named_parameters()).keys() == before.keys()
    assert all(p is before[name] for name, p in net.named_parameters())
    assert pyro.param("rate").item() == pytest.approx(0.5)
    assert net[1](torch.ones(1, 2))[0].any()
    assert parameters.changed() is None


def test_tensor_with_two_names_is_one_parameter():
    p = nn.Parameter(torch.ones(2))
    parameters = Parameters({"first": p, "other": nn.Parameter(torch.ones(1)), "second": p}, [])
    assert parameters.names == ("first", "other")


CHANGES = {
    "was removed, or is another": lambda net: setattr(net[0], "bias", nn.Parameter(torch.ones(2))),
    "'rate' was removed": lambda net: pyro.get_param_store().__delitem__("rate"),
    "has a hook": lambda net: net[0].bias.register_hook(lambda g: 2.0 * g),
}


@pytest.mark.parametrize("words", CHANGES)
def test_changes_are_named(words):
    net, parameters = prepared()
    CHANGES[words](net)
    assert words in parameters.changed()


def test_kind_tells_what_is_learned():
    net, parameters = prepared()
    before = parameters.kind
    with torch.no_grad():
        net[0].weight.add_(1.0)
    assert parameters.kind == before
    net[0].requires_grad_(False)
    assert parameters.kind != before


def test_tensors_that_share_memory_are_found():
    net, parameters = prepared()
    at = parameters.position(net[0].weight)
    assert parameters.position(net[0].weight.detach()[1, 1:]) == at
    assert parameters.position(torch.ones(2)) is None
    assert parameters.position(torch.ones(0)) is None


def test_values_are_put_back():
    net, parameters = prepared()
    before = net[0].weight.detach().clone()
    with parameters.unchanged(), torch.no_grad():
        net[0].weight.fill_(7.0)
    assert torch.equal(net[0].weight, before)


def test_names_of_other_tensors():
    norm = nn.BatchNorm1d(1)
    parameters = Parameters({}, [norm])
    assert parameters.name_of(norm.running_mean) == "'running_mean' of a BatchNorm1d"
    assert parameters.name_of(torch.ones(3, 1)) == "a tensor of shape (3, 1)"
