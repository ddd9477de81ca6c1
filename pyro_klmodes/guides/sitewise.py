"""Guides that draw one site after the other, each in its plates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.unconstrained import is_real

__all__ = ["SitewiseGuide", "constrained", "in_store", "parameter_of", "set_parameter"]


class SitewiseGuide(DensityGuide):
    """A guide with a distribution for every site, which may depend on the sites drawn before it.

    Parameters have the full size of the plates they are in; inside of a plate Pyro hands out those
    of the minibatch. A subclass says in ``_distribution`` what a site is drawn from; it is called
    inside of the site's plates.
    """

    @abstractmethod
    def _distribution(self, latent: Latent, drawn: Mapping[str, Tensor]) -> Any:
        """The distribution of a site over its support, given the values drawn so far."""

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        drawn: dict[str, Tensor] = {}
        for name, latent in self.latents.items():
            with self._in_plates(latent):
                drawn[name] = pyro.sample(name, self._distribution(latent, drawn))
        return drawn


def constrained(
    latent: Latent,
    base: Any,  # distribution over the unconstrained value, its event dimensions declared
) -> Any:
    """A distribution over unconstrained space carried to the support of a site."""
    if is_real(latent.support):
        return base
    return dist.TransformedDistribution(base, [latent.transform.with_cache()])


def set_parameter(
    module: PyroModule,
    name: str,
    value: Tensor,
    constraint: Any = constraints.real,
    *,
    event_dim: int,
) -> None:
    """Register a parameter by the dotted name of its site; batch dimensions are those of plates."""
    deep_setattr(module, name, PyroParam(value.detach().clone(), constraint, event_dim))


def in_store(owner: PyroModule, name: str) -> Any:
    """A network of a guide, registered in Pyro's store under a name that is its own.

    Where the name is taken, by an earlier guide or the original of a copy, an optimizer would move
    the parameters of that one; the network then gets a number.
    """
    if pyro.settings.get("module_local_params"):
        return getattr(owner, name)
    network = owner._modules[name]
    stored = dict(pyro.get_param_store().named_parameters())
    first, own = next(iter(network.named_parameters()), (None, None))
    free = called = f"{owner._pyro_name}.{name}"
    number = 1
    while stored.get(f"{free}$$${first}", own) is not own:
        number += 1
        free = f"{called}_{number}"
    return pyro.module(free, network)


def parameter_of(module: PyroModule, name: str) -> Tensor:
    """Read a parameter; inside of a subsampled plate, that of the minibatch."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    value: Tensor = found
    return value
