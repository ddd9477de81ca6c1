"""Flows are densities: of mass one, with the right Jacobian, and the inverse undoes the draw."""

import pytest
import torch

from tests.guides.flow.flows import (
    ANY_DIMENSION,
    ARCHITECTURES,
    BASES,
    TAILS,
    flow,
    shaken,
)


def mass_on_line(density, stretch):
    """Trapezoidal rule in t for u = sinh(stretch t), exact to many digits for smooth densities."""
    t = torch.linspace(-1, 1, 200_001)
    u = torch.sinh(stretch * t)
    weight = stretch * torch.cosh(stretch * t) * (t[1] - t[0])
    return (density.log_prob(u.unsqueeze(-1)).exp() * weight).sum()


@pytest.mark.parametrize("architecture", ANY_DIMENSION.values(), ids=ANY_DIMENSION)
@pytest.mark.parametrize("tails", TAILS.values(), ids=TAILS)
def test_mass_one_on_a_line(architecture, tails):
    density = shaken(flow(1, architecture=architecture, tails=tails)).density()
    with torch.no_grad():
        # the kinks of a spline's second derivative limit the rule
        assert abs(mass_on_line(density, stretch=45.0) - 1) < 1e-6


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_mass_one_on_a_line_for_every_base(base):
    density = shaken(flow(1, base=base)).density()
    with torch.no_grad():
        assert abs(mass_on_line(density, stretch=20.0) - 1) < 1e-6


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("tails", [None, TAILS["student tails"]], ids=["no tails", "tails"])
def test_mass_one_on_a_plane(architecture, tails):
    density = shaken(flow(2, architecture=architecture, tails=tails), 0.3).density()
    # on the grid of an angle-like coordinate: t in (-1, 1), u = 4 t / (1 - t^2)
    t = (torch.arange(500) + 0.5) / 250 - 1
    u = 4 * t / (1 - t.square())
    slope = 4 * (1 + t.square()) / (1 - t.square()).square() / 250
    grid = torch.cartesian_prod(u, u)
    with torch.no_grad():
        mass = density.log_prob(grid).exp() @ torch.cartesian_prod(slope, slope).prod(-1)
    assert abs(mass - 1) < 2e-4


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tails", TAILS.values(), ids=TAILS)
def test_what_is_drawn_has_the_density_it_came_with(dim, name, tails):
    """The density computed on the way out is the one computed on the way back."""
    if dim == 1 and name not in ANY_DIMENSION:
        with pytest.raises(ValueError, match="at least two coordinates"):
            flow(dim, architecture=ARCHITECTURES[name])
        return
    density = shaken(flow(dim, architecture=ARCHITECTURES[name], tails=tails)).density()
    u = density.rsample(torch.Size([5, 1, 7]))
    assert u.shape == (5, 1, 7, dim)
    on_the_way = density.log_prob(u)
    torch.testing.assert_close(on_the_way, density.log_prob(u.clone()), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_what_is_drawn_of_every_base(base):
    density = shaken(flow(3, base=base)).density()
    u = density.rsample(torch.Size([6]))
    torch.testing.assert_close(density.log_prob(u), density.log_prob(u.clone()))


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_log_determinants_are_those_of_the_jacobian(architecture):
    layers = shaken(flow(4, architecture=architecture)).density().layers
    for function in (layers.to_values, layers.to_noise):
        x = 2 * torch.randn(4)
        jacobian = torch.autograd.functional.jacobian(lambda x, f=function: f(x)[0], x)
        torch.testing.assert_close(function(x)[1], torch.linalg.slogdet(jacobian)[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_the_layers_inverse_undoes_them(architecture, dtype, tolerance):
    layers = shaken(flow(4, architecture=architecture, dtype=dtype), 0.3).density().layers
    z = 3 * torch.randn(200, 4, dtype=dtype)  # some of it outside of the splines' box
    back, _ = layers.to_noise(layers.to_values(z)[0])
    torch.testing.assert_close(back, z, rtol=tolerance, atol=tolerance)


def test_splines_leave_what_is_outside_of_their_box_alone():
    layers = shaken(flow(1)).density().layers
    z = torch.tensor([[-1e4], [-5.1], [2.0], [5.1], [1e4]])
    x, log_det = layers.to_values(z)
    assert torch.equal(x[[0, 1, 3, 4]], z[[0, 1, 3, 4]])
    assert torch.equal(log_det[[0, 1, 3, 4]], torch.zeros(4))
    assert abs(x[2] - z[2]) > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_gradients_of_a_given_density(architecture):
    """Against finite differences, in the value and along random directions of the parameters."""
    family = shaken(flow(2, architecture=architecture, base=BASES["student"]), 0.3)
    u = torch.randn(3, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: family.density().log_prob(u), u)
    gradients = torch.autograd.grad(family.density().log_prob(u).sum(), list(family.parameters()))
    directions = [torch.randn_like(g) for g in gradients]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert abs(slope) > 0.01

    def moved(step):
        with torch.no_grad():
            for parameter, direction in zip(family.parameters(), directions, strict=True):
                parameter.add_(step * direction)
            return family.density().log_prob(u).sum()

    ahead, behind = moved(1e-6), moved(-2e-6)
    torch.testing.assert_close((ahead - behind) / 2e-6, slope, rtol=1e-5, atol=1e-6)


def test_a_base_of_few_degrees_of_freedom_in_the_tails():
    """Far out, where splines are the identity, the flow is the t that it started as."""
    family = flow(1, base=BASES["student"], loc=0.0)
    with torch.no_grad():
        for parameter in family.weights.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    far = torch.tensor([[1e3], [-1e5]])
    expected = torch.distributions.StudentT(4.0).log_prob(far).squeeze(-1)
    torch.testing.assert_close(family.density().log_prob(far), expected)


def test_quantiles_have_no_closed_form():
    with pytest.raises(NotImplementedError, match="this density have no closed form"):
        flow(1).density().quantiles(torch.tensor([0.5]))


def test_conditionals_add_up_to_the_density():
    density = shaken(flow(3)).density()
    u = torch.randn(4, 3)
    conditionals = density.log_conditionals(u, [1, 3])
    torch.testing.assert_close(conditionals.sum(-1), density.log_prob(u))
