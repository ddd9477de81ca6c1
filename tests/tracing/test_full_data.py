"""Draws for the full data from a pair that sees minibatches are those of the full data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal, AutoStructured

from models import conjugate_normal, mixture_small
from pyro_klmodes import log_density
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.full_data import FullData
from pyro_klmodes.tracing.runs import Pair


def full_data(problem, guide=None):
    guide = guide or problem.exact_guide
    return FullData.of(Pair(problem.model, guide, problem.args, problem.kwargs))


@pytest.mark.parametrize("size", [None, 1, 7, 10, 19])
@pytest.mark.parametrize("count", [1, 5])
def test_an_exact_guide_has_the_evidence_of_all_data_at_every_draw(size, count):
    for make in (conjugate_normal.problem, conjugate_normal.hierarchical_problem):
        problem = make(size)
        drawn = full_data(problem).draws(count)
        whole = drawn.log_w.reshape(count, -1).sum(1)
        torch.testing.assert_close(whole, torch.full((count,), problem.log_evidence))
        assert drawn.values["z"].shape == (count, 20)
        assert drawn.scale == 1.0
    assert full_data(conjugate_normal.problem(size)).draws(count).plates == ("data",)


@pytest.mark.parametrize("size", [None, 3])
def test_enumerated_sites_are_summed_out(size):
    problem = mixture_small.problem(size)
    drawn = full_data(problem).draws(6)
    torch.testing.assert_close(drawn.log_w, torch.full((6,), problem.log_evidence))


@pytest.mark.parametrize("size", [None, 7])
def test_draws_have_the_moments_of_the_posterior(size):
    count = 6000
    problem = conjugate_normal.hierarchical_problem(size)
    drawn = full_data(problem).draws(count)
    for name, moments in problem.reference.items():
        error = moments.sd / count**0.5
        assert bool(((drawn.values[name].mean(0) - moments.mean).abs() < 4 * error).all())
        assert bool(((drawn.values[name].std(0) - moments.sd).abs() < 4 * error / 2**0.5).all())


def test_a_guide_trained_on_minibatches_is_scored_as_on_the_full_data():
    problem = conjugate_normal.hierarchical_problem(7)
    guide = AutoNormal(problem.model)
    guide(*problem.args, **problem.kwargs)
    for parameter in guide.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    drawn = full_data(problem, guide).draws(4)

    def q(name):
        return dist.Normal(getattr(guide.locs, name), getattr(guide.scales, name))

    mu, z = drawn.values["mu"], drawn.values["z"]
    torch.testing.assert_close(drawn.log_q, q("mu").log_prob(mu) + q("z").log_prob(z).sum(-1))
    x = problem.args[0]
    log_p = dist.Normal(0.0, 1.0).log_prob(mu) + (
        dist.Normal(mu[:, None], 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)
    ).sum(1)
    torch.testing.assert_close(drawn.log_p, log_p)


def test_crossed_minibatches_see_every_pair_at_the_same_values():
    def model(sizes):
        rows = pyro.plate("rows", 5, subsample_size=sizes[0], dim=-2)
        columns = pyro.plate("columns", 7, subsample_size=sizes[1], dim=-1)
        with rows:
            r = pyro.sample("r", dist.Normal(torch.zeros(()), 1.0))
        with columns:
            c = pyro.sample("c", dist.Normal(torch.zeros(()), 1.0))
        with rows, columns:
            pyro.sample("x", dist.Normal(r + c, 1.0), obs=torch.zeros(()))

    def guide(sizes):
        with pyro.plate("rows", 5, subsample_size=sizes[0], dim=-2):
            pyro.sample("r", dist.Normal(torch.zeros(()), 0.5))
        with pyro.plate("columns", 7, subsample_size=sizes[1], dim=-1):
            pyro.sample("c", dist.Normal(torch.zeros(()), 0.5))

    drawn = FullData.of(Pair(model, guide, ((2, 3),))).draws(4)
    r, c = drawn.values["r"], drawn.values["c"]
    assert (r.shape, c.shape) == ((4, 5, 1), (4, 7))
    standard = dist.Normal(0.0, 1.0)
    data = standard.log_prob(r + c[:, None]).sum((1, 2))
    prior = standard.log_prob(r).sum((1, 2)) + standard.log_prob(c).sum(1)
    torch.testing.assert_close(drawn.log_p, data + prior)


def test_point_masses_have_values_but_no_weights():
    problem = conjugate_normal.hierarchical_problem()
    guide = AutoDelta(problem.model)
    found = full_data(problem, guide)
    assert "'mu' fixed at a point" in found.why_unweighed()
    assert found.values(3)["z"].shape == (3, 20)
    assert full_data(problem).why_unweighed() is None


def test_a_structured_guide_is_weighed_at_its_own_draws():
    # N(0, 1) and N(a, 1) given one datum at 2 of b with unit noise: precision (2, -1; -1, 2)
    def model():
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=torch.tensor(2.0))

    guide = AutoStructured(model, conditionals="normal", dependencies="linear")
    guide()
    covariance = torch.inverse(torch.tensor([[2.0, -1.0], [-1.0, 2.0]]))
    mean = covariance @ torch.tensor([0.0, 2.0])
    with torch.no_grad():
        slope = covariance[0, 1] / covariance[0, 0]
        guide.locs.a_unconstrained.copy_(mean[0])
        guide.deps.b.a.weight.copy_(slope)
        guide.locs.b_unconstrained.copy_(mean[1])  # dependencies are of what is centred
    guide.scales.b = (covariance[1, 1] - slope * covariance[0, 1]).sqrt().reshape(1)
    guide.scales.a = covariance[0, 0].sqrt().reshape(1)

    drawn = FullData.of(Pair(model, guide)).draws(6)

    evidence = dist.Normal(0.0, 3.0**0.5).log_prob(torch.tensor(2.0))
    torch.testing.assert_close(drawn.log_w, evidence.expand(6))


def test_arguments_that_hold_a_minibatch_are_refused():
    def model(x, rows):
        with pyro.plate("data", 1000, subsample=rows):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InvalidArgument, match=r"minibatch of plate 'data' \(32 of 1000\)"):
        FullData.of(Pair(model, model, (torch.zeros(32), torch.arange(32))))


def test_values_of_an_amortised_guide_are_those_of_their_data():
    problem = conjugate_normal.problem(7)
    pyro.param("slope", torch.tensor(0.5))
    drawn = full_data(problem, problem.guide).draws(3)
    x = problem.args[0]
    expected = dist.Normal(0.5 * x, 1.0).log_prob(drawn.values["z"])
    torch.testing.assert_close(drawn.log_q, expected)
    values = {"z": drawn.values["z"], "data": torch.arange(20)}
    torch.testing.assert_close(expected.sum(1), log_density(problem.guide, values, x))
