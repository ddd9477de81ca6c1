"""What is written block by block is what is made in memory, in bounded memory."""

import tracemalloc

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from models import conjugate_normal, mixture_small
from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.inference_data import dataset, group_names, read
from pyro_klmodes.posteriors import Chains
from pyro_klmodes.tracing import many_runs


def assert_same(one, other):
    assert set(group_names(one)) == set(group_names(other))
    for group in group_names(one):
        first, second = dataset(one, group), dataset(other, group)
        assert set(first.variables) == set(second.variables)
        for name, array in first.variables.items():
            assert array.dims == second[name].dims
            np.testing.assert_array_equal(array.values, second[name].values)
    assert {k: v for k, v in one.attrs.items() if k != "created_at"} == dict(other.attrs)


def in_blocks_of(monkeypatch, draws):
    monkeypatch.setattr(many_runs.ManyRuns, "draws_per_run", draws)


@pytest.mark.parametrize("resample", ["none", "psis"])
@pytest.mark.parametrize(
    "make",
    [conjugate_normal.problem, conjugate_normal.hierarchical_problem, mixture_small.problem],
)
def test_guides(make, resample, tmp_path, monkeypatch):
    in_blocks_of(monkeypatch, 30)
    problem = make(3)
    options = {"args": problem.args, "kwargs": problem.kwargs, "num_samples": 100}
    pair = (problem.model, problem.exact_guide)
    whole = to_arviz(pair, **options, resample=resample)
    path = to_arviz(pair, **options, resample=resample, path=tmp_path / "draws.nc")
    assert path == tmp_path / "draws.nc"
    assert_same(read(path), whole)
    assert dataset(whole, "posterior").sizes["draw"] == 100


def test_chains(tmp_path, monkeypatch):
    in_blocks_of(monkeypatch, 30)
    values = {"mu": torch.randn(3, 25), "z": torch.randn(3, 25, 20)}
    args = (conjugate_normal.hierarchical_data(),)
    chains = Chains(values, conjugate_normal.hierarchical_model, args)
    whole = to_arviz(chains)
    np.testing.assert_array_equal(dataset(whole, "posterior")["z"].values, values["z"].numpy())
    assert_same(read(to_arviz(chains, path=tmp_path / "draws.nc")), whole)


def test_blocks_do_not_repeat_each_other(monkeypatch):
    in_blocks_of(monkeypatch, 10)
    problem = conjugate_normal.hierarchical_problem()
    pair = (problem.model, problem.exact_guide)
    data = to_arviz(pair, args=problem.args, num_samples=40)
    for group, site in (("posterior", "mu"), ("posterior_predictive", "x"), ("prior", "mu")):
        values = dataset(data, group)[site].values.reshape(40, -1)
        assert len(np.unique(values[:, 0])) == 40


def wide(size):
    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", size):
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(size))


def wide_guide(size):
    pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))


def test_a_file_takes_the_memory_of_a_block(tmp_path, monkeypatch):
    in_blocks_of(monkeypatch, 50)
    size, count = 2000, 500
    options = {
        "args": (size,),
        "num_samples": count,
        "groups": ["log_likelihood", "posterior_predictive"],
    }
    to_arviz((wide, wide_guide), **{**options, "num_samples": 50})  # imports what it needs
    peaks = {}
    for path in (None, tmp_path / "draws.nc"):
        tracemalloc.start()
        to_arviz((wide, wide_guide), **options, path=path)
        peaks[path is None] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # numpy's arrays are counted, torch's are not: two groups of count x size doubles, or of a block
    whole = 2 * count * size * 8
    assert peaks[True] > whole
    assert peaks[False] < whole / 3
