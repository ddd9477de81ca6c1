"""All tiers take the same steps: losses and parameters of whole fits."""

import os
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, fit
from pyro_klmodes.losses.schedules import linear

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)
GROUP = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])


def schools(sigma, y):
    """Not centred, with a third of a level: indexed in a way that does not broadcast."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("groups", 3):
        group = pyro.sample("group", dist.Normal(0.0, 1.0))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + group[GROUP] + tau * eta, sigma), obs=y)


def run(engine, loss, guide=AutoNormal, steps=300, optim=None, **options):
    optim = optim or pyro.optim.Adam({"lr": 0.02})
    options = {"progress": False, "optim": optim, **options}
    return fit(schools, guide(schools), loss, SIGMA, Y, steps=steps, engine=engine, **options)


def same(a, b, tolerance=1e-9):
    assert a.params.keys() == b.params.keys()
    torch.testing.assert_close(a.losses, b.losses, rtol=tolerance, atol=tolerance)
    for name, value in a.params.items():
        torch.testing.assert_close(value, b.params[name], rtol=tolerance, atol=tolerance)


LOSSES = {
    "reverse": lambda: ReverseKL(4),
    "warm-up": lambda: ReverseKL(4, beta=linear(0.0, 1.0, 80)),
    "iwae": lambda: IWAE(8),
    "forward": lambda: ForwardKL(8),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    "guide", [AutoNormal, pytest.param(AutoMultivariateNormal, marks=pytest.mark.slow)]
)
def test_the_graph_takes_the_steps_of_eager_code(loss, guide):
    eager, graph = (run(engine, loss(), guide, steps=120) for engine in ("eager", "graph"))
    same(eager, graph)
    assert graph.explanation.used == {"eager": 1, "graph": 119}
    assert "119 by graph" in graph.explain()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["inductor", "aot"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_compiled_programs_take_the_steps_of_eager_code(loss, tier, tmp_path, monkeypatch):
    monkeypatch.setenv("PYRO_KLMODES_CACHE", str(tmp_path))
    eager, compiled = (run(engine, loss()) for engine in ("eager", tier))
    same(eager, compiled)
    assert compiled.explanation.used == {"eager": 1, tier: 299}


@pytest.mark.slow
def test_a_long_fit_is_compiled_meanwhile_and_always_from_the_same_step_on():
    steps = 30_000
    first, second = (run("auto", ReverseKL(2), steps=steps) for _ in range(2))
    used = first.explanation.used
    assert used == second.explanation.used
    assert used["eager"] == 1
    assert used["inductor"] > used["graph"] > 1000
    assert torch.equal(first.losses, second.losses)


def test_short_fits_are_eager_and_say_so():
    result = run("auto", ReverseKL(2), steps=20)
    assert result.explanation.used == {"eager": 20}
    assert "too few" in result.explain()


def test_without_a_compiler_the_graph_is_interpreted_with_one_warning():
    """In a process of its own: which compiler there is, is found out once."""
    program = (
        "import warnings, torch\n"
        "from tests.engine.test_tiers import *\n"
        "torch.set_default_dtype(torch.float64)\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    result = run('inductor', ReverseKL(2), steps=5)\n"
        "ours = [str(w.message) for w in seen if 'engine=' in str(w.message)]\n"
        "print(len(ours), ours[0])\n"
        "print(result.explanation.used)\n"
    )
    env = {**os.environ, "CXX": "/nowhere/c++"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    warned, used = done.stdout.strip().splitlines()
    assert warned.startswith("1 engine='inductor'")
    assert "/nowhere/c++" in warned
    assert used == "{'eager': 1, 'graph': 4}"
