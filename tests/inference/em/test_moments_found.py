"""Which parameters have a closed form, and in which words the others have none."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments import ClosedForm
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.parameters import ParameterInfo
from tests.inference.em import models_by_hand as models
from tests.inference.em.models_by_hand import K, N, component, counts, data, positive, simplex
from tests.inference.em.runs_by_hand import parameters_by_hand, random_factors, run_of


def found_in(model, points=()):
    parameters = parameters_by_hand(model, points=points)
    return ClosedForm.find(run_of(model, nesting=2, points=points), parameters)


def observed(fn, obs=None):
    with pyro.plate("data", N):
        pyro.sample("x", fn, obs=data(N) if obs is None else obs)


def computed_scale():
    loc, root = pyro.param("loc", torch.zeros(K)), positive("root")
    observed(dist.Normal(loc[component()], root**4))


def regression():
    slope, scale = pyro.param("slope", torch.zeros(())), positive("scale")
    observed(dist.Normal(slope * data(N), scale))


def ordered_locs():
    loc = pyro.param("loc", torch.arange(3.0), constraint=dist.constraints.ordered_vector)
    observed(dist.Normal(loc[component()], 1.0))


def student():
    observed(dist.StudentT(4.0, pyro.param("loc", torch.zeros(K))[component()], 1.0))


def logits():
    observed(dist.Categorical(logits=pyro.param("a", torch.zeros(4))), counts(N).long() % 4)


def two_roles():
    rate = positive("rate")
    with pyro.plate("data", N):
        pyro.sample("x", dist.Poisson(rate), obs=counts(N))
        pyro.sample("y", dist.Normal(0.0, rate), obs=data(N))


def half_constant():
    loc = torch.stack([pyro.param("a", torch.tensor(1.0)), torch.zeros(())])
    observed(dist.Normal(loc[component(torch.ones(2) / 2)], 1.0))


def part_of_probabilities():
    weights = simplex("weights", 3)
    observed(dist.Bernoulli(weights[0]), (data(N) > 0).double())


def correlation():
    matrix = pyro.param("matrix", torch.eye(2), constraint=dist.constraints.corr_matrix)
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(torch.zeros(2), covariance_matrix=matrix)
        pyro.sample("x", fn, obs=data(N, 2))


def half_beta():
    observed(dist.Beta(positive("a"), 1.0), data(N).sigmoid())


def symmetric_beta():
    a = positive("a")
    observed(dist.Beta(a, a), data(N).sigmoid())


def unused():
    pyro.param("extra", torch.zeros(()))
    observed(dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))


def in_a_factor():
    loc = pyro.param("loc", torch.zeros(()))
    pyro.factor("penalty", -(loc**2))
    observed(dist.Normal(loc, 1.0))


def varying_covariance():
    loc = pyro.param("loc", torch.zeros(2))
    known = torch.diag_embed(1 + data(N, 2) ** 2)
    with pyro.plate("data", N):
        pyro.sample("x", dist.MultivariateNormal(loc, known), obs=data(N, 2))


REASONS = [
    (computed_scale, "root", "site 'x' has a scale that is computed from it"),
    (computed_scale, "loc", "site 'x' has a scale that is computed from it"),
    (regression, "slope", "site 'x' has a loc that is computed from it"),
    (regression, "scale", "site 'x' has a loc that is computed from it"),
    (ordered_locs, "loc", "ties its entries together"),
    (student, "loc", "site 'x' has the distribution StudentT"),
    (logits, "a", "site 'x' is given by logits"),
    (two_roles, "rate", "it is a rate in site 'x', and a scale of a Normal in site 'y'"),
    (half_constant, "a", "site 'x' has a loc that is computed from it"),
    (part_of_probabilities, "weights", "ties its entries together"),
    (correlation, "matrix", "site 'x' has a covariance_matrix that is computed from it"),
    (half_beta, "a", "one concentration only"),
    (symmetric_beta, "a", "entries in common"),
    (unused, "extra", "no site depends on it"),
    (in_a_factor, "loc", "site 'penalty' has the distribution Unit"),
    (varying_covariance, "loc", "site 'x' has a known covariance that is not the same"),
]


@pytest.mark.parametrize(("model", "parameter", "reason"), REASONS)
def test_the_reason_names_the_site(model, parameter, reason):
    closed = found_in(model)
    assert parameter not in closed.covered
    assert reason in closed.reasons[parameter]


def test_a_model_that_runs_at_few_values_only_has_none():
    def model():
        observed(dist.Normal(0.0, pyro.param("scale", torch.tensor(9.0)) - 8))

    closed = found_in(model)
    assert closed.covered == ()
    assert "does not run at other values of the parameters" in closed.reasons["scale"]


def test_a_prior_that_is_not_conjugate():
    def model():
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        loc = pyro.sample("loc", dist.Normal(pyro.param("centre", torch.zeros(())), 1.0))
        with pyro.plate("data", N):
            pyro.sample("x", dist.Normal(loc, scale), obs=data(N))
            pyro.sample("y", dist.Poisson(rate), obs=counts(N))

    closed = found_in(model, points=("scale", "rate", "loc"))
    assert closed.covered == ()
    assert "site 'scale' has the distribution HalfCauchy" in closed.reasons["scale"]
    assert "site 'rate' is a LogNormal prior" in closed.reasons["rate"]
    assert "site 'loc' is a Normal prior for which" in closed.reasons["loc"]


def test_others_keep_their_closed_form_given_what_is_held():
    def model():
        loc, scale = pyro.param("loc", torch.zeros(K)), positive("scale", K)
        with pyro.plate("data", N):
            z = component(simplex("weights", K))
            pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=data(N))
            pyro.sample("y", dist.Laplace(loc[z], 1.0), obs=data(N))

    parameters = parameters_by_hand(model)
    run = run_of(model)
    closed = ClosedForm.find(run, parameters)
    assert closed.covered == ("scale", "weights")
    assert "Laplace" in closed.reasons["loc"]

    now = {n: p.value for n, p in parameters.items()} | {"loc": torch.tensor([-1.0, 0.3, 2.0])}
    factors = random_factors(run, now, starts=1)
    found = closed.maximise(closed.statistics(factors), {n: v[None] for n, v in now.items()})
    weight = factors["x"].weight[0]
    variance = (weight * (data(N) - now["loc"][:, None]) ** 2).sum(1) / weight.sum(1)
    torch.testing.assert_close(found.values["scale"][0], variance.sqrt(), rtol=1e-12, atol=0)
    assert set(found.values) == {"scale", "weights"}


def test_a_site_that_comes_and_goes_is_refused():
    def model():
        loc = pyro.param("loc", torch.zeros(40))
        for i, x in enumerate(loc):
            if x > 0.7:
                pyro.sample(f"x_{i}", dist.Normal(x, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(UnsupportedStructure, match="site 'x_.*' comes and goes"):
        found_in(model)


def test_entries_of_many_parameters_are_told_apart():
    constrained = {
        "real": constraints.real,
        "positive": constraints.positive,
        "unit": constraints.unit_interval,
    }

    for dtype in (torch.float64, torch.float32):
        infos = {
            n: ParameterInfo(torch.zeros(50, 40, dtype=dtype), c) for n, c in constrained.items()
        }
        infos["rows"] = ParameterInfo(torch.zeros(60, 50, dtype=dtype), constraints.simplex)
        entries = Entries(infos)
        for name, info in infos.items():
            start = entries.offsets[name]
            order = torch.randperm(info.value.numel())
            seen = [probe[name].flatten()[order] for probe in entries.probes]
            assert torch.equal(entries.find(seen), start + order)
            assert entries.find([1.0001 * x for x in seen]) is None
            assert entries.owners(start + order) == {name}
        assert entries.index(entries.offsets["unit"] + 41) == (1, 1)


@pytest.mark.parametrize(
    "model",
    [models.normal_other_forms, models.multivariate("scale_tril"), models.markov_chain],
    ids=["normal", "multivariate", "markov"],
)
def test_single_precision_gives_the_same_to_its_digits(model):
    found = {}
    for dtype in (torch.float64, torch.float32):
        pyro.clear_param_store()
        torch.set_default_dtype(dtype)
        parameters = parameters_by_hand(model)
        run = run_of(model, nesting=2)
        closed = ClosedForm.find(run, parameters)
        assert closed.reasons == {}
        values = {n: p.value for n, p in parameters.items()}
        factors = random_factors(run, values, starts=1)
        if dtype == torch.float64:
            weights = {n: f.weight for n, f in factors.items()}
        factors = {n: Factor(n, f.fn, f.value, weights[n].to(dtype)) for n, f in factors.items()}
        now = {n: v[None] for n, v in values.items()}
        found[dtype] = closed.maximise(closed.statistics(factors), now).values
    for name, value in found[torch.float32].items():
        assert value.dtype == torch.float32
        expected = found[torch.float64][name].float()
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
