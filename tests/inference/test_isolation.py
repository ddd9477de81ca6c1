"""A fit touches nothing outside of itself, and nothing outside of it touches a fit."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, check, fit
from pyro_klmodes.errors import ModelGuideMismatch

ROOT = Path(__file__).parents[2]
X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
TWICE = {"forward": ("ForwardKL(8)", 12), "reverse": ("ReverseKL(2)", 7)}

#: what both this process and fresh ones run: sites of several kinds and an enumerated one
SCRIPT = """
import sys
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from pyro import poutine
from pyro_klmodes import ForwardKL, ReverseKL, fit

def run(loss, steps):
    x = torch.tensor([0.3, -1.2, 2.0, 0.7])

    def model():
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2.0 * c, scale), obs=x)

    guide = AutoNormal(poutine.block(model, hide=["c"]))
    result = fit(model, guide, loss, steps=steps, seed=4, progress=False)
    values = [result.losses, *(result.params[n].reshape(-1) for n in sorted(result.params))]
    return torch.cat([v.double() for v in values]).numpy().tobytes().hex()
"""


def states():
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        [np.asarray(part).tolist() for part in np.random.get_state()],
    )


def store_state():
    return {n: (id(p), p.tolist()) for n, p in pyro.get_param_store()._params.items()}


def model(x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide(x=X):
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.5))


@pytest.mark.parametrize("loss", [ReverseKL(2), IWAE(3), ForwardKL(4), Trace_ELBO()])
@pytest.mark.parametrize("progress", [True, False])
def test_param_store_and_random_states_are_put_back(loss, progress):
    pyro.param("loc", torch.tensor(-3.0))
    pyro.param("mine", torch.ones(3), constraint=dist.constraints.positive)
    random.seed(1)
    np.random.seed(2)
    before, store = states(), store_state()
    result = fit(model, guide, loss, X, steps=4, progress=progress)
    result.sample(3)
    result.log_weights(3)
    assert states() == before
    assert store_state() == store
    assert result.params["loc"].item() != -3.0
    assert "mine" not in result.params


def test_they_are_put_back_after_a_failure_too():
    pyro.param("loc", torch.tensor(-3.0))
    before, store = states(), store_state()
    with pytest.raises(ModelGuideMismatch):
        fit(model, lambda x: None, IWAE(3), X, steps=4, progress=False)
    assert states() == before
    assert store_state() == store


def test_a_fit_does_not_start_from_the_global_store():
    pyro.param("loc", torch.tensor(-30.0))
    result = fit(model, guide, ReverseKL(2), X, steps=0, progress=False)
    assert result.params["loc"].item() == 0.5


def in_a_fresh_process(loss, steps):
    script = SCRIPT + f"\nprint(run({loss}, {steps}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(steps)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return done.stdout.strip()


def test_two_fits_in_one_process_are_bitwise_those_of_two_processes():
    """In either order, with one loss object for both, after other work; fresh hash seeds."""
    torch.set_default_dtype(torch.float32)
    names: dict = {}
    exec(SCRIPT, names)
    found = {}
    for order in (TWICE, dict(reversed(TWICE.items()))):
        for name, (loss, steps) in order.items():
            torch.randn(7)
            pyro.param("AutoNormal.locs.scale", torch.tensor(9.0))
            found.setdefault(name, set()).add(names["run"](eval(loss, names), steps))
    for name, (loss, steps) in TWICE.items():
        assert found[name] == {in_a_fresh_process(loss, steps)}


def test_a_used_loss_object_gives_the_same_fit():
    loss = ForwardKL(4)
    results = [fit(model, guide, loss, X, steps=6, seed=1, progress=False).losses for _ in range(3)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_seed_matters():
    one, other = (
        fit(model, guide, IWAE(3), X, steps=3, seed=s, progress=False).losses for s in (1, 2)
    )
    assert not torch.equal(one, other)


@pytest.mark.parametrize("loss", [IWAE(3), ForwardKL(4), ReverseKL(2), Trace_ELBO()])
@pytest.mark.parametrize("steps", [3, 120])
def test_the_progress_bar_does_not_change_the_numbers(loss, steps, capsys):
    shown = fit(model, guide, loss, X, steps=steps, progress=True)
    hidden = fit(model, guide, loss, X, steps=steps, progress=False)
    assert torch.equal(shown.losses, hidden.losses)
    assert torch.equal(shown.params["loc"], hidden.params["loc"])
    assert ("effective" in capsys.readouterr().out) == (not isinstance(loss, Trace_ELBO))


@pytest.mark.parametrize("loss", [None, IWAE(3), ForwardKL(4)])
def test_check_leaves_random_states_and_values_alone(loss):
    pyro.param("loc", torch.tensor(-3.0))
    before, store = states(), store_state()
    check(model, guide, X, loss=loss)
    assert states() == before
    assert store_state() == store
    assert pyro.get_param_store()._params["loc"].grad is None


def test_a_loss_draws_the_same_whether_or_not_it_has_seen_the_pair():
    auto = AutoNormal(model)
    auto(X)
    loss = IWAE(3)
    values = []
    for _ in range(3):
        pyro.set_rng_seed(8)
        values.append(loss.loss(model, auto, X))
    assert len(set(values)) == 1
