"""Components of all starts in the same order, whatever the model's parameters look like."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from models import gaussian_mixture, hidden_markov, mixed_poisson
from models import hidden_markov_exact as exact
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.inference.em import EM, RandomStarts
from pyro_klmodes.inference.em.parameters import parameters_of
from pyro_klmodes.inference.em.symmetries import permuted

MIXTURE = {
    "full": [("weights", 0), ("locs", 0), ("scale_trils", 0)],
    "covariance": [("weights", 0), ("locs", 0), ("covariances", 0)],
    "diagonal": [("weights", 0), ("locs", 0), ("scales", 0)],
    "spherical": [("weights", 0), ("locs", 0), ("scales", 0)],
    "tied": [("weights", 0), ("locs", 0)],
}
CHAIN = [("initial", 0), ("transition", 0), ("transition", 1)]


def relabelled(first, axes, states):
    """The same parameters with their states in every order, as starts."""
    orders = [torch.tensor(order) for order in itertools.permutations(range(states))]
    one = {n: v[None] for n, v in first.items()}
    starts = [permuted(one, axes, order) for order in orders]
    return {n: torch.cat([start[n] for start in starts]) for n in first}


def check_all_alike(model, axes, first, *args, **kwargs):
    """Starts that differ by their labels only end alike but for them, and are alike afterwards."""
    starts = relabelled(first, axes, len(first[axes[0][0]]))
    result = EM(model, starts=starts, floor=1e-4).fit(*args, steps=4, **kwargs)

    before, after = result.restarts.params, result.aligned()

    best = result.restarts.best
    assert all((v - v[best]).abs().max() > 1e-2 for n, v in before.items() if n == "locs")
    assert max((v - v[best]).abs().max() for v in before.values()) > 0.1
    for value in after.values():
        expected = value[best].expand_as(value)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close({n: v[best] for n, v in after.items()}, result.params)
    (optimum,) = result.restarts.optima()
    assert len(optimum.starts) == len(starts[axes[0][0]])


@pytest.mark.parametrize("kind", MIXTURE)
def test_gaussian_mixtures(kind):
    """With as many components as measurements: other axes have the size of theirs."""
    x = gaussian_mixture.iris()[0][::2, :3]
    settings = {"components": 3, "kind": kind}
    first = parameters_of(gaussian_mixture.model, (x,), settings, ()).initial()

    check_all_alike(gaussian_mixture.model, MIXTURE[kind], first, x, **settings)


def test_mixtures_of_poissons():
    x = mixed_poisson.data()[::7]
    first = parameters_of(mixed_poisson.model, (x,), {}, ()).initial()

    check_all_alike(mixed_poisson.model, [("weights", 0), ("rates", 0)], first, x)


@pytest.mark.parametrize("emission", ["symbols", "measurements"])
def test_hidden_markov_models(emission):
    """Both axes of the transitions are permuted; as many symbols as states."""
    lengths = torch.tensor([6, 2, 6, 5])
    if emission == "symbols":
        x, _ = hidden_markov.simulate_discrete(4, 6)
        model, axes = hidden_markov.discrete_model, [*CHAIN, ("emission", 0)]
        first, states = exact.random_discrete(3, 3, starts=1), 3
    else:
        x, _ = hidden_markov.simulate_gaussian(4, 6)
        model, axes = hidden_markov.gaussian_model, [*CHAIN, ("locs", 0), ("scales", 0)]
        first, states = exact.random_gaussian(x, 2, starts=1), 2
    start = {n: v[0] for n, v in first._asdict().items()}

    check_all_alike(model, axes, start, x, lengths=lengths, states=states)


def two_latents(x, y):
    """Two mixtures that have nothing to do with each other, with as many components."""
    with pyro.plate("data", len(x)):
        for name, data in (("u", x), ("v", y)):
            weights = pyro.param(
                f"weights_{name}", torch.tensor([0.5, 0.5]), constraint=constraints.simplex
            )
            locs = pyro.param(f"locs_{name}", torch.tensor([0.0, 1.0]))
            z = pyro.sample(f"z_{name}", dist.Categorical(weights))
            pyro.sample(name, dist.Normal(locs[z], 1.0), obs=data)


def test_latents_with_labels_of_their_own_are_aligned_one_by_one():
    x = torch.tensor([-3.0, -2.0, -3.0, -3.0, 4.0, 2.0])
    y = torch.tensor([-5.0, 4.0, 6.0, 5.0, 4.0, -5.0])
    ends = torch.tensor([[-3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, -3.0]])
    starts = {"locs_u": ends, "locs_v": ends[[0, 0, 1, 1]]}

    result = EM(two_latents, starts=starts).fit(x, y, steps=20)

    for name in ("locs_u", "weights_u", "locs_v", "weights_v"):
        assert result.restarts.params[name].std(0).min() > 0.1
        assert result.aligned()[name].std(0).max() < 1e-9


def test_starts_in_different_optima_are_compared_by_what_they_say_of_the_data():
    torch.manual_seed(1)
    centres = torch.tensor([-8.0, 0.0, 8.0])
    x = (centres[:, None] + torch.randn(3, 30)).reshape(-1, 1)
    starts = {
        "locs": torch.tensor([[8.0, -8.0, 0.0], [0.0, 8.0, -8.0], [-8.5, -7.5, 4.0]])[..., None]
    }

    result = EM(gaussian_mixture.model, starts=starts).fit(x, components=3, kind="tied", steps=60)

    good, local = result.restarts.optima()
    assert set(good.starts) == {0, 1}
    assert local.starts == (2,)
    assert good.log_likelihood > local.log_likelihood + 10
    locs = result.aligned()["locs"][..., 0]
    torch.testing.assert_close(locs[0], locs[1], atol=1e-3, rtol=0)
    best = result.params["locs"][:, 0]
    # two of its components share the data at -8, one has those at 0 and at 8
    shares = result.aligned()["weights"][2]
    assert float(shares[best.argmin()]) < 0.5
    assert float(locs[2][best.argmin()]) < -7


def test_failed_starts_stay_as_they_are():
    x = torch.tensor([-1.0, -1.1, -0.9, 5.0, 5.1, 4.9])[:, None]
    first = parameters_of(gaussian_mixture.model, (x,), {"kind": "spherical"}, ()).initial()
    starts = {n: v.expand(3, *v.shape).clone() for n, v in first.items()}
    starts["locs"] = torch.tensor([[-1.0, 5.0], [1e4, -1.0], [5.0, -1.0]])[..., None]
    starts["scales"][1] = 0.1

    result = EM(gaussian_mixture.model, starts=starts).fit(x, kind="spherical", steps=30)

    assert list(result.restarts.faults) == [1]
    before, after = result.restarts.params["locs"], result.aligned()["locs"]
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    torch.testing.assert_close(after[0], after[2])
    assert [o.starts for o in result.restarts.optima()] in ([(0, 2)], [(2, 0)])


def test_a_prior_on_the_components_may_stay():
    x = torch.cat([torch.randn(20) - 3, torch.randn(20) + 3])

    def model(x):
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)

    starts = {"locs": torch.tensor([[-1.0, 1.0], [1.0, -1.0]])}
    result = EM(model, points=["locs"], starts=starts).fit(x, steps=50)

    locs = result.aligned()["locs"]
    assert (result.restarts.params["locs"][0] - result.restarts.params["locs"][1]).abs().min() > 5
    torch.testing.assert_close(locs[0], locs[1])


def ordered(x):
    """The states are told apart by constants."""
    locs = pyro.param("locs", torch.zeros(2))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.8])))
        pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def test_states_that_are_not_exchangeable_are_refused():
    result = EM(ordered, starts=RandomStarts(3)).fit(torch.randn(10), steps=3)
    with pytest.raises(UnsupportedStructure, match="the states of 'z' are told apart by something"):
        result.aligned()


def test_too_many_axes_are_refused():
    def model(x):
        loc = pyro.param("loc", torch.zeros((2,) * 13))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(loc[z].reshape(*z.shape, -1).sum(-1), 1.0), obs=x)

    result = EM(model).fit(torch.randn(4), steps=1)
    with pytest.raises(UnsupportedStructure, match="13 axes of size 2, too many"):
        result.aligned()


def test_a_model_without_discrete_latents_is_refused():
    def model(x):
        pyro.sample(
            "x",
            dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0).expand([5]).to_event(1),
            obs=x,
        )

    result = EM(model).fit(torch.randn(5), steps=3)
    with pytest.raises(UnsupportedStructure, match="no discrete latent"):
        result.aligned()
    with pytest.raises(InvalidArgument, match="tolerance=-1"):
        result.restarts.optima(-1)


def test_nothing_is_left_behind():
    x = gaussian_mixture.old_faithful_data()[:30]
    result = EM(gaussian_mixture.model, starts=RandomStarts(2)).fit(x, steps=2)
    torch.manual_seed(5)
    expected = torch.rand(3)

    torch.manual_seed(5)
    result.aligned()

    torch.testing.assert_close(torch.rand(3), expected)
    assert len(pyro.get_param_store()) == 0
