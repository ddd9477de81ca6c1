"""ArviZ from arrays of draws: one code path for ArviZ 0.22, 0.23 and 1.x.

Takes and returns numpy arrays, xarray datasets, pandas tables and ArviZ objects only, and imports
neither torch nor Pyro. What depends on the version of ArviZ stands in `versions`, the only file
that imports ``arviz``; everything else is xarray.
"""

from pyro_klmodes.inference_data.draws import from_chains, from_draws, site_dimensions
from pyro_klmodes.inference_data.elpd import Elpd, elpd_numbers
from pyro_klmodes.inference_data.files import read, write
from pyro_klmodes.inference_data.loo import loo
from pyro_klmodes.inference_data.model_comparison import compare_models
from pyro_klmodes.inference_data.statistics import (
    density_curve,
    highest_density_intervals,
    site_draws,
    summary,
)
from pyro_klmodes.inference_data.streaming import StreamWriter, write_in_chunks
from pyro_klmodes.inference_data.structure import Variable, build
from pyro_klmodes.inference_data.versions import dataset, group_names

__all__ = [
    "Elpd",
    "StreamWriter",
    "Variable",
    "build",
    "compare_models",
    "dataset",
    "density_curve",
    "elpd_numbers",
    "from_chains",
    "from_draws",
    "group_names",
    "highest_density_intervals",
    "loo",
    "read",
    "site_dimensions",
    "site_draws",
    "summary",
    "write",
    "write_in_chunks",
]
