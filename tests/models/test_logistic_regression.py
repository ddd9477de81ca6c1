"""The breast cancer regression: the stored reference against NUTS and a fresh importance sample."""

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats
from scipy.special import log_expit

from models import logistic_regression
from models.logistic_regression_reference import importance_sampling, laplace, log_joint
from models.nuts_reference import stored_run


def test_data_are_standardised():
    x, y = logistic_regression.data()
    assert x.shape == (569, 31)
    assert (x[:, 0] == 1).all()
    torch.testing.assert_close(x[:, 1:].mean(0), torch.zeros(30), rtol=0, atol=1e-10)
    torch.testing.assert_close(x[:, 1:].std(0, correction=0), torch.ones(30))
    assert y.sum() == 357
    # Benign tumours are the smaller ones, so the labels are not the other way round.
    assert x[y == 1, 1].mean() < x[y == 0, 1].mean() - 1


def test_log_joint_agrees_with_the_formula():
    x, y = (part.numpy() for part in logistic_regression.data())
    coefficients = np.random.default_rng(0).normal(size=(3, 31))
    logits = coefficients @ x.T
    expected = stats.norm.logpdf(coefficients).sum(1) + log_expit(
        np.where(y == 1, logits, -logits)
    ).sum(1)
    actual = log_joint(torch.as_tensor(coefficients), *logistic_regression.data())
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=1e-8)


def test_laplace_finds_the_mode_and_its_curvature():
    x, y = logistic_regression.data()
    mode, covariance = laplace(x, y)

    def value(coefficients):
        return log_joint(coefficients[None], x, y)[0]

    gradient = torch.func.grad(value)(mode)
    torch.testing.assert_close(gradient, torch.zeros(31), rtol=0, atol=1e-9)
    hessian = torch.autograd.functional.hessian(value, mode)
    torch.testing.assert_close(covariance @ -hessian, torch.eye(31), rtol=0, atol=1e-9)


def test_stored_reference_is_as_precise_as_it_says():
    known = logistic_regression.stored_reference()
    assert known.effective > 0.4 * known.draws
    assert (known.mean_error < 0.002 * known.sd).all()
    assert (known.sd_error < 0.002 * known.sd).all()
    assert known.log_evidence_error < 0.0015


def test_stored_reference_agrees_with_the_stored_nuts_run():
    run = stored_run("logistic_regression")
    assert run.settings["chains"] * run.settings["draws"] == 8000
    assert run.settings["divergences"] == 0
    known = logistic_regression.stored_reference()
    nuts = run.sites["coefficients"]
    assert (nuts.rhat < 1.01).all()
    assert (nuts.ess > 1000).all()
    # 62 numbers are compared, hence four standard errors.
    mean_error = torch.hypot(nuts.mean_error, known.mean_error)
    sd_error = torch.hypot(nuts.sd_error, known.sd_error)
    assert ((nuts.mean - known.mean).abs() < 4 * mean_error).all()
    assert ((nuts.sd - known.sd).abs() < 4 * sd_error).all()
    # The comparison is sharp enough to mean something.
    assert (mean_error < 0.04 * known.sd).all()
    assert (sd_error < 0.04 * known.sd).all()


def test_stored_reference_agrees_with_a_fresh_importance_sample():
    fresh = importance_sampling(*logistic_regression.data(), draws=40_000, adaptation_draws=10_000)
    known = logistic_regression.stored_reference()
    assert ((fresh.mean - known.mean).abs() < 4 * fresh.mean_error).all()
    assert ((fresh.sd - known.sd).abs() < 4 * fresh.sd_error).all()
    assert abs(fresh.log_evidence - known.log_evidence) < 4 * fresh.log_evidence_error
    assert (fresh.mean_error < 0.01 * known.sd).all()
    assert fresh.log_evidence_error < 0.01


def test_minibatches_average_to_the_log_density_of_all_data():
    x, y = (part[:560] for part in logistic_regression.data())
    coefficients = torch.randn(31)
    conditioned = poutine.condition(logistic_regression.model, {"coefficients": coefficients})
    model = poutine.trace(conditioned)
    batches = torch.randperm(560).reshape(8, 70)
    log_probs = torch.stack([model.get_trace(x, y, subsample=b).log_prob_sum() for b in batches])
    full = model.get_trace(x, y).log_prob_sum()
    torch.testing.assert_close(log_probs.mean(), full, rtol=1e-12, atol=1e-8)
    assert log_probs.std() > 1  # the minibatches do differ


def test_random_minibatches_are_scaled():
    case = logistic_regression.problem(subsample_size=50)
    trace = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    assert trace.nodes["y"]["value"].shape == (50,)
    assert trace.nodes["y"]["scale"] == pytest.approx(569 / 50)
    assert trace.nodes["coefficients"]["scale"] == 1
