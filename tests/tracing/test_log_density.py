"""The density of a guide at given values: against its own trace, closed forms and quadrature."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.distributions import transforms
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGuideList,
    AutoHierarchicalNormalMessenger,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
)

from pyro_klmodes import log_density
from pyro_klmodes.errors import InvalidArgument


def every_support():
    """Latents on the line, half-line, interval, simplex and correlation matrices."""
    pyro.sample("real", dist.Normal(0.0, 1.0))
    pyro.sample("positive", dist.Gamma(2.0, 2.0))
    pyro.sample("interval", dist.Beta(2.0, 2.0))
    pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
    pyro.sample("correlation", dist.LKJCholesky(3, 1.0))
    with pyro.plate("data", 2):
        pyro.sample("vector", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def flow(transform, **kwargs):
    return lambda model: AutoNormalizingFlow(
        model, partial(transforms.iterated, 2, transform, **kwargs)
    )


def lists(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["real", "positive", "vector"])))
    guide.append(AutoMultivariateNormal(poutine.block(model, expose=["interval", "simplex"])))

    def by_hand():
        pyro.sample("correlation", dist.LKJCholesky(3, pyro.param("eta", torch.tensor(2.0))))

    guide.append(by_hand)
    return guide


class Grouped(EasyGuide):
    def guide(self):
        group = self.group(match="real|positive|interval|simplex")
        loc = pyro.param("loc", lambda: 0.1 * torch.randn(group.event_shape))
        group.sample("group", dist.Normal(loc, 0.7).to_event(1))
        pyro.sample("correlation", dist.LKJCholesky(3, 2.0))
        with self.plate("data", 2):
            pyro.sample("vector", dist.Normal(torch.full((3,), 0.2), 0.5).to_event(1))


def by_hand(model):
    def guide():
        pyro.sample("real", dist.StudentT(3.0, pyro.param("m", torch.tensor(0.4)), 1.0))
        pyro.sample("positive", dist.LogNormal(0.3, 0.5))
        pyro.sample("interval", dist.Beta(2.0, 3.0))
        pyro.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        pyro.sample("correlation", dist.LKJCholesky(3, 2.0))
        with pyro.plate("data", 2):
            pyro.sample("vector", dist.Normal(torch.ones(3), 0.5).to_event(1))

    return guide


GUIDES = {
    "by hand": by_hand,
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": AutoLowRankMultivariateNormal,
    "AutoIAFNormal": partial(AutoIAFNormal, hidden_dim=[20]),
    "affine coupling": flow(transforms.affine_coupling),
    "spline coupling": flow(transforms.spline_coupling),
    "spline": flow(transforms.spline),
    "AutoGuideList": lists,
    "EasyGuide": Grouped,
    "AutoNormalMessenger": AutoNormalMessenger,
    "AutoHierarchicalNormalMessenger": partial(
        AutoHierarchicalNormalMessenger, hierarchical_sites=["real", "vector"]
    ),
    "AutoRegressiveMessenger": AutoRegressiveMessenger,
}
SITES = ["real", "positive", "interval", "simplex", "correlation", "vector"]


def unsettled(make, model=every_support):
    """A guide whose parameters are not at their start, and whose flows are not too rough."""
    guide = make(model)
    guide()
    if isinstance(guide, torch.nn.Module):
        with torch.no_grad():
            for p in guide.parameters():
                p.mul_(0.3).add_(0.1 * torch.randn_like(p))
    return guide


def trace_of(guide):
    if hasattr(guide, "get_traces"):
        guide()
        _, trace = guide.get_traces()
    else:
        trace = poutine.trace(guide).get_trace()
    return trace


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_it_is_what_the_guide_says_of_its_own_draws(make):
    guide = unsettled(make)
    with torch.no_grad():
        traces = [trace_of(guide) for _ in range(3)]
        own = torch.stack([t.log_prob_sum() for t in traces])
    drawn = [{n: t.nodes[n]["value"] for n in SITES} for t in traces]
    one_by_one = torch.stack([log_density(guide, values) for values in drawn])
    torch.testing.assert_close(one_by_one, own, rtol=1e-7, atol=1e-7)
    together = log_density(guide, {n: torch.stack([v[n] for v in drawn]) for n in SITES})
    assert together.shape == (3,)
    torch.testing.assert_close(together, own, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_it_follows_the_parameters_and_never_a_stale_cache(make):
    """The same value objects, before and after the parameters moved under the guide."""
    guide = unsettled(make)
    with torch.no_grad():
        values = {n: s["value"] for n, s in trace_of(guide).nodes.items() if n in SITES}
    before = log_density(guide, values)
    guide()
    store = pyro.get_param_store()
    params = list(guide.parameters()) if isinstance(guide, torch.nn.Module) else []
    params = params or [store._params[n] for n in store]
    with torch.no_grad():
        for p in params:
            p.add_(0.05)
    after = log_density(guide, values)
    gradients = torch.autograd.grad(after, params, allow_unused=True)
    with torch.no_grad():
        for p in params:
            p.sub_(0.05)
    guide()
    assert after.item() != before.item()
    assert log_density(guide, values).item() == pytest.approx(before.item(), rel=1e-10)
    assert any(g is not None and bool((g != 0).any()) for g in gradients)


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_gradients_in_values_and_parameters_are_those_of_differences(make):
    """A central difference along a random direction, whose error is of order 1e-8."""
    guide = unsettled(make)
    with torch.no_grad():
        values = {n: s["value"] for n, s in trace_of(guide).nodes.items() if n in SITES}
    store = pyro.get_param_store()
    params = list(guide.parameters()) if isinstance(guide, torch.nn.Module) else []
    params = params or [store._params[n] for n in store]
    moving = {n: values[n].clone().requires_grad_() for n in ("real", "positive", "vector")}
    inputs = [*params, *moving.values()]
    gradients = torch.autograd.grad(
        log_density(guide, {**values, **moving}), inputs, allow_unused=True
    )
    direction = [torch.randn_like(p) for p in inputs]
    pairs = zip(gradients, direction, strict=True)
    slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)

    def shifted(step):
        with torch.no_grad():
            for p, d in zip(inputs, direction, strict=True):
                p.add_(step * d)
            value = float(log_density(guide, {**values, **moving}))
            for p, d in zip(inputs, direction, strict=True):
                p.sub_(step * d)
        return value

    step = 1e-5
    difference = (shifted(step) - shifted(-step)) / (2 * step)
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-5, abs=1e-6)


def test_a_normal_on_the_half_line_is_log_normal():
    def model():
        pyro.sample("s", dist.Gamma(2.0, 2.0))

    guide = unsettled(AutoNormal, model)
    s = torch.tensor([0.1, 1.0, 7.0])
    exact = dist.LogNormal(guide.locs.s, guide.scales.s).log_prob(s)
    torch.testing.assert_close(log_density(guide, {"s": s}), exact)


def test_a_multivariate_normal_has_its_joint_density():
    def model():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    guide = unsettled(AutoMultivariateNormal, model)
    a, b = torch.randn(5), torch.randn(5, 2)
    tril = guide.scale[:, None] * guide.scale_tril
    exact = dist.MultivariateNormal(guide.loc, scale_tril=tril)
    found = log_density(guide, {"a": a, "b": b})
    torch.testing.assert_close(found, exact.log_prob(torch.cat([a[:, None], b], -1)))


ONE_DIMENSIONAL = {
    "real": (dist.Normal(0.0, 1.0), lambda u: u, torch.linspace(-12, 12, 60_001)),
    "positive": (dist.Gamma(2.0, 2.0), lambda u: u, torch.linspace(-8, 6, 60_001).exp()),
    "interval": (dist.Beta(2.0, 2.0), lambda u: u, torch.linspace(-14, 14, 60_001).sigmoid()),
    "simplex": (
        dist.Dirichlet(torch.ones(2)),
        lambda p: torch.stack([p, 1 - p], -1),
        torch.linspace(-14, 14, 60_001).sigmoid(),
    ),
    "correlation": (
        dist.LKJCholesky(2, 1.0),
        lambda r: torch.stack(
            [torch.stack([torch.ones_like(r), torch.zeros_like(r)], -1),
             torch.stack([r, (1 - r * r).sqrt()], -1)], -2),
        torch.linspace(-7, 7, 60_001).tanh(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("support", ONE_DIMENSIONAL)
@pytest.mark.parametrize(
    "make",
    [AutoNormal, AutoDiagonalNormal, flow(transforms.spline)],
    ids=["AutoNormal", "AutoDiagonalNormal", "spline"],
)
def test_it_integrates_to_one(support, make):
    prior, value_of, grid = ONE_DIMENSIONAL[support]
    grid = grid.double()

    def model():
        pyro.sample("z", prior)

    guide = unsettled(make, model)
    with torch.no_grad():
        density = log_density(guide, {"z": value_of(grid)}).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=2e-4)


def test_a_flow_written_by_hand_has_no_stale_cache():
    """Pyro's transforms keep the last pair of values; the same tensor must not be found there."""
    spline = transforms.Spline(1, count_bins=4)
    values = {"z": torch.tensor([0.7])}

    def guide():
        pyro.module("spline", spline)
        base = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        pyro.sample("z", dist.TransformedDistribution(base, [spline]))

    before = log_density(guide, values).item()
    with torch.no_grad():
        spline.unnormalized_widths.add_(torch.randn_like(spline.unnormalized_widths))
    after = log_density(guide, values).item()
    fresh = log_density(guide, {"z": torch.tensor([0.7])}).item()
    assert after == fresh
    assert after != before


def subsampled_guide(x, size):
    loc = pyro.param("locs", torch.arange(5.0))
    with pyro.plate("data", 5, subsample_size=size) as index:
        pyro.sample("z", dist.Normal(loc[index], 1.0))


def test_a_subsampled_plate_needs_its_indices_and_has_no_ratio():
    index = torch.tensor([3, 1])
    found = log_density(subsampled_guide, {"z": torch.zeros(2), "data": index}, None, 2)
    exact = dist.Normal(0.0, 1.0).log_prob(index.double()).sum()
    assert found.item() == pytest.approx(exact.item())
    with pytest.raises(InvalidArgument, match=r"plate 'data' is subsampled.*values\['data'\]"):
        log_density(subsampled_guide, {"z": torch.zeros(2)}, None, 2)


def test_an_autoguide_on_a_minibatch_uses_the_parameters_of_its_data():
    def model(size):
        with pyro.plate("data", 5, subsample_size=size):
            pyro.sample("z", dist.Gamma(2.0, 2.0))

    guide = AutoNormal(model)
    guide(2)
    with torch.no_grad():
        for p in guide.parameters():
            p.copy_(torch.randn(5))
    index, z = torch.tensor([3, 1]), torch.tensor([[0.5, 1.5], [1.0, 2.0]])
    exact = dist.LogNormal(guide.locs.z[index], guide.scales.z[index]).log_prob(z).sum(-1)
    torch.testing.assert_close(log_density(guide, {"z": z, "data": index}, 2), exact)


def test_scales_are_left_out_and_masks_are_not():
    def guide():
        with poutine.scale(scale=0.5), pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, False])))

    found = log_density(guide, {"z": torch.zeros(2)})
    assert float(found) == pytest.approx(-0.5 * math.log(2 * math.pi))


def test_values_have_names_shapes_and_supports():
    guide = unsettled(AutoNormal)
    values = {n: s["value"].detach() for n, s in trace_of(guide).nodes.items() if n in SITES}
    with pytest.raises(InvalidArgument, match="no entry for latent site 'simplex'"):
        log_density(guide, {n: v for n, v in values.items() if n != "simplex"})
    with pytest.raises(InvalidArgument, match=r"site 'real' has shape \(2,\)|some values have"):
        log_density(guide, {**values, "real": torch.zeros(2)})
    with pytest.raises(InvalidArgument, match=r"site 'positive' has shape \(3, 2\)"):
        log_density(guide, {**values, "positive": torch.ones(3, 2)})
    with pytest.raises(InvalidArgument, match="positive"):
        log_density(guide, {**values, "positive": torch.tensor(-1.0)})
    with pytest.raises(InvalidArgument, match="simplex"):
        log_density(guide, {**values, "simplex": torch.tensor([0.5, 0.2, 0.2])})
