"""One Gaussian or Student-t density, against PyTorch and SciPy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Chi2, MultivariateNormal
from torch.distributions import StudentT as UnivariateT

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.elliptical import Elliptical
from pyro_klmodes.guides.joint.radial import Gaussian, StudentT
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank

STRUCTURES = [Diagonal(), LowRank(2), Full()]
LAWS = [Gaussian(), StudentT(3.0), StudentT(5.5, learn_df=True)]
SIZE = 3


def random_family(structure, law, size=SIZE):
    family = Elliptical(torch.randn(size), scale=structure, radial=law)
    with torch.no_grad():
        for p in family.parameters():
            p += 0.4 * torch.randn_like(p)
    return family


def shape_matrix(density):
    factor = density.scale.triangular().draw(torch.eye(len(density.loc))).mT
    return factor @ factor.mT


def reference_log_prob(density, u, end):
    shape = shape_matrix(density)[:end, :end].detach()
    loc, u = density.loc[:end].detach(), u[..., :end]
    if not hasattr(density.radial, "df"):
        return MultivariateNormal(loc, shape).log_prob(u)
    t = stats.multivariate_t(loc.numpy(), shape.numpy(), df=float(density.radial.df.detach()))
    return torch.as_tensor(t.logpdf(u.numpy())).reshape(u.shape[:-1])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("batch", [(), (6,), (6, 1, 1)])
def test_densities_of_leading_coordinates(structure, law, batch):
    density = random_family(structure, law).density()
    u = 3 * torch.randn(*batch, SIZE)
    ends = [1, 2, 3]
    prefixes = density.log_prefixes(u, ends).detach()
    assert prefixes.shape == (*batch, 3)
    for i, end in enumerate(ends):
        torch.testing.assert_close(prefixes[..., i], reference_log_prob(density, u, end))
    torch.testing.assert_close(density.log_prob(u), density.log_prefixes(u, ends)[..., -1])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_conditionals_add_up_to_the_density(structure, law):
    density = random_family(structure, law).density()
    u = torch.randn(4, SIZE)
    conditionals = density.log_conditionals(u, [1, 3])
    torch.testing.assert_close(conditionals.sum(-1), density.log_prob(u))
    torch.testing.assert_close(conditionals[..., 0], density.log_prefixes(u, [1])[..., 0])


@pytest.mark.parametrize("law", LAWS)
def test_integrates_to_one_and_to_its_marginal(law):
    density = random_family(Full(), law, size=2).density()
    # u = tan(v) maps the line to an interval, on which the integrand is smooth
    v = (torch.arange(4000) + 0.5) / 4000 * torch.pi - torch.pi / 2
    u, step = 3 * v.tan(), 3 * (1 + v.tan() ** 2) * torch.pi / 4000
    for first in (-1.0, 0.5, 4.0):
        points = torch.stack([torch.full_like(u, first), u], -1)
        marginal = (density.log_prob(points).exp() * step).sum()
        expected = density.log_prefixes(torch.tensor([first, 0.0]), [1]).exp()
        torch.testing.assert_close(marginal, expected[0], rtol=1e-6, atol=1e-9)
    outer = density.log_prefixes(torch.stack([u, u], -1), [1])[:, 0].exp()
    torch.testing.assert_close((outer * step).sum(), torch.tensor(1.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_draws_have_the_density(structure, law):
    density = random_family(structure, law).density()
    u = density.rsample((4000,)).detach()
    residuals = density.scale.triangular().residuals(u - density.loc).detach()
    # squared lengths: chi-square, or D times an F variable; directions: symmetric
    squared = residuals.square().sum(-1)
    if hasattr(density.radial, "df"):
        exact = stats.f(SIZE, float(density.radial.df.detach()), scale=SIZE)
    else:
        exact = stats.chi2(SIZE)
    assert stats.kstest(squared.numpy(), exact.cdf).pvalue > 1e-3
    directions = residuals / squared.sqrt().unsqueeze(-1)
    # mean square of a coordinate of a uniform direction in three dimensions: 1/3, sd sqrt(4/45)
    z = ((directions**2).mean(0) - 1 / 3) / (4 / 45 / 4000) ** 0.5
    assert z.abs().max() < 4
    assert (directions.mean(0) / (1 / 3 / 4000) ** 0.5).abs().max() < 4


@pytest.mark.parametrize("shape", [(), (5,), (5, 1, 1)])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_shapes_and_types(structure, law, shape):
    for dtype in (torch.float32, torch.float64):
        loc = torch.zeros(SIZE, dtype=dtype)
        density = Elliptical(loc, scale=structure, radial=law).density()
        u = density.rsample(torch.Size(shape))
        assert u.shape == (*shape, SIZE)
        assert density.log_prob(u).shape == shape
        assert density.log_conditionals(u, [1, 3]).shape == (*shape, 2)
        levels = torch.tensor([0.1, 0.5], dtype=dtype)
        assert density.quantiles(levels).shape == (2, SIZE)
        for x in (u, density.log_prob(u), density.quantiles(levels)):
            assert x.dtype == dtype


def test_draws_carry_the_gradient_of_learned_degrees_of_freedom():
    family = Elliptical(
        torch.zeros(1), init_scale=1.0, scale=Diagonal(), radial=StudentT(4.0, learn_df=True)
    )
    raw = family.radial.df_unconstrained
    # E log(1 + u^2), which has all moments, by quadrature over quantiles, differentiated by log df
    levels = (np.arange(200_000) + 0.5) / 200_000

    def expectation(log_df):
        return np.log1p(stats.t.ppf(levels, np.exp(log_df)) ** 2).mean()

    log_df = float(raw.detach())
    expected = (expectation(log_df + 1e-3) - expectation(log_df - 1e-3)) / 2e-3
    gradients = []
    for _ in range(200):
        value = family.density().rsample((500,)).square().log1p().mean()
        gradients.append(torch.autograd.grad(value, raw)[0])
    mean = torch.stack(gradients).mean()
    error = torch.stack(gradients).std() / 200**0.5
    assert abs(expected) > 10 * error
    assert abs(mean - expected) < 3.5 * error


@pytest.mark.parametrize("df", [0.5, 3.0, 1e3, 1e7])
def test_student_t_normaliser_in_single_precision(df):
    family = Elliptical(torch.zeros(2, dtype=torch.float32), radial=StudentT(df), scale=Diagonal())
    u = torch.tensor([[0.3, -2.0], [40.0, 5.0]], dtype=torch.float32)
    expected = stats.multivariate_t(np.zeros(2), np.eye(2), df=df).logpdf(u.double().numpy())
    actual = family.density().log_prob(u).detach().double().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@torch.no_grad()
def test_gaussian_and_student_t_quantiles():
    levels = torch.tensor([0.001, 0.3, 0.5, 0.999])
    for law, of_one in ((StudentT(2.5), stats.t(2.5)), (Gaussian(), stats.norm())):
        for structure in STRUCTURES:
            density = random_family(structure, law).density()
            sd = shape_matrix(density).diagonal().sqrt().numpy()
            expected = density.loc.numpy() + of_one.ppf(levels.numpy())[:, None] * sd
            np.testing.assert_allclose(density.quantiles(levels).numpy(), expected)


def test_one_dimension_is_torchs_student_t():
    density = random_family(Diagonal(), StudentT(3.5), size=1).density()
    u = torch.randn(5, 1)
    expected = UnivariateT(3.5, density.loc, density.scale.sd).log_prob(u).squeeze(-1)
    torch.testing.assert_close(density.log_prob(u), expected)


def test_the_stretch_is_the_root_of_df_over_chi_square():
    radial = StudentT(3.0).parameters(torch.zeros(1)).radial()
    torch.manual_seed(5)
    stretch = radial.stretch(torch.Size([4]))
    torch.manual_seed(5)
    torch.testing.assert_close(stretch, (3.0 / Chi2(torch.tensor(3.0)).rsample((4,))).sqrt())


@pytest.mark.parametrize("df", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_degrees_of_freedom_are_refused(df):
    with pytest.raises(InvalidArgument, match="df="):
        StudentT(df)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_copies_and_state(structure, law):
    family = random_family(structure, law)
    u = torch.randn(4, SIZE)
    expected = family.density().log_prob(u)
    for other in (copy.deepcopy(family), pickle.loads(pickle.dumps(family))):
        torch.testing.assert_close(other.density().log_prob(u), expected)
    fresh = Elliptical(torch.zeros(SIZE), scale=structure, radial=law)
    fresh.load_state_dict(family.state_dict())
    torch.testing.assert_close(fresh.density().log_prob(u), expected)
    single = copy.deepcopy(family).float().density().log_prob(u.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
