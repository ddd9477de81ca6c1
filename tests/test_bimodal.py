"""The dial on the two-mode posterior: reverse KL takes a mode, forward KL the whole."""

import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from models import bimodal
from pyro_klmodes import ForwardKL, ReverseKL, fit

START_SD = 20.0


#: larger steps, and fewer of them, for gradients of more particles: there as exact, and sooner
FORWARD = {"steps": 600, "lr": 0.125}


def fitted(loss, init_scale, steps=1500, decay=0.01, lr=0.05):
    problem = bimodal.problem()
    guide = AutoNormal(problem.model, init_scale=init_scale)
    optim = pyro.optim.ClippedAdam({"lr": lr, "lrd": decay ** (1 / steps)})
    result = fit(
        problem.model, guide, loss, *problem.args, steps=steps, optim=optim, progress=False
    )
    with torch.no_grad():
        loc, scale = result.guide.locs.z, result.guide.scales.z
    return loc.item(), scale.item()


def test_reverse_kl_sits_on_one_mode():
    loc, scale = fitted(ReverseKL(16), init_scale=1.0)
    # the modes are at -2.92 and +2.92 with an sd of .986, six of those apart
    assert abs(abs(loc) - 2.92) < 0.1
    assert abs(scale - 0.986) < 0.1
    exact_sd = float(bimodal.problem().reference["z"].sd)
    assert scale < 0.5 * exact_sd


@pytest.mark.parametrize("weights", ["snis", "psis"])
def test_forward_kl_has_the_posterior_mean_and_sd_to_two_digits(weights):
    exact = bimodal.problem().reference["z"]
    mean, sd = float(exact.mean), float(exact.sd)
    loc, scale = fitted(ForwardKL(400, weights), init_scale=START_SD, **FORWARD)
    tolerance = 0.05  # two digits of -1.2 and 2.9
    assert abs(START_SD - sd) > 5 * tolerance
    assert abs(loc - mean) < tolerance, (loc, mean)
    assert abs(scale - sd) < tolerance, (scale, sd)


def test_a_narrow_start_with_a_defensive_component_finds_both_modes():
    exact = bimodal.problem().reference["z"]
    loc, scale = fitted(ForwardKL(400, defensive=0.1), init_scale=0.5, decay=0.2, **FORWARD)
    assert abs(0.5 - float(exact.sd)) > 5 * 0.1
    assert abs(loc - float(exact.mean)) < 0.1
    assert abs(scale - float(exact.sd)) < 0.1
