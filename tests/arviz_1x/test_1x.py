"""What is of ArviZ 1.x alone; the tests of tests/inference_data run here too."""

import doctest
import importlib
import sys
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

from pyro_klmodes import inference_data
from pyro_klmodes.inference_data import Variable, build, dataset, elpd_numbers, loo, read, write

FILES = sorted(Path(inference_data.__file__).parent.glob("*.py"))


def small():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(1, 100))
    return build(
        {
            "posterior": {"mu": Variable(mu), "flag": Variable(mu > 0)},
            "log_likelihood": {"y": Variable(-((mu[..., None] - [0.1, 0.4]) ** 2) / 2, ("obs",))},
            "sample_stats": {"log_p": Variable(-(mu**2)), "log_q": Variable(-(mu**2) / 2)},
        },
        coords={"obs": ["first", "second"]},
        attributes={"loss": "forward_kl", "none": None},
    )


def test_the_objects_are_datatrees_and_no_torch_was_needed():
    assert isinstance(small(), xr.DataTree)
    assert az.__version__.startswith("1.")
    assert {"torch", "pyro"}.isdisjoint(sys.modules)


def test_leave_one_out_is_that_of_arviz():
    data = small()

    ours = loo(data)

    stored = dataset(data, "sample_stats")
    theirs = az.loo_approximate_posterior(data, stored["log_p"], stored["log_q"], pointwise=True)
    assert ours.approx_posterior
    np.testing.assert_array_equal(elpd_numbers(ours).pointwise, theirs.elpd_i.values)
    np.testing.assert_array_equal(elpd_numbers(ours).pareto_k, theirs.pareto_k.values)


def test_estimates_of_another_kind_are_refused():
    estimate = loo(small())
    estimate.scale = "deviance"

    with pytest.raises(inference_data.elpd.InvalidArgument, match="'log'"):
        elpd_numbers(estimate)


def test_zarr_brings_everything_back(tmp_path):
    data = small()

    write(data, tmp_path / "fit.zarr")

    for back in (read(tmp_path / "fit.zarr"), az.from_zarr(tmp_path / "fit.zarr")):
        xr.testing.assert_identical(back.load(), data)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_examples_of_the_documentation(path):
    name = "" if path.stem == "__init__" else f".{path.stem}"
    # The package holds functions of the names of some of its files; the files are meant.
    importlib.import_module(f"pyro_klmodes.inference_data{name}")
    module = sys.modules[f"pyro_klmodes.inference_data{name}"]

    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0
