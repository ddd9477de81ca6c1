"""Leave-one-out: against closed forms, against ArviZ 1.3.0's numbers, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Variable, build, compare_models, elpd_numbers, loo
from pyro_klmodes.inference_data.versions import IS_1X, az

STORED = np.load(Path(__file__).parent / "stored_loo.npz")


def inference(mu, log_likelihood, **statistics):
    groups = {
        "posterior": {"mu": Variable(mu)},
        "log_likelihood": {"y": Variable(log_likelihood, ("obs",))},
        "sample_stats": {name: Variable(value) for name, value in statistics.items()},
    }
    return build(groups)


class Conjugate:
    """y_i ~ N(mu, 1) with mu ~ N(0, 4): posterior and leave-one-out densities are normal."""

    def __init__(self, y, draws=40_000, shift=0.0, widen=1.0, seed=0):
        y = np.asarray(y)
        precision = 1.0 / 4.0 + len(y)
        mean = y.sum() / precision
        loc, scale = mean + shift / np.sqrt(precision), widen / np.sqrt(precision)
        self.mu = np.random.default_rng(seed).normal(loc, scale, size=(1, draws))
        self.log_likelihood = norm.logpdf(y, self.mu[..., None], 1.0)
        self.log_p = self.log_likelihood.sum(-1) + norm.logpdf(self.mu, 0.0, 2.0)
        self.log_q = norm.logpdf(self.mu, loc, scale)
        left_mean = (y.sum() - y) / (precision - 1.0)
        left_sd = np.sqrt(1.0 + 1.0 / (precision - 1.0))
        self.exact = norm.logpdf(y, left_mean, left_sd)  # (num_data,)

    def data(self):
        return inference(self.mu, self.log_likelihood, log_p=self.log_p, log_q=self.log_q)

    def error(self):
        """Standard error of elpd: sum_i log mean(r) / mean(r / p(y_i|mu)), by the delta method."""
        ratio = np.exp(self.log_p - self.log_q - (self.log_p - self.log_q).max())[0]  # (S,)
        left = ratio[:, None] / np.exp(self.log_likelihood[0])  # (S, num_data)
        influence = (ratio[:, None] / ratio.mean() - left / left.mean(0)).sum(1)
        return influence.std() / np.sqrt(len(ratio))


Y = np.random.default_rng(7).normal(0.5, 1.0, size=15)


@pytest.mark.parametrize(("shift", "widen"), [(0.0, 1.0), (0.5, 1.2), (-0.3, 1.5)])
def test_corrected_leave_one_out_is_exact_up_to_monte_carlo(shift, widen):
    model = Conjugate(Y, shift=shift, widen=widen)

    found = elpd_numbers(loo(model.data()))

    assert model.error() < 0.02
    assert abs(found.elpd - model.exact.sum()) < 3 * model.error()
    np.testing.assert_allclose(found.pointwise, model.exact, atol=3 * model.error())
    assert (found.num_samples, found.num_data, found.warning) == (40_000, 15, False)
    assert found.elpd == pytest.approx(found.pointwise.sum())
    assert found.se == pytest.approx(np.sqrt(15) * model.exact.std(), rel=0.05)  # n or n - 1


@pytest.mark.parametrize(("shift", "widen"), [(0.5, 1.2), (-0.3, 1.5)])
def test_uncorrected_leave_one_out_from_a_wrong_guide_is_wrong(shift, widen):
    model = Conjugate(Y, shift=shift, widen=widen)

    found = elpd_numbers(loo(model.data(), corrected=False))

    assert abs(found.elpd - model.exact.sum()) > 5 * model.error()


def test_equal_densities_leave_plain_leave_one_out():
    model = Conjugate(Y, draws=400)
    data = inference(model.mu, model.log_likelihood)

    plain = elpd_numbers(loo(data))
    corrected = elpd_numbers(loo(data, model.log_p, model.log_p))
    theirs = elpd_numbers(az.loo(data, pointwise=True))

    for ours in (plain, corrected):
        np.testing.assert_allclose(ours.pointwise, theirs.pointwise, rtol=1e-12)
        np.testing.assert_allclose(ours.pareto_k, theirs.pareto_k, rtol=1e-9)
        for field in ("elpd", "se", "p", "num_samples", "num_data", "warning", "good_k"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field), rel=1e-9)


@pytest.mark.parametrize("name", ["corrected", "plain"])
def test_numbers_of_arviz_1_3(name):
    # made by tests/arviz_1x/store_fixture.py
    data = inference(STORED["mu"], STORED["log_likelihood"])
    densities = (STORED["log_p"], STORED["log_q"]) if name == "corrected" else ()

    found = elpd_numbers(loo(data, *densities))

    assert str(STORED["arviz"]) == "1.3.0"
    np.testing.assert_allclose(found.pointwise, STORED[f"{name}_elpd_i"], rtol=1e-9)
    np.testing.assert_allclose(found.pareto_k, STORED[f"{name}_pareto_k"], rtol=1e-7)
    assert found.elpd == pytest.approx(float(STORED[f"{name}_elpd"]), rel=1e-9)
    assert found.p == pytest.approx(float(STORED[f"{name}_p"]), rel=1e-8)
    # ArviZ 0.x divides by n, 1.x by n - 1
    count = len(found.pointwise)
    factor = 1.0 if IS_1X else np.sqrt(count / (count - 1))
    assert factor * found.se == pytest.approx(float(STORED[f"{name}_se"]), rel=1e-9)


def test_the_correction_of_the_stored_draws_is_no_small_thing():
    assert abs(STORED["corrected_elpd"] - STORED["plain_elpd"]) > 0.1


def test_constants_in_the_densities_cancel():
    model = Conjugate(Y, draws=400, widen=1.2)
    data = inference(model.mu, model.log_likelihood)

    one = elpd_numbers(loo(data, model.log_p, model.log_q))
    other = elpd_numbers(loo(data, model.log_p[0] - 5000.0, model.log_q[0] + 300.0))

    np.testing.assert_allclose(one.pointwise, other.pointwise, rtol=1e-9)


def test_draws_outside_the_posterior_do_not_count():
    model = Conjugate(Y, draws=4000, widen=1.2)
    log_p = model.log_p.copy()
    log_p[0, :1000] = -np.inf
    kept = inference(model.mu[:, 1000:], model.log_likelihood[:, 1000:])

    found = elpd_numbers(loo(model.data(), log_p, model.log_q))
    expected = elpd_numbers(loo(kept, log_p[:, 1000:], model.log_q[:, 1000:]))

    # The same up to the length of the smoothed tail, which goes by the number of all draws.
    np.testing.assert_allclose(found.pointwise, expected.pointwise, atol=2e-3)


def test_a_log_likelihood_in_single_precision_is_summed_in_double():
    model = Conjugate(Y)
    data = inference(model.mu, model.log_likelihood.astype(np.float32))

    found = elpd_numbers(loo(data, model.log_p, model.log_q))

    assert found.pointwise.dtype == np.float64
    assert abs(found.elpd - model.exact.sum()) < 3 * model.error()


def test_data_with_two_axes_and_chains():
    model = Conjugate(Y, draws=400, widen=1.1)
    folded = {
        "posterior": {"mu": Variable(model.mu.reshape(4, 100))},
        "log_likelihood": {
            "y": Variable(model.log_likelihood.reshape(4, 100, 5, 3), ("row", "column"))
        },
    }

    found = elpd_numbers(loo(build(folded), model.log_p[0], model.log_q[0]))

    flat = elpd_numbers(loo(model.data()))
    assert found.pointwise.shape == found.pareto_k.shape == (5, 3)
    np.testing.assert_allclose(found.pointwise.ravel(), flat.pointwise, rtol=1e-9)


def test_a_poor_guide_is_flagged():
    model = Conjugate(Y, draws=2000, widen=0.3)

    with pytest.warns(UserWarning, match="Pareto"):
        estimate = loo(model.data())

    found = elpd_numbers(estimate)
    assert found.warning
    assert found.good_k == pytest.approx(1 - 1 / np.log10(2000))
    assert (found.pareto_k > found.good_k).any()


def test_estimates_print_themselves():
    printed = str(loo(Conjugate(Y, draws=400).data()))

    assert "elpd_loo" in printed
    assert "Pareto k" in printed


def test_models_are_ranked_from_data_and_from_estimates():
    near, far = Conjugate(Y, draws=4000, widen=1.2), Conjugate(Y, draws=4000, widen=1.2)
    # The same data under a model that is wrong by one standard deviation of noise more.
    far.log_likelihood = norm.logpdf(Y, far.mu[..., None], 2.0)
    far.log_p = far.log_q = np.zeros((1, 4000))

    table = compare_models({"far": loo(far.data()), "near": near.data()})

    ours = {"near": elpd_numbers(loo(near.data())), "far": elpd_numbers(loo(far.data()))}
    columns = ["rank", "elpd", "se", "p", "elpd_diff", "dse", "weight", "warning"]
    assert list(table.columns) == columns
    assert list(table.index) == ["near", "far"]
    assert list(table["rank"]) == [0, 1]
    for name, found in ours.items():
        assert table.loc[name, "elpd"] == pytest.approx(found.elpd, rel=1e-12)
        assert table.loc[name, "se"] == pytest.approx(found.se, rel=1e-12)
    difference = ours["far"].pointwise - ours["near"].pointwise
    assert table.loc["far", "elpd_diff"] == pytest.approx(difference.sum())
    assert difference.sum() < -2.0
    assert table.loc["far", "dse"] == pytest.approx(np.sqrt(15) * difference.std())
    assert table.loc["near", "elpd_diff"] == 0.0
    assert table["weight"].sum() == pytest.approx(1.0)
    assert not table["warning"].any()


def test_models_of_different_data_are_not_compared():
    with pytest.raises(InvalidArgument, match="'a': 15, 'b': 14"):
        compare_models({"a": Conjugate(Y, draws=400).data(), "b": Conjugate(Y[1:], 400).data()})
    with pytest.raises(InvalidArgument, match="nothing to compare"):
        compare_models({})


def test_an_estimate_without_pointwise_values_is_refused():
    with pytest.raises(InvalidArgument, match="pointwise=True"):
        elpd_numbers(az.loo(Conjugate(Y, draws=400).data(), pointwise=False))
    with pytest.raises(InvalidArgument, match="dict"):
        elpd_numbers({})


def test_which_log_likelihood():
    model = Conjugate(Y, draws=400)
    several = {
        "posterior": {"mu": Variable(model.mu)},
        "log_likelihood": {
            "y": Variable(model.log_likelihood, ("obs",)),
            "x": Variable(2.0 * model.log_likelihood, ("obs",)),
        },
    }

    with pytest.raises(InvalidArgument, match="holds y, x; name one"):
        loo(build(several))
    found = elpd_numbers(loo(build(several), name="y"))
    expected = elpd_numbers(loo(model.data(), corrected=False))
    np.testing.assert_allclose(found.pointwise, expected.pointwise)
    with pytest.raises(InvalidArgument, match="no group log_likelihood"):
        loo(build({"posterior": several["posterior"]}))
    with pytest.raises(InvalidArgument, match="needs the group posterior"):
        loo(build({"log_likelihood": {"y": several["log_likelihood"]["y"]}}))


def replaced(array, value):
    changed = np.array(array)
    changed[0, 3] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"log_q": None}, "or neither"),
        (lambda m: {"log_p": m.log_p[:, :-1]}, r"log_p has shape \(1, 399\).*\(1, 400\)"),
        (lambda m: {"log_q": replaced(m.log_q, -np.inf)}, "log_q holds NaN or infinite"),
        (lambda m: {"log_q": replaced(m.log_q, np.nan)}, "log_q holds NaN or infinite"),
        (lambda m: {"log_p": replaced(m.log_p, np.nan)}, "log_p must be finite"),
        (lambda m: {"log_p": replaced(m.log_p, np.inf)}, "log_p must be finite"),
        (lambda m: {"log_p": np.full((1, 400), -np.inf)}, "log_p must be finite"),
    ],
)
def test_densities_that_make_no_weights_are_refused(change, message):
    model = Conjugate(Y, draws=400)
    densities = {"log_p": model.log_p, "log_q": model.log_q} | change(model)

    with pytest.raises(InvalidArgument, match=message):
        loo(inference(model.mu, model.log_likelihood), **densities)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_data_impossible_under_a_draw_are_refused(value):
    model = Conjugate(Y, draws=400)

    with pytest.raises(InvalidArgument, match="log-likelihood of 15 data"):
        loo(inference(model.mu, replaced(model.log_likelihood, value)))


def test_data_that_no_draw_tells_apart_are_refused():
    model = Conjugate(Y, draws=400)
    model.log_likelihood[..., 2:5] = 0.0  # as behind a mask

    with pytest.raises(InvalidArgument, match="of 3 data is the same under every draw"):
        loo(model.data())


def test_one_value_per_draw_is_no_data_to_leave_out():
    model = Conjugate(Y, draws=400)

    with pytest.raises(InvalidArgument, match="'y' holds one value per draw"):
        loo(inference(model.mu, model.log_likelihood[..., :1]))


def test_too_few_draws():
    with pytest.raises(InvalidArgument, match="at least 25 draws"):
        loo(Conjugate(Y, draws=24).data())
