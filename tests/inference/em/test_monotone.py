"""No step of EM lowers the log-likelihood, whatever the model, the data and the start."""

import pyro
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models import gaussian_mixture, hidden_markov, mixed_poisson
from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem
from pyro_klmodes.inference.em import EM, RandomStarts

STARTS = 20
few_examples = settings(
    max_examples=4, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
)


def check_ascent(model, *args, seed, steps, acceleration=None, **kwargs):
    """Every start rises, or has a fault that says why it ended."""
    em = EM(model, starts=RandomStarts(STARTS), floor=1e-3, acceleration=acceleration)
    result = em.fit(*args, steps=steps, seed=seed, **kwargs)

    found = result.restarts
    assert found.history.shape[1] == STARTS
    began = found.history[0].isfinite()  # the others have no second point
    assert {n for n, ok in enumerate(began.tolist()) if not ok} <= set(found.faults)
    history = found.history[:, began]
    assert history.diff(dim=0).min() > -1e-12 * history.abs().max()
    assert (history[-1] > history[0]).sum() > STARTS / 2
    assert set(result.closed_form) == set(result.params)


def seeded(seed):
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)


@few_examples
@given(seed=st.integers(0, 10_000), size=st.integers(5, 60), spread=st.floats(0.1, 8))
def test_mixtures_of_poissons(seed, size, spread):
    seeded(seed)
    x = torch.poisson(1 + spread * torch.rand(size) ** 3)

    check_ascent(mixed_poisson.model, x, seed=seed, steps=12)


@pytest.mark.parametrize("kind", gaussian_mixture.KINDS)
@few_examples
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(12, 40),
    components=st.integers(1, 4),
    dims=st.integers(1, 3),
)
def test_gaussian_mixtures(kind, seed, size, components, dims):
    seeded(seed)
    x = 3 * torch.randn(size, dims) * torch.rand(dims) + torch.randint(3, (size, 1))

    check_ascent(gaussian_mixture.model, x, seed=seed, steps=10, components=components, kind=kind)


@few_examples
@given(
    seed=st.integers(0, 10_000),
    series=st.integers(5, 12),
    length=st.integers(3, 7),
    states=st.integers(2, 3),
)
def test_hidden_markov_models_of_symbols(seed, series, length, states):
    seeded(seed)
    x, _ = hidden_markov.simulate_discrete(series, length, seed=seed)
    lengths = torch.randint(1, length + 1, (series,))

    check_ascent(
        hidden_markov.discrete_model, x, seed=seed, steps=8, states=states, lengths=lengths
    )


@few_examples
@given(
    seed=st.integers(0, 10_000),
    series=st.integers(5, 12),
    length=st.integers(3, 7),
    states=st.integers(2, 3),
)
def test_hidden_markov_models_of_measurements(seed, series, length, states):
    seeded(seed)
    x, _ = hidden_markov.simulate_gaussian(series, length, seed=seed)

    check_ascent(hidden_markov.gaussian_model, x, seed=seed, steps=8, states=states)


@pytest.mark.parametrize("acceleration", [Plain(), Squarem(), Anderson()], ids=repr)
@few_examples
@given(seed=st.integers(0, 10_000), size=st.integers(20, 60))
def test_accelerated_steps(acceleration, seed, size):
    seeded(seed)
    x = torch.randn(size, 2) + 2 * torch.randint(2, (size, 1))

    check_ascent(
        gaussian_mixture.model,
        x,
        seed=seed,
        steps=25,
        kind="diagonal",
        acceleration=acceleration,
    )


@pytest.mark.parametrize("acceleration", [Plain(), Squarem(), Anderson()], ids=repr)
@pytest.mark.parametrize("kind", gaussian_mixture.KINDS)
def test_no_start_and_no_proposal_lies_below_the_floor(kind, acceleration):
    """The likelihood there is higher than anywhere above, and a step from there would lower it."""
    x = gaussian_mixture.old_faithful_data()[:60]
    floor = 0.3  # the components are narrower

    em = EM(gaussian_mixture.model, starts=RandomStarts(5), floor=floor, acceleration=acceleration)
    result = em.fit(x, kind=kind, steps=25)

    history = result.restarts.history
    assert history.diff(dim=0).min() > -1e-12 * history.abs().max()
    fitted = gaussian_mixture.mixture(result.restarts.params).covariances
    smallest = torch.linalg.eigvalsh(fitted).amin()
    assert float(smallest) == pytest.approx(floor, rel=1e-9)
    assert EM(gaussian_mixture.model).fit(x, kind=kind).log_likelihood > result.log_likelihood + 1
