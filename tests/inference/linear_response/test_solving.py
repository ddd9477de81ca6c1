"""The ways to solve give the same: all coordinates at once, member by member, by products alone."""

from functools import cache

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from pyro_klmodes.inference.cavi import CAVI
from pyro_klmodes.inference.linear_response import linear_response
from pyro_klmodes.inference.linear_response.columns import Columns
from pyro_klmodes.inference.linear_response.conjugate_gradients import (
    NotPositive,
    conjugate_gradients,
)
from pyro_klmodes.inference.linear_response.curvature import Curvature
from pyro_klmodes.inference.linear_response.elimination import (
    Elimination,
    eliminate,
    members_are_apart,
)
from pyro_klmodes.inference.linear_response.factors import covariance_between
from pyro_klmodes.inference.linear_response.layout import layouts
from pyro_klmodes.inference.linear_response.site import white
from pyro_klmodes.inference.linear_response.solving import Limits, solve
from pyro_klmodes.inference.linear_response.target import target_of


def topics(words):
    """Documents with proportions of topics, words with a topic each: plates in plates."""
    D, W = words.shape
    with pyro.plate("topics", 2):
        phi = pyro.sample("phi", dist.Dirichlet(torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])))
    with pyro.plate("documents", D, dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet(torch.tensor([1.0, 2.0])))
        with pyro.plate("words", W, dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("x", dist.Categorical(Vindex(phi)[..., z, :]), obs=words)


@cache
def topics_target():
    words = torch.tensor([[0, 0, 1, 0], [2, 2, 2, 1], [0, 0, 0, 1]])
    fit = CAVI(topics).fit(words, steps=5000)
    with fit.scope():
        return target_of(fit)


@pytest.fixture
def target():
    return topics_target()


def parts_of(target):
    return {
        n: white(target.latents[n], target.families[n], target.params[n], target.masks[n])
        for n in target.params
    }


def covariance(way, names):
    factors = [way.factors(name) for name in names]
    return torch.cat([torch.cat([covariance_between(a, b) for b in factors], 1) for a in factors])


def test_all_ways_agree(target):
    parts, elbo = parts_of(target), target.expectation.elbo
    names = list(parts)
    found, moved = {}, {}
    for layout in layouts(parts):
        curvature = Curvature(elbo, layout)
        assert members_are_apart(curvature, layout)  # two topics meet in a word's own z only
        way = eliminate(curvature, layout)
        assert isinstance(way, Elimination)
        found[layout.plate] = covariance(way, names)
        vector = layout.join(
            {
                n: torch.sin(torch.arange(p.start.numel()) + 1.0).reshape(p.start.shape)
                for n, p in parts.items()
            }
        )
        step, gain = way.newton_step(vector.masked_fill(curvature.pinned, 0.0))
        moved[layout.plate] = (torch.cat([step(n) for n in names]), gain)
        if layout.plate is None:
            columns = Columns(curvature, layout, names, least=1e-6)
            found["products"] = covariance(columns, names)
            step, gain = columns.newton_step(vector)
            moved["products"] = (torch.cat([step(n) for n in names]), gain)
    assert set(found) == {None, "topics", "documents", "words", "products"}
    for way in found:
        assert torch.allclose(found[way], found[None], rtol=1e-9, atol=1e-11), way
        assert torch.allclose(moved[way][0], moved[None][0], rtol=1e-9, atol=1e-10), way
        assert moved[way][1] == pytest.approx(moved[None][1], rel=1e-9)
    assert found[None].shape == (6 + 6 + 24, 6 + 6 + 24)
    # far from that of independent sites
    own = torch.cat([p.coordinates.variance(target.params[n]).flatten() for n, p in parts.items()])
    assert (found[None].diagonal() / own - 1).abs().max() > 0.1


def test_the_cheapest_plate_comes_first_and_sizes_are_right(target):
    parts = parts_of(target)
    first = layouts(parts)[0]
    assert first.plate == "documents"
    # free numbers: 2 x 3 for topics; 2 and 4 x 1 for a document
    assert (first.shared, first.local, first.members) == (6, 6, 3)
    assert first.cost == 36 + 3 * 6 * 12
    parts_again = first.split(first.join({n: p.start for n, p in parts.items()}))
    assert all(torch.equal(parts_again[n], p.start) for n, p in parts.items())


def test_white_coordinates_have_the_identity_as_their_own_curvature(target):
    """Sites are conjugate, so that the curvature in one alone is its Fisher information."""
    parts = parts_of(target)
    layout = next(a for a in layouts(parts) if a.plate is None)
    curvature = Curvature(target.expectation.elbo, layout)
    H = torch.stack([curvature(v) for v in torch.eye(curvature.size)])
    assert torch.allclose(H, H.mT, atol=1e-10)
    begin = 0
    for part in parts.values():
        M = part.start.shape[-1]
        for _ in range(part.start.numel() // M):
            block = H[begin : begin + M, begin : begin + M]
            assert torch.allclose(block, torch.eye(M), atol=1e-6)  # as far as the fit is done
            begin += M
    assert curvature.gradient.abs().max() < 1e-6


def test_limits_choose_the_way(target):
    parts, elbo = parts_of(target), target.expectation.elbo
    exact = solve(elbo, parts, ["phi"], Limits())
    by_products = solve(elbo, parts, ["phi"], Limits(numbers=10))
    assert isinstance(exact.way, Elimination)
    assert isinstance(by_products.way, Columns)
    one, other = (covariance(s.way, ["phi"]) for s in (exact, by_products))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_conjugate_gradients():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(40, 40, generator=generator)
    h = root @ root.T / 40 + 0.5 * torch.eye(40)
    b = torch.randn(40, generator=generator)
    x = conjugate_gradients(lambda v: h @ v, b, least=1e-8)
    assert torch.allclose(x, torch.linalg.solve(h, b), rtol=1e-10, atol=1e-12)
    assert torch.equal(conjugate_gradients(lambda v: h @ v, 0 * b, least=1e-8), 0 * b)
    h[0, 0] = -5.0
    with pytest.raises(NotPositive) as caught:
        conjugate_gradients(lambda v: h @ v, b, least=1e-8)
    assert caught.value.curvature < 0
    # 40 eigenvalues take up to 40 steps
    with pytest.raises(NotPositive):
        conjugate_gradients(lambda v: torch.linspace(0.01, 1, 40) * v, b, least=1e-8, most=5)


def test_single_precision_is_differentiated_in_double():
    torch.set_default_dtype(torch.float32)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    fit = CAVI(model).fit(torch.linspace(-1, 2, 20))
    response = linear_response(fit)
    assert fit.site_params["mu"]["loc"].dtype == torch.float32
    assert response.covariance.dtype == torch.float64
    # scales enter as they were fitted; of a Gaussian they do not matter
    assert float(response.sd["mu"]) == pytest.approx((1 / 11) ** 0.5, rel=1e-6)
    assert float(response.ratio["mu"]) == pytest.approx((21 / 11) ** 0.5, rel=1e-5)


def test_a_model_that_mixes_no_precisions_is_differentiated_in_its_own():
    torch.set_default_dtype(torch.float32)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])

    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("pair", (x @ covariance * x).sum(-1) * 0.25)

    from pyro_klmodes.guides import AutoMeanField

    response = linear_response(CAVI(model, AutoMeanField(model)).fit())
    expected = torch.linalg.inv(torch.eye(2) - 0.5 * covariance)
    assert response.covariance.dtype == torch.float32
    assert torch.allclose(response.covariance, expected, rtol=1e-4)
