"""Resumed and repeated fits of compiled steps, and what they leave behind."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import optim
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import IWAE, ReverseKL, fit
from pyro_klmodes.inference import Checkpoint
from tests.engine.runs import OPTIMIZERS, Y, assert_close, guide, model


def resumed_and_at_once(make_optim, path):
    """Twenty compiled steps, once interrupted after nine and once not."""

    def run(steps, checkpoint=None):
        options = {"steps": steps, "optim": make_optim(), "checkpoint": checkpoint}
        return fit(model, guide, ReverseKL(3), Y, progress=False, engine="graph", **options)

    run(9, Checkpoint(path, every=1000))
    return run(20, Checkpoint(path, every=1000)), run(20)


@pytest.mark.parametrize(
    "adam", [optim.Adam, pytest.param(optim.ClippedAdam, marks=pytest.mark.slow)]
)
def test_resumed_fit_is_bitwise_that_of_one_go(tmp_path, adam):
    args = {"lr": 0.05, **({"lrd": 0.99} if adam is optim.ClippedAdam else {})}
    resumed, once = resumed_and_at_once(lambda: adam(args), tmp_path / "fit.pt")
    assert resumed.explanation.used["graph"] == 11
    assert torch.equal(resumed.losses, once.losses)
    assert all(torch.equal(resumed.params[name], once.params[name]) for name in once.params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exponential", "plateau"])
def test_resumed_fit_with_a_schedule(tmp_path, name):
    resumed, once = resumed_and_at_once(OPTIMIZERS[name], tmp_path / "fit.pt")
    assert torch.equal(resumed.losses, once.losses)


@pytest.mark.slow
def test_resumed_fit_that_had_to_give_up_stays_eager(tmp_path):
    def run(steps, engine, checkpoint=None):
        count = [0]

        def counting(y):
            count[0] += 1
            model(y)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fit(
                counting,
                guide,
                ReverseKL(3),
                Y,
                steps=steps,
                progress=False,
                engine=engine,
                checkpoint=checkpoint,
            )
        return result, [str(w.message) for w in caught if "engine=" in str(w.message)], count

    path = tmp_path / "fit.pt"
    run(5, "graph", Checkpoint(path, every=1000))
    resumed, told, count = run(12, "graph", Checkpoint(path, every=1000))
    assert "'count' around counting" in told[0]
    assert resumed.explanation.used == {"eager": 7}
    once, _, _ = run(12, "eager")
    assert torch.equal(resumed.losses, once.losses)
    run(5, "eager", Checkpoint(tmp_path / "other.pt", every=1000))
    _, _, alone = run(12, "eager", Checkpoint(tmp_path / "other.pt", every=1000))
    assert count == alone  # nobody has run the model more often than eager code does


@pytest.mark.slow
def test_two_fits_in_one_process_are_bitwise_the_same():
    runs = [
        fit(model, guide, IWAE(3), Y, steps=20, progress=False, engine="graph") for _ in range(2)
    ]
    assert torch.equal(runs[0].losses, runs[1].losses)


@pytest.mark.slow
def test_data_replaced_in_place_between_two_fits():
    data = Y.clone()

    def reading():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=data)

    def run(engine):
        return fit(
            reading, AutoNormal(reading), ReverseKL(3), steps=12, progress=False, engine=engine
        )

    assert_close(run("eager"), run("graph"))
    data.copy_(Y + 3.0)
    assert_close(run("eager"), run("graph"))


@pytest.mark.slow
def test_random_states_are_where_eager_code_leaves_them():
    class Look:
        def __call__(self, info):
            return False

        def finish(self):
            self.state = torch.get_rng_state()

    looks = [Look(), Look()]
    for look, engine in zip(looks, ("eager", "graph"), strict=True):
        options = {"steps": 20, "progress": False, "engine": engine}
        fit(model, guide, ReverseKL(3), Y, callbacks=[look], **options)
    assert torch.equal(looks[0].state, looks[1].state)
