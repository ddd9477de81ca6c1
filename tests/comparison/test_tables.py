"""Tables of a comparison, from fits whose numbers are known."""

import csv
import json
import math

import numpy as np
import pytest
from rich.console import Console

from pyro_klmodes import inference_data, tables
from pyro_klmodes.comparison import Comparison
from pyro_klmodes.entries import Moments, Reference
from tests.comparison.made_up import (
    FAILURE,
    REFERENCE,
    THETA,
    chains,
    diagnosis,
    elpd,
    fitted,
    weights,
)


def comparison(*outcomes, reference=REFERENCE):
    return Comparison(tuple(outcomes), reference, name="a <b> model")


def test_a_row_per_parameter_and_fit_with_its_distance_from_the_reference():
    corrected = {"theta": Moments.of([0.9, 0.0], [2.5, 6.0])}
    table = comparison(fitted("a", corrected=corrected), chains()).parameters()

    assert list(table.index.names) == ["parameter", "fit"]
    assert table.index.tolist() == [
        (name, label) for name in ("mu", "theta[0]", "theta[1]") for label in ("a", "nuts")
    ]
    first = table.loc[("theta[0]", "a")]
    assert first.to_dict() == {
        "mean": 0.25,
        "sd": 3.0,
        "corrected_mean": 0.9,
        "corrected_sd": 2.5,
        "reference_mean": 1.0,
        "reference_sd": 3.0,
        "z_shift": -0.25,  # (0.25 - 1) / 3
        "sd_ratio": 1.0,
    }
    assert table.loc[("theta[1]", "a"), "sd_ratio"] == 0.5
    assert table.loc[("theta[1]", "a"), "z_shift"] == 0.0
    unknown = ["reference_mean", "reference_sd", "z_shift", "sd_ratio"]
    assert table.loc["mu", unknown].isna().all(axis=None)
    assert table.loc[("theta[0]", "nuts"), ["corrected_mean", "corrected_sd"]].isna().all()


def test_a_reference_without_spread_has_no_units_to_measure_in():
    reference = Reference({"mu": Moments.of(2.0, 0.0)})
    row = comparison(fitted(), reference=reference).parameters().loc[("mu", "a")]

    assert (row["reference_mean"], row["reference_sd"]) == (2.0, 0.0)
    assert math.isnan(row["z_shift"])
    assert math.isnan(row["sd_ratio"])


def test_a_row_per_fit():
    table = comparison(fitted("a", loo=elpd(0.1, 0.9, 0.8)), chains(), FAILURE).table()

    assert table.index.tolist() == ["a", "nuts", "point"]
    row = table.loc["a"]
    assert row[["guide", "loss", "verdict"]].tolist() == ["AutoNormal", "ReverseKL", "reliable"]
    numbers = {
        "elbo": -3.25,
        "log_evidence": -3.0,
        "log_evidence_error": 0.02,
        "k_hat": 0.5,
        "k_hat_limit": 0.7,
        "effective_draws": 150.0,
        "num_draws": 200,
        "elpd_loo": -31.5,
        "elpd_loo_se": 1.5,
        "loo_bad_k": 2,
        "seconds": 1.25,
        "gradient_evaluations": 64000,
    }
    assert {name: row[name] for name in numbers} == numbers
    assert math.isnan(row["r_hat"])
    nuts = table.loc["nuts"]
    assert nuts["r_hat"] == pytest.approx(1.004)
    assert nuts["effective_draws"] == 512.0
    assert nuts[["k_hat", "log_evidence", "seconds", "elbo"]].isna().all()
    assert table.loc["point", ["guide", "verdict", "message"]].tolist() == [
        "AutoDelta",
        "failed",
        FAILURE.message,
    ]


def test_sites_that_not_all_fits_have_are_left_out_and_named():
    other = fitted("b", moments={"theta": THETA, "tau": Moments.of(1.0, 1.0)})
    found = comparison(fitted("a"), other)

    assert found.parameters().index.get_level_values(0).unique().tolist() == [
        "theta[0]",
        "theta[1]",
    ]
    assert found.left_out == {"mu": ["a"], "tau": ["b"]}
    assert "Site tau is left out: not every fit has it (b)." in found.conclusion.points


def test_sites_of_another_shape_are_left_out():
    other = fitted("b", moments={"mu": Moments.of([0.0], [1.0]), "theta": THETA})

    assert comparison(fitted("a"), other).common_sites == {"theta": (2,)}


def test_files_hold_the_numbers_and_no_infinity(tmp_path):
    infinite = diagnosis("far off", weights=weights(k_hat=math.inf))
    found = comparison(fitted("a · b", diagnosis=infinite), FAILURE)
    tables.write_tables(tmp_path, found)
    tables.write_draws(tmp_path, found, found.fits[0])

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    first, second = results["fits"]
    assert first["diagnosis"]["weights"]["k_hat"] is None
    assert first["posterior"]["theta"] == {"mean": [0.25, -0.5], "sd": [3.0, 3.5]}
    assert first["file"] == "a-b.nc"
    assert second == {
        "status": "failed",
        "label": "point",
        "guide": "AutoDelta",
        "loss": "forward_kl",
        "message": FAILURE.message,
    }
    assert results["reference"]["theta"]["sd"] == [3.0, 7.0]
    assert results == found.to_dict()
    with (tmp_path / "parameters.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["parameter"], row["fit"], row["mean"]) for row in rows] == [
        ("mu", "a · b", "2.0"),
        ("theta[0]", "a · b", "0.25"),
        ("theta[1]", "a · b", "-0.5"),
    ]
    draws = inference_data.read(tmp_path / "a-b.nc")
    np.testing.assert_array_equal(
        draws.posterior["mu"].values, found.fits[0].data.posterior["mu"].values
    )


def test_labels_that_make_one_file_name_get_files_of_their_own():
    found = comparison(fitted("a/b"), fitted("A b"), fitted("a b"), fitted("··"))

    assert tables.draws_files(found) == {
        "a/b": "a-b.nc",
        "A b": "A-b-2.nc",
        "a b": "a-b-3.nc",
        "··": "fit.nc",
    }


def test_the_terminal_table_fits_on_eighty_columns():
    found = comparison(
        fitted("AutoMultivariateNormal · forward_kl_tempered", loo=elpd(0.9)),
        FAILURE,
        chains(word="not converged"),
    )
    console = Console(width=80, record=True, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(found)
    text = capture.get()

    assert "AutoMultivariateNormal" in text
    assert "…" not in text
    assert "not converged" in text
    assert "−0.5 ± 3.5" in text
    assert "fit 3" in text
    assert "fit 2" not in text
    assert str(found).splitlines()[0] == found.conclusion.headline
