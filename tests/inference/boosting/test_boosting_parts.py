"""The parts of boosting, each against an exact answer: products, weights, the model's density."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal

from pyro_klmodes.errors import KLModesWarning, UnsupportedStructure
from pyro_klmodes.guides import AutoMixture, Diagonal, Full, Spread, StudentT
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.inference import KL, Hellinger
from pyro_klmodes.inference.boosting.components import Components, copy_row
from pyro_klmodes.inference.boosting.gaussians import log_overlaps, products
from pyro_klmodes.inference.target import Target
from pyro_klmodes.tracing.joint_density import log_joint

SCALES = [Diagonal(), Full()]


def random_family(scale, num_components=4, size=3, spread=0.5):
    family = Mixture(
        torch.zeros(size), num_components=num_components, scale=scale, start=Spread(1.0)
    )
    with torch.no_grad():
        for p in family.parameters():
            p += spread * torch.randn_like(p)
    return family


class KnownTarget:
    """A density of the flat vector, without a model."""

    def __init__(self, log_density, size):
        self.log_density = log_density
        self.initial = torch.zeros(size)

    def __call__(self, u):
        return self.log_density(u).detach()


# -- square roots of Gaussians ---------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_products_of_square_roots_are_gaussians_with_the_overlap_as_their_factor(scale):
    components = Components.of(random_family(scale))
    i, j = torch.triu_indices(4, 4)
    locs, sd, scales = products(components, i, j)
    overlap = log_overlaps(components, components)
    torch.testing.assert_close(overlap, overlap.T)
    torch.testing.assert_close(overlap.diagonal(), torch.zeros(4), rtol=0, atol=1e-12)
    u = 2 * torch.randn(20, 3)
    log_g = 0.5 * components.log_each(u)
    product = Components(locs, scales.scale(), components.radial)
    torch.testing.assert_close(log_g[:, i] + log_g[:, j], overlap[i, j] + product.log_each(u))
    torch.testing.assert_close(product.scale.marginal_sd(), sd)


def test_components_have_torchs_density_and_their_own_draws():
    components = Components.of(random_family(Full(), size=2))
    factor = components.scale.sd.unsqueeze(-1) * components.scale.lower
    reference = MultivariateNormal(components.locs, scale_tril=factor)
    u = components.draw(5)
    assert u.shape == (5, 4, 2)
    torch.testing.assert_close(components.log_own(u), reference.log_prob(u))
    each = torch.stack([components.log_own(u[:, [c] * 4])[:, c] for c in range(4)], -1)
    torch.testing.assert_close(each, components.log_own(u))
    torch.testing.assert_close(components.log_each(u[:, 1])[:, 1], components.log_own(u)[:, 1])


@pytest.mark.parametrize("scale", SCALES)
def test_rows_are_copied_whole(scale):
    one, other = random_family(scale), random_family(scale, num_components=2)
    copy_row(one, 3, other, 0)
    u = torch.randn(6, 3)
    expected = Components.of(one).log_each(u)[:, 3]
    torch.testing.assert_close(Components.of(other).log_each(u)[:, 0], expected)


# -- weights ---------------------------------------------------------------------------------------


def grown(divergence, bank, log_density):
    """All components of the bank, weighed one after the other."""
    booster = divergence.booster(KnownTarget(log_density, bank.locs.shape[-1]), bank)
    for size in range(1, bank.num_components + 1):
        booster.size = size
        bound = booster.reweigh()
    return booster, bound


@pytest.mark.parametrize("scale", SCALES)
def test_hellinger_finds_the_sum_that_the_target_is_the_square_of(scale):
    bank = random_family(scale)
    components = Components.of(bank)
    exact = torch.tensor([0.5, 0.0, 0.3, 0.7])
    exact = exact / (exact @ log_overlaps(components, components).exp() @ exact).sqrt()

    def log_density(u):
        return 2 * torch.logsumexp(exact.log() + 0.5 * components.log_each(u), -1) + 3.0

    booster, bound = grown(Hellinger(20_000), bank, log_density)
    # f / g has a standard deviation of at most one, so inner products have errors below 0.004;
    # the condition of the Gram matrix multiplies them
    assert (booster.weights - exact).abs().max() < 0.05
    assert bound == pytest.approx(3.0, abs=0.01)
    assert (exact - exact.mean()).abs().max() > 5 * 0.05  # equal weights would not do


@pytest.mark.parametrize("scale", SCALES)
def test_the_square_of_the_sum_is_the_mixture_handed_out(scale):
    bank = random_family(scale)
    components = Components.of(bank)
    booster, _ = grown(Hellinger(500), bank, lambda u: -0.5 * u.square().sum(-1))
    booster.weights = torch.tensor([0.4, 0.0, 0.1, 0.8])
    gram = log_overlaps(components, components).exp()
    booster.weights = booster.weights / (booster.weights @ gram @ booster.weights).sqrt()
    mixture = booster.mixture()
    assert mixture.num_components == 6  # three squares and three products
    u = 2 * torch.randn(20, 3)
    expected = 2 * torch.logsumexp(booster.weights.log() + 0.5 * components.log_each(u), -1)
    torch.testing.assert_close(mixture.density().log_prob(u), expected)
    assert mixture.density().rsample(torch.Size([3])).shape == (3, 3)


@pytest.mark.parametrize("scale", SCALES)
def test_kl_finds_the_weights_that_the_target_has(scale):
    bank = random_family(scale, spread=0.3)
    components = Components.of(bank)
    exact = torch.tensor([0.1, 0.3, 0.2, 0.4])

    def log_density(u):
        return torch.logsumexp(exact.log() + components.log_each(u), -1) + 3.0

    booster, bound = grown(KL(10_000), bank, log_density)
    assert bound == pytest.approx(3.0, abs=0.01)
    assert (booster.weights - exact).abs().max() < 0.02
    assert (exact - 0.25).abs().max() > 5 * 0.02  # equal weights would not do
    torch.testing.assert_close(booster.weights.sum(), torch.tensor(1.0))
    u = torch.randn(5, 3)
    handed_out = booster.mixture().density().log_prob(u)
    torch.testing.assert_close(handed_out, booster._log_mixture(u))


def test_without_correction_the_old_weights_keep_their_ratio():
    bank = random_family(Diagonal(), num_components=3, size=1)
    components = Components.of(bank)
    exact = torch.tensor([0.1, 0.3, 0.6])

    def log_density(u):
        return torch.logsumexp(exact.log() + components.log_each(u), -1)

    booster = KL(5000, corrective=False).booster(KnownTarget(log_density, 1), bank)
    seen = []
    for size in (1, 2, 3):
        booster.size = size
        bound = booster.reweigh()
        seen.append(booster.weights)
    torch.testing.assert_close(seen[2][0] / seen[2][1], seen[1][0] / seen[1][1])
    corrected, better = grown(KL(5000), bank, log_density)
    assert better >= bound
    assert corrected.weights.sum() == pytest.approx(1.0)


# -- the model's density ---------------------------------------------------------------------------

DATA = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64)


def constrained_and_in_plates():
    scale = pyro.sample("scale", dist.Gamma(4.0, 4.0))
    pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        with pyro.plate("views", 2):
            pyro.sample("y", dist.Normal(z, 1.0), obs=DATA.expand(2, 3))
    pyro.sample("fixed", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))
    with pyro.poutine.scale(scale=0.5):
        pyro.factor("tempered", -scale)


def enumerated():
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("data", 3):
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc * (2 * k - 1), 1.0), obs=DATA)


def stubborn():
    """Does not broadcast over particles."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(float(z.detach()) + 0 * z.sum(), 1.0), obs=DATA[0])


def target_of(model):
    guide = AutoMixture(model, 1)
    guide()
    return guide, Target(guide, (), {})


def one_by_one(guide, u):
    """The definition: constrained values, the model at them, and the Jacobian."""
    rows = []
    for point in u:
        values = guide._unpacked(point, torch.Size())
        log_det = sum(
            b.latent.log_det(b.split(point, b.latent.batch_shape), values[b.latent.name]).sum()
            for b in guide._packing.blocks
        )
        rows.append(log_joint(guide.model, values, (), {}) + log_det)
    return torch.stack(rows)


@pytest.mark.parametrize("model", [constrained_and_in_plates, enumerated])
def test_many_points_in_one_run_have_the_density_of_each(model):
    guide, target = target_of(model)
    assert target.layout.vectorised
    u = torch.randn(6, len(target.initial), requires_grad=True)
    log_p = target(u)
    torch.testing.assert_close(log_p, one_by_one(guide, u))
    assert torch.equal(target(u.reshape(2, 3, -1)), log_p.reshape(2, 3))
    (gradient,) = torch.autograd.grad(log_p.sum(), u)
    (expected,) = torch.autograd.grad(one_by_one(guide, u).sum(), u)
    torch.testing.assert_close(gradient, expected)


def test_a_model_that_does_not_broadcast_is_run_point_by_point():
    with pytest.warns(KLModesWarning, match="one after the other"):
        guide, target = target_of(stubborn)
    u = torch.randn(4, 1)
    torch.testing.assert_close(target(u), one_by_one(guide, u))


def test_outside_of_the_support_of_the_data_the_density_is_not_finite():
    def model():
        scale = pyro.sample("scale", dist.Normal(30.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, scale), obs=DATA[0])

    _, target = target_of(model)
    log_p = target(torch.tensor([[-1.0], [1.0]]))
    assert log_p.isfinite().tolist() == [False, True]


def test_a_minibatch_is_refused():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3, subsample_size=2) as i:
            pyro.sample("y", dist.Normal(z, 1.0), obs=DATA[i])

    guide = AutoMixture(model, 1)
    guide()
    target = Target(guide, (), {})
    with pytest.raises(UnsupportedStructure, match="site 'y'.*plate 'data'.*full data"):
        target(torch.zeros(3, 1))


def test_student_components_are_drawn_with_their_radial_law():
    family = Mixture(torch.zeros(1), num_components=1, radial=StudentT(1.0))
    draws = Components.of(family).draw(20_000).detach()
    # quartiles of a Cauchy at -1 and 1: the share inside has a standard error of 0.0035
    inside = ((draws.squeeze() - family.locs.detach()).abs() < 1).double().mean()
    assert abs(float(inside) - 0.5) < 4 * math.sqrt(0.25 / 20_000)
