"""A new flow is its base, moved and scaled."""

import pytest
import torch
from torch.distributions import Normal, StudentT

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow import (
    Affine,
    Autoregressive,
    Coupling,
    GaussianBase,
    MixtureBase,
    Spline,
    StudentTailLayer,
    StudentTBase,
    TailLayer,
)
from pyro_klmodes.guides.joint.spread import Spread
from tests.guides.flow.flows import ARCHITECTURES, flow

FULL_SIZE = {
    "autoregressive spline": Autoregressive(),
    "autoregressive affine": Autoregressive(Affine()),
    "coupled spline": Coupling(),
    "coupled affine": Coupling(Affine()),
    "fine spline in a small box": Autoregressive(Spline(bins=32, bound=2.0)),
}


@pytest.mark.parametrize("architecture", FULL_SIZE.values(), ids=FULL_SIZE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_gaussian_flow_starts_as_a_gaussian(architecture, dtype, tolerance):
    family = flow(3, architecture=architecture, loc=-2.0, scale=4.0, dtype=dtype)
    density = family.density()
    u = torch.linspace(-60, 60, 300, dtype=dtype).reshape(100, 3)
    expected = Normal(-2.0, 4.0).log_prob(u).sum(-1)
    assert density.log_prob(u).dtype is dtype
    torch.testing.assert_close(density.log_prob(u), expected, rtol=tolerance, atol=tolerance)
    drawn = density.rsample(torch.Size([50]))
    expected = Normal(-2.0, 4.0).log_prob(drawn).sum(-1)
    torch.testing.assert_close(density.log_prob(drawn), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_layers_start_as_the_identity(architecture):
    layers = flow(2, architecture=architecture).density().layers
    z = 4 * torch.randn(100, 2)
    for function in (layers.to_values, layers.to_noise):
        x, log_det = function(z)
        assert (x - z).abs().max() < 1e-12
        assert log_det.abs().max() < 1e-12


def test_a_student_flow_starts_as_student_ts():
    density = flow(2, base=StudentTBase(df=3.0), loc=1.0, scale=2.0).density()
    u = torch.tensor([[0.0, 1.0], [30.0, -1e4]])
    torch.testing.assert_close(density.log_prob(u), StudentT(3.0, 1.0, 2.0).log_prob(u).sum(-1))


def test_a_mixture_flow_starts_as_its_mixture():
    family = flow(2, base=MixtureBase(num_components=3, start=Spread(radius=2.0)), loc=0.0)
    assert family.base.locs.std() > 0.5
    components = torch.distributions.Independent(Normal(family.base.locs, 1.0), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(3)), components
    )
    u = 2 * torch.randn(20, 2)
    torch.testing.assert_close(family.density().log_prob(u), mixture.log_prob(u))


def test_tails_are_what_a_flow_with_a_tail_layer_starts_as():
    """Exactly the generalised Pareto distribution on both sides."""
    density = flow(1, tails=TailLayer(weights=0.5), loc=0.0, scale=3.0).density()
    u = torch.tensor([[1.0], [-10.0], [1e4]])
    expected = -(1 / 0.5 + 1) * torch.log1p(0.5 * u.abs() / 3.0) - torch.log(torch.tensor(6.0))
    torch.testing.assert_close(density.log_prob(u), expected.squeeze(-1))


def test_identity_tails_leave_the_base():
    tails = StudentTailLayer(weights=0.0, learn=False)
    u = torch.linspace(-5, 5, 10).reshape(5, 2)
    torch.testing.assert_close(
        flow(2, tails=tails).density().log_prob(u), flow(2).density().log_prob(u)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Autoregressive(transforms=0), "transforms is 0"),
        (lambda: Coupling(transforms=1), "at least two layers"),
        (lambda: Autoregressive(hidden_features=()), "hidden_features is"),
        (lambda: Coupling(hidden_features=(8, 0)), "hidden_features is"),
        (lambda: Spline(bins=1), "bins is 1"),
        (lambda: Spline(bound=0.0), "bound is 0.0"),
        (lambda: StudentTBase(df=0.0), "df is 0.0"),
        (lambda: MixtureBase(num_components=0), "num_components is 0"),
        (lambda: flow(1, architecture=Coupling()), "needs at least two coordinates"),
    ],
)
def test_impossible_choices_are_refused(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_choices_are_values():
    assert Autoregressive(Spline(bins=8)) == Autoregressive()
    assert len({Coupling(), Coupling(Spline()), Coupling(Affine())}) == 2
    assert GaussianBase() == GaussianBase()
