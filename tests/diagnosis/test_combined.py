"""A guide that is right in every parameter and wrong in their combinations."""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from models import gaussian_pair
from pyro_klmodes.diagnosis import diagnose
from pyro_klmodes.diagnosis.advice import Findings, advice
from pyro_klmodes.diagnosis.verdict import WorstShift, verdict
from tests.diagnosis.test_verdict import GOOD


def marginals():
    """What forward KL makes of the pair by mean field: the exact marginals."""
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_exact_marginals_of_a_correlated_pair_are_no_posterior():
    found = diagnose((gaussian_pair.model, marginals), num_starts=0)

    z = found.moments["z"]
    assert bool((z.shift.abs() < 0.15).all())
    assert bool((z.sd_ratio.log().abs() < math.log(1.15)).all())
    assert found.verdict.word == "reweight"
    # The difference has variance 0.2 and the guide says 2.
    assert math.exp(found.combination.log_ratio) == pytest.approx(10**0.5, rel=0.1)
    assert set(found.combination.sd_at.split(" − ")[0]) <= set("z[01]")
    assert "only for one parameter at a time: the standard deviation of z[" in (
        found.verdict.sentence
    )
    weighted, family = found.verdict.advice
    assert 'resample="psis"' in weighted
    assert "AutoFullRank" in family
    assert "worst combinations" in str(found)
    assert found.to_dict()["combination"]["log_ratio"] == found.combination.log_ratio


def test_the_exact_pair_is_reliable():
    found = diagnose((gaussian_pair.model, gaussian_pair.exact_guide), num_starts=0)

    assert found.verdict.word == "reliable"
    assert (found.combination.mean, found.combination.log_ratio) == (0.0, 0.0)
    assert "nothing beyond chance" in str(found)


def test_a_shift_across_a_ridge_is_seen():
    """A tenth of a standard deviation in each parameter, half of one in their difference."""

    def shifted():
        loc = torch.tensor([0.11, -0.11])
        pyro.sample("z", dist.MultivariateNormal(loc, gaussian_pair.covariance(0.9)))

    found = diagnose((gaussian_pair.model, shifted), num_starts=0)

    assert float(found.moments["z"].shift.abs().max()) < 0.15
    assert found.verdict.word == "reweight"
    assert found.combination.mean == pytest.approx(0.22 / 0.2**0.5, rel=0.2)
    assert "the mean of z[" in found.verdict.sentence
    assert "AverageIterates" in found.verdict.advice[1]


def test_sites_are_combined_with_each_other_and_named():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(50.0 * a, 50.0))

    def guide():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(0.0, 5000.0**0.5))

    found = diagnose((model, guide), num_starts=0)

    assert found.verdict.word == "reweight"
    assert {"a", "b"} <= set(found.combination.sd_at.replace("−", " ").split())
    # A correlation of 0.707, and so a smaller eigenvalue of 0.293.
    assert math.exp(found.combination.log_ratio) == pytest.approx(0.293**-0.5, rel=0.1)


def local(factor):
    """Two latents for each of three data, correlated by 0.9 in the second one alone."""

    def model():
        r = torch.tensor([0.0, 0.9, 0.0])
        with pyro.plate("data", 3):
            a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0))
            pyro.sample("b", dist.Normal(r * a, (1 - r**2).sqrt()))

    def guide():
        with pyro.plate("data", 3):
            pyro.sample("a", dist.Normal(torch.zeros(3), 1.0))
            pyro.sample("b", dist.Normal(torch.zeros(3), factor))

    return model, guide


def test_latents_of_a_datum_are_combined_with_each_other_only():
    found = diagnose(local(1.0), num_starts=0)

    assert found.weights.cells == 3
    assert found.verdict.word == "reweight"
    assert {"a[1]", "b[1]"} <= set(found.combination.sd_at.replace("−", " ").split())
    assert math.exp(found.combination.log_ratio) == pytest.approx(10**0.5, rel=0.1)


def test_a_single_number_has_no_combinations():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    assert diagnose((model, model), num_starts=0).combination is None


@pytest.mark.parametrize(
    ("mean", "log_ratio", "word"),
    [
        (0.14, 0.13, "reliable"),
        (0.16, 0.0, "reweight"),
        (0.0, -0.15, "reweight"),
        (0.0, 0.15, "reweight"),
    ],
)
def test_the_rule_for_combinations_is_that_for_parameters(mean, log_ratio, word):
    none = WorstShift(0.0, "a", 0.0, "a")
    found = verdict(GOOD, shift=none, combined=WorstShift(mean, "a − b", log_ratio, "a + b"))

    assert found.word == word
    assert ("a − b" in found.sentence) == (mean > 0.15)
    assert ("a + b" in found.sentence) == (abs(log_ratio) > 0.14)
    worse = WorstShift(0.5, "a", 0.0, "a")
    both = verdict(GOOD, shift=worse, combined=WorstShift(mean, "a − b", log_ratio, "a + b"))
    assert both == verdict(GOOD, shift=worse)


def test_bad_weights_say_nothing_about_combinations():
    bad = dataclasses.replace(GOOD, k_hat=0.9, effective_draws=60.0)
    far = WorstShift(0.0, "a", 2.0, "a − b")
    assert verdict(bad, combined=far) == verdict(bad)


def test_what_to_change_depends_on_what_is_off():
    found = Findings("reweight", GOOD, coordinates=3, forward=False)
    _, family = advice(dataclasses.replace(found, dependence=True))
    _, noise = advice(dataclasses.replace(found, noise=True))
    assert "AutoFullRank" in family
    assert "AverageIterates" in noise
