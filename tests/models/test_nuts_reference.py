"""Making, storing and reading a NUTS run, on a model with a closed form."""

import math

import pytest
import torch

from models import correlated_gaussian, nuts_reference


@pytest.fixture(scope="module")
def run():
    torch.set_default_dtype(torch.float64)
    case = correlated_gaussian.problem(2, 0.5)
    return nuts_reference.run_nuts(case.model, case.args, chains=2, draws=120, warmup=40)


def test_moments_agree_with_the_closed_form_within_their_errors(run):
    exact = correlated_gaussian.problem(2, 0.5).reference["z"]
    site = run.sites["z"]
    assert ((site.mean - exact.mean).abs() < 4 * site.mean_error).all()
    assert ((site.sd - exact.sd).abs() < 4 * site.sd_error).all()
    assert (site.mean_error < 0.15 * exact.sd).all()
    assert (site.rhat < 1.1).all()


def test_errors_of_independent_draws_are_those_of_the_textbook():
    site = nuts_reference.summarise(torch.randn(4, 2500))
    assert site.mean_error.item() == pytest.approx(1 / math.sqrt(10_000), rel=0.1)
    assert site.sd_error.item() == pytest.approx(1 / math.sqrt(20_000), rel=0.1)
    assert site.ess.item() == pytest.approx(10_000, rel=0.2)


def test_chains_that_disagree_have_a_large_rhat():
    draws = torch.randn(4, 500) + torch.arange(4.0)[:, None]
    assert nuts_reference.summarise(draws).rhat > 1.5


def test_a_run_is_read_back_as_it_was_stored(run, tmp_path, monkeypatch):
    monkeypatch.setattr(nuts_reference, "FOLDER", tmp_path / "runs")
    nuts_reference.store(run, "pair")
    read = nuts_reference.stored_run("pair")
    assert read.settings == run.settings
    assert read.settings["chains"] == 2
    torch.testing.assert_close(read.sites["z"].mean, run.sites["z"].mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(read.sites["z"].rhat, run.sites["z"].rhat, rtol=1e-6, atol=0)


def test_a_run_that_does_not_exist_is_not_found():
    with pytest.raises(FileNotFoundError):
        nuts_reference.stored_run("nothing")
