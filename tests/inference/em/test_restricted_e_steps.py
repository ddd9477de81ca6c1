"""E-steps by draws, by a guide and by coordinate ascent, where the exact answer is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch.distributions import constraints

from models import variational_em_bias as two_causes
from pyro_klmodes.inference.em import EM, CoordinateAscent, MonteCarlo, Variational

QUICK = [
    pytest.param(*case, marks=pytest.mark.slow) if case[0] == 2 else case
    for case in two_causes.CASES
]


@pytest.mark.parametrize(("w", "variance"), QUICK)
def test_mean_field_has_the_bias_that_is_known(w, variance):
    x = two_causes.data(w, variance, number=4)
    second_moment = float(x.square().mean())
    exact = two_causes.variational_weight(second_moment, variance)

    result = EM(two_causes.model, e_step=CoordinateAscent()).fit(
        x, variance=variance, steps=400, tolerance=1e-5
    )

    found = float(result.params["w"])
    assert found == pytest.approx(exact, rel=3e-4)
    table = {(1.0, 1.0): -0.230, (1.0, 0.25): -0.264, (2.0, 0.25): -0.283, (0.5, 1.0): -0.201}
    assert found / w - 1 == pytest.approx(table[w, variance], abs=0.005)
    start = -float(result.losses[0])
    assert result.log_likelihood - start > 5 * 3e-4 * abs(result.log_likelihood)
    # what restricting the E-step costs
    log_likelihood = two_causes.log_likelihood(torch.tensor(found), variance, second_moment)
    gap = float(log_likelihood) - result.log_likelihood / len(x)
    print(f"w {w}, variance {variance}: bias {found / w - 1:.1%}, gap {gap:.4f} nats per datum")
    assert gap == pytest.approx(float(two_causes.gap(torch.tensor(found), variance)), abs=1e-8)


def test_coordinate_ascent_never_lowers_the_bound():
    x = two_causes.data(1.0, 0.25)

    result = EM(two_causes.model, e_step=CoordinateAscent(sweeps=1)).fit(x, variance=0.25, steps=25)

    assert result.losses.diff().max() <= 1e-9 * abs(result.log_likelihood)


def normal_means(x):
    """``x_n ~ N(mu, spread^2 + 1)``: the maximum is the mean and the variance less one."""
    mu = pyro.param("mu", torch.tensor(0.0))
    spread = pyro.param("spread", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, spread))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def standardised(number):
    """Data with mean 3 and variance 5."""
    x = torch.randn(number)
    return 3 + math.sqrt(5) * (x - x.mean()) / x.std(correction=0)


def test_coordinate_ascent_is_exact_where_the_posterior_factorises():
    result = EM(normal_means, e_step=CoordinateAscent()).fit(
        standardised(30), steps=200, tolerance=1e-9
    )

    assert float(result.params["mu"]) == pytest.approx(3, abs=1e-6)
    assert float(result.params["spread"]) == pytest.approx(2, abs=1e-6)
    assert result.closed_form == ("mu", "spread")
    density = dist.Normal(3.0, math.sqrt(5))
    x = result.args[0]
    assert result.log_likelihood == pytest.approx(float(density.log_prob(x).sum()), abs=1e-8)


@pytest.mark.parametrize(
    "e_step",
    [
        MonteCarlo(num_particles=200, growth=1.1, most=1000),
        MonteCarlo(lambda x: _wide(x), num_particles=200, growth=1.1, most=1000),
        pytest.param(
            Variational(
                AutoNormal(normal_means), steps=25, num_particles=8, optim=Adam({"lr": 0.05})
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["prior", "guide", "variational"],
)
def test_noisy_e_steps_end_near_the_maximum(e_step):
    """In the end the estimates move by a standard error of about 0.02 from step to step."""
    x = standardised(100)

    result = EM(normal_means, e_step=e_step).fit(x, steps=40)

    assert float(result.params["mu"]) == pytest.approx(3, abs=0.1)
    assert float(result.params["spread"]) == pytest.approx(2, abs=0.1)


def _wide(x):
    """Local posteriors of the maximum, twice as wide."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x + 0.6, 2 * math.sqrt(0.8)))


def test_more_particles_at_every_step():
    counts = [MonteCarlo(num_particles=50, growth=1.5, most=300).count(step) for step in range(8)]

    assert counts[0] == 50
    assert counts[-1] == 300
    assert counts == sorted(counts)
