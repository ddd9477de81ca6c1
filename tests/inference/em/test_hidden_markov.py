"""Hidden Markov models: Baum and Welch's updates step by step, and hmmlearn's maximum."""

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from pyro import poutine

from models import hidden_markov as hmm
from models import hidden_markov_exact as exact
from models.hidden_markov import Discrete
from pyro_klmodes.inference.em import EM

RATIO = 5  # how much further off than the tolerance a start has to be
LENGTHS = torch.tensor([8, 3, 8, 1, 6, 8])


def discrete(count):
    """Data, random starts, model, the step by hand."""
    x, _ = hmm.simulate_discrete(6, 8, seed=1)
    starts = exact.random_discrete(2, 3, starts=count, seed=2)
    return x, starts, hmm.discrete_model, exact.discrete_step


def gaussian(count):
    """Data, random starts, model, the step by hand."""
    x, _ = hmm.simulate_gaussian(6, 8, seed=1)
    starts = exact.random_gaussian(x, 3, starts=count, seed=2)
    return x, starts, hmm.gaussian_model, exact.gaussian_step


CASES = pytest.mark.parametrize("case", [discrete, gaussian])


@CASES
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "padded"])
def test_every_step_is_that_of_baum_and_welch(case, lengths):
    x, at, model, step = case(2)
    reached = []

    def remember(progress):
        reached.append(progress.theta)

    starts = at._asdict()
    result = EM(model, starts=starts).fit(
        x, lengths=lengths, steps=6, tolerance=1e-12, callback=remember
    )

    assert set(result.closed_form) == set(at._fields)
    for theta, value in zip(reached, result.restarts.history, strict=True):
        by_hand = [part.flatten(1) for part in at]
        torch.testing.assert_close(theta, torch.cat(by_hand, 1), rtol=1e-9, atol=1e-9)
        at, before = step(at, x, lengths)
        torch.testing.assert_close(value, before, rtol=1e-9, atol=0)
    assert (reached[-1] - reached[0]).abs().max() > 1e-2


def hmmlearns(at):
    """The same model without priors or floors, which stops after a number of steps only."""
    options = {"init_params": "", "tol": -np.inf, "n_iter": 40}
    if isinstance(at, Discrete):
        theirs = CategoricalHMM(2, n_features=3, **options)
        theirs.emissionprob_ = at.emission[0].numpy()
    else:
        theirs = GaussianHMM(3, covars_prior=0.0, **options)
        theirs.means_, theirs.covars_ = at.locs[0].numpy(), at.scales[0].square().numpy()
    theirs.startprob_, theirs.transmat_ = at.initial[0].numpy(), at.transition[0].numpy()
    return theirs


@CASES
def test_the_likelihood_is_that_of_hmmlearn(case):
    x, at, model, _ = case(1)
    rows = np.concatenate([row[:n] for row, n in zip(x.numpy(), LENGTHS.tolist(), strict=True)])
    rows = rows.reshape(len(rows), -1)
    theirs = hmmlearns(at).fit(rows, LENGTHS.tolist())
    # 40 steps of theirs lead to where the 41st of ours begins
    expected = theirs.score(rows, LENGTHS.tolist())

    result = EM(model, starts=at._asdict()).fit(x, lengths=LENGTHS, steps=41, tolerance=1e-12)

    assert result.log_likelihood == pytest.approx(expected, rel=1e-6)
    assert abs(-float(result.losses[0]) - expected) > RATIO * 1e-6 * abs(expected)
    np.testing.assert_allclose(result.params["transition"].numpy(), theirs.transmat_, atol=1e-6)


@CASES
def test_the_likelihood_rises_from_twenty_starts(case):
    x, at, model, _ = case(20)

    result = EM(model, starts=at._asdict()).fit(x, lengths=LENGTHS, steps=12)

    history = result.restarts.history
    assert history.shape == (12, 20)
    assert not result.restarts.faults
    assert history.diff(dim=0).min() > -1e-12 * history.abs().max()
    assert (history[-1] - history[0]).min() > 1e-2


@CASES
def test_draws_of_the_states_are_those_of_forward_and_backward(case):
    """The fitted guide draws whole paths from the posterior."""
    x, at, model, _ = case(1)
    result = EM(model, starts=at._asdict()).fit(x, lengths=LENGTHS, steps=3)
    fitted = type(at)(*(result.params[name] for name in at._fields))
    smoothed = exact.forward_backward(fitted, x, LENGTHS)
    draws, series = 4000, 1

    copies = x[series].expand(draws, *x.shape[1:])
    trace = poutine.trace(result.guide).get_trace(copies, lengths=LENGTHS[series].expand(draws))

    ends = int(LENGTHS[series])
    path = torch.stack([trace.nodes[f"z_{t}"]["value"] for t in range(ends)], 1)
    states = torch.nn.functional.one_hot(path, len(fitted.initial)).double()
    marginals = smoothed.marginals[series, :ends]
    pairs = smoothed.pairs[series, : ends - 1]
    found = torch.einsum("dti,dtj->tij", states[:, :-1], states[:, 1:]) / draws
    for share, expected in ((states.mean(0), marginals), (found, pairs)):
        error = (expected * (1 - expected) / draws).sqrt()
        assert ((share - expected).abs() <= 4.5 * error + 1e-9).all()
    assert marginals.amax(-1).min() < 0.99
