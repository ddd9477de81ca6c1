"""The banana against Haario's definition by a change of variables, and a grid."""

import numpy as np
import pytest
from pyro import poutine
from scipy import stats

from models import banana


def log_density(x1, x2, bend):
    """f(phi(x)) with f = N(0, diag(100, 1)) and phi(x) = (x1, x2 + b x1^2 - 100 b)."""
    return stats.norm.logpdf(x1, 0, 10) + stats.norm.logpdf(x2 + bend * x1**2 - 100 * bend)


@pytest.mark.parametrize("bend", [banana.MODERATE, banana.STRONG])
def test_model_has_the_published_density(bend):
    for _ in range(5):
        trace = poutine.trace(banana.model).get_trace(bend)
        x1, x2 = (trace.nodes[site]["value"].item() for site in ("x1", "x2"))
        assert trace.log_prob_sum().item() == pytest.approx(log_density(x1, x2, bend), abs=1e-10)


@pytest.mark.parametrize("problem", [banana.problem, banana.strong_problem])
def test_moments_and_evidence_agree_with_a_grid(problem):
    case = problem()
    (bend,) = case.args
    x1 = np.linspace(-80, 80, 1601)[:, None]
    # Along x2 the mass sits around the parabola: a grid in its residual, of step 0.1.
    residual = np.linspace(-8, 8, 161)[None, :]
    x2 = residual - bend * x1**2 + 100 * bend
    weight = np.exp(log_density(x1, x2, bend)) * 0.1 * 0.1
    assert np.log(weight.sum()) == pytest.approx(case.log_evidence, abs=1e-10)
    for site, values in (("x1", x1 + 0 * x2), ("x2", x2)):
        moments = case.reference[site]
        assert moments.mean.item() == pytest.approx((weight * values).sum(), abs=1e-9)
        assert moments.sd.item() ** 2 == pytest.approx((weight * values**2).sum(), rel=1e-10)


def test_the_strong_one_is_three_times_as_wide():
    ratio = banana.strong_problem().reference["x2"].sd / banana.problem().reference["x2"].sd
    assert ratio.item() == pytest.approx(np.sqrt(201 / 19))
