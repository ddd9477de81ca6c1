"""Models ranked by leave-one-out cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.elpd import elpd_numbers
from pyro_klmodes.inference_data.loo import loo
from pyro_klmodes.inference_data.versions import IS_1X, ELPDData, az, tolerating

__all__ = ["compare_models"]

# pandas' announcement about a call inside arviz.compare
SORTING = "The inplace keyword in DataFrame.sort_values is deprecated"


def compare_models(
    models: Mapping[str, Any],
    *,
    method: Literal["stacking", "bb-pseudo-bma", "pseudo-bma"] = "stacking",
) -> pd.DataFrame:
    """Models ranked by how well they predict each datum from all others (``arviz.compare``).

    Args:
        models: For each name inference data, which goes through `loo`, or what `loo` returned.
        method: How ArviZ finds the weights.

    Returns:
        One row per model, the best first, with the columns ``rank`` (from 0), ``elpd``, ``se``,
        ``p``, ``elpd_diff`` (minus the best model's elpd, so never positive), ``dse`` (the standard
        error of that difference), ``weight`` and ``warning``. The weights of ``"bb-pseudo-bma"``
        are random.

    Raises:
        InvalidArgument: If there is no model, models have different numbers of data, or one is
            refused by `loo` or `elpd_numbers`.

    Source:
        Yao, Vehtari, Simpson and Gelman (2018) for the weights.

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import Variable, build
        >>> mu = np.random.default_rng(0).normal(0.0, 0.2, size=(1, 400))
        >>> def model(y):
        ...     log_lik = -((np.array(y) - mu[..., None]) ** 2) / 2
        ...     return build({"posterior": {"mu": Variable(mu)},
        ...                   "log_likelihood": {"y": Variable(log_lik, ("obs",))}})
        >>> compare_models({"far": model([2.0, 2.1, 2.2]), "near": model([0.0, 0.1, 0.2])}).index[0]
        'near'
    """
    if not models:
        raise InvalidArgument("models hold nothing to compare")
    estimates = {
        name: model if isinstance(model, ELPDData) else loo(model) for name, model in models.items()
    }
    numbers = {name: elpd_numbers(estimate) for name, estimate in estimates.items()}
    counts = {name: held.num_data for name, held in numbers.items()}
    if len(set(counts.values())) > 1:
        raise InvalidArgument(f"models must predict the same data; numbers of data: {counts}")
    with tolerating(SORTING):
        options = {"round_to": "none"} if IS_1X else {"scale": "log"}
        table = az.compare(estimates, method=method, **options)
    if not IS_1X:
        table = table.rename(columns={"elpd_loo": "elpd", "p_loo": "p"})
        table["elpd_diff"] = 0.0 - table["elpd_diff"]
    table["warning"] = [numbers[name].warning for name in table.index]
    return pd.DataFrame(table[["rank", "elpd", "se", "p", "elpd_diff", "dse", "weight", "warning"]])
