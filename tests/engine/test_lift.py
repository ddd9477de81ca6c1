"""A step becomes a graph, which holds nothing that it should not, and harms nothing."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_klmodes import IWAE, ReverseKL
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.lift import lift
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.reference import eager_gradient
from pyro_klmodes.tracing.runs import Pair

Y = torch.linspace(-1.0, 1.0, 4, dtype=torch.float64)


def guide(*args):
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.2)), scale))


def model(y):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def prepared(model=model, guide=guide, args=(Y,), loss=None, modules=()):
    pair, loss = Pair(model, guide, args), loss or ReverseKL(2)
    loss.loss_and_grads(model, guide, *args)
    leaves = dict(pyro.get_param_store().named_parameters())
    for leaf in leaves.values():
        leaf.grad = None
    return pair, loss, Parameters(leaves, modules)


def lifted(*args, **options):
    return lift(*prepared(*args, **options))


def run(graph, parameters, data, seed=3):
    torch.manual_seed(seed)
    with torch.no_grad():
        loss, *found = graph.graph(*parameters, graph.example, *data)
    return loss, graph.gradients(found)


def test_graph_gives_loss_and_gradients_of_eager_code_to_the_bit():
    pair, loss, parameters = prepared(loss=IWAE(3))
    graph = lift(pair, loss, parameters)
    torch.manual_seed(3)
    value, expected = eager_gradient(pair, loss, parameters, loss.step)
    got, found = run(graph, parameters.leaves, pair.args)
    assert torch.equal(got, value)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert graph.moved == (True, True)


def test_data_are_inputs():
    pair, loss, parameters = prepared()
    graph = lift(pair, loss, parameters)
    torch.manual_seed(3)
    value, _ = eager_gradient(Pair(model, guide, (Y + 1.0,)), loss, parameters, loss.step)
    assert torch.equal(run(graph, parameters.leaves, (Y + 1.0,))[0], value)


def test_lifting_changes_nothing():
    net = nn.BatchNorm1d(1)
    net.eval()
    pair, loss, parameters = prepared(modules=[net])
    values = [p.detach().clone() for p in parameters.leaves]
    state = torch.get_rng_state()
    lift(pair, loss, parameters)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(values, parameters.leaves, strict=True))
    assert all(p.grad is None for p in parameters.leaves)
    assert list(pyro.get_param_store()) == list(parameters.names)
    assert pyro.get_param_store()._params["loc"] is parameters.leaves[1]
    assert dist.is_validation_enabled()


def test_priors_made_before_are_validated_again_after():
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def with_prior(y):
        pyro.sample("w", prior, obs=torch.ones(2))
        model(y)

    lifted(with_prior)
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(torch.full((2,), torch.nan))


def test_parameters_without_a_gradient_have_none():
    def unused(y):
        pyro.param("unused", torch.tensor(1.0))
        model(y)

    graph = lifted(unused)
    assert sorted(graph.moved) == [False, True, True]


def test_nothing_to_learn():
    def fixed(y):
        pyro.sample("z", dist.Normal(0.2, 0.5))

    graph = lifted(guide=fixed)
    assert graph.moved == ()


REFUSED = {}


def refused(words):
    def add(make):
        REFUSED[make.__name__] = (make, words)
        return make

    return add


@refused("parameter 'weight.*' reaches the loss by a way of its own")
def parameter_captured_by_a_closure():
    net = nn.Linear(1, 1)
    weight = net.weight

    def captured(y):
        pyro.module("weight", net)
        pyro.factor("pull", (weight**2).sum())
        model(y)

    return {"model": captured}


@refused("parameter 'net.*' reaches the loss by a way of its own")
def view_of_a_parameter_captured():
    net = nn.Linear(2, 1)
    part = net.weight.detach()[0, 1:]

    def captured(y):
        pyro.module("net", net)
        pyro.factor("pull", net(torch.ones(2)).sum() + part.sum())
        model(y)

    return {"model": captured}


@refused("a step changes an argument or parameter in place")
def argument_changed_in_place():
    def changing(y):
        model(y.mul_(0.5))

    return {"model": changing, "args": (Y.clone(),)}


@refused(r"a step changes a tensor of shape \(1,\) in place")
def constant_changed_in_place():
    total = torch.zeros(1)

    def changing(y):
        total[0] = y.sum()
        model(y)

    return {"model": changing}


@refused("requires_grad=True")
def argument_with_a_gradient():
    return {"args": (Y.clone().requires_grad_(),)}


@refused("not an ordinary dense tensor")
def sparse_argument():
    def sparse(y):
        model(y.to_dense())

    return {"model": sparse, "args": (Y.to_sparse(),)}


@refused("a tensor is turned into a numpy array.*y.detach\\(\\).numpy\\(\\)")
def numpy_of_an_argument():
    def escaping(y):
        pyro.factor("pull", float(y.detach().numpy().sum()) * torch.ones(()))
        model(y)

    return {"model": escaping}


@refused("a shape depends on values: a boolean mask of parameters or latents")
def mask_of_a_latent():
    def masked(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("pull", torch.zeros_like(z) + y[y > z].sum())

    def learned(y):
        pyro.sample("z", dist.Delta(pyro.param("loc", torch.tensor(0.2))))

    loss = ReverseKL(1, vectorize_particles=False)
    return {"model": masked, "guide": learned, "loss": loss}


@refused("a shape depends on values: a boolean mask of latents or random numbers")
def mask_of_noise():
    def masked(y):
        pyro.factor("pull", y[torch.rand(4) > 0.5].sum())
        model(y)

    return {"model": masked}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lifted(name):
    make, words = REFUSED[name]
    pair, loss, parameters = prepared(**make())
    with pytest.raises(CannotLift, match=words):
        lift(pair, loss, parameters)


def test_masks_of_arguments_hold_as_long_as_these_are_the_same():
    def masked(y, seen):
        pyro.factor("pull", y[seen].mean())
        model(y)

    seen = Y > 0.0
    graph = lifted(masked, args=(Y, seen))
    assert graph.why_stale((Y + 1.0, seen.clone())) is None
    assert "a boolean mask, which differ between batches" in graph.why_stale((Y, ~seen))


def test_constants_that_are_changed_later():
    factor = torch.ones(1)

    def scaled(y):
        pyro.factor("pull", factor.sum())
        model(y)

    graph = lifted(scaled)
    assert graph.why_stale((Y,)) is None
    factor.mul_(2.0)
    assert "a tensor of shape (1,), which model or guide reads, was changed" in graph.why_stale(
        (Y,)
    )


def test_failing_decompositions_give_nan():
    def factored(y, matrix):
        pyro.factor("pull", torch.linalg.cholesky(matrix).sum() + torch.linalg.inv(matrix).sum())
        model(y)

    graph = lifted(factored, args=(Y, torch.eye(2)))
    leaves = list(pyro.get_param_store()._params.values())
    assert run(graph, leaves, (Y, 2.0 * torch.eye(2)))[0].isfinite()
    assert run(graph, leaves, (Y, -torch.eye(2)))[0].isnan()


@pytest.mark.parametrize("particles", [1, 2])
def test_values_that_are_not_allowed_give_nan(particles):
    def counted(y, n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("n", dist.Poisson(z.exp()), obs=n)

    counts = torch.tensor([0.0, 1.0, 2.0, 3.0])
    graph = lifted(counted, args=(Y, counts), loss=ReverseKL(particles))
    leaves = list(pyro.get_param_store()._params.values())
    assert run(graph, leaves, (Y, counts + 1.0))[0].isfinite()
    assert run(graph, leaves, (Y, counts - 1.0))[0].isnan()


def test_values_that_are_not_allowed_in_a_mapped_model_give_nan():
    def counted(y, n):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("n", dist.Poisson(z[torch.tensor([0, 1, 0, 1])].exp()), obs=n)

    def two(y, n):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))

    counts = torch.tensor([0.0, 1.0, 2.0, 3.0])
    pair, loss, parameters = prepared(counted, two, args=(Y, counts))
    assert loss.resolve(counted, two, Y, counts)[0].sharing == "map"
    graph = lift(pair, loss, parameters)
    assert run(graph, parameters.leaves, (Y, counts + 1.0))[0].isfinite()
    assert run(graph, parameters.leaves, (Y, counts - 1.0))[0].isnan()


def test_without_validation_nothing_is_checked():
    with pyro.validation_enabled(False):
        unchecked = lifted()
    pyro.clear_param_store()
    assert unchecked.operations < lifted().operations


def test_generator_is_used_as_by_eager_code_even_for_what_nobody_needs():
    def wasteful(y):
        torch.randperm(5)
        torch.rand(2)
        model(y)

    pair, loss, parameters = prepared(wasteful)
    graph = lift(pair, loss, parameters)
    torch.manual_seed(3)
    eager_gradient(pair, loss, parameters, loss.step)
    expected = torch.get_rng_state()
    run(graph, parameters.leaves, pair.args)
    assert torch.equal(torch.get_rng_state(), expected)
