"""Every model under models/ becomes inference data with its plates as axes."""

import numpy as np
import pytest
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.inference_data import dataset, group_names
from tests.problems import FACTORIES

COUNT = 30
# axes of every variable that has any; sites and arguments without are numbers
AXES = {
    "eight_schools": {
        "theta": {"schools": 8},
        "y": {"schools": 8},
        "standard_error": {"standard_error_dim_0": 8},
    },
    "eight_schools_non_centred": {
        "theta": {"schools": 8},
        "theta_t": {"schools": 8},
        "y": {"schools": 8},
        "standard_error": {"standard_error_dim_0": 8},
    },
    "bimodal": {},
    "bimodal_mixture": {},
    "conjugate_normal": {"z": {"data": 20}, "x": {"data": 20}, "khat": {"data": 20}},
    "hierarchical_normal": {"z": {"data": 20}, "x": {"data": 20}},
    "gaussian_pair": {"z": {"z_dim_0": 2}},
    "noisy_or": {"finding": {"findings": 5}},
    "mixture_small": {
        "mu": {"mu_dim_0": 2},
        "assignment": {"data": 8},
        "x": {"data": 8},
        "assignment_probabilities": {"data": 8, "assignment_state": 2},
    },
    "funnel": {"x": {"locals": 9}},
    "banana": {},
    "banana_strong": {},
    "eight_modes": {"z": {"z_dim_0": 2}},
    "student_t": {"x": {"x_dim_0": 5}},
    "cauchy": {"x": {"x_dim_0": 5}},
    "tail_nuisance": {"x": {"x_dim_0": 4}},
    "correlated_gaussian": {"z": {"z_dim_0": 10}},
    "hierarchical_radon": {
        "alpha": {"counties": 85},
        "y": {"houses": 891},
        "county": {"county_dim_0": 891},
        "floor": {"floor_dim_0": 891},
        "uranium": {"uranium_dim_0": 85},
    },
    "logistic_regression": {
        "coefficients": {"coefficients_dim_0": 31},
        "y": {"data": 569},
        "x": {"x_dim_0": 569, "x_dim_1": 31},
    },
    "linear_vae": {
        "z": {"data": 40, "z_dim_1": 6},
        "x": {"data": 40, "x_dim_1": 8},
        "khat": {"data": 40},
    },
    "linear_deep_markov": {
        **{f"z_{t}": {"sequences": 8, f"z_{t}_dim_1": 2} for t in range(1, 6)},
        **{f"x_{t}": {"sequences": 8, f"x_{t}_dim_1": 3} for t in range(1, 6)},
        "x": {"x_dim_0": 8, "x_dim_1": 5, "x_dim_2": 3},
        "lengths": {"lengths_dim_0": 8},
        "khat": {"sequences": 8},
    },
}


def guide_of(problem):
    if problem.exact_guide is not None:
        return problem.exact_guide
    return AutoNormal(poutine.block(problem.model, hide=list(problem.summed_out)))


@pytest.mark.parametrize("name", FACTORIES)
def test_axes_and_coordinates(name):
    problem = FACTORIES[name]()
    pair = (problem.model, guide_of(problem))
    wanted = {dim: size for axes in AXES[name].values() for dim, size in axes.items()}
    coords = {dim: [f"{dim} {i}" for i in range(size)] for dim, size in wanted.items()}

    data = to_arviz(
        pair, args=problem.args, kwargs=problem.kwargs, num_samples=COUNT, coords=coords
    )

    found = {}
    for group in group_names(data):
        held = dataset(data, group)
        for variable, array in held.data_vars.items():
            sizes = {d: n for d, n in array.sizes.items() if d not in ("chain", "draw")}
            if group == "log_likelihood":  # one number per event
                assert sizes.items() <= AXES[name].get(variable, {}).items()
            elif sizes:
                assert found.setdefault(variable, sizes) == sizes
            for dim in sizes:
                assert held.coords[dim].values.tolist() == coords[dim]
            if group not in ("observed_data", "constant_data"):
                assert (array.sizes["chain"], array.sizes["draw"]) == (1, COUNT)
                assert np.isfinite(array.values).all()
    assert found == AXES[name]
    if problem.exact_guide is not None and problem.log_evidence is not None:
        weight = dataset(data, "sample_stats")["log_weight"].values
        np.testing.assert_allclose(weight, problem.log_evidence, rtol=1e-6, atol=1e-6)
