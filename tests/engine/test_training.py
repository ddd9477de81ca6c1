"""Optimizers, batches and callbacks work the same whether steps are compiled or not."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import IWAE, ReverseKL, fit
from pyro_klmodes.inference import (
    AggressiveInference,
    AverageIterates,
    StopWhenConverged,
)
from tests.engine.runs import OPTIMIZERS, Y, assert_close, both, encoder, guide, local, model, some


@pytest.mark.parametrize("name", some(OPTIMIZERS, {"clipped_adam", "sgd"}))
def test_optimizers_and_schedules(name):
    eager, graph = both(model, guide, ReverseKL(3), Y, make_optim=OPTIMIZERS[name])
    assert_close(eager, graph)


@pytest.mark.parametrize("name", some(["exponential", "by_function", "plateau"], {"plateau"}))
def test_schedules_by_epoch(name):
    loader = [Y, Y + 1.0, Y - 1.0]
    options = {"batches": loader, "steps": None, "epochs": 6}
    eager, graph = both(local, encoder, ReverseKL(3), make_optim=OPTIMIZERS[name], **options)
    assert_close(eager, graph)
    assert graph.epochs == 6


@pytest.mark.slow
def test_largest_norm_of_the_gradient():
    eager, graph = both(model, guide, ReverseKL(3), Y, clip_norm=0.5)
    assert_close(eager, graph)


@pytest.mark.slow
def test_loader_that_shuffles():
    data = TensorDataset(torch.linspace(-1.0, 2.0, 11, dtype=torch.float64))
    loader = DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    assert_close(*both(local, encoder, IWAE(3), batches=loader, steps=None, epochs=5))


@pytest.mark.slow
def test_callbacks_see_every_step():
    seen = {}

    def run(*args, engine, **options):
        notes = seen.setdefault(engine, [])

        def look(info):
            notes.append((info.step, info.loss, info.parameters()["mu.loc"].item()))

        return fit(*args, engine=engine, callbacks=[look], **options)

    eager, graph = both(model, guide, ReverseKL(3), Y, run=run)
    assert_close(eager, graph)
    assert [step for step, _, _ in seen["graph"]] == list(range(30))
    assert torch.tensor(seen["graph"]).allclose(torch.tensor(seen["eager"]), rtol=1e-10)


@pytest.mark.slow
def test_averages_of_the_iterates():
    eager, graph = both(
        model, guide, ReverseKL(3), Y, make_callbacks=lambda: [AverageIterates(start=10)]
    )
    assert_close(eager, graph)


@pytest.mark.slow
def test_early_stopping_at_the_same_step():
    options = {"min_steps": 60, "every": 10, "window": 40, "tolerance": 2.0, "min_ess": 2.0}

    def stop():
        return [StopWhenConverged(max_rhat=2.0, **options)]

    eager, graph = both(model, guide, ReverseKL(3), Y, steps=300, make_callbacks=stop)
    assert eager.steps == graph.steps < 300
    assert_close(eager, graph)


@pytest.mark.slow
def test_inner_steps_for_the_guide():
    def shared(y):
        rate = pyro.param("rate", torch.tensor(0.3))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(rate, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def run(*args, **options):
        inner = AggressiveInference(mutual_information=lambda m, g: 1.0, most=5, check_every=5)
        return fit(*args, inner=inner, **options)

    assert_close(*both(shared, encoder, ReverseKL(3), Y, steps=10, run=run))
