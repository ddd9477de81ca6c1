"""The numbers of a leave-one-out estimate, whatever the version of ArviZ that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.versions import IS_1X, ELPDData

__all__ = ["Elpd", "elpd_numbers"]


@dataclass(frozen=True)
class Elpd:
    """The numbers of a leave-one-out estimate, under the same names for every version of ArviZ.

    Attributes:
        elpd: Expected log pointwise predictive density, the sum of ``pointwise``.
        se: Its standard error: how far another data set of this size would differ.
        p: Effective number of parameters.
        num_samples: Number of draws.
        num_data: Number of data.
        warning: Whether a ``pareto_k`` is above ``good_k``, so that the estimate is unreliable.
        good_k: ``min(1 - 1 / log10(num_samples), 0.7)``.
        pointwise: Log predictive density of each datum given all others, in the data's shape.
        pareto_k: Tail shape of the importance ratios of each datum, in the data's shape.
    """

    elpd: float
    se: float
    p: float
    num_samples: int
    num_data: int
    warning: bool
    good_k: float
    pointwise: np.ndarray
    pareto_k: np.ndarray


def elpd_numbers(elpd: Any) -> Elpd:
    """Read what `loo` or ``arviz.loo(..., pointwise=True)`` returned.

    Raises:
        InvalidArgument: If it is no leave-one-out estimate of the installed ArviZ, lacks pointwise
            values, or is not on the scale of log-densities.

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import Variable, build, loo
        >>> data = build({
        ...     "posterior": {"mu": Variable(np.linspace(-1.0, 1.0, 100)[None])},
        ...     "log_likelihood": {"y": Variable(np.linspace(-1.0, 1.0, 200).reshape(1, 100, 2))},
        ... })
        >>> elpd_numbers(loo(data)).num_data
        2
    """
    kind = getattr(elpd, "kind", "loo") if IS_1X else str(getattr(elpd, "index", [""])[0])
    if not isinstance(elpd, ELPDData) or kind not in ("loo", "elpd_loo"):
        raise InvalidArgument(
            f"{type(elpd).__name__} is no leave-one-out estimate of the installed ArviZ"
        )
    pointwise = getattr(elpd, "elpd_i" if IS_1X else "loo_i", None)
    if pointwise is None or elpd.scale != "log":
        raise InvalidArgument(
            "the estimate must hold pointwise values on the scale 'log': pointwise=True"
        )
    return Elpd(
        elpd=float(elpd.elpd if IS_1X else elpd.elpd_loo),
        se=float(elpd.se),
        p=float(elpd.p if IS_1X else elpd.p_loo),
        num_samples=int(elpd.n_samples),
        num_data=int(elpd.n_data_points),
        warning=bool(elpd.warning),
        good_k=float(elpd.good_k),
        pointwise=pointwise.values,
        pareto_k=elpd.pareto_k.values,
    )
