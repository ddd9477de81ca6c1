"""Scales stay outside of the weights or inside of them, masks act before, deterministic is free."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal

from models import conjugate_normal
from pyro_klmodes import IWAE, ReverseKL, draws
from pyro_klmodes.errors import UnsupportedStructure

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
ROOT_HALF = math.sqrt(0.5)
KEEP = torch.tensor([True, False, True, True])

layouts = pytest.mark.parametrize("vectorise", [True, False])


def log_marginal(x=X):
    return dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)


def model(size=None):
    with pyro.plate("data", 4, subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])


def guide(size=None):
    with pyro.plate("data", 4, subsample_size=size) as index:
        pyro.sample("z", dist.Normal(X[index] / 2, ROOT_HALF))


@layouts
@pytest.mark.parametrize("scale", [0.3, torch.tensor(0.3), 2])
@pytest.mark.parametrize("size", [None, 3])
def test_a_scale_of_all_sites_stays_outside(vectorise, scale, size):
    d = draws(
        poutine.scale(model, scale=scale),
        poutine.scale(guide, scale=scale),
        (size,),
        num_particles=3,
        vectorize_particles=vectorise,
    )
    ratio = 1.0 if size is None else 4 / 3
    assert d.scale == pytest.approx(float(scale) * ratio, rel=1e-6)
    x = X if size is None else X[d.indices["data"]]
    torch.testing.assert_close(d.log_w, log_marginal(x).expand(3, len(x)))


def test_a_common_scale_is_recognised_under_plates_of_different_ratios():
    """Dividing 0.3 * 20 / 7 by 20 / 7 need not give back 0.3 to the last bit."""
    for size in range(1, 20):
        case = conjugate_normal.hierarchical_problem(subsample_size=size)
        pair = [poutine.scale(f, scale=0.3) for f in (case.model, case.exact_guide)]
        pyro.set_rng_seed(size)
        scaled = IWAE(2).loss(*pair, *case.args, **case.kwargs)
        pyro.set_rng_seed(size)
        plain = IWAE(2).loss(case.model, case.exact_guide, *case.args, **case.kwargs)
        assert scaled == pytest.approx(0.3 * plain, rel=1e-10)


@layouts
@pytest.mark.parametrize("scale", [0.25, torch.tensor([0.25, 1.0, 2.0, 0.5])])
def test_a_scale_of_some_sites_tempers_the_target(vectorise, scale):
    def tempered():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.scale(scale=scale):
                pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    d = draws(tempered, guide, num_particles=3, vectorize_particles=vectorise)
    z = d.values["z"]
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + scale * dist.Normal(z, 1.0).log_prob(X)
    log_q = dist.Normal(X / 2, ROOT_HALF).log_prob(z)
    assert d.scale == 1.0
    torch.testing.assert_close(d.log_w, log_p - log_q)


@layouts
@pytest.mark.parametrize("how", ["poutine", "method"])
def test_masked_sites_contribute_nothing(vectorise, how):
    def of(fn):
        return fn.mask(KEEP) if how == "method" else fn

    def masked_model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", of(dist.Normal(torch.zeros(4), 1.0)))
            pyro.sample("x", of(dist.Normal(z, 1.0)), obs=X)

    def masked_guide():
        with pyro.plate("data", 4):
            pyro.sample("z", of(dist.Normal(X / 2, ROOT_HALF)))

    pair = [masked_model, masked_guide]
    if how == "poutine":
        pair = [poutine.mask(f, mask=KEEP) for f in pair]
    d = draws(*pair, num_particles=3, vectorize_particles=vectorise)
    exact = torch.where(KEEP, log_marginal(), torch.zeros(4))
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, exact.expand(3, 4))


@layouts
def test_a_mask_that_is_false_removes_a_site(vectorise):
    def masked_model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)
            with poutine.mask(mask=False):
                pyro.sample("ignored", dist.Normal(z, 1e-3), obs=X)

    d = draws(masked_model, guide, num_particles=3, vectorize_particles=vectorise)
    torch.testing.assert_close(d.log_w, log_marginal().expand(3, 4))


@layouts
def test_partly_observed_data_with_the_missing_part_in_the_guide(vectorise):
    """The missing datum is drawn from its conditional given z, so that it cancels."""

    def partly_model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X, obs_mask=KEEP)

    def partly_guide():
        with pyro.plate("data", 4):
            mean = torch.where(KEEP, X / 2, torch.zeros(4))
            sd = torch.where(KEEP, torch.full((4,), ROOT_HALF), torch.ones(4))
            z = pyro.sample("z", dist.Normal(mean, sd))
            pyro.sample("x_unobserved", dist.Normal(z, 1.0).mask(~KEEP))

    d = draws(partly_model, partly_guide, num_particles=3, vectorize_particles=vectorise)
    exact = torch.where(KEEP, log_marginal(), torch.zeros(4))
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, exact.expand(3, 4))


@layouts
def test_deterministic_sites_are_free_wherever_they_stand(vectorise):
    def with_deterministic():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.deterministic("inside", 2 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)
        pyro.deterministic("outside", z.sum(-1, keepdim=True))

    d = draws(with_deterministic, guide, num_particles=3, vectorize_particles=vectorise)
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, log_marginal().expand(3, 4))


@layouts
def test_a_factor_inside_of_the_plate_is_part_of_its_cell(vectorise):
    def with_factor():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.factor("likelihood", dist.Normal(z, 1.0).log_prob(X))

    d = draws(with_factor, guide, num_particles=3, vectorize_particles=vectorise)
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, log_marginal().expand(3, 4))


@layouts
def test_a_factor_outside_of_the_plate_makes_the_weight_joint(vectorise):
    def with_factor():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)
        pyro.factor("tie", -z.square().sum(-1, keepdim=True))

    d = draws(with_factor, guide, num_particles=3, vectorize_particles=vectorise)
    assert d.plates == ()
    torch.testing.assert_close(d.log_w, log_marginal().sum() - d.values["z"].square().sum(-1))


@layouts
def test_a_factor_in_the_guide_counts_as_its_density(vectorise):
    def with_factor():
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(X / 2, ROOT_HALF))
            pyro.factor("correction", torch.full((4,), 0.125), has_rsample=True)

    d = draws(model, with_factor, num_particles=3, vectorize_particles=vectorise)
    torch.testing.assert_close(d.log_w, (log_marginal() - 0.125).expand(3, 4))


@layouts
def test_a_point_mass_in_the_model_needs_no_guide(vectorise):
    def with_delta():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            mean = pyro.sample("mean", dist.Delta(z))
            pyro.sample("x", dist.Normal(mean, 1.0), obs=X)

    d = draws(with_delta, guide, num_particles=3, vectorize_particles=vectorise)
    torch.testing.assert_close(d.log_w, log_marginal().expand(3, 4))


def test_reverse_kl_takes_any_mixture_of_scales_as_pyro_does():
    def tempered(size):
        with pyro.plate("data", 4, subsample_size=size) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.scale(scale=0.25):
                pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    pyro.set_rng_seed(1)
    ours = ReverseKL().draws(tempered, guide, 2)
    z, x = ours.values["z"][0], X[ours.indices["data"]]
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + 0.25 * dist.Normal(z, 1.0).log_prob(x)
    elbo = 2 * (log_p - dist.Normal(x / 2, ROOT_HALF).log_prob(z)).sum()
    pyro.set_rng_seed(1)
    assert ReverseKL().loss(tempered, guide, 2) == pytest.approx(-float(elbo), rel=1e-12)


def test_values_that_were_observed_are_no_latents_of_obs_mask():
    """The guide draws all values, observed ones too; those have no posterior and no density."""
    y = torch.tensor([0.5, 0.0, 1.5, 2.0, 0.0, 0.2])
    seen = torch.tensor([True, False, True, True, False, True])

    def model():
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        with pyro.plate("data", 6):
            pyro.sample("y", dist.Normal(b, 1.0), obs=y, obs_mask=seen)

    precision = 0.25 + 4
    mean, sd = y[seen].sum() / precision, precision**-0.5

    def guide():
        b = pyro.sample("b", dist.Normal(mean, sd))
        with pyro.plate("data", 6):
            pyro.sample("y_unobserved", dist.Normal(b, 1.0))

    exact = dist.MultivariateNormal(
        torch.zeros(4), covariance_matrix=torch.eye(4) + 4 * torch.ones(4, 4)
    ).log_prob(y[seen])
    found = draws(model, guide, num_particles=5)

    torch.testing.assert_close(found.log_w + found.rest, exact.expand(5), atol=1e-4, rtol=0.0)


def test_a_vector_guide_of_pyro_cannot_leave_out_what_obs_mask_replaces():
    y, seen = torch.zeros(3), torch.tensor([True, False, True])

    def model():
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=y, obs_mask=seen)

    guide = AutoMultivariateNormal(model)

    with pytest.raises(UnsupportedStructure, match="y_unobserved"):
        draws(model, guide)
