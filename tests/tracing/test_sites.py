"""What a model is made of, and the minibatches that together see all of its data."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.sites import describe
from pyro_klmodes.tracing.visits import Piece, stitch, visits_of


def model(x, size=None, indices=None):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("penalty", -mu.square().sum(-1))
    with pyro.plate("data", len(x), subsample_size=size, subsample=indices) as rows:
        c = pyro.sample("c", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
        pyro.deterministic("twice", 2.0 * c)
        pyro.sample("x", dist.Normal(mu[..., 0], 1.0), obs=x[rows])


X = torch.arange(7.0)


def test_every_site_has_its_kind_shape_and_plates():
    sites = describe(model, (X,), {"size": 3})

    kinds = {name: site.kind for name, site in sites.items()}
    assert kinds == {
        "mu": "latent",
        "penalty": "factor",
        "c": "enumerated",
        "twice": "deterministic",
        "x": "observed",
    }
    assert sites["mu"].shape == (2,)
    assert sites["mu"].event_dim == 1
    assert (sites["x"].shape, sites["x"].batch_shape) == ((7,), (3,))
    assert sites["twice"].axes == {"data": -1}
    (plate,) = sites["x"].plates
    assert (plate.name, plate.size, plate.batch, plate.given) == ("data", 7, 3, False)


def test_looking_at_a_model_leaves_the_random_numbers_alone():
    pyro.set_rng_seed(1)
    first = torch.rand(())
    pyro.set_rng_seed(1)
    describe(model, (X,), {"size": 3})
    assert torch.rand(()) == first


def test_discrete_sites_without_values_are_enumerated_whatever_their_mark():
    def unmarked():
        pyro.sample("c", dist.Bernoulli(0.5))

    assert describe(unmarked, (), {})["c"].kind == "latent"
    assert describe(unmarked, (), {}, known=())["c"].kind == "enumerated"
    assert describe(unmarked, (), {}, known=("c",))["c"].kind == "latent"


@pytest.mark.parametrize(("size", "starts"), [(3, [0, 3, 4]), (7, [None]), (1, list(range(7)))])
def test_visits_have_the_size_the_model_wants_and_see_everything(size, starts):
    sizes, visits = visits_of(describe(model, (X,), {"size": size}))

    if starts == [None]:
        assert (sizes, visits) == ({}, [{}])
        return
    assert sizes == {"data": 7}
    assert [int(v["data"][0]) for v in visits] == starts
    assert all(len(v["data"]) == size for v in visits)
    assert {int(i) for v in visits for i in v["data"]} == set(range(7))


def test_a_minibatch_that_the_user_chose_is_refused():
    sites = describe(model, (X,), {"indices": torch.tensor([1, 5])})
    with pytest.raises(InvalidArgument, match=r"minibatch of plate 'data' \(2 of 7\): pass args="):
        visits_of(sites)


def test_sequential_minibatches_are_refused():
    def sequential():
        for i in pyro.plate("steps", 5, subsample_size=2):
            pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))

    with pytest.raises(UnsupportedStructure, match="'steps' is sequential"):
        describe(sequential, (), {})


def square(size, event_dim=None):
    with pyro.plate("data", 6, subsample_size=size):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.deterministic("outer", z[:, None] * torch.ones(2), event_dim=event_dim)


def test_the_event_of_a_deterministic_value_is_inferred_or_asked_for():
    assert describe(square, (None,), {})["outer"].axes == {"data": -2}
    with pytest.raises(UnsupportedStructure, match="event_dim="):
        visits_of(describe(square, (2,), {}))
    sizes, _ = visits_of(describe(square, (2, 1), {}))
    assert sizes == {"data": 6}


def test_pieces_of_two_crossed_plates_come_together():
    whole = torch.arange(35.0).reshape(1, 5, 7)
    parts = [
        (
            {"a": rows, "b": columns},
            Piece(whole[:, rows][:, :, columns], {"a": -2, "b": -1}),
        )
        for rows in (torch.tensor([0, 1, 2]), torch.tensor([2, 3, 4]))
        for columns in (torch.arange(0, 4), torch.arange(3, 7))
    ]
    assert torch.equal(stitch(parts, {"a": 5, "b": 7}).value, whole)
