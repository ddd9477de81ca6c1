"""Weights of zero are legitimate, cells of nothing else give no gradient, NaN names its site."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    draws,
    estimators,
)
from pyro_klmodes.errors import InvalidArgument, KLModesWarning, NonFiniteLoss
from pyro_klmodes.objectives import f_functions

X = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)

LOSSES = [
    ReverseKL(4),
    ReverseKL(4, estimator=estimators.score),
    ReverseKL(4, estimator=estimators.doubly),
    ForwardKL(4),
    ForwardKL(30, weights="psis"),
    ForwardKL(4, weights="tempered"),
    ForwardKL(4, estimator=estimators.score),
    ForwardKL(4, estimator=estimators.doubly),
    IWAE(4),
    IWAE(4, estimator=estimators.score),
    IWAE(4, estimator=estimators.doubly),
    Renyi(0.5, 4),
    Renyi(2.0, 4),
    Renyi(math.inf, 4),
    CUBO(2, 4),
    CUBO(2, 4, estimator=estimators.score),
    FDivergence(f_functions.jensen_shannon, 4),
    FDivergence(f_functions.chi_square, 4, estimator=estimators.doubly),
    TailAdaptive(4),
    Thermodynamic(4, 4),
    Thermodynamic(3, 4, bound="right"),
]
losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def guide(log_zero_at=()):
    loc = pyro.param("loc", torch.tensor([0.5, -0.5, 0.1]))
    sd = pyro.param("sd", torch.ones(3), constraint=dist.constraints.positive)
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Normal(loc, sd))


def model(log_zero_at=()):
    """Cells of ``log_zero_at`` have a factor of zero everywhere."""
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)
        dead = torch.tensor([i in log_zero_at for i in range(3)])
        pyro.factor("hard", torch.where(dead, -math.inf, 0.0))


def gradients():
    return {n: p.grad for n, p in pyro.get_param_store()._params.items()}


@losses
def test_cells_of_weight_zero_warn_and_have_no_gradient(loss):
    with pytest.warns(KLModesWarning, match="'hard' is infinite.*gives no gradient"):
        value = loss.loss_and_grads(model, guide, (0, 1, 2))
    assert math.isinf(value)
    for gradient in gradients().values():
        assert torch.equal(gradient, torch.zeros(3))


@losses
def test_other_cells_keep_their_gradient(loss):
    with pytest.warns(KLModesWarning, match="gives no gradient"):
        loss.loss_and_grads(model, guide, (1,))
    for gradient in gradients().values():
        assert gradient.isfinite().all()
        assert gradient[1] == 0.0
        assert (gradient[[0, 2]] != 0.0).all()


def half_line():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("support", torch.where(z > 0, 0.0, -math.inf))


def half_guide():
    loc = pyro.param("loc", torch.tensor(0.3))
    pyro.sample("z", dist.Normal(loc, 1.0))


@pytest.mark.parametrize(
    "loss",
    [IWAE(16), ForwardKL(16), CUBO(2, 16), Renyi(0.5, 16), ForwardKL(40, weights="psis")],
    ids=lambda loss: type(loss).__name__,
)
def test_some_particles_of_weight_zero_are_nothing_special(loss):
    value = loss.loss_and_grads(half_line, half_guide)
    assert math.isfinite(value)
    assert gradients()["loc"].isfinite()
    assert gradients()["loc"] != 0.0


def test_reverse_kl_says_that_it_allows_no_particle_of_weight_zero():
    with pytest.warns(KLModesWarning, match=r"Some particles have weight zero.*ForwardKL or IWAE"):
        assert ReverseKL(16).loss(half_line, half_guide) == math.inf


def test_weights_of_zero_are_exact():
    d = draws(half_line, half_guide, num_particles=50)
    inside = d.values["z"] > 0
    expected = torch.where(
        inside,
        dist.Normal(0.0, 1.0).log_prob(d.values["z"])
        - dist.Normal(0.3, 1.0).log_prob(d.values["z"]),
        -math.inf,
    )
    assert inside.any()
    assert not inside.all()
    torch.testing.assert_close(d.log_w, expected)


def nan_factor():
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)
        pyro.factor("broken", z * math.nan)


@losses
def test_nan_names_its_site_before_any_parameter_moves(loss):
    """Without validation, as in production; with it Pyro's own factor complains."""
    with pyro.validation_enabled(False):
        svi = SVI(nan_factor, guide, pyro.optim.Adam({"lr": 0.1}), loss)
        with pytest.raises(NonFiniteLoss, match="is nan: .* model site 'broken' is nan"):
            svi.step()
    assert torch.equal(pyro.param("loc"), torch.tensor([0.5, -0.5, 0.1]))
    assert all(g is None for g in gradients().values())


@losses
def test_nan_in_the_data_names_its_site(loss):
    x = X.clone()

    def with_data():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert math.isfinite(loss.loss_and_grads(with_data, guide))
    before = {n: g.clone() for n, g in gradients().items()}
    x[1] = math.nan
    for validate in (True, False):
        with (
            pyro.validation_enabled(validate),
            pytest.raises(NonFiniteLoss, match="model site 'x'.* nan"),
        ):
            loss.loss_and_grads(with_data, guide)
    assert all(torch.equal(before[n], g) for n, g in gradients().items())


def test_nan_in_the_first_data_names_its_site():
    def with_data():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(math.nan))

    with pytest.raises(NonFiniteLoss, match="1 of 1 values of model site 'x' .Normal. are nan"):
        IWAE(2).loss(with_data, half_guide)


def test_the_message_has_the_parameters_of_the_site():
    def overflowing():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z * math.nan, 2.0), obs=torch.ones(()))

    with (
        pyro.validation_enabled(False),
        pytest.raises(NonFiniteLoss, match=r"Normal: loc with 3 of 3 .* not finite, scale 2; val"),
    ):
        IWAE(3).loss(overflowing, half_guide)


def test_a_value_outside_of_the_support_names_its_site():
    def positive():
        pyro.sample("z", dist.Exponential(torch.ones(())))

    with pytest.raises(InvalidArgument, match=r"model site 'z' .Exponential.*support"):
        ReverseKL(200).loss(positive, half_guide)


def test_masked_missing_values_are_no_problem_without_validation():
    """NaN where the mask is False, as data with gaps come."""
    x = torch.tensor([0.3, math.nan, 2.0])

    def gaps():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.poutine.mask(mask=~x.isnan()):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pyro.validation_enabled(False):
        d = draws(gaps, guide, num_particles=4)
    assert d.log_w.isfinite().all()
    z = d.values["z"][:, 1]
    prior = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(-0.5, 1.0).log_prob(z)
    torch.testing.assert_close(d.log_w[:, 1], prior)
