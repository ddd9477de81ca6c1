"""From a finished inference to ArviZ inference data."""

from pyro_klmodes.conversion.convert import GROUPS, from_pyro_mcmc, to_arviz
from pyro_klmodes.conversion.leave_one_out import loo

__all__ = ["GROUPS", "from_pyro_mcmc", "loo", "to_arviz"]
