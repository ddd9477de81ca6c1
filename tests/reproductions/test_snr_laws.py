"""How the signal-to-noise ratio of gradients scales with the number of particles K.

Rainforth, Kosiorek, Le, Maddison, Igl, Wood and Teh (2018) show that it falls as K^-1/2 for the
guide's gradient under the importance-weighted bound, and grows as K^1/2 for the model's. Doubly
reparameterised gradients (Tucker, Lawson, Gu and Maddison, 2019) and wake-phi (Bornschein and
Bengio, 2015) turn the first law around.

Their toy: z ~ N(mu, I), x ~ N(z, I) in 20 dimensions, and q = N(m, 2/3 I) close to its optimum;
here for a single x, at a distance of 0.1 per coordinate.
"""

import math

import pytest
import torch
from scipy import stats

from pyro_klmodes.estimators.doubly import path_credit
from pyro_klmodes.objectives import ForwardKL, PowerMean

DIMENSION = 20
VARIANCE = 2 / 3
REPETITIONS = {1: 10_000, 4: 10_000, 16: 10_000, 64: 4000, 256: 2000, 1024: 1600}
PARTICLES = list(REPETITIONS)
ON_LAW = [K for K in PARTICLES if K >= 16]

IWAE = PowerMean(0.0)
WAKE = ForwardKL()


def toy():
    """Data, prior mean and guide mean."""
    x = math.sqrt(2) * torch.randn(DIMENSION)
    guide_mean = x / 2 + 0.1 * torch.randn(DIMENSION)
    prior_mean = 0.1 * torch.randn(DIMENSION)
    return x, prior_mean, guide_mean


def gradient_estimates(x, prior_mean, guide_mean, num_particles, repetitions):
    """Estimates of each kind with respect to a mean, ``(repetitions, dimension)``."""
    noise = torch.randn(num_particles, repetitions, DIMENSION)
    z = guide_mean + math.sqrt(VARIANCE) * noise
    log_p = -((z - prior_mean) ** 2).sum(-1) / 2 - ((x - z) ** 2).sum(-1) / 2
    log_w = log_p + (noise**2).sum(-1) / 2

    def weighted(coefficient, vectors):
        return torch.einsum("kr,krd->rd", coefficient, vectors)

    score = noise / math.sqrt(VARIANCE)
    path = prior_mean + x - 2 * z + score
    return {
        "iwae": weighted(IWAE.credit(log_w), path - score),
        "dreg": weighted(path_credit(IWAE, log_w), path),
        "wake": weighted(-WAKE.credit(log_w), score),
        "wake dreg": weighted(path_credit(WAKE, log_w), path),
        "model": weighted(IWAE.credit(log_w), z - prior_mean),
    }


@pytest.fixture(scope="module")
def moments():
    """Mean and standard deviation of each estimate at each K, ``(numbers of K, dimension)``."""
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    problem = toy()
    found = {}
    for K, repetitions in REPETITIONS.items():
        chunk = min(repetitions, 20_480 // K)
        parts = [
            gradient_estimates(*problem, K, chunk) for _ in range(math.ceil(repetitions / chunk))
        ]
        for name in parts[0]:
            estimates = torch.cat([part[name] for part in parts]).double()
            found.setdefault(name, []).append((estimates.mean(0), estimates.std(0)))
    torch.set_default_dtype(previous)
    return {
        name: tuple(torch.stack(column) for column in zip(*rows, strict=True))
        for name, rows in found.items()
    }


def slope(values):
    """Of a quantity against K, both in logarithms, from K = 16 on."""
    design = torch.tensor([[1.0, math.log(K)] for K in ON_LAW])
    return torch.linalg.lstsq(design, values[-len(ON_LAW) :].log().unsqueeze(1)).solution[1].item()


def signal_to_noise(moments, name, numerator):
    """Averaged over coordinates.

    The mean may be taken from another estimator of the same gradient with less variance: from its
    own draws the ratio could not fall below one over the root of the number of repetitions.
    """
    return (moments[numerator][0].abs() / moments[name][1]).mean(1)


def test_the_numerators_are_means_of_the_same_gradient():
    """At K = 4, over 20 000 draws: the mean difference is zero by Hotelling's test, p > 0.001."""
    estimates = gradient_estimates(*toy(), 4, 20_000)
    for one, other in (("iwae", "dreg"), ("wake", "wake dreg")):
        difference = estimates[one] - estimates[other]
        mean = difference.mean(0)
        statistic = 20_000 * mean @ torch.linalg.solve(difference.T.cov(), mean)
        assert stats.chi2.sf(statistic.item(), DIMENSION) > 1e-3


@pytest.mark.parametrize(
    ("name", "numerator", "low", "high"),
    [
        ("iwae", "dreg", -0.55, -0.45),
        ("model", "model", 0.45, 0.55),
        ("wake", "wake dreg", 0.42, 0.58),
        ("dreg", "dreg", 0.38, 0.58),
        ("wake dreg", "wake dreg", 0.38, 0.58),
    ],
)
def test_the_slope_of_the_signal_to_noise_ratio(moments, name, numerator, low, high):
    """Three seeds gave -.497 to -.494, .493 to .497, .516 to .518, .439 to .461, .468 to .478."""
    assert low < slope(signal_to_noise(moments, name, numerator)) < high


def test_the_gradient_itself_vanishes_as_one_over_k(moments):
    """Three seeds gave -.994 to -.986."""
    assert -1.05 < slope(moments["dreg"][0].norm(dim=1)) < -0.95


def test_noise_falls_as_a_root_for_pathwise_and_faster_for_path_only(moments):
    """Three seeds gave -.498 to -.493 and -1.454 to -1.425."""
    assert -0.55 < slope(moments["iwae"][1].mean(1)) < -0.45
    assert -1.55 < slope(moments["dreg"][1].mean(1)) < -1.35


def test_at_many_particles_the_order_of_methods_is_reversed(moments):
    ratio = {
        name: signal_to_noise(moments, name, numerator)
        for name, numerator in (("iwae", "dreg"), ("dreg", "dreg"), ("wake", "wake dreg"))
    }
    assert (ratio["iwae"].diff() < 0).all()
    assert ratio["iwae"][-1] < 0.01
    assert (ratio["dreg"].diff()[1:] > 0).all()
    assert (ratio["wake"].diff()[1:] > 0).all()
    assert min(ratio["dreg"][-1], ratio["wake"][-1]) > 2.0


def test_one_particle_of_the_wake_phase_has_no_signal(moments):
    mean, deviation = (m[0] for m in moments["wake"])
    # Twenty coordinates within four standard errors of 10 000 draws.
    assert (mean.abs() < 4 * deviation / math.sqrt(REPETITIONS[1])).all()
    assert moments["wake dreg"][0][0].abs().max() == 0.0
