"""One view of a finished inference: a fit of ours, Pyro's SVI, or Markov chains."""

from pyro_klmodes.posteriors.chains import Chains
from pyro_klmodes.posteriors.guided import Guided
from pyro_klmodes.posteriors.recognise import Posterior, as_posterior

__all__ = ["Chains", "Guided", "Posterior", "as_posterior"]
