"""Each support has one default family, and a family on the wrong support is refused by name."""

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides.site_families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Gamma,
    LogNormal,
    Normal,
    Wishart,
    default_for,
    family_for,
)

ONE = torch.tensor(1.0)
DEFAULTS = [
    (dist.Normal(0.0, 1.0), Normal()),
    (dist.StudentT(3.0), Normal()),
    (dist.Gamma(1.0, 1.0), LogNormal()),
    (dist.HalfCauchy(1.0), LogNormal()),
    (dist.LogNormal(torch.zeros(3), 1.0).to_event(1), LogNormal()),
    (dist.Beta(1.0, 1.0), Beta()),
    (dist.Uniform(0.0, 1.0), Beta()),
    (dist.Uniform(0.0, 2.0), Normal()),
    (dist.Uniform(torch.zeros(3), torch.ones(3)).to_event(1), Beta()),
    (dist.Pareto(1.0, 1.0), Normal()),
    (dist.Dirichlet(torch.ones(3)), Dirichlet()),
    (dist.Dirichlet(torch.ones(2, 3)).to_event(1), Dirichlet()),
    (dist.Wishart(4 * ONE, torch.eye(3)), Wishart()),
    (dist.LKJCholesky(3), Normal()),
    (dist.LKJ(3, ONE), Normal()),
    (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), Normal()),
    (dist.VonMises(0.0, 1.0), Normal()),
    (dist.Bernoulli(0.5), Bernoulli()),
    (dist.Bernoulli(torch.full((3,), 0.5)).to_event(1), Bernoulli()),
    (dist.Categorical(torch.ones(3)), Categorical()),
    (dist.Binomial(5, 0.5), Categorical()),
    (
        dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Gamma(torch.ones(2), ONE)),
        LogNormal(),
    ),
]


@pytest.mark.parametrize(
    ("fn", "family"), DEFAULTS, ids=[f"{i}-{type(d).__name__}" for i, (d, _) in enumerate(DEFAULTS)]
)
def test_the_default_takes_the_place_of_the_prior(fn, family):
    assert default_for(fn.support, "x") == family
    # torch's own Wishart warns at every draw
    value = fn.mean if isinstance(fn, dist.Wishart) else fn.sample()
    start = family.initial(value, fn.event_dim, 1.0, fn.support)
    params = {name: p.value for name, p in start.items()}
    q = family.distribution(params, fn.support, fn.event_dim)
    assert (q.batch_shape, q.event_shape) == (fn.batch_shape, fn.event_shape)
    draws = q.sample((7,))
    assert fn.support.check(draws).all()
    assert fn.log_prob(draws).isfinite().all()
    assert q.log_prob(draws).shape == (7, *fn.batch_shape)


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (dist.Poisson(1.0), "discrete"),
        (dist.Geometric(0.5), "discrete"),
        (dist.Multinomial(3, torch.ones(2)), "discrete"),
        (dist.OneHotCategorical(torch.ones(3)), "encode it afterwards"),
        (dist.Binomial(torch.tensor([2.0, 3.0]), torch.tensor(0.5)), "one n for the whole site"),
        (dist.ProjectedNormal(torch.ones(3)), "no bijection"),
    ],
)
def test_a_support_without_family_is_refused_by_name(fn, reason):
    with pytest.raises(UnsupportedStructure, match=f"site 'count'.*{reason}"):
        default_for(fn.support, "count")


def test_a_choice_that_fits_is_taken():
    assert family_for(constraints.positive, "rate", Gamma()) == Gamma()
    assert family_for(constraints.positive, "rate", Normal()) == Normal()
    assert family_for(constraints.simplex, "w", Normal()) == Normal()
    assert family_for(constraints.positive, "rate", None) == LogNormal()


@pytest.mark.parametrize(
    ("support", "chosen"),
    [
        (constraints.real, Gamma()),
        (constraints.real, LogNormal()),
        (constraints.greater_than(1.0), Gamma()),
        (constraints.interval(0.0, 2.0), Beta()),
        (constraints.unit_interval, Dirichlet()),
        (constraints.boolean, Normal()),
        (constraints.boolean, Categorical()),
        (constraints.corr_matrix, Wishart()),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_with_those_that_would(support, chosen):
    fitting = repr(default_for(support, "")).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InvalidArgument, match=rf"site 'theta'.*choose .*{fitting}"):
        family_for(support, "theta", chosen)


def test_a_choice_that_is_no_family_is_refused():
    with pytest.raises(InvalidArgument, match="site 'theta'.*site_families, such as LogNormal"):
        family_for(constraints.positive, "theta", "gamma")
