"""Exact posteriors, of whatever kind, are never said to miss anything."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes.diagnosis import diagnose
from pyro_klmodes.diagnosis.weight_summary import summarise_weights
from pyro_klmodes.diagnostics import evidence, iterate_rhat, tarp_shares
from pyro_klmodes.posteriors import Chains

PRIORS = {
    "constant_elements": dist.LKJCholesky(2, 1.0),
    "mass_at_the_boundary": dist.Gamma(0.1, 1.0),
    "no_mean": dist.HalfCauchy(1.0),
    "no_sd": dist.InverseGamma(1.5, 1.0),
    "heavy_tail": dist.StudentT(2.5, 0.0, 1.0),
    "huge_kurtosis": dist.LogNormal(0.0, 2.0),
    "simplex": dist.Dirichlet(torch.tensor([0.5, 1.0, 2.0])),
    "interval": dist.Beta(2.0, 0.5),
}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PRIORS)
def test_the_prior_of_a_model_without_data_is_its_posterior(name, seed):
    def model():
        pyro.sample("z", PRIORS[name])

    assert diagnose((model, model), seed=seed).verdict.word == "reliable"


def beside(share):
    """A standard normal, and a share of the mass at a mode twelve standard deviations off."""

    def model():
        shares = dist.Categorical(torch.tensor([1 - share, share]))
        modes = dist.Normal(torch.tensor([0.0, 12.0]), 1.0)
        pyro.sample("z", dist.MixtureSameFamily(shares, modes))

    return model


def somewhat_wide():
    """The weights of the standard normal have variance 0.216."""
    pyro.sample("z", dist.Normal(0.2, 1.5))


ERROR = (0.216 / 4000) ** 0.5  # of the log evidence, 0.0073


def judged(share, seed):
    """The evidence, zero, is known; whether it took more draws to tell a shortfall from chance."""
    found = diagnose((beside(share), somewhat_wide), seed=seed, log_evidence=0.0, num_starts=0)
    return found.verdict.word, any("draws of the guide" in note for note in found.notes)


def test_chance_is_no_missing_mass_over_twenty_seeds():
    words, looked_twice = zip(*(judged(0.0, seed) for seed in range(20)), strict=True)

    assert set(words) == {"reweight"}
    assert 1 <= sum(looked_twice) <= 10  # a shortfall of 0.01 by chance


def test_three_per_cent_of_the_mass_are_missed_over_eight_seeds():
    """The evidence falls short by 0.03, four standard errors of 4000 draws."""
    assert pytest.approx(4 * ERROR, rel=0.05) == -math.log(0.97)

    words, looked_twice = zip(*(judged(0.03, seed) for seed in range(8)), strict=True)

    assert set(words) == {"misses mass"}
    assert any(looked_twice)


def scaled(scale):
    @poutine.scale(scale=scale)
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    @poutine.scale(scale=scale)
    def guide():
        pyro.sample("z", dist.Normal(0.5, 0.5**0.5))

    return model, guide


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_one_scale_on_all_sites_changes_no_posterior(scale):
    found = diagnose(scaled(scale))

    assert found.verdict.word == "reliable"
    assert found.weights.log_evidence == pytest.approx(
        -0.5 * math.log(4 * math.pi) - 0.25, abs=1e-5
    )
    assert "scale" in found.notes[0]


def test_cells_whose_weights_are_constant_are_good_ones():
    log_w = torch.zeros(4000, 60, dtype=torch.float64)
    log_w[:, 7] = 0.05 * torch.randn(4000, generator=torch.Generator().manual_seed(0))

    found = summarise_weights(log_w)

    assert found.bad_cells == 0
    assert found.k_hat < 0.7


def test_a_point_beside_distributions_has_no_weights():
    def model():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(0.0, 0.01))

    def guide():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Delta(torch.tensor(0.0)))

    found = diagnose((model, guide))

    assert found.verdict.word == "unknown"
    assert "'b'" in found.verdict.sentence


def test_many_coordinates_are_not_searched_and_it_says_so():
    def model():
        with pyro.plate("data", 60):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = diagnose((model, model))

    assert "60 coordinates" in found.notes[0]


def test_chains_that_never_move_have_not_converged():
    assert diagnose(Chains({"z": torch.ones(1, 200)})).verdict.word == "not converged"


def test_halves_that_stand_still_apart_are_infinitely_far_from_each_other():
    stuck = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None, None].expand(4, 200, 1)
    assert float(iterate_rhat(stuck)) == math.inf


def test_a_balanced_binary_chain_has_a_finite_r_hat():
    draws = (torch.arange(1000) % 2).double().expand(4, 1000)[:, :, None]
    assert float(iterate_rhat(draws)) == pytest.approx(1.0, abs=0.01)


def test_coverage_of_discrete_latents_is_uniform():
    """A fair coin and its exact posterior, which is the same coin."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(2, (2000, 1), generator=generator).double()
    draws = torch.randint(2, (2000, 99, 1), generator=generator).double()

    shares = tarp_shares(draws, truth)

    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * (12 * 2000) ** -0.5)


def test_the_jackknife_of_a_single_draw_that_counts_is_finite():
    log_w = torch.zeros(100, dtype=torch.float64)
    log_w[0] = 60.0

    found = evidence(log_w)["jackknife"].value

    # 100 log(e^60 / 100) - 99 (the mean of log mean over the others, one of them of zeros)
    others = (99 * (60.0 - math.log(99)) + 0.0) / 100
    assert found == pytest.approx(100 * (60.0 - math.log(100)) - 99 * others, abs=1e-6)
