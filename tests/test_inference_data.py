"""Inference data from Pyro: tensors, names of plates; and ArviZ that is absent or unknown.

What needs numpy alone is tested in tests/inference_data, with every version of ArviZ.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_klmodes import inference_data


def schools():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("school", 3):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0).expand([3]))
        pyro.sample("shape", dist.Dirichlet(torch.ones(3, 2)))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=torch.zeros(3))


def drawn(num_draws):
    return {
        "mu": torch.randn(num_draws),
        "theta": torch.randn(num_draws, 3),
        "shape": torch.rand(num_draws, 3, 2),
    }


def test_tensors_become_one_chain_of_draws_even_with_gradients():
    values = {name: value.requires_grad_() for name, value in drawn(5).items()}
    log_p, log_q = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2)

    data = inference_data.from_draws(values, log_p, log_q, dimensions={"theta": ("school",)})

    assert data.posterior["theta"].dims == ("chain", "draw", "school")
    for site, value in values.items():
        np.testing.assert_array_equal(data.posterior[site].values, value.detach().numpy()[None])
    np.testing.assert_array_equal(
        data.sample_stats["log_weight"].values,
        (log_p.sum(1) - log_q.sum(1)).detach().numpy()[None],
    )


def test_tensors_of_chains():
    values = {"theta": torch.randn(2, 5, 3)}
    diverging = torch.tensor([[False] * 5, [True] * 5])

    data = inference_data.from_chains(values, {"diverging": diverging})

    np.testing.assert_array_equal(data.posterior["theta"].values, values["theta"].numpy())
    np.testing.assert_array_equal(data.sample_stats["diverging"].values, diverging.numpy())


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoMultivariateNormal])
def test_axes_are_named_by_their_plates(guide_class):
    guide = guide_class(schools)
    guide()

    dimensions = inference_data.site_dimensions(guide, drawn(5))

    assert dimensions == {"mu": (), "theta": ("school",), "shape": ("school", "shape_dim_1")}


def test_axes_of_a_hand_written_guide_are_numbered():
    def guide():
        pyro.sample("theta", dist.Normal(0.0, 1.0).expand([3]).to_event(1))

    dimensions = inference_data.site_dimensions(guide, {"theta": torch.zeros(5, 3)})

    assert dimensions == {"theta": ("theta_dim_0",)}


def test_a_plate_named_like_a_site_or_like_a_sample_axis_does_not_name_an_axis():
    def model():
        with pyro.plate("z", 2), pyro.plate("draw", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([4, 2]))

    guide = AutoNormal(model)
    guide()
    values = {"z": torch.zeros(5, 4, 2)}

    dimensions = inference_data.site_dimensions(guide, values)
    data = inference_data.from_draws(values, torch.zeros(5), torch.zeros(5), dimensions=dimensions)

    assert data.posterior["z"].dims == ("chain", "draw", "z_dim_0", "z_dim_1")


def test_a_wrong_number_of_axis_names_is_refused():
    with pytest.raises(ValueError, match="dims name 1"):
        inference_data.from_draws(
            {"z": torch.zeros(5, 2, 3)},
            torch.zeros(5),
            torch.zeros(5),
            dimensions={"z": ("only_one",)},
        )


#: first as if ArviZ were not installed, then as if it had been installed meanwhile
IMPORTING = """
import sys, traceback
sys.modules["arviz"] = None
import pyro_klmodes
print("imported")
try:
    import pyro_klmodes.inference_data
except ImportError:
    traceback.print_exc(file=sys.stdout)
print("now with ArviZ")
del sys.modules["arviz"]
import pyro_klmodes.inference_data
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What a fresh process does that imports the package; warnings are errors there."""
    # With an empty cache folder ArviZ makes its announcement of the day.
    empty = tmp_path_factory.mktemp("cache")
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTING],
        env={**os.environ, "XDG_CACHE_HOME": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_is_silent_where_warnings_are_errors(imported):
    assert (imported.returncode, imported.stderr) == (0, "")
    assert imported.stdout.endswith("now with ArviZ\n")


def test_the_package_is_imported_without_arviz_and_the_layer_says_what_to_install(imported):
    without, _ = imported.stdout.split("now with ArviZ\n")

    assert without.startswith("imported\n")
    assert "ImportError: inference data needs ArviZ" in without
    assert "pip install 'arviz>=0.22,<2'" in without


@pytest.mark.parametrize("version", ["2.0.0", "0.21.0", "unknown"])
def test_a_version_of_arviz_nobody_has_tried_is_named(version, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__=version))
    layer = Path(inference_data.__file__).parent / "versions.py"

    with pytest.raises(ImportError, match=f"^ArviZ {version} is installed") as raised:
        runpy.run_path(str(layer))

    assert "pip install 'arviz>=0.22,<2'" in str(raised.value)
