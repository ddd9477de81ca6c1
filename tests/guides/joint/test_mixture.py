"""Mixtures, against PyTorch's densities of the components, SciPy and quadrature."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.elliptical import EllipticalDensity
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.radial import Gaussian, StudentT
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank
from pyro_klmodes.guides.joint.spread import At, Spread

STRUCTURES = [Diagonal(), LowRank(1), Full()]
LAWS = [Gaussian(), StudentT(2.5)]
SIZE = 3


def random_family(structure, law, size=SIZE, num_components=4, min_weight=0.0):
    family = Mixture(
        torch.zeros(size),
        num_components=num_components,
        scale=structure,
        radial=law,
        start=Spread(2.0),
        min_weight=min_weight,
    )
    with torch.no_grad():
        for p in family.parameters():
            p += 0.5 * torch.randn_like(p)
    return family


def component(density, c):
    """A component on its own."""
    scale = density.scale.select(torch.tensor(c))
    return EllipticalDensity(density.component_locs[c], scale, density.radial)


@pytest.mark.parametrize("batch", [(), (5,), (5, 1, 1)])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_density_and_leading_marginals_are_sums_over_components(structure, law, batch):
    density = random_family(structure, law).density()
    u = 3 * torch.randn(*batch, SIZE)
    weights = density.log_weights.exp()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    parts = torch.stack(
        [w * component(density, c).log_prefixes(u, [1, 3]).exp() for c, w in enumerate(weights)]
    )
    torch.testing.assert_close(density.log_prefixes(u, [1, 3]), parts.sum(0).log())
    torch.testing.assert_close(density.log_prob(u), parts.sum(0)[..., -1].log())
    torch.testing.assert_close(density.log_conditionals(u, [1, 3]).sum(-1), density.log_prob(u))
    shares = (parts[..., -1] / parts[..., -1].sum(0)).movedim(0, -1)
    torch.testing.assert_close(density.responsibilities(u), shares)


def test_gaussian_mixture_is_torchs():
    density = random_family(Full(), Gaussian()).density()
    factor = density.scale.sd.unsqueeze(-1) * density.scale.lower
    reference = MixtureSameFamily(
        Categorical(logits=density.log_weights),
        MultivariateNormal(density.component_locs, scale_tril=factor),
    )
    u = 3 * torch.randn(10, SIZE)
    torch.testing.assert_close(density.log_prob(u), reference.log_prob(u))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_integrates_to_one_and_to_its_marginal(structure, law):
    density = random_family(structure, law, size=2, num_components=3).density()
    v = (torch.arange(4000) + 0.5) / 4000 * torch.pi - torch.pi / 2
    u, step = 3 * v.tan(), 3 * (1 + v.tan() ** 2) * torch.pi / 4000
    for first in (-1.0, 0.5, 6.0):
        points = torch.stack([torch.full_like(u, first), u], -1)
        marginal = (density.log_prob(points).exp() * step).sum()
        expected = density.log_prefixes(torch.tensor([first, 0.0]), [1]).exp()[0]
        torch.testing.assert_close(marginal, expected, rtol=1e-6, atol=1e-9)
    outer = density.log_prefixes(torch.stack([u, u], -1), [1])[:, 0].exp()
    torch.testing.assert_close((outer * step).sum(), torch.tensor(1.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_draws_follow_the_marginals(structure, law):
    density = random_family(structure, law).density()
    draws = density.rsample((4000,)).detach()
    weights = density.log_weights.detach().exp()
    sd = density.scale.marginal_sd().detach()
    of_one = stats.norm.cdf if isinstance(law, Gaussian) else stats.t(law.df).cdf
    for j in range(SIZE):

        def cdf(x, j=j):
            standard = (x[:, None] - density.component_locs[:, j].detach().numpy()) / sd[
                :, j
            ].numpy()
            return of_one(standard) @ weights.numpy()

        # three coordinates in six cases
        assert stats.kstest(draws[:, j].numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", LAWS)
def test_draws_of_given_components(law):
    density = random_family(Full(), law).density()
    components = torch.tensor([0, 3]).repeat(2000)
    draws = density.rsample_component(components)
    for c in (0, 3):
        own = component(density, c)
        residuals = own.scale.residuals(draws[components == c] - own.loc).detach()
        squared = residuals.square().sum(-1) / SIZE
        exact = (
            stats.chi2(SIZE, scale=1 / SIZE) if isinstance(law, Gaussian) else stats.f(SIZE, law.df)
        )
        assert stats.kstest(squared.numpy(), exact.cdf).pvalue > 1e-3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_draw_of_a_particle_moves_with_its_component_alone(structure):
    density = random_family(structure, Gaussian()).density()
    components = torch.tensor([2, 0, 2])
    draws = density.rsample_component(components)
    (by_locs,) = torch.autograd.grad(draws.sum(), density.component_locs, retain_graph=True)
    expected = torch.tensor([1.0, 0.0, 2.0, 0.0]).unsqueeze(-1).expand(4, SIZE)
    torch.testing.assert_close(by_locs, expected)
    (by_weights,) = torch.autograd.grad(
        draws.sum(), density.log_weights, allow_unused=True, materialize_grads=True
    )
    assert torch.equal(by_weights, torch.zeros(4))


@pytest.mark.parametrize("law", [*LAWS, StudentT(1.0, learn_df=True)])
def test_quantiles(law):
    density = random_family(Full(), law).density()
    levels = torch.tensor([1e-6, 0.01, 0.37, 0.5, 0.99])
    quantiles = density.quantiles(levels).numpy()
    assert quantiles.shape == (5, SIZE)
    weights = density.log_weights.detach().exp().numpy()
    locs = density.component_locs.detach().numpy()
    sd = density.scale.marginal_sd().detach().numpy()
    of_one = stats.norm if isinstance(law, Gaussian) else stats.t(float(density.radial.df.detach()))
    cdf = np.einsum("c,qcd->qd", weights, of_one.cdf((quantiles[:, None] - locs) / sd))
    np.testing.assert_allclose(cdf, np.tile(levels.numpy()[:, None], (1, SIZE)), rtol=1e-9)


def test_quantiles_of_one_component_are_scipys():
    family = Mixture(torch.ones(2), num_components=1, init_scale=0.5, start=At(torch.ones(1, 2)))
    levels = torch.tensor([0.025, 0.5, 0.975])
    expected = stats.norm(1.0, 0.5).ppf(levels.numpy())
    np.testing.assert_allclose(family.density().quantiles(levels)[:, 1].numpy(), expected)


def test_weights_have_a_floor():
    family = random_family(Diagonal(), Gaussian(), min_weight=0.05)
    with torch.no_grad():
        family.logits_unconstrained.copy_(torch.tensor([0.0, -80.0, -80.0, 1.0]))
    weights = family.density().log_weights.exp()
    free = torch.tensor([1.0, 0.0, 0.0, torch.e]) / (1 + torch.e)
    torch.testing.assert_close(weights, 0.8 * free + 0.05)


@pytest.mark.parametrize("min_weight", [0.0, 0.05])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_pruning_keeps_the_ratio_of_densities(structure, min_weight):
    family = random_family(structure, StudentT(3.0, learn_df=True), min_weight=min_weight)
    density = family.density()
    weights = density.log_weights.detach().exp()
    kept = weights.argsort(descending=True)[:2].sort().values
    smaller = family.pruned(keep=2)
    assert smaller.num_components == 2
    torch.testing.assert_close(smaller.density().component_locs, density.component_locs[kept])
    u = 3 * torch.randn(20, SIZE)
    parts = sum(weights[c] * component(density, c).log_prob(u).exp() for c in kept.tolist())
    expected = parts / weights[kept].sum()
    torch.testing.assert_close(smaller.density().log_prob(u), expected.log())

    again = family.pruned(threshold=float(weights[kept].min()) - 1e-9)
    torch.testing.assert_close(again.density().log_prob(u), smaller.density().log_prob(u))
    # parameters of its own
    before = family.density().log_prob(u).detach()
    with torch.no_grad():
        for p in smaller.parameters():
            p += 1.0
    assert torch.equal(family.density().log_prob(u), before)


def test_pruning_by_threshold_leaves_at_least_one():
    family = random_family(Diagonal(), Gaussian())
    assert family.pruned(threshold=0.99).num_components == 1
    assert family.pruned(threshold=0.0).num_components == 4


@pytest.mark.parametrize("law", [Gaussian(), StudentT(3.0), StudentT(3.0, learn_df=True)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_copies_and_state(structure, law):
    family = random_family(structure, law)
    u = torch.randn(4, SIZE)
    expected = family.density().log_prob(u)
    fresh = Mixture(torch.zeros(SIZE), num_components=4, scale=structure, radial=law)
    fresh.load_state_dict(family.state_dict())
    for other in (copy.deepcopy(family), pickle.loads(pickle.dumps(family)), fresh):
        torch.testing.assert_close(other.density().log_prob(u), expected)
    single = copy.deepcopy(family).float().density()
    assert single.log_prob(u.float()).dtype == torch.float32
    assert single.rsample((2,)).dtype == torch.float32
    torch.testing.assert_close(single.log_prob(u.float()).double(), expected, rtol=1e-4, atol=1e-4)


def test_scales_may_differ_by_component():
    scales = torch.tensor([[0.1], [2.0]])
    family = Mixture(torch.zeros(2), num_components=2, init_scale=scales)
    torch.testing.assert_close(family.density().scale.marginal_sd(), scales.expand(2, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 0}, "num_components is 0"),
        ({"num_components": 4, "min_weight": 0.25}, "less than 0.25"),
        ({"num_components": 4, "min_weight": -0.1}, "min_weight is -0.1"),
        ({"num_components": 2, "start": lambda *_: torch.zeros(3, 3)}, r"of shape \(2, 3\)"),
        ({"num_components": 1, "start": lambda *_: torch.full((1, 3), torch.nan)}, "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Mixture(torch.zeros(3), **arguments)


def test_bad_pruning_is_refused():
    family = random_family(Diagonal(), Gaussian())
    with pytest.raises(InvalidArgument, match="one of keep and threshold"):
        family.pruned()
    with pytest.raises(InvalidArgument, match="one of keep and threshold"):
        family.pruned(keep=1, threshold=0.1)
    with pytest.raises(InvalidArgument, match="keep is 5"):
        family.pruned(keep=5)
