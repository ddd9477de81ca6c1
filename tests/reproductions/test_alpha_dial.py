"""Alpha as a dial from mass-covering to mode-seeking, fitted, and what Pareto k says of each fit.

The best mean-field normal for a pair of correlation 0.9 is known for every alpha (Li and Turner,
2016, appendix B), and so is the tail index of its importance weights (derived with the model).
Chi-square (alpha = -1) makes it wider than the marginals, forward KL (0) as wide, everything
further narrower, down to 0.36 of the right width at alpha = 2.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value

from models import gaussian_pair
from pyro_klmodes import CUBO, ForwardKL, Renyi, ReverseKL, draws, estimators, fit
from pyro_klmodes.weights import pareto_khat

CORRELATION = 0.9
PARTICLES = 4000
DOUBLY = estimators.doubly

#: alpha: (loss, standard deviation at the start, sd over the marginal one, tail index)
DIAL = {
    -1.0: (CUBO(2, PARTICLES, estimator=DOUBLY), 2.0, 1.1974, 0.245),
    0.0: (ForwardKL(PARTICLES, estimator=DOUBLY), 2.0, 1.0, 0.474),
    0.5: (Renyi(0.5, PARTICLES, estimator=DOUBLY), 2.0, 0.6602, 0.771),
    1.0: (ReverseKL(PARTICLES, estimator=DOUBLY), 1.0, 0.4359, 0.900),
    2.0: (Renyi(2.0, PARTICLES, estimator=DOUBLY), 1.0, 0.3640, 0.930),
}


@pytest.mark.parametrize("alpha", DIAL)
def test_the_table_is_the_closed_form(alpha):
    _, _, ratio, tail = DIAL[alpha]
    assert gaussian_pair.mean_field_sd_ratio(alpha, CORRELATION) == pytest.approx(ratio, abs=6e-5)
    assert gaussian_pair.mean_field_khat(alpha, CORRELATION) == pytest.approx(tail, abs=6e-4)


def fitted(alpha, seed):
    """A real fit from the start in the table, and the standard deviations it ends with."""
    loss, start, ratio, _ = DIAL[alpha]
    guide = AutoNormal(
        gaussian_pair.model,
        init_loc_fn=init_to_value(values={"z": torch.zeros(2)}),
        init_scale=start,
    )
    assert abs(start / ratio - 1) > 5 * 0.02
    return fit(
        gaussian_pair.model,
        guide,
        loss,
        CORRELATION,
        steps=400,
        seed=seed,
        optim=pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.988}),
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", DIAL)
def test_other_seeds_reach_the_exact_optimum(alpha, seed):
    scales = fitted(alpha, seed).params["AutoNormal.scales.z"]
    torch.testing.assert_close(scales, torch.full((2,), DIAL[alpha][2]), rtol=0.02, atol=0)


#: between forward and reverse KL, by the loss that alpha = 2 has as well: a longer test
BETWEEN = pytest.param(0.5, marks=pytest.mark.slow)


@pytest.mark.parametrize("alpha", [BETWEEN if alpha == 0.5 else alpha for alpha in DIAL])
def test_fits_reach_the_exact_optimum_and_its_tail(alpha):
    """Both scales within 2 %: three seeds gave 1.2 % at most for chi-square, 0.8 % for the others.

    Pareto k is within 0.1 of the law on a million draws. On a hundred thousand it would not be:
    at the exact optimum its mean over eight sets is then .688 for .771 and .806 for .900, with
    standard deviations of .04 to .06, because the tail is a power only up to logarithms.
    """
    _, _, ratio, tail = DIAL[alpha]
    result = fitted(alpha, seed=0)
    scales = result.params["AutoNormal.scales.z"]  # the marginal standard deviations are one
    torch.testing.assert_close(scales, torch.full((2,), ratio), rtol=0.02, atol=0)
    torch.testing.assert_close(
        result.params["AutoNormal.locs.z"], torch.zeros(2), rtol=0, atol=0.05
    )
    assert abs(pareto_khat(result.log_weights(1_000_000)).item() - tail) < 0.1


def student(df):
    return lambda: pyro.sample("z", dist.StudentT(df, torch.zeros(()), 1.0))


@pytest.mark.parametrize(
    ("guide_df", "target_df", "tail"), [(2.0, 1.0, 0.5), (4.0, 1.0, 0.75), (4.0, 2.0, 0.5)]
)
def test_the_tail_of_a_student_guide(guide_df, target_df, tail):
    """``k = 1 - nu_p / nu_q``; four sets of a million draws lay from .065 below to .025 above."""
    found = draws(student(target_df), student(guide_df), num_particles=1_000_000)
    assert tail == 1 - target_df / guide_df
    assert abs(pareto_khat(found.log_w).item() - tail) < 0.1


def test_a_guide_with_the_heavier_tail_has_bounded_weights():
    """A tail with an end has a negative index; three sets of a million draws gave -1.8."""
    found = draws(student(4.0), student(1.0), num_particles=1_000_000)
    assert pareto_khat(found.log_w).item() < -1.0
