"""Gaussian posteriors, where linear response is exact whatever the blocks of the guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import conjugate_normal
from models.problem import Moments
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import MultivariateNormal, Normal
from pyro_klmodes.inference.cavi import CAVI
from pyro_klmodes.inference.linear_response import linear_response


def random_precision(size, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size + 2, generator=generator)
    return root @ root.T / size + 0.1 * torch.eye(size)


def one_vector(mean, precision):
    """A normal, given by its density, as a vector with a flat enough prior taken off again."""
    x = pyro.sample("x", dist.Normal(torch.zeros(len(mean)), 1.0).to_event(1))
    _rest([x[..., i] for i in range(len(mean))], mean, precision)


def one_site_each(mean, precision):
    values = [pyro.sample(f"x{i}", dist.Normal(0.0, 1.0)) for i in range(len(mean))]
    _rest(values, mean, precision)


def a_vector_and_a_number(mean, precision):
    x = pyro.sample("x", dist.Normal(torch.zeros(len(mean) - 1), 1.0).to_event(1))
    last = pyro.sample("last", dist.Normal(0.0, 1.0))
    _rest([*(x[..., i] for i in range(len(mean) - 1)), last], mean, precision)


def _rest(values, mean, precision):
    """The density of a normal without what the sites have by themselves."""
    total = 0.0
    for i, a in enumerate(values):
        total = total + 0.5 * a * a
        for j, b in enumerate(values):
            total = total - 0.5 * precision[i, j] * (a - mean[i]) * (b - mean[j])
    pyro.factor("rest", total)


BLOCKS = {
    "independent entries": (one_vector, {"x": Normal()}),
    "one site each": (one_site_each, {}),
    "a full block and a number": (a_vector_and_a_number, {"x": MultivariateNormal()}),
}


@pytest.mark.parametrize("blocks", BLOCKS)
@settings(derandomize=True, deadline=None, max_examples=6)
@given(size=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_covariances_of_random_gaussians_are_exact(blocks, size, seed):
    precision = random_precision(size, seed)
    mean = torch.linspace(-1, 1, size)
    model, families = BLOCKS[blocks]
    guide = AutoMeanField(model, families=families)
    fit = CAVI(model, guide).fit(mean, precision, steps=5)
    response = linear_response(fit, tolerance=100.0)  # exact at any means
    expected = torch.linalg.inv(precision)
    own = torch.cat([s.square().flatten() for s in response.mean_field_sd.values()])
    blocked = torch.zeros_like(precision)
    begin = 0
    for site in response.mean.values():
        many = slice(begin, begin + site.numel())
        full = families.get("x") == MultivariateNormal() and site.dim() == 1
        part = precision[many, many]
        blocked[many, many] = part.inverse() if full else (1 / part.diagonal()).diag()
        begin += site.numel()
    assert torch.allclose(own, blocked.diagonal(), rtol=1e-9)
    # it is far off before: by 5000 tolerances at least
    assert (blocked - expected).abs().max() > 5e-7 * expected.abs().max()
    assert (response.covariance - expected).abs().max() < 1e-10 * expected.abs().max()
    assert response.exact


def test_the_bivariate_gaussian():
    precision = torch.tensor([[2.0, 1.6], [1.6, 3.0]])
    mean = torch.tensor([1.0, -0.5])
    guide = AutoMeanField(one_vector, families={"x": Normal()})
    response = linear_response(CAVI(one_vector, guide).fit(mean, precision))
    exact = torch.linalg.inv(precision)
    assert torch.allclose(response.mean["x"], mean, atol=1e-12)
    assert torch.allclose(response.mean_field_sd["x"].square(), 1 / precision.diagonal())
    assert torch.allclose(response.covariance, exact, rtol=0, atol=1e-10)
    assert torch.allclose(response.sd["x"], exact.diagonal().sqrt(), rtol=0, atol=1e-10)
    # 1 - r^2 is what mean field leaves of a variance
    lost = 1 - 1.6**2 / 6
    assert torch.allclose(response.ratio["x"] ** -2, torch.tensor([lost, lost]))


def assert_is(response, reference: dict[str, Moments]):
    for name, moments in reference.items():
        assert torch.allclose(response.sd[name], moments.sd, rtol=1e-10)
        assert torch.allclose(response.mean[name], moments.mean, atol=1e-6)


def assert_is_near(response, reference, *, distance):
    for name, moments in reference.items():
        assert torch.allclose(response.sd[name], moments.sd, rtol=1e-10)
        assert ((response.mean[name] - moments.mean).abs() / moments.sd).max() < 2 * distance


def test_local_latents_below_a_global_one():
    case = conjugate_normal.hierarchical_problem()
    response = linear_response(CAVI(case.model).fit(*case.args))
    assert_is(response, case.reference)
    assert float(response.ratio["mu"]) == pytest.approx((21 / 11) ** 0.5, rel=1e-9)
    # Cov(mu, z_n) = Var(mu) / 2 and Cov(z_m, z_n) = Var(mu) / 4, as z_n | mu ~ ((mu + x_n)/2, 1/2)
    expected = torch.full((21, 21), 1 / 44)
    expected[0], expected[:, 0], expected[0, 0] = 1 / 22, 1 / 22, 1 / 11
    expected[range(1, 21), range(1, 21)] += 0.5
    assert torch.allclose(response.covariance, expected, rtol=0, atol=1e-10)
    assert response.labels[:3] == ["mu", "z[0]", "z[1]"]
    swapped = response.covariance_of("z", "mu")
    assert torch.equal(swapped[:20, :20], response.covariance[1:, 1:])
    assert torch.equal(swapped[20, :20], response.covariance[0, 1:])


def test_ten_thousand_local_latents():
    x = 1 + 2**0.5 * torch.randn(10_000)
    fit = CAVI(conjugate_normal.hierarchical_model).fit(x)
    response = linear_response(fit)
    variance = 1 / (1 + len(x) / 2)
    assert float(response.sd["mu"]) == pytest.approx(variance**0.5, rel=1e-10)
    local = torch.full((len(x),), (0.5 + variance / 4) ** 0.5)
    assert torch.allclose(response.sd["z"], local, rtol=1e-10)


def test_crossed_and_nested_plates():
    """Rows and columns with an effect each, and a cell with one of its own."""
    R, C = 3, 4

    def model(y):
        with pyro.plate("columns", C, dim=-1):
            b = pyro.sample("b", dist.Normal(0.0, 1.5))
        with pyro.plate("rows", R, dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 2.0))
            with pyro.plate("columns_", C, dim=-1):
                c = pyro.sample("c", dist.Normal(0.0, 0.7))
                pyro.sample("y", dist.Normal(a + b + c, 0.5), obs=y)

    response = linear_response(CAVI(model).fit(torch.randn(R, C), steps=300, tolerance=1e-4))
    design = torch.zeros(R * C, C + R + R * C)
    for r in range(R):
        for c in range(C):
            design[r * C + c, [c, C + r, C + R + r * C + c]] = 1.0
    prior = torch.tensor([1.5**-2] * C + [2.0**-2] * R + [0.7**-2] * (R * C))
    expected = torch.linalg.inv(prior.diag() + design.T @ design / 0.25)
    assert response.mean["a"].shape == (R, 1)
    assert torch.allclose(response.covariance_of("b", "a", "c"), expected, rtol=0, atol=1e-10)


def test_a_chain_has_no_plate_to_eliminate():
    """A random walk as a plate whose members meet in a factor: nothing falls apart."""
    T = 6

    def model(y):
        with pyro.plate("time", T):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(x, 0.5), obs=y)
        pyro.factor("steps", -0.5 * 3 * (x[..., 1:] - x[..., :-1]).square().sum(-1))

    fit = CAVI(model, AutoMeanField(model)).fit(torch.randn(T), tolerance=1e-12)
    precision = 5 * torch.eye(T)
    for t in range(T - 1):
        precision[t : t + 2, t : t + 2] += 3 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    response = linear_response(fit)
    assert torch.allclose(response.covariance, precision.inverse(), rtol=0, atol=1e-10)
    assert bool((response.ratio["x"] > 1.05).all())


def test_a_fit_by_stochastic_gradients_gives_the_same():
    from pyro.optim import ClippedAdam

    from pyro_klmodes import ReverseKL
    from pyro_klmodes.inference import fit

    case = conjugate_normal.hierarchical_problem()
    guide = AutoMeanField(case.model, init_scale=0.5)
    steps = 400
    optim = ClippedAdam({"lr": 0.1, "lrd": 1e-3 ** (1 / steps)})
    loss = ReverseKL(num_particles=8)
    found = fit(case.model, guide, loss, *case.args, optim=optim, steps=steps, progress=False)
    response = linear_response(found)
    # the noise of the gradients is left in the fit, and answers do not depend on it here
    assert 1e-4 < response.distance < 0.05
    assert float(response.mean_field_sd["mu"]) == pytest.approx((1 / 21) ** 0.5, rel=0.03)
    assert_is_near(response, case.reference, distance=response.distance)
