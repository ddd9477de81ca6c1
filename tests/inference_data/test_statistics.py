"""Tables, intervals and densities have the same names and numbers whatever the version."""

import numpy as np
import pytest
from scipy.stats import norm

from pyro_klmodes import inference_data
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Variable, build, from_chains, summary
from pyro_klmodes.inference_data.versions import IS_1X, az

QUANTILES = norm.ppf((np.arange(4000) + 0.5) / 4000)
COLUMNS = ["mean", "sd", "hdi_lower", "hdi_upper", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail"]


def normal_chains(chains=4):
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(QUANTILES) for _ in range(chains)])
    return from_chains(
        {"mu": shuffled, "theta": shuffled[..., None] * np.array([1.0, 2.0])},
        dimensions={"theta": ("school",)},
        coords={"school": ["a", "b"]},
    )


def test_summary_of_a_normal_sample():
    table = summary(normal_chains(), probability=0.9)

    assert list(table.index) == ["mu", "theta[a]", "theta[b]"]
    assert list(table.columns) == [*COLUMNS, "r_hat"]
    for row, scale in zip(table.itertuples(), (1.0, 1.0, 2.0), strict=True):
        assert row.mean == pytest.approx(0.0, abs=1e-12)
        assert row.sd == pytest.approx(scale, rel=1e-3)  # tails beyond the outermost quantiles
        # The shortest interval moves by some steps of the quantiles before it is longer.
        assert row.hdi_lower == pytest.approx(-1.645 * scale, abs=0.06 * scale)
        assert row.hdi_upper == pytest.approx(1.645 * scale, abs=0.06 * scale)
        assert row.hdi_upper - row.hdi_lower == pytest.approx(2 * 1.645 * scale, rel=0.002)
        # 16000 independent draws: the estimate of ArviZ scatters by some per cent
        assert row.ess_bulk == pytest.approx(16_000, rel=0.1)
        assert row.ess_tail == pytest.approx(16_000, rel=0.1)
        assert row.mcse_mean == pytest.approx(scale / np.sqrt(row.ess_bulk), rel=0.05)
        assert row.r_hat == pytest.approx(1.0, abs=0.01)


def test_equal_tailed_interval_is_of_quantiles():
    table = summary(normal_chains(), probability=0.9, interval="eti", names=["theta"])

    assert list(table.index) == ["theta[a]", "theta[b]"]
    assert list(table.columns[2:4]) == ["eti_lower", "eti_upper"]
    # One step of the quantiles is 1 / 4000 / density(1.645) = 0.0024.
    np.testing.assert_allclose(table["eti_lower"], [-1.6449, -3.2897], rtol=0.0024 / 1.6449)
    np.testing.assert_allclose(table["eti_upper"], [1.6449, 3.2897], rtol=0.0024 / 1.6449)


def test_one_chain_has_no_r_hat():
    table = summary(normal_chains(chains=1))

    assert list(table.columns) == COLUMNS
    assert np.isfinite(table.to_numpy()).all()


def test_booleans_and_integers_are_numbers():
    flag = np.tile([True, False, False, False], 100)
    data = from_chains({"flag": flag.reshape(2, 200), "count": 3 * flag.reshape(2, 200)})

    table = summary(data, probability=0.5)

    np.testing.assert_allclose(table["mean"], [0.25, 0.75])
    np.testing.assert_array_equal(table["hdi_lower"], [0.0, 0.0])
    np.testing.assert_array_equal(table["hdi_upper"], [0.0, 0.0])
    assert inference_data.highest_density_intervals(data, 0.9)["flag"].tolist() == [0, 1]


def test_the_table_has_the_numbers_of_arviz():
    data = normal_chains()
    options = {"ci_kind": "hdi", "ci_prob": 0.94} if IS_1X else {"hdi_prob": 0.94}

    theirs = az.summary(data, round_to="none", **options)

    ours = summary(data, probability=0.94)
    assert list(theirs.index) == list(ours.index)
    for column in ("mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"):
        np.testing.assert_allclose(ours[column], theirs[column].astype(float), atol=1e-12)
    np.testing.assert_allclose(ours.iloc[:, 2:4], theirs.iloc[:, 2:4].astype(float), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 94}, "between 0 and 1, not 94"),
        ({"interval": "hpd"}, "'hpd'"),
        ({"group": "prior"}, "no group 'prior', only posterior"),
        ({"names": ["nu"]}, "no variable nu"),
    ],
)
def test_what_a_summary_cannot_be_of(options, message):
    with pytest.raises(InvalidArgument, match=message):
        summary(normal_chains(), **options)


def test_constants_are_summarised_where_something_is_defined():
    data = from_chains({"corner": np.ones((2, 50)), "off": np.zeros((2, 50), bool)})

    table = summary(data)

    np.testing.assert_array_equal(table["mean"], [1.0, 0.0])
    np.testing.assert_array_equal(table["sd"], [0.0, 0.0])
    np.testing.assert_array_equal(table["hdi_lower"], table["hdi_upper"])
    np.testing.assert_array_equal(table["ess_bulk"], [100.0, 100.0])
    assert table[["mcse_sd", "r_hat"]].isna().all().all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_draws_are_named(value):
    draws = np.zeros((1, 50))
    draws[0, 7] = value

    with pytest.raises(InvalidArgument, match="draws of b hold NaN or infinite"):
        summary(from_chains({"a": np.zeros((1, 50)), "b": draws}))


def test_data_have_no_summary():
    data = build({"observed_data": {"y": Variable(np.zeros(3))}})

    with pytest.raises(InvalidArgument, match="'observed_data' holds data"):
        summary(data, group="observed_data")


def test_too_few_draws_for_a_summary():
    with pytest.raises(InvalidArgument, match="4 draws, not 3"):
        summary(from_chains({"mu": np.zeros((2, 3))}))


def test_intervals_hold_the_densest_draws():
    # A hundred draws close together and as many far apart: half of them lie within [0, 1].
    dense, sparse = np.linspace(0.0, 1.0, 101), np.linspace(1.5, 150.0, 100)
    data = from_chains({"z": np.concatenate([dense, sparse])[None]})

    low, high = inference_data.highest_density_intervals(data, 0.5)["z"]

    assert low == pytest.approx(0.0, abs=0.011)  # one step of the dense draws
    assert high == pytest.approx(1.0, abs=0.011)


def test_density_of_a_normal_sample():
    # Quantiles instead of random draws: what is left is the smoothing of the kernel estimate. A
    # bandwidth h widens the normal to variance 1 + h^2, which lowers the mode by about h^2 / 2.
    grid, density = inference_data.density_curve(QUANTILES)

    assert np.abs(density - norm.pdf(grid)).max() < 0.03
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.01)


def test_density_of_a_sample_narrower_than_float32_can_resolve():
    draws = np.float32(1.0) + np.arange(-3, 4).repeat(100).astype(np.float32) * np.float32(2**-23)

    grid, density = inference_data.density_curve(draws)

    assert np.abs(grid - 1.0).max() < 1e-5
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.05)


def test_draws_come_back_site_by_site():
    values = {"theta": np.arange(24.0).reshape(2, 4, 3), "mu": np.arange(8.0).reshape(2, 4)}

    draws = inference_data.site_draws(from_chains(values))

    assert list(draws) == ["theta", "mu"]
    np.testing.assert_array_equal(draws["theta"], values["theta"].reshape(8, 3))
    np.testing.assert_array_equal(draws["mu"], values["mu"].reshape(8))
