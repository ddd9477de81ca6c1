"""Guides without a density at given values say so, by name and with the way out."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.distributions import transforms
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGaussian,
    AutoGuideList,
    AutoLaplaceApproximation,
    AutoNormal,
    AutoNormalizingFlow,
    AutoStructured,
)

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, TailAdaptive, estimators, log_density
from pyro_klmodes.errors import NoDensity

X = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)


def model():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Gamma(2.0, 2.0))
    with pyro.plate("data", 3):
        pyro.sample("x", dist.Normal(a, b), obs=X)


VALUES = {
    "a": torch.tensor(0.2, dtype=torch.float64),
    "b": torch.tensor(0.7, dtype=torch.float64),
}


def with_delta_part(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["a"])))
    guide.append(AutoDelta(poutine.block(model, expose=["b"])))
    return guide


class MapGroup(EasyGuide):
    def guide(self):
        pyro.sample("a", dist.Normal(0.0, 1.0))
        self.map_estimate("b")


def point_by_hand(model):
    def guide():
        a = pyro.param("a_loc", torch.tensor(0.1))
        pyro.sample("a", dist.Delta(a))
        pyro.sample("b", dist.LogNormal(0.0, 0.3))

    return guide


def flow(transform):
    return lambda m: AutoNormalizingFlow(m, partial(transforms.iterated, 2, transform))


POINTS = {
    "AutoDelta": AutoDelta,
    "AutoStructured": AutoStructured,
    "AutoGaussianDense": AutoGaussian,
    "AutoLaplaceApproximation": AutoLaplaceApproximation,
    "AutoGuideList": with_delta_part,
    "MapGroup": MapGroup,
    "guide": point_by_hand,
}
NEEDING_DENSITY = [
    ForwardKL(4),
    IWAE(4, estimator=estimators.doubly),
    ReverseKL(4, estimator=estimators.score),
    TailAdaptive(4),
]


@pytest.mark.parametrize("name", POINTS)
def test_log_density_refuses_point_masses_that_move(name):
    guide = POINTS[name](model)
    with pytest.raises(NoDensity, match=rf"guide {name} has no density.*AutoNormal"):
        log_density(guide, VALUES)


@pytest.mark.parametrize(
    "transform",
    [transforms.planar, transforms.radial, transforms.sylvester],
    ids=lambda t: t.__name__,
)
def test_log_density_refuses_flows_without_an_inverse(transform):
    guide = flow(transform)(model)
    with pytest.raises(NoDensity, match="'_AutoNormalizingFlow_latent'.*has no inverse.*spline"):
        log_density(guide, VALUES)


@pytest.mark.parametrize("loss", NEEDING_DENSITY, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("name", POINTS)
def test_losses_that_need_the_density_refuse_before_the_first_step(name, loss):
    guide = POINTS[name](model)
    with pytest.raises(NoDensity, match=rf"{type(loss).__name__} with .*guide {name} .*ReverseKL"):
        loss.loss_and_grads(model, guide)
    with pytest.raises(NoDensity, match=type(loss).__name__):
        loss.loss(model, guide)


@pytest.mark.parametrize("loss", NEEDING_DENSITY, ids=lambda loss: type(loss).__name__)
def test_losses_that_need_the_density_refuse_flows_without_an_inverse(loss):
    guide = flow(transforms.planar)(model)
    with pytest.raises(NoDensity, match=r"with .*_AutoNormalizingFlow_latent.*ReverseKL or IWAE"):
        loss.loss_and_grads(model, guide)


@pytest.mark.parametrize("loss", [ReverseKL(4), IWAE(4)], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    "make",
    [AutoDelta, AutoStructured, AutoGaussian, with_delta_part, MapGroup, flow(transforms.planar)],
    ids=["AutoDelta", "AutoStructured", "AutoGaussian", "AutoGuideList", "EasyGuide", "planar"],
)
def test_pathwise_losses_need_no_density_at_given_values(make, loss):
    guide = make(model)
    loss.loss_and_grads(model, guide)
    gradients = [p.grad for p in guide.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)
    assert any((g != 0).any() for g in gradients)


@pytest.mark.parametrize("make", [AutoNormal, AutoDiagonalNormal, flow(transforms.spline)])
def test_point_masses_behind_a_density_are_fine(make):
    guide = make(model)
    assert log_density(guide, VALUES).isfinite()
    ForwardKL(4).loss_and_grads(model, guide)
    assert any((p.grad != 0).any() for p in guide.parameters() if p.grad is not None)
