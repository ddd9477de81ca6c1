"""The published maximum of Hasselblad's mixture, from 50 starts in each system of coordinates."""

import pytest
import torch

from models import mixed_poisson
from models.mixed_poisson import MAX_LOG_LIKELIHOOD, MAXIMUM
from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem, iterate
from tests.inference.acceleration import maps

MEDIANS = [(Squarem(), 150), (Anderson(), 60)]


def run(accelerator, coordinates, tolerance, *, number=50, callback=None):
    start, step = mixed_poisson.starts(number), maps.raw
    if coordinates == "unconstrained":
        start, step = mixed_poisson.unconstrained(start), maps.unconstrained
    options = {"steps": 5000, "tolerance": tolerance, "callback": callback}
    return iterate(accelerator, start, step, **options)


def check_the_maximum(found, coordinates):
    theta = found.theta if coordinates == "raw" else mixed_poisson.constrained(found.theta)
    start = maps.larger_rate_first(mixed_poisson.starts(len(theta)))
    expected = torch.tensor(MAXIMUM)
    assert (start - expected).abs().amax(-1).min() > 5e-5
    assert found.converged.all()
    assert (maps.larger_rate_first(theta) - expected).abs().max() < 1e-5
    assert (found.value - MAX_LOG_LIKELIHOOD).abs().max() < 1e-5
    assert (found.values[0] - MAX_LOG_LIKELIHOOD).abs().min() > 5e-5


@pytest.mark.parametrize("coordinates", ["raw", "unconstrained"])
@pytest.mark.parametrize(("accelerator", "most"), MEDIANS)
def test_the_maximum_in_few_evaluations(coordinates, accelerator, most):
    for tolerance in (1e-7, 1e-8):
        found = run(accelerator, coordinates, tolerance)
        assert found.evaluations.median() <= most
        # a sum of 1e-8 steps is 250 times as long at the rate of this map, 0.996
        if tolerance == 1e-8:
            check_the_maximum(found, coordinates)


@pytest.mark.slow
def test_plain_em_needs_thousands():
    """Its iterates are the same in all coordinates, only how their distance is measured differs."""
    residuals = {"raw": [], "unconstrained": []}

    def callback(progress):
        residuals["raw"].append(progress.residual)
        free = mixed_poisson.unconstrained(progress.theta)
        residuals["unconstrained"].append((maps.unconstrained(free)[0] - free).abs().amax(-1))

    found = run(Plain(), "raw", 1e-8, callback=callback)
    check_the_maximum(found, "raw")
    for name in residuals:
        evaluations = (torch.stack(residuals[name]) >= 1e-7).sum(0) + 1
        assert evaluations.median() >= 1500


@pytest.mark.parametrize("coordinates", ["raw", "unconstrained"])
@pytest.mark.parametrize("accelerator", [*(a for a, _ in MEDIANS), Anderson(5)])
def test_the_likelihood_never_falls(coordinates, accelerator):
    found = run(accelerator, coordinates, 1e-5, number=100)
    assert found.converged.all()
    assert (found.values[-1] - found.values[0]).min() > 1e-3
    assert found.values.diff(dim=0).min() > -5e-11  # 64 units of rounding of 1990


def test_without_patience_squarem_is_slower_but_no_less_right():
    found = run(Squarem(patience=0), "unconstrained", 1e-8)
    check_the_maximum(found, "unconstrained")
    patient = run(Squarem(), "unconstrained", 1e-8)
    assert found.evaluations.median() > 1.3 * patient.evaluations.median()
    assert found.rejected.sum() > patient.rejected.sum()
