"""What goes wrong in a compiled step goes wrong as in eager code, at the same step."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import optim

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.errors import NonFiniteLoss
from tests.engine.runs import Y, assert_close, both, guide, guide_of_mu, model, some


def falling(y):
    """A loss that falls with the rate, down to where it is not a number."""
    rate = pyro.param("rate", torch.tensor(0.3))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("broken", -rate.sqrt() - 3.0 * rate)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def raised(error, *args, steps=60, match=None, **options):
    """The errors of eager code and of the graph."""
    errors = []
    for engine in ("eager", "graph"):
        with pytest.raises(error, match=match) as info:
            fit(*args, steps=steps, progress=False, engine=engine, **options)
        errors.append(info.value)
    return errors


def not_finite(*args, **options):
    """The same of losses, without validation, as in production."""
    with pyro.validation_enabled(False):
        return raised(NonFiniteLoss, *args, **options)


def test_error_about_a_loss_that_is_not_a_number_is_that_of_eager_code():
    eager, graph = not_finite(falling, guide_of_mu, ReverseKL(3), Y)
    assert str(eager) == str(graph)
    assert "'broken'" in str(graph)
    assert eager.result.steps == graph.result.steps > 5
    assert_close(eager.result, graph.result)


@pytest.mark.parametrize("how", some(["skip", "backoff"], {"skip"}))
def test_steps_that_are_not_numbers_are_skipped_alike(how):
    options = {"on_nonfinite": how, "optim": optim.SGD({"lr": 0.01}), "steps": 40}
    with pyro.validation_enabled(False):
        eager, graph = both(falling, guide_of_mu, ReverseKL(3), Y, **options)
    assert bool(eager.losses.isnan().any())
    assert_close(eager, graph, steps=5)


@pytest.mark.slow
def test_values_that_are_not_allowed_raise_the_error_of_eager_code():
    def shares(y):
        share = pyro.param("share", torch.tensor(0.8))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("pull", 3.0 * share + 0.0 * mu)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(share), obs=torch.ones_like(y))

    adam = optim.Adam({"lr": 0.05})
    pair = (shares, guide_of_mu, ReverseKL(3), Y)
    eager, graph = raised(ValueError, *pair, match="probs", optim=adam)
    assert str(eager) == str(graph)


@pytest.mark.slow
def test_infinite_gradients_are_not_clipped_into_numbers():
    def steep(y):
        at = pyro.param("at", torch.tensor(0.1))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("steep", (at - at.detach() + y.sum()).sqrt() + 0.0 * mu)

    batches = [torch.ones(1), torch.ones(1), torch.ones(1), torch.zeros(1)]
    options = {"batches": batches, "optim": optim.ClippedAdam({"lr": 0.02})}
    eager, graph = not_finite(steep, guide_of_mu, ReverseKL(3), **options)
    assert str(eager) == str(graph)
    assert "step 3, epoch 0: the gradient of parameter 'at' is not finite" in str(graph)


def losing_rank(y):
    """The matrix has no Cholesky factor once its parameter is beyond one."""
    r = pyro.param("r", torch.tensor(0.8))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    root = torch.linalg.cholesky(torch.eye(2) + r * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    pyro.factor("pull", 5.0 * r + 0.1 * root.sum() + 0.0 * mu)


def test_matrices_without_a_decomposition_raise_the_error_of_eager_code():
    sgd = optim.SGD({"lr": 0.01})
    pair = (losing_rank, guide_of_mu, ReverseKL(3), Y)
    eager, graph = raised(torch.linalg.LinAlgError, *pair, optim=sgd)
    assert str(eager) == str(graph)


def test_index_beyond_the_end_raises_the_error_of_eager_code():
    table = torch.zeros(3)

    def lookup(index):
        with pyro.plate("data", len(index)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=table[index])

    def shifted(index):
        with pyro.plate("data", len(index)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    batches = [torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([2, 3])]
    options = {"match": "out of (bounds|range)", "batches": batches, "steps": 9}
    raised(IndexError, lookup, shifted, ReverseKL(3), **options)


@pytest.mark.slow
def test_interruption_leaves_whole_steps():
    def interrupt(info):
        if info.step == 12:
            raise KeyboardInterrupt

    eager, graph = both(model, guide, ReverseKL(3), Y, callbacks=[interrupt])
    assert eager.interrupted
    assert graph.interrupted
    assert graph.steps == 13
    assert_close(eager, graph)
