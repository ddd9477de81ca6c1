"""Where the data are found: arguments, observed sites, minibatches; and what is refused."""

import functools
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

import pyro_klmodes as kl
from pyro_klmodes.errors import InvalidArgument, NotDefined, UnsupportedStructure
from pyro_klmodes.guides.amortized import MLP, AutoAmortized, FullNormal
from tests.guides.amortized.cases import LINEAR, MEAN, SD, exact, normal_normal

X = torch.linspace(-3.0, 3.0, 20, dtype=torch.float64)
IDX = torch.tensor([7, 2, 19])


def local(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def like_exact(guide, *args, **kwargs):
    """The guide with the parameters of the exact posteriors, if x is what it is fed."""
    guide(*args, **kwargs)
    guide.load_state_dict(exact(X).state_dict())
    return guide


def assert_fed(model, args, kwargs=None, **options):
    """The guide is fed with X."""
    kwargs = kwargs or {}
    guide = like_exact(AutoAmortized(model, encoder=LINEAR, **options), *args, **kwargs)
    torch.testing.assert_close(guide.median(*args, **kwargs)["z"], MEAN * X)
    return guide


# -- arguments -------------------------------------------------------------------------------------


def two_arguments(first, x=None):
    local(x)


@pytest.mark.parametrize("data", [1, "x"])
@pytest.mark.parametrize("by_name", [False, True])
def test_an_argument_by_position_or_name_however_it_is_passed(data, by_name):
    guide = assert_fed(two_arguments, (3, X), data=data)
    args, kwargs = ((3,), {"x": X}) if by_name else ((3, X), {})
    torch.testing.assert_close(guide.median(*args, **kwargs)["z"], MEAN * X)


def test_a_keyword_that_the_signature_does_not_tell_of():
    def model(*args, **kwargs):
        local(kwargs["x"])

    assert_fed(model, (), {"x": X}, data="x")


class Module(nn.Module):
    def forward(self, scale, x):
        local(x)


class PyroOne(PyroModule):
    def forward(self, scale, x):
        local(x)


class Bound:
    def model(self, scale, x):
        local(x)


@pytest.mark.parametrize(
    "model",
    [
        Module(),
        PyroOne(),
        Bound().model,
        functools.partial(two_arguments),
        poutine.scale(two_arguments, 2.0),
        poutine.block(two_arguments, hide=["nothing"]),
    ],
    ids=["module", "pyro_module", "method", "partial", "scaled", "blocked"],
)
def test_names_of_arguments_are_those_of_the_function_inside(model):
    assert_fed(model, (1.0, X), data="x")


def test_an_argument_needs_no_observation():
    def model(context):
        with pyro.plate("data", len(context)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    assert_fed(model, (X,), data=0)


# -- observed sites --------------------------------------------------------------------------------


def test_the_only_observed_site_is_found_and_taken_from_its_argument():
    guide = assert_fed(local, (X,))
    assert guide._source.position == 0


def test_the_argument_of_an_observed_site_may_be_inside_of_another():
    def model(batch, more=None):
        local(batch["inputs"][0])

    guide = assert_fed(model, ({"inputs": (X,)},))
    assert guide._source.path == ("inputs", 0)
    pickled = pickle.loads(pickle.dumps(assert_fed(model, ({"inputs": (X,)},), data="x")))
    torch.testing.assert_close(pickled.median({"inputs": (X,)})["z"], MEAN * X)


@pytest.mark.parametrize("kwargs", [{"size": 5}, {"idx": IDX}])
def test_the_argument_of_a_minibatch_is_found_by_its_rows(kwargs):
    guide = AutoAmortized(normal_normal, data="x")
    guide(X, **kwargs)
    assert (guide._source.position, guide._source.name) == (0, "x")


def test_of_an_argument_passed_by_name():
    def model(*, y):
        local(y)

    guide = assert_fed(model, (), {"y": X})
    assert (guide._source.position, guide._source.name) == (None, "y")


def doubled(x, size=None, idx=None):
    """Observes what is no argument."""
    with pyro.plate("data", len(x), size, idx) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=2 * x[i])
        pyro.factor("later", -(z**2))


def test_data_that_are_no_argument_are_read_by_running_the_model():
    guide = assert_fed(doubled, (X / 2,))
    assert guide._source.site == "x"

    def closed_over():
        local(X)

    assert_fed(closed_over, ())


@pytest.mark.parametrize("kwargs", [{"size": 5}, {"idx": IDX}])
def test_data_read_by_running_the_model_are_those_of_the_guides_minibatch(kwargs):
    guide = like_exact(AutoAmortized(doubled, encoder=LINEAR), X / 2, **kwargs)
    trace = poutine.trace(guide).get_trace(X / 2, **kwargs)
    index, z = trace.nodes["data"]["value"], trace.nodes["z"]
    expected = dist.Normal(MEAN * X[index], SD).log_prob(z["value"])
    torch.testing.assert_close(z["fn"].log_prob(z["value"]), expected)
    assert kl.ReverseKL(4).loss_and_grads(doubled, guide, X / 2, **kwargs) > 0


def test_reading_by_running_needs_the_model_and_all_data():
    guide = like_exact(AutoAmortized(doubled, encoder=LINEAR), X / 2, size=5)
    with pytest.raises(NotDefined, match="observed site 'x' observes a minibatch of plate 'data'"):
        guide.median(X / 2, size=5)
    torch.testing.assert_close(guide.median(X / 2)["z"], MEAN * X)
    restored = pickle.loads(pickle.dumps(guide))
    with pytest.raises(NotDefined, match="a guide that has been pickled has none"):
        restored(X / 2, size=5)


def test_a_site_observed_by_a_handler():
    def model():
        with pyro.plate("data", 20):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5))

    assert_fed(poutine.condition(model, {"x": X}), ())


def test_deterministic_sites_and_factors_are_no_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.factor("f", -(z**2))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    assert_fed(model, (X,))


# -- refused ---------------------------------------------------------------------------------------


def two_sites(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def no_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def data_in_another_plate(x):
    with pyro.plate("weights", 3):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w.sum(), 0.5), obs=x)


def crossed(x):
    rows, columns = pyro.plate("rows", 4, dim=-2), pyro.plate("columns", 5, dim=-1)
    with rows:
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
    with columns:
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
    with rows, columns:
        pyro.sample("x", dist.Normal(u + v, 0.5), obs=x)


@pytest.mark.parametrize(
    ("model", "args", "options", "error", "message"),
    [
        (two_sites, (X, X), {}, InvalidArgument, r"several observed sites .*'x', 'y'.*data="),
        (local, (X,), {"data": "w"}, InvalidArgument, r"data='w' .* Arguments: 'x'; .*sites: 'x'"),
        (local, (X,), {"data": 1}, InvalidArgument, "argument 1 feeds the encoder .* missing"),
        (two_arguments, (3, X), {"data": 0}, InvalidArgument, "'first' .*a tensor, but is int"),
        (no_plate, (X,), {}, InvalidArgument, "no observed site shares a plate"),
        (no_plate, (X,), {"data": "x"}, UnsupportedStructure, "no latent site is in a plate.*'z'"),
        (data_in_another_plate, (X,), {}, InvalidArgument, "no observed site shares a plate"),
        (
            data_in_another_plate,
            (X,),
            {"data": 0},
            InvalidArgument,
            "argument 'x' has 20 rows along plate 'weights', which has size 3",
        ),
        (
            crossed,
            (torch.randn(4, 5),),
            {},
            InvalidArgument,
            r"not clear which plate .*'u' in plate 'rows'; 'v' in plate 'columns'.*plate=",
        ),
        (local, (X,), {"plate": "rows"}, InvalidArgument, "plate='rows' is no plate .*'data'"),
        (
            crossed,
            (torch.randn(4, 5),),
            {"plate": ("rows", "columns")},
            UnsupportedStructure,
            "no latent site is in plates",
        ),
        (
            two_arguments,
            (torch.zeros(()), X),
            {"data": 0},
            InvalidArgument,
            "'first' has shape .*needs an axis for plate 'data'",
        ),
        (two_arguments, (X[:6], X), {"data": 0}, InvalidArgument, "6 rows along plate 'data'"),
        (
            local,
            (torch.cat([X, X.new_tensor([torch.nan])]),),
            {},
            InvalidArgument,
            "observed site 'x' holds NaN",
        ),
        (local, (X,), {"encoder": nn.Flatten(0)}, InvalidArgument, "the encoder made"),
    ],
)
def test_what_cannot_be_fed_to_the_encoder_is_refused_every_time(
    model, args, options, error, message
):
    guide = AutoAmortized(model, **options)
    for _ in range(2):
        with pytest.raises(error, match=message), pyro.validation_enabled(is_validate=False):
            guide(*args)


def test_which_plate_can_be_told_by_name():
    x = torch.randn(4, 5)
    guide = AutoAmortized(crossed, plate="columns")
    assert {n: tuple(v.shape) for n, v in guide(x).items()} == {"u": (4, 1), "v": (5,)}
    assert list(guide.sites) == ["v"]
    assert guide._rows(guide._source.whole(guide._call((x,), {}))).shape == (5, 4)


def test_which_plate_can_be_told_by_size():
    def model(x):
        with pyro.plate("weights", 3):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + w.sum(), 0.5), obs=x)

    guide = AutoAmortized(model, data=0)
    assert {n: tuple(v.shape) for n, v in guide(X).items()} == {"w": (3,), "z": (20,)}
    assert list(guide.sites) == ["z"]


def test_data_of_another_shape_than_the_first_are_refused():
    guide = AutoAmortized(two_arguments, data=0)
    guide(torch.randn(20, 3), X)
    with pytest.raises(InvalidArgument, match=r"shape \(4,\); the encoder was set up for \(3,\)"):
        guide(torch.randn(20, 4), X)
    with pytest.raises(InvalidArgument, match="has 7 rows along plate 'data', which has size 20"):
        guide(torch.randn(7, 3), X)


def test_rows_of_neither_size_are_refused_with_both():
    def model(context, x):
        with pyro.plate("data", 20, subsample_size=5):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    guide = AutoAmortized(model, data=0)
    with pytest.raises(InvalidArgument, match="6 rows .*size 20 and minibatches of 5"):
        guide(X[:6], X)
    assert tuple(guide(X, X)["z"].shape) == (5,)
    assert tuple(guide(X[:5], X)["z"].shape) == (5,)


def test_a_minibatch_of_another_plate_is_refused():
    def model(x):
        times, data = pyro.plate("times", 8, 4, dim=-2), pyro.plate("data", 20, dim=-1)
        with times as i, data:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[i])

    x = torch.randn(8, 20)
    with pytest.raises(UnsupportedStructure, match="'z' is in subsampled plate 'times'"):
        AutoAmortized(model, plate="data")(x)
    assert tuple(AutoAmortized(model)(x)["z"].shape) == (4, 20)


def test_only_plates_of_the_data_may_change_their_size():
    def model(x):
        times = pyro.plate("times", len(x), dim=-2)
        with times, pyro.plate("data", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    guide = AutoAmortized(model, plate="data")
    assert tuple(guide(torch.randn(3, 20))["z"].shape) == (3, 20)
    assert tuple(guide(torch.randn(3, 9))["z"].shape) == (3, 9)
    with pytest.raises(UnsupportedStructure, match="'times' has 4 elements .* set up with 3"):
        guide(torch.randn(4, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 1.5}, "data=1.5"),
        ({"data": True}, "data=True"),
        ({"data": -1}, "position from 0"),
        ({"encoder": "mlp"}, "encoder='mlp' must be MLP"),
        ({"encoder": MLP}, "must be MLP"),
        ({"family": FullNormal}, "family=.*must be DiagonalNormal"),
        ({"family": dist.Normal}, "must be DiagonalNormal"),
        ({"global_guide": 3}, "global_guide=3 must make a guide"),
        ({"init_scale": 0.0}, "init_scale"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(InvalidArgument, match=message):
        AutoAmortized(local, **options)


def test_a_global_guide_must_be_a_guide():
    def model(x):
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        local(x)

    with pytest.raises(InvalidArgument, match="global_guide made None; .*'mu'"):
        AutoAmortized(model, global_guide=lambda m: None)(X)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (dist.Bernoulli(0.5), "continuous latents.*'z'"),
        (dist.ProjectedNormal(torch.ones(3)), "'z' has the support"),
    ],
)
def test_local_latents_must_be_continuous_with_a_transform(site, message):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", site)
            pyro.sample("x", dist.Normal(0.0, 0.5), obs=x)

    with pytest.raises(UnsupportedStructure, match=message):
        AutoAmortized(model)(X)
