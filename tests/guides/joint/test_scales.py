"""Scales against dense linear algebra."""

import pyro
import pytest
import torch
from pyro.nn import PyroModule
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.scale_base import apply, prefix_sums
from pyro_klmodes.guides.joint.scale_low_rank import LowRankScale
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank

STRUCTURES = [Diagonal(), LowRank(2), Full()]
LEADS = [(), (3,)]
SIZE = 4


def random_scale(structure, lead, size=SIZE):
    parameters = structure.parameters(torch.ones(*lead, size))
    with torch.no_grad():
        for p in parameters.parameters():
            p += 0.6 * torch.randn_like(p)
    return parameters.scale()


def covariance(scale):
    """From the images of unit noise vectors, without looking inside."""
    lead = scale.marginal_sd().shape[:-1]
    eye = torch.eye(scale.noise_size)
    basis = eye.reshape(scale.noise_size, *[1] * len(lead), scale.noise_size)
    images = scale.draw(basis.expand(-1, *lead, -1))
    return torch.einsum("n...i,n...j->...ij", images, images)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("batch", [(), (5,), (5, 1, 1)])
@pytest.mark.parametrize("ends", [[4], [1, 2, 3, 4], [2, 3], [3]])
def test_prefixes_are_those_of_the_leading_blocks(structure, lead, batch, ends):
    scale = random_scale(structure, lead)
    dense = covariance(scale)
    delta = torch.randn(*batch, *lead, SIZE)
    squared, volume = scale.prefixes(delta, ends)
    assert squared.shape == (*batch, *lead, len(ends))
    assert volume.shape == (*lead, len(ends))
    for i, end in enumerate(ends):
        block, part = dense[..., :end, :end], delta[..., :end]
        expected = (part * torch.linalg.solve(block, part.unsqueeze(-1)).squeeze(-1)).sum(-1)
        torch.testing.assert_close(squared[..., i], expected)
        torch.testing.assert_close(volume[..., i], torch.logdet(block) / 2)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_marginal_sd_and_triangular_factor_are_of_the_same_covariance(structure, lead):
    scale = random_scale(structure, lead)
    dense = covariance(scale)
    torch.testing.assert_close(scale.marginal_sd() ** 2, dense.diagonal(dim1=-2, dim2=-1))
    factor = scale.triangular()
    torch.testing.assert_close(covariance(factor), dense)
    root = torch.linalg.cholesky(dense)
    torch.testing.assert_close(factor.sd, root.diagonal(dim1=-2, dim2=-1))
    delta = torch.randn(7, *lead, SIZE)
    torch.testing.assert_close(apply(root, factor.residuals(delta)), delta)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("shape", [(6,), (6, 1, 1)])
def test_selected_components_keep_their_covariance(structure, shape):
    scale = random_scale(structure, (3,))
    index = torch.randint(3, shape)
    torch.testing.assert_close(covariance(scale.select(index)), covariance(scale)[index])


@pytest.mark.parametrize("structure", STRUCTURES)
def test_pulled_back_is_the_derivative_by_the_vector(structure):
    scale = random_scale(structure, (3,)).triangular()
    delta = torch.randn(3, SIZE)
    direct, carried = torch.randn(2, 3, SIZE)

    def function(shift):
        eps = scale.residuals(delta + shift)
        before = torch.cat([torch.zeros(3, 1), eps[:, :-1].square().cumsum(-1)], -1)
        return (direct * eps - carried * before / 2).sum(0)

    expected = torch.autograd.functional.jacobian(function, torch.zeros(SIZE))
    actual = scale.pulled_back(direct, carried, scale.residuals(delta))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("structure", [LowRank(2), Full()])
def test_gradients_are_those_of_torchs_own_density(structure):
    parameters = structure.parameters(torch.ones(SIZE))
    delta = torch.randn(6, SIZE)
    scale = parameters.scale()
    if isinstance(structure, LowRank):
        factor = scale.sd.unsqueeze(-1) * scale.factor
        reference = LowRankMultivariateNormal(torch.zeros(SIZE), factor, scale.sd**2)
    else:
        lower = scale.sd.unsqueeze(-1) * scale.lower
        reference = MultivariateNormal(torch.zeros(SIZE), scale_tril=lower)
    tensors = list(parameters.parameters())
    expected = torch.autograd.grad(reference.log_prob(delta).sum(), tensors, retain_graph=True)
    for ends in ([4], [1, 4]):
        squared, volume = scale.prefixes(delta, ends)
        value = (-squared[..., -1] / 2 - volume[..., -1]).sum()
        actual = torch.autograd.grad(value, tensors, retain_graph=True)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("lead", LEADS)
def test_starts_with_the_standard_deviations_asked_for(structure, lead):
    sd = 0.1 + torch.rand(*lead, SIZE)
    scale = structure.parameters(sd).scale()
    torch.testing.assert_close(scale.marginal_sd(), sd)
    spread = sd.unsqueeze(-1) * sd.unsqueeze(-2)
    correlation = covariance(scale) / spread - torch.eye(SIZE)
    assert correlation.abs().max() < 0.1


def test_a_low_rank_factor_does_not_start_where_its_gradient_vanishes():
    parameters = LowRank(1).parameters(torch.ones(2))
    assert parameters.factor.abs().min() > 0
    # the covariance of u is that of (1, 1) plus a little
    target = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    optimiser = torch.optim.Adam(parameters.parameters(), lr=0.05)

    def divergence():
        cov = covariance(parameters.scale())
        return torch.distributions.kl_divergence(MultivariateNormal(torch.zeros(2), cov), target)

    assert divergence() > 5 * 1e-3
    for _ in range(200):
        optimiser.zero_grad()
        loss = divergence()
        loss.backward()
        optimiser.step()
    assert divergence() < 1e-3


@pytest.mark.parametrize("ends", [[50], [1, 25, 50]])
def test_low_rank_norms_keep_their_digits_in_single_precision(ends):
    # common factors a hundred times as wide as the rest: by Woodbury's identity the norm, about
    # 50, would be the difference of two numbers of order 1e6, each good to about a tenth
    factor = 100 * torch.randn(50, 2)
    exact = LowRankScale(torch.ones(50), factor)
    delta = exact.draw(torch.randn(20, exact.noise_size))
    single = LowRankScale(torch.ones(50, dtype=torch.float32), factor.float())
    x = delta.float()
    expected, _ = LowRankScale(torch.ones(50), factor.float().double()).prefixes(x.double(), ends)
    actual, _ = single.prefixes(x, ends)
    torch.testing.assert_close(actual.double(), expected, rtol=2e-3, atol=2e-3)


def test_prefix_sums():
    x = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(prefix_sums(x, [1, 3]), torch.tensor([1.0, 6.0]))
    torch.testing.assert_close(prefix_sums(x, [3]), torch.tensor([6.0]))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_parameters_are_found_by_pyro_under_their_names(structure):
    class Owner(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = structure.parameters(torch.ones(SIZE))

        def forward(self):
            return self.scale.scale().marginal_sd()

    owner = Owner()
    trace = pyro.poutine.trace(owner).get_trace()
    names = [n for n, site in trace.nodes.items() if site["type"] == "param"]
    assert sorted(names) == sorted(
        n.removesuffix("_unconstrained") for n, _ in owner.named_parameters()
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_subset_has_parameters_of_its_own(structure):
    parameters = structure.parameters(torch.rand(3, SIZE) + 0.5)
    smaller = parameters.subset(torch.tensor([2, 0]))
    before = covariance(parameters.scale())[[2, 0]]
    torch.testing.assert_close(covariance(smaller.scale()), before)
    with torch.no_grad():
        for p in parameters.parameters():
            p += 1.0
    torch.testing.assert_close(covariance(smaller.scale()), before)


def test_bad_ranks_are_refused():
    with pytest.raises(InvalidArgument, match="rank is 0"):
        LowRank(0)
    with pytest.raises(InvalidArgument, match="rank is 5, but the latents have only 4"):
        LowRank(5).parameters(torch.ones(4))
