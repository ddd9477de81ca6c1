"""Tables and page of a comparison, from fits whose numbers are known."""

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from rich.console import Console

from pyro_klmodes import inference_data, report, tables
from pyro_klmodes.comparison import Failed, Fitted
from pyro_klmodes.model_spec import Moments, Target
from pyro_klmodes.reliability import WeightSummary

SETTINGS = tables.Settings("klmodes compare <some> model", steps=50, seed=0, num_draws=200)


def fitted(guide="AutoNormal", loss="reverse_kl", k_hat=0.5, notes=()):
    values = {"mu": 2.0 + torch.randn(200), "theta": 3.0 * torch.randn(200, 2)}
    weights = WeightSummary(k_hat, 0.7, 150.0, 200, 1, -3.0, 0.02)
    moments = {
        "mu": Moments(np.array(2.0), np.array(1.0)),
        "theta": Moments(np.array([0.25, -0.5]), np.array([3.0, 3.5])),
    }
    data = inference_data.from_draws(values, torch.zeros(200), torch.zeros(200))
    return Fitted(guide, loss, 1.25, weights, moments, np.linspace(9.0, 3.0, 50), data, notes)


@pytest.fixture
def target():
    return Target(
        name="a <b> model",
        model=lambda: None,
        reference={"theta": Moments(np.array([0.0, 0.0]), np.array([3.0, 4.0]))},
        log_evidence=-3.01,
        how="closed form",
        source="made up",
    )


FAILURE = Failed("AutoDelta", "forward_kl", "NoDensity: <a point> has no density")


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder, target, outcomes):
    path = report.write_page(folder, target, outcomes, SETTINGS)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_asks_nobody_for_anything(tmp_path, target):
    page = page_of(tmp_path, target, [fitted(), FAILURE])

    addresses = [a[name] for _, a in page.tags for name in ("src", "href") if name in a]
    outside = [x for x in addresses if not x.startswith("data:")]
    assert sorted(set(outside)) == ["AutoNormal-reverse_kl.nc", "results.json", "table.csv"]
    assert not page.all("script")
    source = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "@import" not in source
    assert "url(" not in source


def test_the_page_can_be_read_by_everybody(tmp_path, target):
    page = page_of(tmp_path, target, [fitted(), fitted(loss="forward_kl"), FAILURE])

    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    images = page.all("img")
    assert len(images) == len(page.all("figure")) == len(page.all("figcaption")) == 3
    assert all("AutoNormal · forward_kl" in image["alt"] for image in images)
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
    assert "prefers-color-scheme: dark" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_page_says_what_the_fits_say(tmp_path, target):
    outcomes = [fitted(notes=("mind the gap",)), fitted(loss="forward_kl", k_hat=0.8), FAILURE]

    text = page_of(tmp_path, target, outcomes).text

    for expected in (
        "a <b> model",
        "closed form",
        "reliable",
        "doubtful",
        "−3.000 ± 0.020",
        "exact −3.01",
        "mind the gap",
        "NoDensity: <a point> has no density",
        "theta[1]",
        "−0.5 ± 3.5",
        "klmodes compare <some> model",
    ):
        assert expected in text


def test_a_model_without_reference_has_no_reference_column(tmp_path):
    text = page_of(tmp_path, Target(name="plain", model=lambda: None), [fitted()]).text

    assert "Reference" not in text
    assert "exact" not in text


def test_a_page_of_failures_has_their_reasons_and_no_figures(tmp_path, target):
    page = page_of(tmp_path, target, [FAILURE])

    assert FAILURE.message in page.text
    assert not page.all("img")


def test_figures_are_pngs_beside_the_page(tmp_path, target):
    page_of(tmp_path, target, [fitted()])

    for name in ("forest", "density", "training"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_model_with_discrete_sites_only_has_no_density_figure(tmp_path, target):
    data = inference_data.from_draws(
        {"k": torch.arange(200) % 3}, torch.zeros(200), torch.zeros(200)
    )
    weights = WeightSummary(0.5, 0.7, 150.0, 200, 1, -3.0, 0.02)
    moments = {"k": Moments(np.array(1.0), np.array(0.8))}
    fit = Fitted("G", "reverse_kl", 1.0, weights, moments, np.ones(50), data)

    page = page_of(tmp_path, target, [fit])

    assert len(page.all("img")) == 2
    assert not (tmp_path / "density.png").exists()


def test_a_collapsed_fit_does_not_spoil_the_figures(tmp_path, target):
    collapsed = {"mu": 2.0 + 1e-8 * torch.randn(200), "theta": torch.zeros(200, 2)}
    data = inference_data.from_draws(collapsed, torch.zeros(200), torch.zeros(200))

    page = page_of(tmp_path, target, [fitted(), replace(fitted(loss="cubo"), data=data)])

    assert len(page.all("img")) == 3


def test_the_csv_has_a_row_per_fit_and_parameter(tmp_path, target):
    tables.write_tables(tmp_path, target, [fitted(), FAILURE], SETTINGS)

    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["parameter"] for row in rows] == ["mu", "theta[0]", "theta[1]", ""]
    assert [row["mean"] for row in rows] == ["2.0", "0.25", "-0.5", ""]
    assert [row["reference_sd"] for row in rows] == ["", "3.0", "4.0", ""]
    assert [row["status"] for row in rows] == ["reliable", "reliable", "reliable", "failed"]
    assert rows[0]["k_hat"] == "0.5"
    assert rows[0]["exact_log_evidence"] == "-3.01"
    assert rows[3]["message"] == FAILURE.message


def test_the_json_has_it_all_and_no_infinity(tmp_path, target):
    tables.write_tables(tmp_path, target, [fitted(k_hat=float("inf")), FAILURE], SETTINGS)

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))

    first, second = results["fits"]
    assert first["k_hat"] is None
    assert first["posterior"]["theta"] == {"mean": [0.25, -0.5], "sd": [3.0, 3.5]}
    assert first["file"] == "AutoNormal-reverse_kl.nc"
    assert second == {
        "status": "failed",
        "guide": "AutoDelta",
        "loss": "forward_kl",
        "message": FAILURE.message,
    }
    assert results["reference"]["theta"]["sd"] == [3.0, 4.0]
    assert results["settings"]["steps"] == 50


def test_the_terminal_tables_fit_on_eighty_columns(target):
    outcomes = [
        fitted("AutoMultivariateNormal", "forward_kl_tempered"),
        FAILURE,
        fitted("AutoNormal", "renyi_0.5"),
    ]
    console = Console(width=80, record=True, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(tables.fit_table(target, outcomes))
        console.print(tables.parameter_table(target, outcomes))
    text = capture.get()

    assert "AutoMultivariateNormal" in text
    assert "…" not in text
    assert "−0.5 ± 3.5" in text
    assert "fit 3" in text
    assert "fit 2" not in text
