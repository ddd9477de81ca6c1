"""Linear response: covariances that mean field lacks, from the curvature of its ELBO."""

from pyro_klmodes.inference.linear_response.linear_response import linear_response
from pyro_klmodes.inference.linear_response.response import LinearResponse

__all__ = ["LinearResponse", "linear_response"]
