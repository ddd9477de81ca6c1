"""Where the data of observed sites are found among the arguments, and what is written there."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.binding import find_slots, rebound
from pyro_klmodes.tracing.observed import observed_sites, parameter_names


def bound(model, data, *args, bind=None, **kwargs):
    """The arguments of the model with other data."""
    observed = observed_sites(model, args, kwargs)
    slots = find_slots(observed, args, kwargs, bind or {}, parameter_names(model))
    return rebound(args, kwargs, slots, data)


def plain(x, covariates=None):
    pyro.sample("x", dist.Normal(torch.zeros(x.shape), 1.0).to_event(x.dim()), obs=x)


def test_the_very_tensor_wherever_it_is():
    x, new = torch.arange(3.0), torch.tensor([7.0, 8.0, 9.0])

    def inside(batch, *, extra):
        plain(batch["images"][0])

    args, kwargs = bound(plain, {"x": new}, x, covariates=torch.zeros(3))
    torch.testing.assert_close(args[0], new)
    torch.testing.assert_close(kwargs["covariates"], torch.zeros(3))
    args, kwargs = bound(inside, {"x": new}, {"images": [x, 1], "n": 2}, extra=5)
    torch.testing.assert_close(args[0]["images"][0], new)
    assert (args[0]["images"][1], args[0]["n"], kwargs["extra"]) == (1, 2, 5)
    torch.testing.assert_close(x, torch.arange(3.0))  # nothing is changed in place


def slices(x):
    for t in range(x.shape[1]):
        pyro.sample(f"x_{t}", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2), obs=x[:, t])


def test_views_of_an_argument_are_written_into_a_copy():
    x = torch.zeros(2, 4, 3)
    data = {f"x_{t}": torch.full((2, 3), float(t)) for t in range(4)}
    args, _ = bound(slices, data, x)
    for t in range(4):
        assert bool((args[0][:, t] == t).all())
    assert bool((x == 0).all())


def test_a_reshaped_and_a_transposed_argument():
    x = torch.arange(12.0).reshape(3, 4)
    new = torch.arange(100.0, 112.0)
    flat, turned = lambda x: plain(x.reshape(12)), lambda x: plain(x.T)

    args, _ = bound(flat, {"x": new}, x)
    torch.testing.assert_close(args[0], new.reshape(3, 4))
    args, _ = bound(turned, {"x": new.reshape(4, 3)}, x)
    torch.testing.assert_close(args[0], new.reshape(4, 3).T)


def test_a_view_of_a_slice_of_a_larger_tensor():
    """The argument is itself a view: only its own elements are copied and written."""
    whole = torch.arange(20.0)
    x = whole[5:11]
    args, _ = bound(lambda x: plain(x[2:4]), {"x": torch.tensor([-1.0, -2.0])}, x)
    torch.testing.assert_close(args[0], torch.tensor([5.0, 6.0, -1.0, -2.0, 9.0, 10.0]))
    torch.testing.assert_close(whole, torch.arange(20.0))


def test_rows_of_a_minibatch_by_two_plates():
    x = torch.arange(20.0).reshape(4, 5)

    def minibatch(x):
        rows = pyro.plate("rows", 4, subsample=torch.tensor([3, 1]), dim=-2)
        columns = pyro.plate("columns", 5, subsample=torch.tensor([0, 4, 2]), dim=-1)
        with rows as i, columns as j:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[i][:, j])

    new = -torch.arange(1.0, 7.0).reshape(2, 3)
    args, _ = bound(minibatch, {"x": new}, x)
    expected = x.clone()
    expected[[[3], [1]], [[0, 4, 2]]] = new
    torch.testing.assert_close(args[0], expected)


def test_one_event_axis_after_the_rows():
    x = torch.randn(4, 3)

    def minibatch(x):
        with pyro.plate("data", 4, subsample=torch.tensor([2, 0])) as i:
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x[i])

    new = torch.ones(2, 3)
    args, _ = bound(minibatch, {"x": new}, x)
    torch.testing.assert_close(args[0][[2, 0]], new)
    torch.testing.assert_close(args[0][[1, 3]], x[[1, 3]])


def test_a_transformed_argument_is_bound_by_name_and_takes_its_shape_and_type():
    def scaled(pixels):
        plain(pixels.flatten().double() / 2)

    new = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    pixels = torch.zeros(2, 2, dtype=torch.float32)
    assert find_slots(observed_sites(scaled, (pixels,), {}), (pixels,), {}, {}, ["pixels"]) == {
        "x": ()
    }
    for place in (0, "pixels"):
        args, _ = bound(scaled, {"x": new}, pixels, bind={"x": place})
        torch.testing.assert_close(args[0], new.reshape(2, 2).float())


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ({"y": 0}, "'y' is not an observed site; there are \\['x'\\]"),
        ({"x": 3}, "argument 3, which is not passed"),
        ({"x": "covariates"}, "argument 'covariates', which is not passed"),
        ({"x": 1}, "argument 1, which is no tensor but str"),
        ({"x": 2}, r"shape \(3,\), which does not fit into argument 2 of shape \(5,\)"),
    ],
)
def test_what_cannot_be_bound(bind, message):
    def model(x, label, other):
        plain(x)

    with pytest.raises(InvalidArgument, match=message):
        bound(model, {}, torch.zeros(3), "a", torch.zeros(5), bind=bind)


def test_several_arguments_with_the_same_numbers_have_to_be_told_apart():
    def model(x, y):
        plain(x + 0)

    with pytest.raises(InvalidArgument, match="several arguments hold the numbers that site 'x'"):
        bound(model, {}, torch.zeros(3), torch.zeros(3))
