"""The bias of variational EM: closed forms against optima, densities and EM itself."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from models import variational_em_bias as bias
from models.variational_em_bias import CASES
from tests.left_dimensions import check_left_dimensions, log_joint

every_case = pytest.mark.parametrize(("w", "variance"), CASES)

# Mean-field estimates of w on a grid of spacing 0.2 %, and so known to 0.1 %.
ON_A_GRID = {(1.0, 1.0): 0.7695, (1.0, 0.25): 0.7364, (2.0, 0.25): 1.4333, (0.5, 1.0): 0.3993}


def second_moment(w, variance):
    return 2 * w**2 + variance


def iterate(step, start, times):
    found = torch.tensor(start)
    for _ in range(times):
        found = step(found)
    return float(found)


@every_case
def test_the_data_are_as_infinitely_many_would_be(w, variance):
    x = bias.data(w, variance)
    assert float((x**2).mean()) == pytest.approx(second_moment(w, variance), abs=1e-12)
    assert float(x.mean()) == pytest.approx(0, abs=1e-12)


@every_case
def test_exact_em_ends_at_the_truth_and_variational_em_below(w, variance):
    v = second_moment(w, variance)
    exact = iterate(lambda at: bias.exact_em_step(at, variance, v), 0.3 * w, 700)
    restricted = iterate(lambda at: bias.variational_em_step(at, variance, v), 0.3 * w, 700)
    assert exact == pytest.approx(w, abs=1e-10)
    assert bias.exact_weight(v, variance) == pytest.approx(w, abs=1e-12)
    assert restricted == pytest.approx(bias.variational_weight(v, variance), abs=1e-10)
    assert restricted == pytest.approx(ON_A_GRID[w, variance], rel=1e-3)
    assert 0.19 < 1 - restricted / w < 0.29  # a fifth to more than a quarter is missing


@every_case
def test_the_closed_weight_is_the_maximum_of_the_bound(w, variance):
    v = second_moment(w, variance)
    best = torch.tensor(bias.variational_weight(v, variance), requires_grad=True)
    bias.bound(best, variance, v).backward()
    assert abs(float(best.grad)) < 1e-12
    grid = torch.linspace(1e-3, 3 * w, 30_001)
    highest = float(bias.bound(grid, variance, v).max())
    assert highest <= float(bias.bound(best.detach(), variance, v)) + 1e-14
    assert float(bias.bound(torch.tensor(w), variance, v)) < highest - 1e-3


@every_case
def test_steps_maximise_the_expected_complete_log_likelihood(w, variance):
    v, at = second_moment(w, variance), 0.8 * w
    total = 2 * at**2 + variance
    for step, of_sum in (
        (bias.exact_em_step, 2 * variance / total),
        (bias.variational_em_step, 2 * variance / (variance + at**2)),
    ):
        new = step(torch.tensor(at), variance, v)
        # E(x - w u)^2, with u of mean slope x and variance `of_sum`, is least at the new w.
        slope = 2 * at / total
        left = [
            float(v - 2 * c * slope * v + c**2 * (slope**2 * v + of_sum))
            for c in (new - 1e-3, new, new + 1e-3)
        ]
        assert left[1] < left[0]
        assert left[1] < left[2]
        assert left[0] == pytest.approx(left[2], abs=1e-12)  # a parabola around its lowest point
    new, left_over = bias.variational_em_step_with_noise(
        torch.tensor(at), torch.tensor(variance), v
    )
    slope, of_sum = 2 * at / total, 2 * variance / (variance + at**2)
    expected = v - 2 * new * slope * v + new**2 * (slope**2 * v + of_sum)
    torch.testing.assert_close(left_over, expected, rtol=0, atol=1e-12)


@every_case
def test_log_likelihood_and_gap_against_densities_of_normals(w, variance):
    x = bias.data(w, variance)
    v = second_moment(w, variance)
    at = 0.7 * w
    expected = stats.norm.logpdf(x.numpy(), scale=math.sqrt(2 * at**2 + variance)).mean()
    found = bias.log_likelihood(torch.tensor(at), variance, v)
    assert float(found) == pytest.approx(expected, abs=1e-12)

    # KL from independent normals to the posterior, the best of them by Lambda_ii.
    precision = np.eye(2) + at**2 / variance
    q = np.diag(1 / np.diag(precision))
    kl = 0.5 * (np.trace(precision @ q) - 2 - np.linalg.slogdet(precision @ q)[1])
    assert float(bias.gap(torch.tensor(at), variance)) == pytest.approx(kl, abs=1e-12)


@torch.no_grad()
def expected_elbo(x, variance, guide):
    """``E_q[log p - log q] / N`` by Gauss-Hermite: exact, as both are quadratic."""
    q = poutine.trace(guide).get_trace(x, variance)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    nodes, weights = torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())
    mean = [q.nodes[name]["fn"].loc for name in ("z_1", "z_2")]
    sd = [q.nodes[name]["fn"].scale for name in ("z_1", "z_2")]
    values = {
        "z_1": mean[0] + sd[0] * nodes[:, None],
        "z_2": mean[1] + sd[1] * nodes[:, None, None],
    }
    table = log_joint(bias.model, (x, variance), {}, values, 1)  # (3, 3)
    entropy = sum((0.5 * (2 * math.pi * math.e * s**2).log()).expand(len(x)).sum() for s in sd)
    return float((weights[:, None] * weights * table).sum() + entropy) / len(x)


@every_case
@pytest.mark.parametrize("known", [True, False])
def test_the_guide_of_the_model_has_the_bound(w, variance, known):
    x = bias.data(w, variance, number=10)
    pyro.param("w", torch.tensor(0.8 * w))
    pyro.param("sigma", torch.tensor(math.sqrt(variance)))
    found = expected_elbo(x, variance if known else None, bias.guide)
    expected = bias.bound(torch.tensor(0.8 * w), variance, second_moment(w, variance))
    assert found == pytest.approx(float(expected), abs=1e-12)


def test_no_other_independent_normals_do_better():
    x = bias.data(1.0, 0.25, number=2) + 1.3  # not around zero
    pyro.param("w", torch.tensor(0.9))
    best = expected_elbo(x, 0.25, bias.guide)

    def moved(by_mean, by_scale):
        def other(x, variance):
            with poutine.block():
                trace = poutine.trace(bias.guide).get_trace(x, variance)
            with pyro.plate("data", 2):
                for name, sign in (("z_1", 1), ("z_2", -0.5)):
                    fn = trace.nodes[name]["fn"]
                    loc, scale = fn.loc + sign * by_mean, fn.scale * math.exp(sign * by_scale)
                    pyro.sample(name, pyro.distributions.Normal(loc, scale))

        return expected_elbo(x, 0.25, other)

    for by_mean, by_scale in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)]:
        assert 1e-8 < best - moved(by_mean, by_scale) < 1e-4


def test_with_the_noise_to_learn_the_weight_goes_to_zero():
    v = 3.0
    w, s = torch.tensor(1.0), torch.tensor(1.0)
    bounds, weights = [float(bias.bound(w, s, v))], [1.0]
    for _ in range(2000):
        w, s = bias.variational_em_step_with_noise(w, s, v)
        bounds.append(float(bias.bound(w, s, v)))
        weights.append(float(w))
    assert all(b >= a - 1e-14 for a, b in itertools.pairwise(bounds))
    assert all(b < a for a, b in itertools.pairwise(weights))
    assert weights[-1] < 0.03  # slowly: as one over the root of the number of steps
    assert weights[2000] / weights[500] == pytest.approx(0.5, abs=0.01)
    highest = float(bias.log_likelihood(torch.tensor(0.0), v, v))
    assert 0 < highest - bounds[-1] < 1e-7
    assert highest - bounds[0] > 0.1
    # On the ridge the likelihood is the same everywhere, and the bound is not.
    u = torch.linspace(0, 1.2, 7)
    assert float(bias.log_likelihood(u, v - 2 * u**2, v).std()) < 1e-14
    assert (bias.gap(u, v - 2 * u**2).diff() > 0).all()


def test_a_signal_below_the_noise_is_none():
    assert bias.exact_weight(0.9, 1.0) == bias.variational_weight(0.9, 1.0) == 0.0
    assert bias.variational_weight(1.0 + 1e-9, 1.0) < 1e-3


@pytest.mark.parametrize("variance", [None, 0.5])
def test_latents_may_have_dimensions_of_their_own(variance):
    check_left_dimensions(bias.model, (bias.data(1.0, 1.0, number=4), variance), nesting=1)
    expected = {"w"} if variance else {"w", "sigma"}
    assert set(pyro.get_param_store().keys()) == expected


def test_minibatches_see_their_own_data():
    x = bias.data(1.0, 1.0)
    trace = poutine.trace(bias.model).get_trace(x, None, subsample_size=7)
    index = trace.nodes["data"]["value"]
    assert trace.nodes["z_1"]["value"].shape == (7,)
    assert torch.equal(trace.nodes["x"]["value"], x[index])


def test_the_guide_follows_parameters_that_a_handler_puts_in():
    x = bias.data(1.0, 1.0, number=3)
    poutine.trace(bias.model).get_trace(x, 1.0)
    with poutine.substitute(data={"w": torch.tensor(0.9)}):
        fn = poutine.trace(bias.guide).get_trace(x, 1.0).nodes["z_2"]["fn"]
    assert float(fn.scale[0]) == pytest.approx((1 + 0.9**2) ** -0.5, abs=1e-12)
    torch.testing.assert_close(fn.loc, 0.9 * x / (1 + 2 * 0.9**2))
