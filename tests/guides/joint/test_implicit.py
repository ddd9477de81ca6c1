"""Implicit gradients: draw by draw against the definition, and in the mean against quadrature."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_klmodes.guides.joint.implicit import implicit_draw
from pyro_klmodes.guides.joint.mixture import Mixture, MixtureDensity
from pyro_klmodes.guides.joint.radial import Gaussian, StudentT
from pyro_klmodes.guides.joint.scale_diagonal import DiagonalScale
from pyro_klmodes.guides.joint.scale_full import FullScale
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank
from pyro_klmodes.testing import assert_same_mean

STRUCTURES = [Diagonal(), LowRank(1), Full()]
LAWS = [Gaussian(), StudentT(3.5, learn_df=True)]


def random_family(structure, law, size, num_components):
    """Components that overlap, correlated where they can be."""
    loc = torch.zeros(size)
    family = Mixture(loc, num_components=num_components, scale=structure, radial=law)
    with torch.no_grad():
        for p in family.parameters():
            p += 0.5 * torch.randn_like(p)
    return family


def covariances(scale):  # (C, D, D)
    factor = scale.triangular()
    identity = torch.eye(factor.sd.shape[-1]).unsqueeze(1).expand(-1, len(factor.sd), -1)
    images = factor.draw(identity)
    return torch.einsum("nci,ncj->cij", images, images)


def conditional_cdf(z, log_weights, locs, covs):
    """S_j(z) from textbook formulas, coordinate by coordinate."""
    values = []
    for j in range(len(z)):
        log_share, cdf = log_weights, []
        if j > 0:
            log_share = log_share + MultivariateNormal(locs[:, :j], covs[:, :j, :j]).log_prob(z[:j])
        for loc, cov in zip(locs, covs, strict=True):
            gain = torch.linalg.solve(cov[:j, :j], cov[:j, j]) if j > 0 else cov[:0, 0]
            mean = loc[j] + gain @ (z[:j] - loc[:j])
            sd = (cov[j, j] - gain @ cov[:j, j]).sqrt()
            cdf.append(Normal(mean, sd).cdf(z[j]))
        values.append((log_share.softmax(0) * torch.stack(cdf)).sum())
    return torch.stack(values)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_draw_moves_as_the_definition_says(structure, size):
    family = random_family(structure, Gaussian(), size, 3)
    density = family.density()
    stretch = torch.tensor(1.3, requires_grad=True)
    inputs = [*family.parameters(), stretch]
    for z in 2 * torch.randn(5, size):
        direction = torch.randn(size)
        args = (density.log_weights, density.component_locs)
        covs = stretch**2 * covariances(density.scale)
        jacobian = torch.autograd.functional.jacobian(
            lambda x, args=args, covs=covs: conditional_cdf(x, *args, covs), z
        )
        pulled = torch.linalg.solve(jacobian.T, direction)
        moved = -(pulled.detach() * conditional_cdf(z, *args, covs)).sum()
        expected = torch.autograd.grad(moved, inputs, retain_graph=True)

        draw = implicit_draw(z, *args, density.scale.triangular(), stretch)
        assert torch.equal(draw.detach(), z)
        actual = torch.autograd.grad((direction * draw).sum(), inputs, retain_graph=True)
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", [Diagonal(), Full()])
def test_one_component_has_the_ordinary_gradient(structure, law):
    family = random_family(structure, law, 4, 1)
    density = family.density()
    components = torch.zeros(6, dtype=torch.long)
    stretch = density.radial.stretch(components.shape)
    noise = torch.randn(6, 4)
    scale = density.scale.select(components)
    ordinary = density.component_locs[components] + stretch.unsqueeze(-1) * scale.draw(noise)
    implicit = implicit_draw(
        ordinary.detach(), density.log_weights, density.component_locs, density.scale, stretch
    )
    direction = torch.randn(6, 4)
    inputs = [p for name, p in family.named_parameters() if not name.startswith("logits")]
    expected, actual = (
        torch.autograd.grad((direction * z).sum(), inputs, retain_graph=True)
        for z in (ordinary, implicit)
    )
    torch.testing.assert_close(actual, expected)


def curve(x):
    """Asymmetric, and grows slowly: sensitive to the tails, yet with moments of every order."""
    return (x + 0.4).sin() + (x + 0.4).square().log1p()


def expected_curve(density, directions):
    """E curve(a'z), summed over rows a: each a'z is a mixture of elliptical variables."""
    v = (torch.arange(20_000) + 0.5) / 20_000 * torch.pi - torch.pi / 2
    x, step = v.tan(), (1 + v.tan() ** 2) * torch.pi / 20_000
    one = torch.ones(())
    weights = step * density.radial.log_density(x**2, 0 * one, one).exp()
    total = torch.zeros(())
    for a in directions:
        sd = torch.einsum("i,cij,j->c", a, covariances(density.scale), a).sqrt()
        projected = (density.component_locs @ a).unsqueeze(-1) + sd.unsqueeze(-1) * x
        total = total + (density.log_weights.exp() * (curve(projected) * weights).sum(-1)).sum()
    return total


@pytest.mark.parametrize(
    ("structure", "size"), [(Diagonal(), 1), (Diagonal(), 3), (LowRank(1), 3), (Full(), 3)]
)
@pytest.mark.parametrize("law", LAWS)
def test_mean_gradients_of_all_parameters(structure, size, law):
    family = random_family(structure, law, size, 3)
    inputs = list(family.parameters())
    directions = torch.randn(3, size)
    exact = torch.autograd.grad(expected_curve(family.density(), directions), inputs)
    exact = torch.cat([g.reshape(-1) for g in exact])

    rows = []
    for _ in range(200):
        z = family.density().rsample((200,))
        grads = torch.autograd.grad(curve(z @ directions.T).sum(-1).mean(), inputs)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    samples = torch.stack(rows)
    assert_same_mean(samples, exact)
    errors = (samples.std(0) / len(rows) ** 0.5).clamp(min=1e-12)
    powers = (exact / errors).abs().split([p.numel() for p in inputs])
    # in standard errors: weights, locations, scales and df would each be told from zero
    assert min(float(power.max()) for power in powers) > 10


@pytest.mark.parametrize("structure", [Diagonal(), Full()])
@pytest.mark.parametrize("distance", [3.0, 30.0])
def test_single_precision_far_out(structure, distance):
    """Draws up to nine standard deviations out and components that do not overlap."""
    locs = distance * torch.tensor([[-1.0, 0.0], [1.0, 1.0], [0.0, -1.0]])
    sd = torch.tensor([[1.0, 0.5], [0.3, 2.0], [1.0, 1.0]])
    lower = torch.eye(2) + torch.tensor([[0.0, 0.0], [0.7, 0.0]])
    steps = torch.tensor([[-9.0, 9.0], [9.0, 9.0], [0.0, -7.0], [5.0, -5.0], [0.1, 0.2]])
    z = (locs.unsqueeze(1) + sd.unsqueeze(1) * steps).reshape(-1, 2)
    direction = torch.randn_like(z)

    def gradients(dtype):
        tensors = [x.to(dtype) for x in (torch.tensor([0.2, 0.3, 0.5]).log(), locs, sd)]
        weights, at, spread = (x.clone().requires_grad_() for x in tensors)
        if isinstance(structure, Diagonal):
            scale = DiagonalScale(spread)
        else:
            scale = FullScale(spread, lower.to(dtype).expand(3, 2, 2))
        # one at a time: sums would hide the small ones
        rows = []
        for point, way in zip(z.to(dtype), direction.to(dtype), strict=True):
            draw = implicit_draw(point, weights, at, scale, torch.ones((), dtype=dtype))
            assert torch.equal(draw, point)
            row = torch.autograd.grad((way * draw).sum(), [weights, at, spread])
            rows.append(torch.cat([g.reshape(-1) for g in row]))
        return torch.stack(rows)

    single, double = gradients(torch.float32).double(), gradients(torch.float64)
    assert double.isfinite().all()
    assert double.abs().max() > 1
    scale = double.abs().amax(1, keepdim=True)
    torch.testing.assert_close(single / scale, double / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(), (5,), (5, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_shapes_and_types(structure, law, dtype, shape):
    family = Mixture(
        torch.zeros(3, dtype=dtype), num_components=4, scale=structure, radial=law, min_weight=0.05
    )
    density = family.density()
    draws = [
        density.rsample(torch.Size(shape)),
        density.rsample_component(torch.randint(4, shape)),
    ]
    for z in draws:
        assert z.shape == (*shape, 3)
        assert z.dtype == dtype
        assert z.requires_grad
        log_prob = density.log_prob(z)
        assert log_prob.shape == shape
        assert log_prob.dtype == dtype
    with torch.no_grad():
        assert density.rsample(torch.Size(shape)).shape == (*shape, 3)
    loss = (density.log_prob(draws[0]) + draws[0].sum(-1)).sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in family.parameters())


def test_a_low_rank_mixture_draws_with_the_same_mean_gradient_as_a_full_one():
    low = random_family(LowRank(1), Gaussian(), 2, 2).density()
    full = MixtureDensity(low.log_weights, low.component_locs, low.scale.triangular(), low.radial)
    z = torch.randn(6, 2)
    torch.testing.assert_close(low.log_prob(z), full.log_prob(z))
    stretch = torch.ones(())
    args = (z, low.log_weights, low.component_locs)
    torch.testing.assert_close(
        implicit_draw(*args, low.scale.triangular(), stretch),
        implicit_draw(*args, full.scale, stretch),
    )
