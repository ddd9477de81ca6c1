"""ArviZ inference data: groups, names of axes, files, intervals and densities."""

import os
import subprocess
import sys

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


def test_one_chain_of_draws_with_log_weights_summed_over_cells():
    log_p = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    log_q = torch.tensor([[0.5, 0.5], [1.0, 1.0], [2.0, 3.0]])
    values = {"z": torch.arange(6.0).reshape(3, 2)}

    data = inference_data.from_draws(values, log_p, log_q)

    assert data.posterior["z"].dims == ("chain", "draw", "z_dim_0")
    np.testing.assert_array_equal(data.posterior["z"].values, values["z"].numpy()[None])
    statistics = data.sample_stats
    np.testing.assert_array_equal(statistics["log_p"].values, [[3.0, 7.0, 11.0]])
    np.testing.assert_array_equal(statistics["log_q"].values, [[1.0, 2.0, 5.0]])
    np.testing.assert_array_equal(statistics["log_weight"].values, [[2.0, 5.0, 6.0]])


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
    with pytest.raises(ValueError, match="2"):
        inference_data.from_draws(
            {"z": torch.zeros(5, 2, 3)},
            torch.zeros(5),
            torch.zeros(5),
            dimensions={"z": ("only_one",)},
        )


def test_a_file_brings_everything_back(tmp_path):
    values, log_p, log_q = drawn(7), torch.randn(7), torch.randn(7)
    attributes = {
        "loss": "forward_kl",
        "seed": 3,
        "k_hat": 0.25,
        "log_evidence": None,
        "versions": {"torch": "2"},
    }
    data = inference_data.from_draws(
        values, log_p, log_q, dimensions={"theta": ("school",)}, attributes=attributes
    )

    inference_data.write(data, tmp_path / "fit.nc")
    back = inference_data.read(tmp_path / "fit.nc")

    for site, value in values.items():
        np.testing.assert_array_equal(back.posterior[site].values, value.numpy()[None])
    assert back.posterior["theta"].dims == ("chain", "draw", "school")
    np.testing.assert_array_equal(
        back.sample_stats["log_weight"].values, (log_p - log_q).numpy()[None]
    )
    expected = {
        "loss": "forward_kl",
        "seed": 3,
        "k_hat": 0.25,
        "log_evidence": "",
        "versions": '{"torch": "2"}',
    }
    assert {name: back.attrs[name] for name in expected} == expected
    assert {name: back.posterior.attrs[name] for name in expected} == expected


def test_intervals_hold_the_densest_draws():
    # A hundred draws close together and as many far apart: half of them lie within [0, 1].
    dense, sparse = torch.linspace(0.0, 1.0, 101), torch.linspace(1.5, 150.0, 100)
    data = inference_data.from_draws(
        {"z": torch.cat([dense, sparse])}, torch.zeros(201), torch.zeros(201)
    )

    low, high = inference_data.highest_density_intervals(data, 0.5)["z"]

    assert low == pytest.approx(0.0, abs=0.011)  # one step of the dense draws
    assert high == pytest.approx(1.0, abs=0.011)


def test_density_of_a_normal_sample():
    # Quantiles instead of random draws: what is left is the smoothing of the kernel estimate. A
    # bandwidth h widens the normal to variance 1 + h^2, which lowers the mode by about h^2 / 2.
    levels = (torch.arange(4000) + 0.5) / 4000
    draws = dist.Normal(0.0, 1.0).icdf(levels).numpy()

    grid, density = inference_data.density_curve(draws)

    exact = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    assert np.abs(density - exact).max() < 0.03
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.01)


def test_density_of_a_sample_narrower_than_float32_can_resolve():
    draws = np.float32(1.0) + np.arange(-3, 4).repeat(100).astype(np.float32) * np.float32(2**-23)

    grid, density = inference_data.density_curve(draws)

    assert np.abs(grid - 1.0).max() < 1e-5
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.05)


def test_draws_come_back_site_by_site():
    values = drawn(6)
    data = inference_data.from_draws(values, torch.zeros(6), torch.zeros(6))

    draws = inference_data.site_draws(data)

    assert list(draws) == ["mu", "theta", "shape"]
    for site, value in values.items():
        np.testing.assert_array_equal(draws[site], value.numpy())


def test_importing_is_silent_where_warnings_are_errors(tmp_path):
    # With an empty cache folder ArviZ makes its announcement of the day.
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import pyro_klmodes.inference_data"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
