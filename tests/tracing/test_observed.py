"""What a model observes: values, plates, minibatches; hidden from handlers outside."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

from pyro_klmodes.tracing.observed import hiding, observed_sites, parameter_names

X = torch.arange(10.0)


def model(x, size=None, *, after=None):
    with pyro.plate("data", len(x), size) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])
        pyro.deterministic("twice", 2 * z)
        pyro.factor("f", -(z**2))
    if after is not None:
        after.append(True)
    pyro.sample("y", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=torch.ones(2))


def test_values_plates_and_event_dimensions():
    found = observed_sites(model, (X,), {})
    assert list(found) == ["x", "y"]
    assert torch.equal(found["x"].value, X)
    assert (found["x"].event_dim, found["x"].plates) == (0, {"data": -1})
    assert not found["x"].subsampled
    assert (found["y"].event_dim, found["y"].plates) == (1, {})


def test_a_minibatch_is_drawn_or_given():
    drawn = observed_sites(model, (X, 3), {})["x"]
    assert torch.equal(drawn.value, X[drawn.indices["data"]])
    assert drawn.subsampled == {"data"}
    index = torch.tensor([4, 9, 0])
    given = observed_sites(model, (X, 3), {}, indices={"data": index})["x"]
    assert torch.equal(given.value, X[index])


def test_the_model_stops_at_the_site_asked_for():
    after = []
    assert list(observed_sites(model, (X,), {"after": after}, only="x")) == ["x"]
    assert not after
    observed_sites(model, (X,), {"after": after})
    assert after


def test_outer_handlers_and_random_states_see_nothing():
    pyro.set_rng_seed(3)
    expected = torch.rand(2)
    pyro.set_rng_seed(3)
    with poutine.trace() as tracer, pyro.plate("particles", 5, dim=-2):
        found = observed_sites(model, (X, 3), {})
    assert not [n for n in tracer.trace.nodes if n in ("z", "x", "y")]
    assert found["x"].value.shape == (3,)
    assert torch.equal(torch.rand(2), expected)


def test_hidden_sites_are_drawn_but_not_seen():
    trace = poutine.trace(hiding(model, ["z"])).get_trace(X)
    assert "z" not in trace.nodes
    assert "x" in trace.nodes


def test_names_of_positional_parameters():
    class Module(nn.Module):
        def forward(self, first, second):
            return None

    assert parameter_names(model) == ["x", "size"]
    assert parameter_names(poutine.scale(poutine.block(model), 2.0)) == ["x", "size"]
    assert parameter_names(Module()) == ["first", "second"]
    assert parameter_names(lambda *args: None) == []
    assert parameter_names(dict) == []
