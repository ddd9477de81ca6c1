"""Values as functions of a prior's parameters: the derivative of the quantile, at the value."""

import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch

from pyro_klmodes.tracing.prior_paths import prior_path

ONE = torch.tensor(1.0)


def parameter(value):
    return torch.tensor(value, requires_grad=True)


UNIVARIATE = {
    "normal": (dist.Normal, (0.3, 0.7), 1.1),
    "laplace": (dist.Laplace, (0.3, 0.7), 1.1),
    "cauchy": (dist.Cauchy, (0.3, 0.7), 1.1),
    "log-normal": (dist.LogNormal, (0.3, 0.7), 1.1),
    "half-normal": (dist.HalfNormal, (0.7,), 1.1),
    "half-cauchy": (dist.HalfCauchy, (0.7,), 1.1),
    "exponential": (dist.Exponential, (0.7,), 1.1),
    "gumbel": (dist.Gumbel, (0.3, 0.7), 1.1),
    "weibull": (dist.Weibull, (0.7, 1.4), 1.1),
}


@pytest.mark.parametrize("name", UNIVARIATE)
def test_the_gradient_is_that_of_the_quantile(name):
    """In one dimension ``dT/dtheta = -(dF/dtheta) / p`` with the distribution function F."""
    kind, start, value = UNIVARIATE[name]
    parameters = [parameter(x) for x in start]
    z = torch.tensor(value)
    fn = kind(*parameters)
    found = prior_path(fn, z)
    torch.testing.assert_close(found.detach(), z)
    actual = torch.autograd.grad(found, parameters, retain_graph=True)
    slopes = torch.autograd.grad(fn.cdf(z), parameters)
    density = fn.log_prob(z).exp().detach()
    torch.testing.assert_close(actual, tuple(-slope / density for slope in slopes))


@pytest.mark.parametrize("wrap", [lambda d: d.to_event(1), lambda d: d.mask(torch.ones(2) > 0)])
def test_wrapped_distributions_are_what_is_inside(wrap):
    scale = torch.tensor([0.5, 2.0], requires_grad=True)
    z = torch.tensor([1.0, -3.0])
    path = prior_path(wrap(dist.Normal(torch.zeros(2), scale)), z)
    (slope,) = torch.autograd.grad(path.sum(), scale)
    torch.testing.assert_close(slope, z / scale.detach())


def multivariate(kind):
    loc = torch.tensor([0.5, -1.0], requires_grad=True)
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    if kind == "student":
        return dist.MultivariateStudentT(4.0, loc, factor), (loc, factor)
    if kind == "covariance":
        return dist.MultivariateNormal(loc, covariance_matrix=factor @ factor.T), (loc, factor)
    if kind == "low rank":
        fn = dist.LowRankMultivariateNormal(loc, factor[:, :1], torch.tensor([0.5, 0.5]))
        return fn, (loc, factor)
    return dist.MultivariateNormal(loc, scale_tril=factor), (loc, factor)


@pytest.mark.parametrize("kind", ["factor", "covariance", "low rank", "student"])
def test_multivariate_paths_keep_the_whitened_value(kind):
    fn, parameters = multivariate(kind)
    z = torch.tensor([[0.2, 0.9], [1.0, 1.0], [-2.0, 0.0]])
    path = prior_path(fn, z)
    torch.testing.assert_close(path.detach(), z)
    noise = torch.linalg.solve(fn.scale_tril.detach(), (z - fn.loc.detach()).unsqueeze(-1))
    expected = fn.loc + (fn.scale_tril @ noise).squeeze(-1)
    cotangent = torch.tensor([[0.3, -1.0], [2.0, 0.4], [0.1, 1.0]])
    actual = torch.autograd.grad((path * cotangent).sum(), parameters, retain_graph=True)
    torch.testing.assert_close(
        actual, torch.autograd.grad((expected * cotangent).sum(), parameters)
    )


@pytest.mark.parametrize("make", [transforms.affine_autoregressive, transforms.spline])
def test_flows_keep_the_noise(make):
    torch.manual_seed(0)
    flow = make(2)
    fn = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [flow])
    z = fn.sample((4,))
    fn.log_prob(z)  # which leaves something in the caches
    path = prior_path(fn, z)
    torch.testing.assert_close(path.detach(), z)
    noise = flow.inv(z.clone()).detach().clone()
    weights = torch.randn(4, 2)
    parameters = list(flow.parameters())
    actual = torch.autograd.grad((path * weights).sum(), parameters, allow_unused=True)
    expected = torch.autograd.grad((flow(noise) * weights).sum(), parameters, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0.1 for g in actual)
    for mine, theirs in zip(actual, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs)


def test_what_depends_on_no_parameter_stays():
    for fn in (dist.Gamma(2.0, 1.0), dist.Uniform(0.0, 2.0), dist.Bernoulli(0.3)):
        path = prior_path(fn, ONE)
        assert torch.equal(path, ONE)
        assert not path.requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda p: dist.Gamma(p, 1.0),
        lambda p: dist.Uniform(0.0, 1 + p),
        lambda p: dist.Pareto(p / 2, 1.0),
        lambda p: dist.StudentT(p + 2.0),
        lambda p: dist.Bernoulli(p / 2),
        lambda p: dist.TransformedDistribution(
            dist.Exponential(1.0), [transforms.AffineTransform(p - 1.0, 2.0)]
        ),
        lambda p: dist.FoldedDistribution(dist.Normal(p, 1.0)),
    ],
    ids=["shape", "end", "scale of Pareto", "degrees", "discrete", "shift", "folded"],
)
def test_what_has_no_transform_is_left_alone(make):
    assert prior_path(make(parameter(0.8)), ONE) is None
