"""Which weights a pair has: one per element of the local plates, or one for everything."""

import math
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch

from models import conjugate_normal
from pyro_klmodes import IWAE, draws
from pyro_klmodes.errors import KLModesWarning, UnsupportedStructure

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
ROOT_HALF = math.sqrt(0.5)

layouts = pytest.mark.parametrize("vectorise", [True, False])


def log_marginal(x=X):
    """Evidence of each datum: z ~ N(0, 1), x ~ N(z, 1)."""
    return dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)


def exact_guide():
    with pyro.plate("data", 4):
        pyro.sample("z", dist.Normal(X / 2, ROOT_HALF))


def local_model(outside=lambda z: None):
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)
    outside(z)


def independent_site(z):
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(()))


def independent_factor(z):
    pyro.factor("y", torch.tensor(-0.5 * math.log(2 * math.pi)))


def independent_plate(z):
    with pyro.plate("other", 3):
        pyro.sample("y", dist.Bernoulli(1 / 3), obs=torch.tensor([1.0, 0.0, 0.0]))


def log_density_at(loc, value):
    return dist.Normal(loc, 1.0).log_prob(torch.as_tensor(value, dtype=torch.float64))


def dependent_site(z):
    pyro.sample("y", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=torch.ones(()))


def branching_site(z):
    loc = torch.ones(()) if z.sum() > 0 else -torch.ones(())
    pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.ones(()))


def escaping_site(z):
    pyro.sample("y", dist.Normal(torch.tensor(z.sum().item()), 1.0), obs=torch.ones(()))


@layouts
@pytest.mark.parametrize("particles", [1, 5])
def test_exact_guide_gives_the_log_evidence_of_every_datum(vectorise, particles):
    d = draws(local_model, exact_guide, num_particles=particles, vectorize_particles=vectorise)
    assert d.plates == ("data",)
    assert d.scale == 1.0
    torch.testing.assert_close(d.log_w, log_marginal().expand(particles, 4))


@layouts
@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_particles_see_one_minibatch_and_its_scale_stays_outside(vectorise, size):
    case = conjugate_normal.problem(subsample_size=size)
    d = draws(
        case.model,
        case.exact_guide,
        case.args,
        case.kwargs,
        num_particles=6,
        vectorize_particles=vectorise,
    )
    x = case.args[0]
    assert d.scale == pytest.approx(len(x) / size, rel=1e-12)
    assert d.indices["data"].shape == (size,)
    torch.testing.assert_close(d.log_w, log_marginal(x[d.indices["data"]]).expand(6, size))


@layouts
def test_the_mean_over_all_minibatches_is_the_evidence_of_all_data(vectorise):
    def model(index):
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    def guide(index):
        with pyro.plate("data", 4, subsample=index):
            pyro.sample("z", dist.Normal(X[index] / 2, ROOT_HALF))

    loss = IWAE(3, vectorize_particles=vectorise)
    values = [loss.loss(model, guide, torch.tensor(b)) for b in combinations(range(4), 2)]
    assert sum(values) / 6 == pytest.approx(-float(log_marginal().sum()), rel=1e-12)


@layouts
@pytest.mark.parametrize(
    ("outside", "log_prob"),
    [
        (independent_site, -0.5 * math.log(2 * math.pi)),
        (independent_factor, -0.5 * math.log(2 * math.pi)),
        (independent_plate, math.log(4 / 27)),
    ],
)
def test_sites_that_depend_on_no_latent_keep_the_granularity(vectorise, outside, log_prob):
    d = draws(
        lambda: local_model(outside), exact_guide, num_particles=5, vectorize_particles=vectorise
    )
    assert d.plates == ("data",)
    assert float(d.rest) == pytest.approx(log_prob, rel=1e-6)
    torch.testing.assert_close(d.log_w, log_marginal().expand(5, 4))


@layouts
def test_a_site_outside_that_depends_on_local_latents_makes_the_weight_joint(vectorise):
    d = draws(
        lambda: local_model(dependent_site),
        exact_guide,
        num_particles=5,
        vectorize_particles=vectorise,
    )
    assert d.plates == ()
    assert float(d.rest) == 0.0
    outside = log_density_at(d.values["z"].sum(-1), 1.0)
    torch.testing.assert_close(d.log_w, log_marginal().sum() + outside)


@pytest.mark.parametrize(
    ("outside", "loc_of"),
    [(branching_site, torch.sign), (escaping_site, lambda total: total)],
)
def test_values_that_leave_torch_are_not_taken_for_independence(outside, loc_of):
    """Neither a branch nor ``item`` leaves a trace that automatic provenance could follow."""
    d = draws(
        lambda: local_model(outside), exact_guide, num_particles=30, vectorize_particles=False
    )
    assert d.plates == ()
    expected = log_marginal().sum() + log_density_at(loc_of(d.values["z"].sum(-1)), 1.0)
    torch.testing.assert_close(d.log_w, expected)


@pytest.mark.parametrize("outside", [branching_site, escaping_site])
def test_values_that_leave_torch_are_found_out_by_the_comparison_with_single_runs(outside):
    with pytest.warns(KLModesWarning, match="one after the other"):
        d = draws(lambda: local_model(outside), exact_guide, num_particles=4)
    assert d.log_w.shape == (4,)


class _Sum(torch.autograd.Function):
    """An operation that Pyro's provenance does not follow."""

    @staticmethod
    def forward(ctx, z):
        return torch.as_tensor(z.detach().numpy()).sum(-1, keepdim=True)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.expand(4)


@layouts
def test_an_operation_without_provenance_is_not_taken_for_independence(vectorise):
    def custom(z):
        pyro.sample("y", dist.Normal(_Sum.apply(z), 1.0), obs=torch.ones(()))

    d = draws(
        lambda: local_model(custom), exact_guide, num_particles=5, vectorize_particles=vectorise
    )
    expected = log_marginal().sum() + log_density_at(d.values["z"].sum(-1), 1.0)
    torch.testing.assert_close(d.log_w, expected)


@layouts
def test_a_global_latent_makes_the_weight_joint(vectorise):
    case = conjugate_normal.hierarchical_problem()
    d = draws(
        case.model, case.exact_guide, case.args, num_particles=5, vectorize_particles=vectorise
    )
    assert d.plates == ()
    torch.testing.assert_close(d.log_w, torch.full((5,), case.log_evidence))


@layouts
def test_a_global_auxiliary_site_of_the_guide_makes_the_weight_joint(vectorise):
    def guide():
        pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        exact_guide()

    def model():
        local_model()

    d = draws(model, guide, num_particles=5, vectorize_particles=vectorise)
    assert d.plates == ()
    log_q_u = dist.Normal(0.0, 1.0).log_prob(d.values["u"])
    torch.testing.assert_close(d.log_w, log_marginal().sum() - log_q_u)


@layouts
def test_nested_plates_give_a_weight_per_element_of_both(vectorise):
    x = torch.arange(6.0).reshape(3, 2) / 3

    def model():
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, ROOT_HALF))

    d = draws(model, guide, num_particles=4, vectorize_particles=vectorise)
    assert d.plates == ("rows", "columns")
    torch.testing.assert_close(d.log_w, log_marginal(x).expand(4, 3, 2))


@layouts
def test_an_inner_plate_of_observations_is_summed_into_the_outer_cell(vectorise):
    """Three observations per latent: posterior N(sum / 4, 1 / 4), evidence by the chain rule."""
    x = torch.arange(6.0).reshape(3, 2) / 3

    def model():
        with pyro.plate("columns", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("rows", 3, dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        with pyro.plate("columns", 2, dim=-1):
            pyro.sample("z", dist.Normal(x.sum(0) / 4, 0.5))

    d = draws(model, guide, num_particles=4, vectorize_particles=vectorise)
    covariance = torch.eye(3) + torch.ones(3, 3)
    exact = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x.T)
    assert d.plates == ("columns",)
    torch.testing.assert_close(d.log_w, exact.expand(4, 2))


@layouts
def test_a_sequential_plate_makes_one_joint_weight(vectorise):
    def model():
        for i in pyro.plate("data", 4):
            z = pyro.sample(f"z{i}", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=X[i])

    def guide():
        for i in pyro.plate("data", 4):
            pyro.sample(f"z{i}", dist.Normal(X[i] / 2, ROOT_HALF))

    d = draws(model, guide, num_particles=3, vectorize_particles=vectorise)
    assert d.plates == ()
    torch.testing.assert_close(d.log_w, log_marginal().sum().expand(3))


@layouts
@pytest.mark.parametrize("particles", [1, 3])
def test_a_plate_of_size_one_is_a_plate(vectorise, particles):
    def model():
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[:1])

    def guide():
        with pyro.plate("data", 1):
            pyro.sample("z", dist.Normal(X[:1] / 2, ROOT_HALF))

    d = draws(model, guide, num_particles=particles, vectorize_particles=vectorise)
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, log_marginal(X[:1]).expand(particles, 1))


@layouts
def test_a_larger_max_plate_nesting_than_needed_changes_nothing(vectorise):
    loss = IWAE(4, max_plate_nesting=4, vectorize_particles=vectorise)
    d = loss.draws(local_model, exact_guide)
    assert d.plates == ("data",)
    torch.testing.assert_close(d.log_w, log_marginal().expand(4, 4))
    assert d.values["z"].shape == (4, 4)


@layouts
def test_outer_particles_have_an_axis_of_their_own(vectorise):
    loss = IWAE(3, num_outer=2, vectorize_particles=vectorise)
    d = loss.draws(local_model, exact_guide)
    torch.testing.assert_close(d.log_w, log_marginal().expand(3, 2, 4))
    assert loss.loss(local_model, exact_guide) == pytest.approx(-float(log_marginal().sum()))


def test_a_subsampled_plate_around_observations_only_has_no_weights():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4, subsample_size=2) as index:
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(UnsupportedStructure, match="plate 'data' does not enclose latent site 'z'"):
        draws(model, guide, num_particles=3)


def test_draws_are_reproducible_and_leave_no_parameters_behind():
    pyro.set_rng_seed(3)
    first = draws(local_model, lambda: prior_guide(), num_particles=3).values["z"]
    pyro.set_rng_seed(3)
    second = draws(local_model, lambda: prior_guide(), num_particles=3).values["z"]
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert len(pyro.get_param_store()) == 0


def prior_guide():
    with pyro.plate("data", 4):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
