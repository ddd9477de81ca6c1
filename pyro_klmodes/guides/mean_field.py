"""Independent sites, each with a family that fits its support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.infer.autoguide import init_to_median
from pyro.nn import PyroModule
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined
from pyro_klmodes.guides.arguments import check_kind
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import ExponentialFamily, Initial, SiteFamily, family_for
from pyro_klmodes.guides.sitewise import SitewiseGuide, parameter_of, set_parameter

__all__ = ["AutoMeanField"]


class AutoMeanField(SitewiseGuide):
    r"""Mean field :math:`q(z) = \prod_i q_i(z_i)` with a family for every site.

    Real sites get a Normal, positive ones a LogNormal, the unit interval a Beta, simplices a
    Dirichlet, positive definite matrices a Wishart, zero and one a Bernoulli, 0, ..., n-1 a
    Categorical; any other continuous support a Normal in unconstrained space. All of these are
    exponential families with natural and mean parameters (``natural_parameters``). Where local
    posteriors have several modes there is ``site_families.NormalMixture``. Sites in plates have
    parameters of their own for every datum, also in minibatches.

    Args:
        model: a Pyro model. Discrete latents need a loss with a score-function gradient.
        families: families that replace the default, by site, for instance
            ``{"rate": Gamma()}``.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: in the first call, if ``families`` names a site that is no latent of the
            model, or a family that does not live on the site's support.
        UnsupportedStructure: in the first call, naming the site: a support without a family, no
            latents, a site that comes and goes.

    Source: Wainwright and Jordan (2008); Blei, Kucukelbir and McAuliffe (2017).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes.guides import site_families
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        >>> guide = AutoMeanField(model, families={"rate": site_families.Gamma()})
        >>> sorted(guide())
        ['rate', 'weights']
        >>> guide.families["weights"]
        Dirichlet()
    """

    takes_discrete: ClassVar[bool] = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        families: Mapping[str, SiteFamily] | None = None,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        families = {} if families is None else families
        check_kind("families", families, Mapping, 'families by site, such as {"rate": Gamma()}')
        self.families: dict[str, SiteFamily] = dict(families)
        self._names: dict[str, tuple[str, ...]] = {}

    def _create_parameters(self) -> None:
        for name in self.families:
            if name not in self.latents:
                raise InvalidArgument(
                    f"families names site '{name}', which is no latent of the model; it has "
                    f"{', '.join(repr(n) for n in self.latents)}."
                )
        for name, latent in self._alone().items():
            family = family_for(latent.support, name, self.families.get(name))
            self.families[name] = family
            self._create_site(
                name,
                family.initial(latent.initial, latent.event_dim, self.init_scale, latent.support),
            )

    def _alone(self) -> dict[str, Latent]:
        """The sites that have a factor of their own: all of them."""
        return self.latents

    def _create_site(self, name: str, initial: Mapping[str, Initial]) -> None:
        self._names[name] = tuple(initial)
        for parameter, start in initial.items():
            if not hasattr(self, parameter):
                setattr(self, parameter, PyroModule())
            set_parameter(
                getattr(self, parameter),
                name,
                start.value,
                start.constraint,
                event_dim=start.event_dim,
            )

    def parameters_of(self, name: str) -> dict[str, Tensor]:
        """The parameters of a site by name; inside of its plates, those of the minibatch."""
        return {p: parameter_of(getattr(self, p), name) for p in self._names[name]}

    def exponential_family(self, name: str) -> ExponentialFamily:
        """The family of a site, if it is an exponential family.

        Raises:
            NotDefined: if it is not, naming the site.
        """
        family = self.families[name]
        if not isinstance(family, ExponentialFamily):
            raise NotDefined(
                f"site '{name}' has the family {family!r}, which is no exponential family and has "
                "no natural or mean parameters; its parameters are parameters_of(name)."
            )
        return family

    def natural_parameters(self, name: str) -> tuple[Tensor, ...]:
        """The natural parameters of a site's family, see ``site_families``.

        Raises:
            NotDefined: if the family is no exponential family.
        """
        return self.exponential_family(name).natural(self.parameters_of(name))

    def mean_parameters(self, name: str) -> tuple[Tensor, ...]:
        """The expected sufficient statistics of a site's family.

        Raises:
            NotDefined: if the family is no exponential family.
        """
        return self.exponential_family(name).mean_parameters(self.parameters_of(name))

    def _distribution(self, latent: Latent, drawn: Mapping[str, Tensor]) -> Any:
        family = self.families[latent.name]
        return family.distribution(
            self.parameters_of(latent.name), latent.support, latent.event_dim
        )

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of every site, over all data of its plates.

        Raises:
            NotDefined: if a family has no closed median.
        """
        self._prepare(args, kwargs)
        return {
            name: self.families[name].median(self.parameters_of(name), latent.support)
            for name, latent in self.latents.items()
        }

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Quantiles of every site, ``(len(quantiles), *site_shape)``, over all data.

        Raises:
            NotDefined: if a family has no closed quantiles.
        """
        self._prepare(args, kwargs)
        levels = torch.as_tensor(quantiles, dtype=torch.get_default_dtype())
        return {
            name: self.families[name].quantile(self.parameters_of(name), levels, latent.support)
            for name, latent in self.latents.items()
        }
