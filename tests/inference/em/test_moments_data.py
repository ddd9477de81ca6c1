"""Closed-form M-steps against formulas in numpy; data in parts, masked, far from zero, too few."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import constraints

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments import ClosedForm, products
from tests.inference.em import models_by_hand as models
from tests.inference.em.models_by_hand import component, covariance, positive, simplex
from tests.inference.em.runs_by_hand import parameters_by_hand, random_factors, run_of

R = 3


def mixture(x, components=3, *, full=False):
    size = x.shape[1]
    weights = pyro.param(
        "weights", torch.ones(components) / components, constraint=constraints.simplex
    )
    loc = pyro.param("loc", torch.zeros(components, size))
    if full:
        eye = torch.eye(size).expand(components, size, size).clone()
        matrix = pyro.param("matrix", eye, constraint=constraints.positive_definite)
    else:
        scale = pyro.param("scale", torch.ones(components, size), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = component(weights)
        fn = (
            dist.MultivariateNormal(loc[z], matrix[z])
            if full
            else dist.Normal(loc[z], scale[z]).to_event(1)
        )
        pyro.sample("x", fn, obs=x)


def prepared(model, *args, points=(), floor=0.0):
    pyro.clear_param_store()
    parameters = parameters_by_hand(model, *args, points=points)
    run = run_of(model, *args, nesting=2, points=points)
    values = {n: p.value for n, p in parameters.items()}
    closed = ClosedForm.find(run, parameters, floor=floor)
    assert closed.reasons == {}
    return closed, run, values


def repeated(values):
    return {n: v.expand(R, *v.shape) for n, v in values.items()}


def maximised(model, *args, weights=None, points=(), floor=0.0):
    closed, run, values = prepared(model, *args, points=points, floor=floor)
    factors = random_factors(run, values, R)
    for name, weight in (weights or {}).items():
        fn, value = factors[name].fn, factors[name].value
        factors[name] = Factor(name, fn, value, weight)
    return closed.maximise(closed.statistics(factors), repeated(values)), factors


def close(actual, expected, rtol=1e-11):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, atol=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    components=st.integers(1, 5),
    size=st.integers(1, 4),
    count=st.integers(20, 60),
    full=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_gaussian_mixture_of_any_size(components, size, count, full, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, size)) * rng.uniform(0.1, 10, size)
    torch.manual_seed(seed)
    found, factors = maximised(lambda: mixture(torch.as_tensor(x), components, full=full))
    assert found.faults == []
    for r in range(R):
        w = factors["x"].weight[r].numpy().reshape(components, len(x))
        own = factors["z"].weight[r].numpy().reshape(components, len(x)).sum(1)
        mean = w @ x / w.sum(1, keepdims=True)
        close(found.values["weights"][r], own / own.sum())
        close(found.values["loc"][r], mean)
        for k in range(components):
            away = x - mean[k]
            if full:
                expected = (w[k][:, None] * away).T @ away / w[k].sum()
                close(found.values["matrix"][r, k], expected)
            else:
                variance = w[k] @ away**2 / w[k].sum()
                close(found.values["scale"][r, k], np.sqrt(variance))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    components=st.integers(1, 4),
    size=st.integers(1, 4),
    locs=st.integers(1, 5),
    scales=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_means_and_scales_shared_in_any_way(components, size, locs, scales, seed):
    rng = np.random.default_rng(seed)
    loc_of = rng.integers(locs, size=(components, size))
    scale_of = rng.integers(scales, size=(components, size))
    x = rng.normal(size=(30, size)) + 5 * rng.normal(size=size)

    def model():
        start = torch.arange(1.0, locs + 1)
        loc = pyro.param("loc", start)[torch.as_tensor(loc_of)]
        scale = positive("scale", scales)[torch.as_tensor(scale_of)]
        with pyro.plate("data", 30):
            z = component(torch.ones(components) / components)
            pyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=torch.as_tensor(x))

    torch.manual_seed(seed)
    found, factors = maximised(model)
    assert found.faults == []
    before = 0.5 + np.arange(1.0, scales + 1)  # of the scales, by ``positive``
    for r in range(R):
        w = factors["x"].weight[r].numpy().reshape(components, 30)
        w = np.broadcast_to(w[:, :, None], (components, 30, size))
        data = np.broadcast_to(x, w.shape)
        at_loc = np.broadcast_to(loc_of[:, None], w.shape)
        at_scale = np.broadcast_to(scale_of[:, None], w.shape)
        precision = w / before[at_scale] ** 2
        mean = np.arange(1.0, locs + 1)  # those that are not used stay
        for i in np.unique(at_loc):
            mine = at_loc == i
            mean[i] = (precision * data)[mine].sum() / precision[mine].sum()
        sd = before.copy()
        for j in np.unique(at_scale):
            mine = at_scale == j
            sd[j] = np.sqrt((w * (data - mean[at_loc]) ** 2)[mine].sum() / w[mine].sum())
        close(found.values["loc"][r], mean, rtol=1e-9)
        close(found.values["scale"][r], sd, rtol=1e-9)


def test_a_markov_chain_counts_transitions():
    closed, run, values = prepared(models.markov_chain)
    factors = random_factors(run, values, R)
    found = closed.maximise(closed.statistics(factors), repeated(values))
    transitions, emissions = np.zeros((R, 3, 3)), np.zeros((R, 3, 4))
    for t in range(5):
        x, z = factors[f"x_{t}"], factors[f"z_{t}"]
        now = -z.value.dim()  # z_t is enumerated in its leftmost dimension
        if t > 0:
            weight = z.weight.movedim(now, -1).sum(-2)  # (R, previous, now), with ones
            transitions += weight.reshape(R, 3, 3).numpy()
        weight = x.weight.reshape(R, 3, -1).numpy()
        for c in range(4):
            emissions[:, :, c] += weight[:, :, x.value.numpy() == c].sum(-1)
    close(found.values["transition"], transitions / transitions.sum(-1, keepdims=True))
    close(found.values["emission"], emissions / emissions.sum(-1, keepdims=True))
    first = factors["z_0"].weight.sum(-1).reshape(R, 3).numpy()
    close(found.values["start"], first / first.sum(-1, keepdims=True))


@pytest.mark.parametrize("full", [False, True])
def test_parts_of_the_data_add_up(full):
    x = torch.randn(50, 2) * 3 + 1
    closed, _, _ = prepared(lambda: mixture(x[:20], full=full))
    _, run, values = prepared(lambda: mixture(x, full=full))
    factors = random_factors(run, values, R)
    whole = closed.statistics(factors)
    total = {n: torch.zeros_like(s) for n, s in whole.items()}
    for part in (slice(0, 20), slice(20, 45), slice(45, 50)):
        sites = run_of(lambda part=part: mixture(x[part], full=full), nesting=2)(values)
        pieces = {n: Factor(n, *sites[n], factors[n].weight[..., part]) for n in sites}
        for name, s in closed.statistics(pieces).items():
            total[name] += s
    for name, s in whole.items():
        torch.testing.assert_close(total[name], s, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("model", [models.masked_entries, models.normal_untied])
def test_a_scale_of_all_weights_changes_nothing(model):
    closed, run, values = prepared(model)
    factors = random_factors(run, values, R)
    more = {n: Factor(n, f.fn, f.value, 7.5 * f.weight) for n, f in factors.items()}
    one = closed.maximise(closed.statistics(factors), repeated(values)).values
    other = closed.maximise(closed.statistics(more), repeated(values)).values
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-14)


def test_masked_data_do_not_count_even_if_they_are_nan():
    x = torch.randn(30, 2)
    keep = torch.arange(30) % 3 > 0
    torch.manual_seed(1)
    weight = torch.rand(R, 3, 1, 30)
    holes = torch.where(keep[:, None], x, torch.nan)
    pyro.enable_validation(False)
    shape = {"x": weight * keep, "z": weight * keep}
    masked, _ = maximised(mixture, holes, weights=shape)
    few = {"x": weight[..., keep], "z": weight[..., keep]}
    left, _ = maximised(mixture, x[keep], weights=few)
    for name, value in left.values.items():
        torch.testing.assert_close(masked.values[name], value, rtol=1e-12, atol=1e-14)
    with pytest.raises(InvalidArgument, match="site 'x' has values that are nan"):
        maximised(mixture, holes, weights={"x": weight})
    pyro.enable_validation(True)


def test_masks_of_single_numbers_may_hide_nan():
    x = torch.randn(30, 2)
    keep = torch.randn(30, 2) > -0.5
    holes = torch.where(keep, x, torch.nan)

    def model():
        loc, scale = pyro.param("loc", torch.zeros(2)), positive("scale", 2)
        with pyro.plate("data", 30):
            fn = dist.Normal(loc, scale, validate_args=False).mask(keep).to_event(1)
            pyro.sample("x", fn, obs=holes)

    found, factors = maximised(model)
    weight = factors["x"].weight[..., None] * keep
    mean = (weight * x).sum(1) / weight.sum(1)
    torch.testing.assert_close(found.values["loc"], mean)
    variance = (weight * (x - mean[:, None]) ** 2).sum(1) / weight.sum(1)
    torch.testing.assert_close(found.values["scale"], variance.sqrt())


@pytest.mark.parametrize("full", [False, True])
def test_data_far_from_zero_lose_nothing(full):
    rng = np.random.default_rng(0)
    offset = np.array([1e6, -3e6])
    near = rng.normal(size=(200, 2))
    far = near + offset
    near = far - offset  # what is left of them after rounding
    found, factors = maximised(lambda: mixture(torch.as_tensor(far), full=full))
    same = {n: f.weight for n, f in factors.items()}
    expected, _ = maximised(lambda: mixture(torch.as_tensor(near), full=full), weights=same)
    close(found.values["loc"] - torch.as_tensor(offset), expected.values["loc"], rtol=1e-7)
    spread = "matrix" if full else "scale"
    close(found.values[spread], expected.values[spread].numpy(), rtol=1e-10)


def test_every_start_may_have_values_of_its_own():
    """Draws of a latent differ from start to start."""

    x = torch.randn(2, 10)

    def model():
        loc, scale = pyro.param("loc", torch.zeros(2)), positive("scale")
        probs = simplex("probs", 4)
        with pyro.plate("data", 10, dim=-1), pyro.plate("features", 2, dim=-2):
            pyro.sample("u", dist.Normal(loc[:, None], scale), obs=x)
        with pyro.plate("words", 10):
            pyro.sample("c", dist.Categorical(probs), obs=torch.arange(10) % 4)

    closed, run, values = prepared(model)
    factors = random_factors(run, values, R)
    u, c = torch.randn(R, 2, 10), torch.randint(0, 4, (R, 10))
    for name, value in (("u", u), ("c", c)):
        factors[name] = Factor(name, factors[name].fn, value, factors[name].weight)
    found = closed.maximise(closed.statistics(factors), repeated(values)).values
    w = factors["u"].weight
    loc = (w * u).sum(-1) / w.sum(-1)
    torch.testing.assert_close(found["loc"], loc)
    variance = (w * (u - loc[..., None]) ** 2).sum((1, 2)) / w.sum((1, 2))
    torch.testing.assert_close(found["scale"], variance.sqrt())
    counted = torch.stack([(factors["c"].weight * (c == k)).sum(-1) for k in range(4)], -1)
    torch.testing.assert_close(found["probs"], counted / counted.sum(-1, keepdim=True))


def test_every_start_may_have_vectors_of_its_own():
    x = torch.randn(12, 2)

    def model():
        loc, matrix = pyro.param("loc", torch.zeros(2)), covariance("matrix")
        with pyro.plate("data", 12):
            fn = dist.MultivariateNormal(loc, covariance_matrix=matrix)
            pyro.sample("x", fn, obs=x)

    closed, run, values = prepared(model)
    factor = random_factors(run, values, R)["x"]
    own = torch.randn(R, 12, 2)
    found = closed.maximise(
        closed.statistics({"x": Factor("x", factor.fn, own, factor.weight)}), repeated(values)
    ).values
    w = factor.weight[..., None]
    loc = (w * own).sum(1) / w.sum(1)
    torch.testing.assert_close(found["loc"], loc)
    away = own - loc[:, None]
    expected = (w * away).mT @ away / w.sum(1)[..., None]
    torch.testing.assert_close(found["matrix"], expected)


def faulty_weights(n, components=3):
    """Start 1 has nothing left for component 2."""
    torch.manual_seed(2)
    weight = torch.rand(R, components, 1, n)
    weight[1, 2] = 0
    return weight


@pytest.mark.parametrize("full", [False, True])
def test_a_component_without_weight_is_a_fault_of_its_start(full):
    weight = faulty_weights(30)
    x = torch.randn(30, 2)
    found, _ = maximised(lambda: mixture(x, full=full), weights={"x": weight})
    assert {f.start for f in found.faults} == {1}
    told = {f.parameter: f for f in found.faults}
    assert told["loc"].entry == (2,) if full else (2, 0)
    assert "no weight left in site 'x'" in str(told["loc"])
    assert str(told["loc"]).startswith("start 1: parameter 'loc'[2]")
    assert bool((found.values["loc"][1] == 0).all())  # where it was
    fine, _ = maximised(lambda: mixture(x, full=full), weights={"x": weight[[0, 2, 0]]})
    assert fine.faults == []
    torch.testing.assert_close(found.values["loc"][[0, 2]], fine.values["loc"][[0, 1]])


@pytest.mark.parametrize("full", [False, True])
def test_a_component_on_one_datum_is_singular_and_a_floor_is_the_way_out(full):
    x = 5 + torch.randn(30, 2)
    weight = faulty_weights(30)
    weight[1, 2, 0, 7] = 1.0

    def model():
        mixture(x, full=full)

    found, _ = maximised(model, weights={"x": weight})
    assert {(f.start, f.parameter) for f in found.faults} == {(1, "matrix" if full else "scale")}
    assert "floor=" in found.faults[0].what
    assert found.faults[0].entry[0] == 2
    floored, _ = maximised(model, weights={"x": weight}, floor=0.01)
    assert floored.faults == []
    torch.testing.assert_close(floored.values["loc"][1, 2], x[7])
    if full:
        expected = 0.01 * torch.eye(2)
        torch.testing.assert_close(floored.values["matrix"][1, 2], expected)
    else:
        torch.testing.assert_close(floored.values["scale"][1, 2], torch.full((2,), 0.1))


def test_data_in_a_plane_are_singular():
    x = torch.randn(30, 2)
    x = torch.cat([x, x.sum(1, keepdim=True)], 1) * torch.tensor([1e-3, 1.0, 1e3])
    fine, _ = maximised(lambda: mixture(x[:, :2], full=True))
    assert fine.faults == []
    found, _ = maximised(lambda: mixture(x, full=True))
    assert {f.start for f in found.faults} == {0, 1, 2}
    assert "fewer dimensions" in found.faults[0].what


def test_a_dirichlet_below_one_needs_data():
    def model():
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(3)))
        with pyro.plate("data", 6):
            pyro.sample("x", dist.Categorical(weights), obs=torch.tensor([0, 0, 1, 1, 1, 1]))

    found, _ = maximised(model, points=("weights",))
    assert {f.start for f in found.faults} == {0, 1, 2}
    assert "concentration below one" in found.faults[0].what
    assert "'weights'" in found.faults[0].what


def test_a_maximum_on_the_boundary_is_a_fault():
    def model():
        with pyro.plate("data", 6):
            pyro.sample("x", dist.Poisson(positive("rate")), obs=torch.zeros(6))

    found, _ = maximised(model)
    assert [f.parameter for f in found.faults] == ["rate"] * R
    assert "boundary of its constraint" in found.faults[0].what


def test_values_that_do_not_vary_have_no_concentration():
    def gamma():
        with pyro.plate("data", 20):
            fn = dist.Gamma(positive("a"), positive("b"))
            pyro.sample("g", fn, obs=torch.full((20,), 3.0))

    def beta():
        with pyro.plate("data", 20):
            fn = dist.Beta(positive("a"), positive("b"))
            pyro.sample("g", fn, obs=torch.full((20,), 0.3))

    for one in (gamma, beta):
        found, _ = maximised(one)
        assert {f.start for f in found.faults} == {0, 1, 2}
        assert "does not vary" in found.faults[0].what


def test_large_tables_of_products_are_cut(monkeypatch):
    x = torch.randn(40, 3)
    torch.manual_seed(0)
    whole, factors = maximised(lambda: mixture(x, full=True))
    monkeypatch.setattr(products, "_LARGEST", 50)
    weights = {n: f.weight for n, f in factors.items()}
    cut, _ = maximised(lambda: mixture(x, full=True), weights=weights)
    torch.testing.assert_close(cut.values["matrix"], whole.values["matrix"])


def test_a_floor_holds_for_every_eigenvalue():
    x = torch.randn(40, 2) * torch.tensor([0.1, 3.0])

    def model():
        matrix = covariance("matrix")
        with pyro.plate("data", 40):
            fn = dist.MultivariateNormal(torch.zeros(2), covariance_matrix=matrix)
            pyro.sample("x", fn, obs=x)

    found, _ = maximised(model, floor=0.5)
    values = torch.linalg.eigvalsh(found.values["matrix"])
    torch.testing.assert_close(values[:, 0], torch.full((R,), 0.5))
    assert bool((values[:, 1] > 4).all())
