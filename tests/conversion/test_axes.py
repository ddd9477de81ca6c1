"""Names of axes: the user's, the plates', numbers; clashes are renamed or refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import dataset


def named(plate, size, site="z"):
    """A model of one site in a plate of this name, and its prior as guide."""

    def model(labels):
        with pyro.plate(plate, size):
            pyro.sample(site, dist.Normal(torch.zeros(()), 1.0))

    return (model, model)


def dims_of(pair, **options):
    data = to_arviz(pair, args=(torch.zeros(3),), num_samples=3, **options)
    return dataset(data, "posterior")["z"].dims[2:]


@pytest.mark.parametrize("plate", ["draw", "chain", "labels"])
def test_plates_named_like_arguments_or_axes_of_draws_get_another_name(plate):
    assert dims_of(named(plate, 3)) == (f"{plate}_dim",)


def test_labels_for_a_plate_find_it_under_its_new_name():
    data = to_arviz(named("draw", 3), args=(None,), num_samples=3, coords={"draw": list("abc")})
    assert dataset(data, "posterior").coords["draw_dim"].values.tolist() == ["a", "b", "c"]


def test_a_name_that_stands_for_another_size_already_is_not_used_twice():
    def model():
        with pyro.plate("w_dim_0", 3):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    posterior = dataset(to_arviz((model, model), num_samples=3), "posterior")
    assert posterior["z"].dims[2:] == ("w_dim_0",)
    assert posterior["w"].dims[2:] == ("w_dim_0_",)


def test_numbers_give_way_to_variables_of_that_name():
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("z_dim_0", dist.Normal(torch.zeros(()), 1.0))

    data = to_arviz((model, model), num_samples=3)
    assert dataset(data, "posterior")["z"].dims[2:] == ("z_dim_0_",)


@pytest.mark.parametrize("site", ["draw", "chain"])
def test_sites_named_like_axes_of_draws_are_refused(site):
    with pytest.raises(InvalidArgument, match=f"'{site}' is the name of a site"):
        dims_of(named("p", 3, site=site))


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        mean = (w * x).sum(-1)
        fn = dist.Normal(mean.unsqueeze(-1), torch.ones(2)).to_event(1)
        pyro.sample("y", fn, obs=y)


def regression_data(**options):
    def guide(x, y):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    args = (torch.ones(3, 2), torch.zeros(3, 2))
    return to_arviz((regression, guide), args=args, num_samples=3, **options)


def test_the_users_names_reach_all_groups():
    data = regression_data(
        dims={"w": ["predictor"], "x": ["data", "predictor"], "y": ["data", "output"]},
        coords={"predictor": ["slope", "intercept"]},
    )
    assert dataset(data, "posterior")["w"].dims[2:] == ("predictor",)
    assert dataset(data, "constant_data")["x"].dims == ("data", "predictor")
    assert dataset(data, "posterior_predictive")["y"].dims[2:] == ("data", "output")
    assert dataset(data, "log_likelihood")["y"].dims[2:] == ("data",)
    assert dataset(data, "observed_data")["y"].dims == ("data", "output")
    labels = dataset(data, "constant_data").coords["predictor"].values.tolist()
    assert labels == ["slope", "intercept"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dims": {"v": ["a"]}}, "dims name 'v', which is no variable"),
        ({"dims": {"w": ["a", "b"]}}, r"dims give 'w' 2 names.* 1 axes"),
        ({"dims": {"w": "predictor"}}, r"dims\['w'\] must be a sequence"),
        ({"dims": {"x": ["a", "a"]}}, "names two axes alike"),
        ({"dims": {"w": ["y"]}}, "name 'y', which a variable"),
        ({"dims": {"w": ["draw"]}}, "name 'draw', which a variable"),
        ({"dims": {"x": ["k", "j"], "w": ["k"]}}, "'k' to an axis of"),
        ({"dims": {"w": ["data"]}}, None),
        ({"coords": {"nothing": [1]}}, "coords label 'nothing', which is no axis"),
        ({"coords": {"data": [1, 2]}}, "coords give 2 labels for 'data', which has 3"),
    ],
)
def test_names_that_do_not_fit_are_refused(options, match):
    if match is None:  # the user's name wins, the plate of another size gives way
        data = regression_data(**options)
        assert dataset(data, "posterior")["w"].dims[2:] == ("data",)
        assert dataset(data, "log_likelihood")["y"].dims[2:] == ("y_dim_0",)
        return
    with pytest.raises(InvalidArgument, match=match):
        regression_data(**options)
