"""What differs between ArviZ 0.x and 1.x: the only file that imports ``arviz``.

ArviZ 0.22 and 0.23 keep groups in ``arviz.InferenceData``, 1.x in ``xarray.DataTree``. Both are
made from, and taken apart into, one dataset per group here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

__all__ = [
    "IS_1X",
    "ELPDData",
    "az",
    "dataset",
    "density",
    "group_names",
    "intervals",
    "tolerating",
    "tree",
]


@contextmanager
def tolerating(*texts: str) -> Iterator[None]:
    """Swallow the warnings that hold one of ``texts``; pass on all others.

    ArviZ warns about itself in places where no caller can change anything. Under "warnings are
    errors" such a warning would stop the call.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not any(text in str(warning.message) for text in texts):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


WANTED = "pip install 'arviz>=0.22,<2' (ArviZ 1.x needs Python 3.12 or newer)"

try:
    # ArviZ announces its coming version with a FutureWarning once a day, whatever the caller does.
    with tolerating("ArviZ is undergoing a major refactor"):
        import arviz as az
except ImportError as error:
    raise ImportError(
        f"inference data needs ArviZ, which cannot be imported ({error}); {WANTED}"
    ) from error

_release = re.match(r"(\d+)\.(\d+)", az.__version__)
_version = tuple(map(int, _release.groups())) if _release else (0, 0)
if not (0, 22) <= _version < (2, 0):
    raise ImportError(
        f"ArviZ {az.__version__} is installed, but inference data is made for ArviZ 0.22, 0.23 "
        f"and 1.x; {WANTED}"
    )

IS_1X = _version >= (1, 0)

if IS_1X:
    from arviz_stats.base import array_stats
    from arviz_stats.utils import ELPDData
else:
    from arviz.stats.stats_utils import ELPDData


def tree(groups: Mapping[str, xr.Dataset], attributes: Mapping[str, Any]) -> Any:
    """Inference data of these groups: ``arviz.InferenceData`` or ``xarray.DataTree``."""
    if not IS_1X:
        return az.InferenceData(attrs=dict(attributes), **groups)
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(attributes)), **groups})


def group_names(data: Any) -> tuple[str, ...]:
    """The names of the groups of inference data.

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import from_chains
        >>> group_names(from_chains({"mu": np.zeros((2, 5))}))
        ('posterior',)
    """
    return tuple(data.children) if IS_1X else tuple(data.groups())


def dataset(data: Any, group: str) -> xr.Dataset:
    """One group of inference data as an ``xarray.Dataset``.

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import from_chains
        >>> dict(dataset(from_chains({"mu": np.zeros((2, 5))}), "posterior").sizes)
        {'chain': 2, 'draw': 5}
    """
    return data[group].to_dataset() if IS_1X else data[group]


def intervals(draws: xr.Dataset, probability: float) -> xr.Dataset:
    """Highest-density intervals; each variable ends with an axis ``bound`` of lower and upper."""
    if IS_1X:
        found = az.hdi(draws, prob=probability).rename(ci_bound="bound")
    else:
        found = az.hdi(draws, hdi_prob=probability).rename(hdi="bound")
    return found.transpose(..., "bound")


def density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (S,) -> (G,), (G,)
    """ArviZ's kernel estimate of a density: a grid and the density on it."""
    grid, curve = (array_stats.kde if IS_1X else az.kde)(draws)[:2]
    return grid, curve
