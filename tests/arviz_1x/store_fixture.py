"""Writes tests/inference_data/stored_loo.npz: draws, and what ArviZ 1.3.0 makes of them.

Run once, by hand, with ArviZ 1.3.0: python tests/arviz_1x/store_fixture.py

The number of draws is a square: there both lines of ArviZ smooth a tail of the same length, which
is three times its root, rounded up in 0.x and down in 1.x.
"""

from pathlib import Path

import arviz as az
import numpy as np
import xarray as xr

DRAWS = 400

rng = np.random.default_rng(20240607)
y = np.array([-1.4, -0.6, -0.1, 0.2, 0.5, 0.9, 1.3, 2.8])
precision = 1.0 / 9.0 + len(y)  # y_i ~ N(mu, 1), mu ~ N(0, 9)
mean = y.sum() / precision
mu = mean + 0.1 + 1.2 / np.sqrt(precision) * rng.standard_normal((1, DRAWS))
log_likelihood = -0.5 * (y - mu[..., None]) ** 2 - 0.5 * np.log(2.0 * np.pi)
log_p = log_likelihood.sum(-1) - mu**2 / 18.0
log_q = -0.5 * (mu - mean - 0.1) ** 2 * precision / 1.2**2

data = xr.DataTree.from_dict(
    {
        "posterior": xr.Dataset({"mu": (("chain", "draw"), mu)}),
        "log_likelihood": xr.Dataset({"y": (("chain", "draw", "obs"), log_likelihood)}),
    }
)
corrected = az.loo_approximate_posterior(data, log_p, log_q, pointwise=True)
plain = az.loo(data, pointwise=True)
np.savez_compressed(
    Path(__file__).parents[1] / "inference_data" / "stored_loo.npz",
    arviz=az.__version__,
    mu=mu,
    log_likelihood=log_likelihood,
    log_p=log_p,
    log_q=log_q,
    **{
        f"{name}_{field}": np.asarray(getattr(elpd, field))
        for name, elpd in (("corrected", corrected), ("plain", plain))
        for field in ("elpd", "se", "p", "elpd_i", "pareto_k")
    },
)
