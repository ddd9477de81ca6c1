"""Leave-one-out against the closed form, with and without the correction."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta

from models import eight_schools
from pyro_klmodes.conversion import loo, to_arviz
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference_data import compare_models, dataset, elpd_numbers
from pyro_klmodes.inference_data.versions import az
from pyro_klmodes.posteriors import Chains

SIZE, SIGMA = 12, 1.5


def data():
    return torch.linspace(-2.0, 3.0, SIZE)


def model(x, mask=None):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 2.0))
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=True if mask is None else mask):
        pyro.sample("x", dist.Normal(mu, SIGMA), obs=x)


def moments(x):
    precision = 0.25 + len(x) / SIGMA**2
    return float(x.sum()) / SIGMA**2 / precision, precision**-0.5


def exact_pointwise(x):
    """log p(x_i | x_-i) of normal means with known noise."""
    found = []
    for i in range(len(x)):
        mean, sd = moments(torch.cat([x[:i], x[i + 1 :]]))
        found.append(dist.Normal(mean, math.hypot(sd, SIGMA)).log_prob(x[i]))
    return torch.stack(found).numpy()


def shifted(x, mask=None):
    """An approximation that is off by a posterior sd, and 1.3 times as wide."""
    mean, sd = moments(x if mask is None else x[mask])
    pyro.sample("mu", dist.Normal(torch.as_tensor(mean + sd), 1.3 * sd))


def test_corrected_is_exact_and_uncorrected_is_not():
    x = data()
    runs, raw = [], []
    for seed in range(6):
        made = to_arviz((model, shifted), args=(x,), num_samples=4000, seed=seed)
        runs.append(elpd_numbers(loo(made)).pointwise)
        raw.append(elpd_numbers(loo(made, corrected=False)).elpd)
    exact = exact_pointwise(x)
    error = np.std(runs, axis=0, ddof=1) / math.sqrt(len(runs))
    # of six runs the error of the error itself is large: Student's t with 5 degrees, 1e-3
    assert (np.abs(np.mean(runs, axis=0) - exact) < 6.9 * error).all()
    whole = np.sum(runs, axis=1)
    tolerance = 6.9 * whole.std(ddof=1) / math.sqrt(len(runs))
    assert abs(whole.mean() - exact.sum()) < tolerance
    assert abs(np.mean(raw) - exact.sum()) > 5 * tolerance


def test_masked_data_do_not_count():
    x, mask = data(), torch.arange(SIZE) % 3 != 0
    found = elpd_numbers(loo((model, shifted), args=(x, mask)))
    assert found.num_data == int(mask.sum())
    exact = exact_pointwise(x[mask])
    assert abs(found.elpd - exact.sum()) < 0.02


def test_draws_of_the_posterior_need_no_correction():
    x = data()
    mean, sd = moments(x)
    chains = Chains({"mu": mean + sd * torch.randn(4, 1000)}, model, (x,))
    made = to_arviz(chains)
    assert elpd_numbers(az.loo(made)).elpd == pytest.approx(elpd_numbers(loo(made)).elpd)
    assert abs(elpd_numbers(loo(made)).elpd - exact_pointwise(x).sum()) < 0.02
    with pytest.raises(InvalidArgument, match="no log_q to correct with"):
        loo(made, corrected=True)
    resampled = to_arviz((model, shifted), args=(x,), resample="psis")
    assert abs(elpd_numbers(loo(resampled)).elpd - exact_pointwise(x).sum()) < 0.05


def test_nuts_of_eight_schools_as_arviz_has_it():
    values = {
        name: torch.as_tensor(draws, dtype=torch.float64)
        for name, draws in eight_schools.nuts_draws().items()
        if name != "theta"
    }
    chains = Chains(values, eight_schools.non_centred_model, eight_schools.data())
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):  # one school is surprising
        shipped = az.loo(az.load_arviz_data("non_centered_eight"), pointwise=True)
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        found = loo(chains)
    theirs, ours = elpd_numbers(shipped), elpd_numbers(found)
    assert (ours.elpd, ours.se, ours.p) == pytest.approx((theirs.elpd, theirs.se, theirs.p))


def test_our_objects_can_be_compared():
    x = data()

    def narrow(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 0.5), obs=x)

    def guide(x):
        mean, sd = moments(x)
        pyro.sample("mu", dist.Normal(torch.as_tensor(mean), sd))

    both = {
        "right": to_arviz((model, guide), args=(x,), num_samples=500),
        "narrow": to_arviz((narrow, guide), args=(x,), num_samples=500),
    }
    table = compare_models({name: loo(made) for name, made in both.items()})
    assert list(table.index) == ["right", "narrow"]


def test_a_guide_without_a_density_cannot_be_corrected():
    with pytest.warns(KLModesWarning, match="no log-weights"):
        made = to_arviz((model, AutoDelta(model)), args=(data(),), num_samples=100)
    with pytest.raises(InvalidArgument, match="needs the density of the guide"):
        loo(made)
    assert dataset(made, "log_likelihood")["x"].shape == (1, 100, SIZE)
