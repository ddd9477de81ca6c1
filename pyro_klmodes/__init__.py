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

from pyro_klmodes import errors, estimators, guides, objectives
from pyro_klmodes.inference.boosting import boost
from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.fit import fit
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.losses import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
)
from pyro_klmodes.tracing import Draws, draws, log_density

__version__ = "0.1.0"

__all__ = [
    "CUBO",
    "IWAE",
    "Draws",
    "FDivergence",
    "FitResult",
    "ForwardKL",
    "Renyi",
    "ReverseKL",
    "TailAdaptive",
    "Thermodynamic",
    "boost",
    "check",
    "draws",
    "errors",
    "estimators",
    "fit",
    "guides",
    "log_density",
    "objectives",
]
