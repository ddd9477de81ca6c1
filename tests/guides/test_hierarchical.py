"""Globals first, then locals given globals: exact where hierarchies are Gaussian.

Neal's funnel is in ``tests/reproductions/test_curved_posteriors.py``.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import init_to_value
from pyro.optim import ClippedAdam
from torch.distributions import constraints

import pyro_klmodes as kl
from models import eight_schools
from pyro_klmodes import estimators
from pyro_klmodes.errors import InvalidArgument, NotDefined
from pyro_klmodes.guides import AutoHierarchical, Gaussian, PerElement, Shared
from pyro_klmodes.guides.bijection import bijection_to
from pyro_klmodes.testing import assert_integrates_to_one
from pyro_klmodes.weights import pareto_khat


def decaying(lr, steps, end=0.01):
    return ClippedAdam({"lr": lr, "lrd": end ** (1 / steps)})


def shaken(guide, *args, size=0.2):
    guide(*args)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in guide.parameters():
            p += size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return guide


# -- structure -------------------------------------------------------------------------------------


def nested():
    """Locals in an outer plate, in an inner one, and in another; a global stands last."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    outer = pyro.plate("outer", 2, dim=-2)
    inner = pyro.plate("inner", 3, dim=-1)
    with outer:
        a = pyro.sample("a", dist.Normal(mu, 1.0))
        with inner:
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("c", dist.Normal(b, 1.0).expand([2, 3]))
    with inner:
        pyro.sample("d", dist.LogNormal(mu, 1.0))
    pyro.sample("scale", dist.Gamma(2.0, 2.0))


def test_a_site_sees_globals_enclosing_plates_and_its_own_element():
    guide = AutoHierarchical(nested)
    guide()
    assert guide.upstream == {
        "mu": (),
        "scale": ("mu",),
        "a": ("mu", "scale"),
        "d": ("mu", "scale"),
        "b": ("mu", "scale", "a", "d"),
        "c": ("mu", "scale", "a", "d", "b"),
    }


def test_a_local_moves_with_its_own_element_alone():
    """Under a shaken guide, a change of one element of ``a`` moves only its row of ``b``."""
    guide = shaken(AutoHierarchical(nested))
    values = guide.sample(1)
    fixed = {n: v[0] for n, v in values.items() if n in ("mu", "scale", "a", "d")}

    def locations(a):
        given = poutine.condition(guide, data={**fixed, "a": a})
        return poutine.trace(given).get_trace().nodes["b"]["fn"].median()

    moved = fixed["a"].clone()
    moved[1] += 1.0
    change = locations(moved) - locations(fixed["a"])
    assert change[0].abs().max() == 0
    assert change[1].abs().min() > 0


def wide(name, support, loc, size):
    base = dist.StudentT(3.0, loc, 2.0).expand([size]).to_event(1)
    pyro.sample(name, dist.TransformedDistribution(base, [bijection_to(support, name)]))


def heavy():
    """A prior with heavier tails than the guide's, over globals, a scalar and a vector local."""
    a = pyro.sample("a", dist.StudentT(3.0, 0.0, 2.0))
    with pyro.plate("data", 2):
        pyro.sample("z", dist.StudentT(3.0, 0.3 * a, 2.0))
        wide("w", constraints.simplex, 0.0, 2)


@pytest.mark.parametrize("coupling", [PerElement(), Shared()])
@pytest.mark.parametrize("tails", [Gaussian(), None])
def test_the_density_integrates_to_one(tails, coupling):
    arguments = {} if tails is None else {"tails": tails}
    guide = AutoHierarchical(heavy, coupling=coupling, init_scale=1.5, **arguments)
    assert_integrates_to_one(heavy, shaken(guide))


def by_rule(log_density, centre, width):
    """The trapezoid rule, which is exact to rounding for smooth densities that fall off fast."""
    nodes = centre + width * torch.linspace(-12.0, 12.0, 4001)
    return torch.trapezoid(log_density(nodes).exp(), nodes)


def test_conditionals_integrate_to_one():
    """Each conditional by quadrature, the sites before it given: smooth ones to rounding."""

    def scalars():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Normal(a, a.exp()))
            pyro.sample("x", dist.Normal(z, 1.0))

    guide = shaken(AutoHierarchical(scalars, tails=Gaussian()))
    given = {n: torch.tensor(v) for n, v in {"a": 0.7, "z": [-0.4], "x": [0.3]}.items()}

    def conditional(name):
        def log_density(nodes):
            with pyro.plate("nodes", len(nodes), dim=-2):
                values = {n: v.expand(len(nodes), 1) for n, v in given.items()}
                values[name] = nodes.reshape(-1, 1)
                trace = poutine.trace(poutine.condition(guide, data=values)).get_trace()
            site = trace.nodes[name]
            return site["fn"].log_prob(site["value"]).flatten()

        return log_density

    for name in given:
        total = by_rule(conditional(name), 0.0, 3.0)
        torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-6, rtol=0)


def test_starts_at_the_initial_values_no_wider_than_asked_for():
    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            pyro.sample("wide", dist.Normal(mu, 10.0))
            pyro.sample("narrow", dist.Normal(mu, 0.1))

    at = {"mu": torch.tensor(0.5), "wide": torch.tensor([3.0, -4.0]), "narrow": torch.ones(2)}
    guide = AutoHierarchical(model, init_loc_fn=init_to_value(values=at), init_scale=0.3)
    median = guide.median()
    for name, value in at.items():
        torch.testing.assert_close(median[name], value)
    trace = poutine.trace(poutine.condition(guide, data={"mu": at["mu"]})).get_trace()
    scales = {n: trace.nodes[n]["fn"].given.log_scale.exp().flatten() for n in ("wide", "narrow")}
    torch.testing.assert_close(scales["wide"], torch.full((2,), 0.3))
    torch.testing.assert_close(scales["narrow"], torch.full((2,), 0.1 / math.sqrt(2)))


def test_the_prior_is_linearised_with_predictors_of_each_element():
    """A prior normal in unconstrained space, linear in both: its intercepts and slopes."""
    predictor = torch.tensor([-1.0, 0.5, 2.0])

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        gamma = pyro.sample("gamma", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("data", 3):
            pyro.sample("z", dist.LogNormal(mu + gamma * predictor, 2 * sigma))

    guide = AutoHierarchical(model)
    guide()
    site = guide.sites.z
    one, zero = torch.ones(3), torch.zeros(3)
    by_loc = torch.stack([one, predictor, zero], -1)
    by_scale = torch.tensor([0.0, 0.0, 1.0]).expand(3, 3)
    torch.testing.assert_close(site.prior_slopes, torch.stack([by_loc, by_scale], 1).unsqueeze(2))
    intercept = torch.stack([zero, math.log(2) * one], 1).unsqueeze(-1)
    torch.testing.assert_close(site.prior_values[:, :2], intercept)


@pytest.mark.parametrize("prior", ["gamma", "student_t"])
def test_a_prior_that_is_not_normal_is_linearised_by_its_quantiles(prior):
    """Scale families: location and log-scale of log z, or of z, move as their parameters do."""

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            if prior == "gamma":
                pyro.sample("z", dist.Gamma(3.0, (-mu).exp()))
            else:
                pyro.sample("z", dist.StudentT(1.0, mu, 0.5))

    guide = AutoHierarchical(model)
    guide()
    slopes = guide.sites.z.prior_slopes.squeeze()
    expected = torch.tensor([1.0, 0.0]).expand(2, 2)
    torch.testing.assert_close(slopes, expected, atol=1e-6, rtol=0)


def test_without_globals_and_with_more_than_it_linearises():
    def independent():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def many():
        w = pyro.sample("w", dist.Normal(torch.zeros(101), 1.0).to_event(1))
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(w[0], 1.0))

    guide = AutoHierarchical(independent)
    assert kl.draws(independent, guide, num_particles=3).plates == ("data",)
    pyro.clear_param_store()
    guide = AutoHierarchical(many, init_scale=0.3)
    guide()
    assert guide.sites.z.prior_slopes.abs().max() == 0
    w = guide.median()["w"]
    trace = poutine.trace(poutine.condition(guide, data={"w": w})).get_trace()
    scale = trace.nodes["z"]["fn"].given.log_scale.exp()
    torch.testing.assert_close(scale, torch.full_like(scale, 0.3))


def test_numbers_of_parameters():
    """As the docstring counts them: D = 2 globals, N = 8 locals of one coordinate."""
    for coupling, local in ((PerElement(), 8 * (4 + 4) + 4), (Shared(), 4 * 8 + 8)):
        pyro.clear_param_store()
        guide = AutoHierarchical(eight_schools.centred_model, coupling=coupling)
        guide(*eight_schools.data())
        counted = sum(p.numel() for p in guide.sites.parameters())
        assert counted == local


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"coupling": "shared"}, r"coupling='shared' must be PerElement\(\) or Shared\(\)"),
        ({"coupling": Shared}, "coupling=<class.*must be PerElement"),
        ({"tails": "gaussian"}, r"tails='gaussian' must be Stretched\(\) or Gaussian\(\)"),
    ],
)
def test_arguments_that_are_wrong(wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        AutoHierarchical(nested, **wrong)


def test_quantiles_have_no_closed_form():
    with pytest.raises(NotDefined, match=r"guide.sample\(10_000"):
        AutoHierarchical(nested).quantiles([0.5])


# -- exact posteriors ------------------------------------------------------------------------------


def set_parameters(guide, **values):
    """Overwrite unconstrained parameters by the end of their names."""
    named = dict(guide.named_parameters())
    with torch.no_grad():
        for end, value in values.items():
            name = next(n for n in named if n.endswith(f"{end.replace('__', '.')}_unconstrained"))
            named[name].copy_(torch.as_tensor(value).expand_as(named[name]))


def test_the_conditional_of_eight_schools_is_in_the_family():
    """With the likelihood's factor put in by hand the weights do not depend on theta.

    ``theta_j | mu, tau, y ~ N(mu, tau^2) N(y_j, s_j^2)``: the prior's factor stands from the start.
    """
    y, error = eight_schools.data()
    guide = AutoHierarchical(eight_schools.centred_model)
    guide(y, error)
    start_loc, start_log_scale = guide.sites.theta.prior_values[..., 2:, :].unbind(-2)
    zero = torch.zeros(8, 1)
    m = (y[:, None] - start_loc) / start_log_scale.exp()
    e = error[:, None].log() - start_log_scale
    set_parameters(
        guide,
        theta__offsets=torch.stack([zero, m, zero, e], -2),
        theta__loc_slopes=0.0,
        # the factors share the slope d; the likelihood's does not follow tau
        theta__scale_slopes=0.0,
    )
    drawn = kl.draws(eight_schools.centred_model, guide, (y, error), num_particles=50)
    mu, tau = drawn.values["mu"].flatten(), drawn.values["tau"].flatten()
    # log p(mu, tau, y) with theta integrated out, less log q(mu, tau)
    var = error**2 + tau[:, None] ** 2
    collapsed = dist.Normal(mu[:, None], var.sqrt()).log_prob(y).sum(1)
    collapsed += dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau)
    values = {"mu": mu, "tau": tau, "theta": drawn.values["theta"].reshape(50, 8)}
    log_q = guide.log_prob(values, y, error)
    var_given = 1 / (1 / error**2 + 1 / tau[:, None] ** 2)
    mean_given = var_given * (y / error**2 + mu[:, None] / tau[:, None] ** 2)
    exact = dist.Normal(mean_given, var_given.sqrt()).log_prob(values["theta"]).sum(1)
    log_q_globals = log_q - exact
    expected = collapsed - log_q_globals
    torch.testing.assert_close(drawn.log_w.flatten(), expected.detach())
    again = {**values, "theta": values["theta"] + 1.0}
    moved = guide.log_prob(again, y, error) - log_q
    exact_moved = dist.Normal(mean_given, var_given.sqrt()).log_prob(again["theta"]).sum(1) - exact
    torch.testing.assert_close(moved, exact_moved)


NOISE = 0.5
N = 12


def partly_pooled(y, idx=None, size=None):
    """mu ~ N(0, 1), z_n ~ N(mu, 1), y_n ~ N(z_n, NOISE)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", N, subsample=idx, subsample_size=size) as i:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(z, NOISE), obs=y[i])


def exact_posterior(y):
    """Mean and covariance of ``(mu, z_1..z_N)``."""
    precision = torch.zeros(N + 1, N + 1)
    precision[0, 0] = 1.0 + N
    precision[0, 1:] = precision[1:, 0] = -1.0
    precision[1:, 1:] = torch.diag(torch.full((N,), 1.0 + NOISE**-2))
    covariance = torch.linalg.inv(precision)
    return covariance @ torch.cat([torch.zeros(1), y / NOISE**2]), covariance


def log_evidence(y):
    covariance = torch.full((N, N), 1.0) + (1 + NOISE**2) * torch.eye(N)
    return float(dist.MultivariateNormal(torch.zeros(N), covariance).log_prob(y))


def conditional(guide, y, mu):
    """Location and scale of z over all data, given mu."""
    trace = poutine.trace(poutine.condition(guide, data={"mu": mu})).get_trace(y)
    given = trace.nodes["z"]["fn"].given
    return given.loc.squeeze(-1).detach(), given.log_scale.exp().squeeze(-1).detach()


def moments(guide, y):
    """Mean and covariance of ``(mu, z_1..z_N)`` under the guide, whose z is linear in mu.

    That it is, is checked at mu two standard deviations to either side, and in the middle.
    """
    density = guide.family.density()
    loc, sd = density.loc.detach().squeeze(), density.scale.marginal_sd().detach().squeeze()
    low, middle, high = (conditional(guide, y, loc + k * sd) for k in (-2, 0, 2))
    bend = (low[0] + high[0]) / 2 - middle[0]
    widening = (high[1] / low[1]).log()
    slope = (high[0] - low[0]) / (4 * sd)
    loadings = torch.cat([torch.ones(1), slope])
    own = torch.cat([torch.zeros(1), middle[1] ** 2])
    covariance = sd**2 * torch.outer(loadings, loadings) + torch.diag(own)
    return torch.cat([loc[None], middle[0]]), covariance, bend.abs().max(), widening.abs().max()


def minibatches_of_ours(y):
    """Halves of the data in random order."""
    halves = []

    def batch():
        nonlocal halves
        halves = halves or list(torch.randperm(N).split(6))
        return y, halves.pop()

    return batch


def minibatches_of_pyro(y):
    return lambda: (y, None, 6)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param(minibatches_of_ours, id="ours"),
        pytest.param(minibatches_of_pyro, id="of_pyro", marks=pytest.mark.slow),
    ],
)
def test_minibatches_lead_to_the_exact_joint_posterior(batches):
    """Means of all data, and all covariances: of mu with every z, and between the z.

    Some z start so far off that the first steps make their scales too wide: these must come back.
    """
    y = torch.linspace(-2.0, 3.0, N)
    mean, covariance = exact_posterior(y)
    batch = batches(y)
    guide = AutoHierarchical(partly_pooled, tails=Gaussian())
    guide(*batch())
    tolerance = 0.03  # the posterior standard deviations are 0.31 for mu, and 0.45 for every z
    start_mean, start_covariance, *_ = moments(guide, y)
    assert float((start_mean - mean).abs().max()) > 5 * tolerance
    assert float((start_covariance - covariance).abs().max()) > 5 * tolerance

    steps = 1000
    loss = kl.ReverseKL(4, estimator=estimators.doubly)  # no variance at the posterior
    svi = pyro.infer.SVI(partly_pooled, guide, decaying(0.1, steps, 0.003), loss=loss)
    for _ in range(steps):
        svi.step(*batch())

    end_mean, end_covariance, bend, widening = moments(guide, y)
    torch.testing.assert_close(end_mean, mean, atol=tolerance, rtol=0)
    torch.testing.assert_close(end_covariance, covariance, atol=tolerance, rtol=0)
    assert float(bend) < tolerance
    assert float(widening) < tolerance


def test_eight_schools_centred():
    case = eight_schools.problem()
    guide = AutoHierarchical(case.model)
    torch.manual_seed(0)
    result = kl.fit(
        case.model,
        guide,
        kl.ReverseKL(16),
        *case.args,
        steps=500,
        optim=decaying(0.1, 500, 0.05),
        progress=False,
    )
    log_w = result.log_weights(20_000).reshape(-1)
    assert float(pareto_khat(log_w)) < 0.7
    assert case.log_evidence - float(log_w.mean()) < 0.1


# -- losses ----------------------------------------------------------------------------------------


def exact_guide(y):
    """The guide with the posterior put in by hand."""
    mean, covariance = exact_posterior(y)
    guide = AutoHierarchical(partly_pooled, tails=Gaussian())
    guide(y)
    start_loc, start_log_scale = guide.sites.z.prior_values[..., 2:, :].unbind(-2)
    zero = torch.zeros(N, 1)
    m = (y[:, None] - start_loc) / start_log_scale.exp()
    e = math.log(NOISE) - start_log_scale.expand(N, 1)
    sd = covariance[0, 0].sqrt()
    set_parameters(
        guide,
        z__offsets=torch.stack([zero, m, zero, e], -2),
        family__loc=mean[:1],
        family__scale__sd=torch.log(torch.expm1(sd)),
    )
    return guide


def test_the_exact_guide_has_the_density_of_the_exact_posterior():
    """The product of the conditionals is the joint normal, at values anywhere."""
    y = torch.linspace(-2.0, 3.0, N)
    guide = exact_guide(y)
    points = 2 * torch.randn(10, N + 1)
    expected = dist.MultivariateNormal(*exact_posterior(y)).log_prob(points)
    actual = guide.log_prob({"mu": points[:, 0], "z": points[:, 1:]}, y)
    torch.testing.assert_close(actual.detach(), expected)


@pytest.mark.parametrize("loss", [kl.ReverseKL(3), kl.IWAE(3)])
def test_the_exact_guide_has_the_log_evidence_as_its_bound(loss):
    """At every draw: weights of the posterior are constant."""
    y = torch.linspace(-2.0, 3.0, N)
    value = loss.loss(partly_pooled, exact_guide(y), y)
    assert abs(value + log_evidence(y)) < 1e-8


def test_pyros_mean_field_elbo_is_right_for_dependent_sites():
    """As above, because it integrates nothing in closed form."""
    y = torch.linspace(-2.0, 3.0, N)
    elbo = TraceMeanField_ELBO(5, vectorize_particles=True, max_plate_nesting=1)
    assert abs(elbo.loss(partly_pooled, exact_guide(y), y) + log_evidence(y)) < 1e-8
