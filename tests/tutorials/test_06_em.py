"""EM in tutorial 6: exact E-steps, many starts, hidden Markov models, restriction, acceleration."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from models import mixed_poisson
from models import variational_em_bias as two_causes

# Both steps


def test_an_e_step_closes_the_gap_and_the_likelihood_never_falls(ran):
    after_e, log_likelihood = ran["after_e"], ran["log_likelihood"]
    assert len(log_likelihood) > 5
    assert (after_e - log_likelihood).abs().max() < 1e-10
    assert log_likelihood.diff().min() > -1e-10
    # an M-step raises F, and what it leaves to the next E-step is a KL
    assert (ran["after_m"] - after_e[:-1]).min() > -1e-10
    assert ran["gap_closed_by_e"].min() > -1e-10
    assert ran["gap_closed_by_e"][0] > 1.0


def test_every_m_step_is_the_weighted_mean(ran):
    """The M-step is by L-BFGS; the top of F(q, .) is the mean weighted by q(z = 1)."""
    path, weights, x = ran["path"], ran["posteriors"][..., 1], ran["x"]
    means = (weights * x).sum(-1) / weights.sum(-1)
    assert (path[0] - means[0]).abs() > 5e-6
    assert (path[1:] - means[:-1]).abs().max() < 1e-6


def test_em_ends_at_the_maximum_likelihood(ran):
    """A fine grid, whose best point is within its spacing of the maximum."""
    fine = torch.linspace(0.0, 3.0, 3001)
    best = fine[ran["log_joint"](fine).logsumexp(-1).sum(-1).argmax()]
    assert (ran["path"][0] - best).abs() > 5e-3
    assert (ran["path"][-1] - best).abs() < 1e-3


# Many starts


def check_mixture(namespace):
    many, optima = namespace["many"], namespace["optima"]
    history = many.restarts.history
    assert many.restarts.converged.all()
    assert (history[0] - namespace["sklearn_log_likelihood"]).abs().min() > 5e-2
    assert many.log_likelihood == pytest.approx(namespace["sklearn_log_likelihood"], abs=1e-2)
    # no start falls
    assert history.diff(dim=0).nan_to_num(0.0).min() > -1e-8
    assert namespace["lost_by_commonest"] >= 0
    assert set(many.closed_form) == {"weights", "locs", "tril"}
    return [o.log_likelihood for o in optima]


def test_starts_end_in_different_places(ran):
    assert check_mixture(ran) == pytest.approx([-369.64, -374.41, -382.27], abs=0.01)


# Hidden Markov model


def test_neighbours_tell_the_state(ran):
    assert ran["right_hmm"] > ran["right_mixture"] + 0.1
    assert ran["right_hmm"] == pytest.approx(ran["right_best"], abs=0.02)
    stay = ran["hmm"].params["transition"].diagonal().mean()
    # standard error of a share of .05 out of 228 transitions: .0144; the start is at .75
    assert abs(stay - 0.95) < 0.04


# A restricted E-step


def check_restriction(namespace):
    start = 0.8
    weights = np.array(namespace["true_weights"])
    expected = np.array([two_causes.variational_weight(2 * w**2 + 1.0, 1.0) for w in weights])
    assert (abs(start / expected - 1) > 5e-3).all()
    assert namespace["restricted"] == pytest.approx(expected, rel=1e-3)
    assert (abs(start / weights - 1) > 5e-3).all()
    assert namespace["unrestricted"] == pytest.approx(weights, rel=1e-3)
    assert (namespace["restricted"] / weights < 0.81).all()
    assert namespace["gap_there"] > 0.05


def test_mean_field_is_biased_as_in_closed_form(ran):
    check_restriction(ran)


# Acceleration


def test_accelerators_reach_the_published_maximum(ran):
    top = ran["top"]
    for method in ("Squarem", "Anderson"):
        run_of_method = ran["runs"]["death notices", method]
        assert run_of_method.converged
        assert top - run_of_method.restarts.history[0, 0] > 5e-8
        assert ran["short_of_top"][method] < 1e-8
    published = torch.tensor(mixed_poisson.MAXIMUM, dtype=torch.float64)
    mapped, _ = mixed_poisson.em_step(published)
    assert (mapped - published).abs().max() < 1e-4


def test_plain_em_has_not_arrived_where_accelerators_have(ran):
    assert not ran["em_arrived"]
    assert ran["short_of_top"]["EM"] > 1e-4
    deaths = ran["on_deaths"]
    assert max(deaths[1:]) < deaths[0] == 100


def test_little_to_win_where_components_are_apart(ran):
    assert max(ran["on_geyser"]) < 3 * min(ran["on_geyser"])
    assert max(ran["on_geyser"]) < 30
    # each is ahead somewhere
    assert all(ran["ahead"].values())


# The setting that a reader sees


@pytest.mark.slow
def test_full_starts_find_the_same_three_optima_and_one_more(full):
    """scikit-learn, started at each with a tolerance of 1e-13, stays there."""
    ends = check_mixture(full)
    assert ends == pytest.approx([-369.64, -374.41, -375.08, -382.27], abs=0.01)
    for optimum in full["optima"]:
        at = {
            name: value[optimum.starts[0]] for name, value in full["many"].restarts.params.items()
        }
        again = GaussianMixture(
            3,
            tol=1e-13,
            max_iter=20_000,
            reg_covar=0.0,
            weights_init=at["weights"].numpy(),
            means_init=at["locs"].numpy(),
            precisions_init=torch.linalg.inv(at["tril"] @ at["tril"].mT).numpy(),
        ).fit(full["standardised"].numpy())
        value = len(full["geyser"]) * again.score(full["standardised"].numpy())
        assert value == pytest.approx(optimum.log_likelihood, abs=1e-3)


@pytest.mark.slow
def test_full_restriction(full):
    check_restriction(full)
    assert len(full["true_weights"]) == 3


@pytest.mark.slow
def test_full_neighbours_tell_the_state(full):
    assert full["right_hmm"] > full["right_mixture"] + 0.1
    assert full["right_hmm"] == pytest.approx(full["right_best"], abs=0.01)


@pytest.mark.slow
def test_full_accelerators_need_less_than_a_third(full):
    assert full["em_arrived"]
    plain, *accelerated = full["on_deaths"]
    assert max(accelerated) < plain / 3
    assert max(full["short_of_top"].values()) < 1e-8
    assert all(full["ahead"].values())
