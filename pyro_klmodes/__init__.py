"""Choose the divergence in Pyro: drop-in losses from mode-seeking to mass-covering.

Example:
    >>> import torch, pyro, pyro.distributions as dist
    >>> from pyro.infer import SVI
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}),
    ...           loss=ForwardKL(num_particles=32))
    >>> isinstance(svi.step(torch.tensor([0.5, 1.5])), float)
    True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_klmodes import diagnostics, errors, estimators, guides, objectives
from pyro_klmodes.calibration import sbc, vsbc
from pyro_klmodes.diagnosis import Diagnosis, collapse, diagnose, second_opinion
from pyro_klmodes.inference import (
    CAVI,
    EM,
    AggressiveInference,
    AverageIterates,
    Checkpoint,
    Evaluate,
    FitResult,
    StopWhenConverged,
    boost,
    by_index,
    check,
    fit,
    frozen_gradient,
    gradient_snr,
    held_out_bound,
    linear_response,
)
from pyro_klmodes.losses import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    ScoreClimbing,
    Separate,
    TailAdaptive,
    Thermodynamic,
    WakeSleep,
)
from pyro_klmodes.tracing import Draws, draws, log_density

if TYPE_CHECKING:
    from pyro_klmodes.comparison import Comparison
    from pyro_klmodes.comparison.compare import compare
    from pyro_klmodes.conversion import from_pyro_mcmc, loo, to_arviz

__version__ = "0.1.0"

__all__ = [
    "CAVI",
    "CUBO",
    "EM",
    "IWAE",
    "AggressiveInference",
    "AverageIterates",
    "Checkpoint",
    "Comparison",
    "Diagnosis",
    "Draws",
    "Evaluate",
    "FDivergence",
    "FitResult",
    "ForwardKL",
    "Renyi",
    "ReverseKL",
    "ScoreClimbing",
    "Separate",
    "StopWhenConverged",
    "TailAdaptive",
    "Thermodynamic",
    "WakeSleep",
    "boost",
    "by_index",
    "check",
    "collapse",
    "compare",
    "diagnose",
    "diagnostics",
    "draws",
    "errors",
    "estimators",
    "fit",
    "from_pyro_mcmc",
    "frozen_gradient",
    "gradient_snr",
    "guides",
    "held_out_bound",
    "linear_response",
    "log_density",
    "loo",
    "objectives",
    "sbc",
    "second_opinion",
    "to_arviz",
    "vsbc",
]

# What needs ArviZ or matplotlib is imported when it is asked for: training needs neither.
_LATER = {
    "Comparison": "pyro_klmodes.comparison",
    "compare": "pyro_klmodes.comparison",
    "from_pyro_mcmc": "pyro_klmodes.conversion",
    "loo": "pyro_klmodes.conversion",
    "to_arviz": "pyro_klmodes.conversion",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
