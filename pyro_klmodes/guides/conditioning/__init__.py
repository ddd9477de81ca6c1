"""Normal conditionals of one site given the sites before it: the parts of the sitewise guides."""

from pyro_klmodes.guides.conditioning.coupling import Coupling, PerElement, Shared
from pyro_klmodes.guides.conditioning.linear import Linear
from pyro_klmodes.guides.conditioning.network import Network

__all__ = ["Coupling", "Linear", "Network", "PerElement", "Shared"]
