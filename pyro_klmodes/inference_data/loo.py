"""Leave-one-out cross-validation from draws that need not be of the exact posterior."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.statistics import numeric
from pyro_klmodes.inference_data.structure import SAMPLE_DIMENSIONS
from pyro_klmodes.inference_data.versions import (
    IS_1X,
    ELPDData,
    az,
    dataset,
    group_names,
    tree,
)

__all__ = ["loo"]

FEWEST_DRAWS = 25  # a fifth of the draws is the tail, and its fit needs five


def loo(
    data: Any,
    log_p: Any = None,  # (chains, draws) or (chains * draws,)
    log_q: Any = None,  # (chains, draws) or (chains * draws,)
    *,
    name: str | None = None,
    corrected: bool = True,
) -> Any:
    """Leave-one-out cross-validation (PSIS-LOO), corrected for draws from an approximation.

    The posterior without datum i has the density p(theta | y) / p(y_i | theta), up to a constant.
    Draws from q(theta) therefore get the importance ratios

        r_i(theta) = p(theta, y) / q(theta) / p(y_i | theta),

    which are Pareto-smoothed, and elpd_i = log sum_s r_i(theta_s) p(y_i | theta_s) / sum_s
    r_i(theta_s). Draws of MCMC are draws of p(theta | y), so there p(theta, y) / q(theta) is a
    constant and drops out: the usual PSIS-LOO. Neither density has to be normalised.

    Like ArviZ and R's loo, the effective number of parameters compares elpd with the draws as they
    are, not reweighted; under a poor approximation it is a number without much meaning.

    Args:
        data: Inference data with the group ``log_likelihood``, one entry per datum, and for plain
            PSIS-LOO ``posterior``, whose effective sample size it uses if there is more than one
            chain.
        log_p: Log-density of model and data at each draw. If neither density is given, those of
            ``sample_stats``, where `from_draws` puts them.
        log_q: Log-density at each draw of what it was drawn from.
        name: Which variable of ``log_likelihood``; needed if there are several.
        corrected: Whether to correct for the approximation when the densities are known. False
            treats the draws as draws of the exact posterior.

    Returns:
        ArviZ's own ``ELPDData`` with pointwise values, which ``arviz.compare`` takes and which
        prints itself; `elpd_numbers` reads it for every version. The versions differ a little:
        ArviZ 0.x rounds the length of the smoothed tail up, 1.x down, and the standard error of
        elpd divides by n in 0.x, by n - 1 in 1.x.

    Raises:
        InvalidArgument: If there is no log-likelihood or several and no ``name``, only one of the
            densities, a density of another shape than the draws or with NaN or infinite values
            (except ``log_p = -inf``, a draw outside the posterior), a datum whose log-likelihood is
            NaN or infinite under a draw or the same under all draws, a single datum, or fewer than
            25 draws.

    Warns:
        UserWarning: If a Pareto k is too high, as ArviZ does.

    Source:
        Vehtari, Gelman and Gabry (2017); the correction: Magnusson, Andersen, Jonasson and Vehtari
        (2019).

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import Variable, build, elpd_numbers
        >>> mu = np.random.default_rng(0).normal(0.0, 0.5, size=(1, 4000))
        >>> y = np.array([-0.3, 0.1, 0.2])
        >>> log_lik = -((y - mu[..., None]) ** 2) / 2
        >>> data = build({"posterior": {"mu": Variable(mu)},
        ...               "log_likelihood": {"y": Variable(log_lik, ("obs",))}})
        >>> log_p = log_lik.sum(-1) - mu**2 / 2      # the posterior is N(0, 0.5)
        >>> log_q = -(mu**2) / 2 / 0.5**2            # what mu was drawn from, here the same
        >>> bool(abs(elpd_numbers(loo(data, log_p, log_q)).elpd - elpd_numbers(loo(data)).elpd)
        ...      < 1e-6)
        True
    """
    log_likelihood = _log_likelihood(data, name)
    sizes = [log_likelihood.sizes[dim] for dim in SAMPLE_DIMENSIONS]
    log_p, log_q = _densities(data, log_p, log_q) if corrected else (None, None)
    if log_p is None:
        return _plain(data, log_likelihood)
    p = _per_draw("log_p", log_p, sizes)
    q = _per_draw("log_q", log_q, sizes)
    if not np.isfinite(q).all():
        raise InvalidArgument("log_q holds NaN or infinite values; a draw of q has a density")
    if np.isnan(p).any() or np.isposinf(p).any() or not np.isfinite(p).any():
        raise InvalidArgument(
            "log_p must be finite (or -inf at draws the posterior excludes, but not at all)"
        )
    if IS_1X:
        log_p, log_q = (xr.DataArray(value, dims=SAMPLE_DIMENSIONS) for value in (p, q))
        held = tree({"log_likelihood": log_likelihood.to_dataset(name="y")}, {})
        return az.loo_approximate_posterior(held, log_p, log_q, pointwise=True)
    return _corrected(log_likelihood, xr.DataArray(p - q, dims=SAMPLE_DIMENSIONS))


def _log_likelihood(data: Any, name: str | None) -> xr.DataArray:
    """In double precision: sums over draws of a float32 log-likelihood lose digits."""
    held = dataset(data, "log_likelihood") if "log_likelihood" in group_names(data) else {}
    names = list(map(str, held))
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise InvalidArgument(
            f"the group log_likelihood holds {', '.join(names) or 'nothing'}; name one of them"
            if names
            else "inference data has no group log_likelihood; add one when it is made"
        )
    values = held[name].astype(np.float64)
    if values.sizes["chain"] * values.sizes["draw"] < FEWEST_DRAWS:
        raise InvalidArgument(f"leave-one-out needs at least {FEWEST_DRAWS} draws")
    if values.size == values.sizes["chain"] * values.sizes["draw"]:
        raise InvalidArgument(
            f"the log-likelihood {name!r} holds one value per draw, so there is nothing to leave "
            "out; it must hold one value per datum"
        )
    impossible = ~(abs(values) < np.inf)  # NaN too
    if impossible.any():
        raise InvalidArgument(
            f"the log-likelihood of {_count(impossible)} data is NaN or infinite under a draw; "
            "leave-one-out divides by the likelihood, so it must be positive under every draw"
        )
    varying = values.max(SAMPLE_DIMENSIONS) > values.min(SAMPLE_DIMENSIONS)
    if not varying.all():
        raise InvalidArgument(
            f"the log-likelihood of {_count(~varying)} data is the same under every draw, as that "
            "of data behind a mask is; leave these out of the group log_likelihood"
        )
    return values


def _count(flags: xr.DataArray) -> int:
    """How many data have a flag, under any draw."""
    draws = [dim for dim in SAMPLE_DIMENSIONS if dim in flags.dims]
    return int(flags.any(draws).sum())


def _densities(data: Any, log_p: Any, log_q: Any) -> tuple[Any, Any]:
    if (log_p is None) != (log_q is None):
        raise InvalidArgument("give log_p and log_q, or neither")
    if log_p is not None or "sample_stats" not in group_names(data):
        return log_p, log_q
    stored = dataset(data, "sample_stats")
    if "log_p" in stored and "log_q" in stored:
        return stored["log_p"], stored["log_q"]
    return None, None


def _per_draw(name: str, value: Any, sizes: list[int]) -> np.ndarray:  # (chains, draws)
    if isinstance(value, xr.DataArray):
        value = value.transpose(*SAMPLE_DIMENSIONS)
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in (tuple(sizes), (sizes[0] * sizes[1],)):
        raise InvalidArgument(
            f"{name} has shape {array.shape}; one value per draw is needed, of shape "
            f"{tuple(sizes)} like the log-likelihood's chains and draws"
        )
    return array.reshape(sizes)


def _plain(data: Any, log_likelihood: xr.DataArray) -> Any:
    if "posterior" not in group_names(data):
        raise InvalidArgument("plain leave-one-out needs the group posterior")
    held = {
        "posterior": numeric(dataset(data, "posterior")),
        "log_likelihood": log_likelihood.to_dataset(name="y"),
    }
    with np.errstate(over="ignore"):  # candidates without weight in ArviZ's fit of the tail
        return az.loo(tree(held, {}), pointwise=True)


def _corrected(
    log_likelihood: xr.DataArray,  # (chain, draw, *data)
    log_ratio: xr.DataArray,  # (chain, draw)
) -> Any:
    """What ArviZ 1.x calls ``loo_approximate_posterior``, with the smoothing of ArviZ 0.x."""
    stacked = log_likelihood.stack(__sample__=SAMPLE_DIMENSIONS)
    ratios = (log_ratio - log_likelihood).stack(__sample__=SAMPLE_DIMENSIONS)
    ratios = ratios.transpose(*stacked.dims)
    with np.errstate(over="ignore"):  # candidates without weight in ArviZ's fit of the tail
        log_weights, pareto_k = az.psislw(ratios, reff=1.0)
    pointwise = _log_sum_over_draws(log_weights + stacked).rename("loo_i")
    num_samples, num_data = stacked.sizes["__sample__"], pointwise.size
    full = _log_sum_over_draws(stacked) - np.log(num_samples)
    good_k = min(1 - 1 / np.log10(num_samples), 0.7)
    unreliable = bool((pareto_k > good_k).any())
    if unreliable:
        warnings.warn(
            f"the Pareto k of {int((pareto_k > good_k).sum())} of {num_data} data is greater than "
            f"{good_k:.2f}: importance sampling from these draws is unreliable for them",
            stacklevel=3,
        )
    elpd = float(pointwise.sum())
    values = {
        "elpd_loo": elpd,
        "se": float(np.sqrt(num_data * pointwise.values.var())),
        "p_loo": float(full.sum()) - elpd,
        "n_samples": num_samples,
        "n_data_points": num_data,
        "warning": unreliable,
        "loo_i": pointwise,
        "pareto_k": pareto_k,
        "scale": "log",
        "good_k": good_k,
    }
    return ELPDData(data=list(values.values()), index=list(values))


def _log_sum_over_draws(values: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(logsumexp, values, input_core_dims=[["__sample__"]], kwargs={"axis": -1})
