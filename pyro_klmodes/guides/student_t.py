"""Independent Student-t coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import init_to_median
from pyro.nn import PyroModule
from scipy import special
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.arguments import positive_number
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.sitewise import SitewiseGuide, constrained, parameter_of, set_parameter

__all__ = ["AutoStudentT"]


class AutoStudentT(SitewiseGuide):
    r"""Student-t in every unconstrained coordinate, :math:`u_i = \mu_i + \sigma_i t_{\nu}`.

    The mean field with heavy tails: importance weights stay bounded where the posterior's tails are
    no heavier than the guide's. On tails of nu_p degrees of freedom the k-hat of the weights tends
    to :math:`1 - \nu_p / \nu_q` in one dimension for :math:`\nu_q > \nu_p`. Sites in plates have
    parameters of their own for every datum, also in minibatches.

    Args:
        model: a Pyro model with continuous latents.
        df: degrees of freedom, initial if they are learned.
        learn_df: whether every site has degrees of freedom of its own as a parameter. Reverse KL
            hardly feels the tails; learn them with a mass-covering loss.
        init_loc_fn: initial value by site.
        init_scale: initial scale in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: if ``df`` is not a positive number.
        UnsupportedStructure: in the first call, naming the site: no continuous latents, a support
            without a transform, a site that comes and goes.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import init_to_feasible
        >>> def model():
        ...     pyro.sample("z", dist.Cauchy(0.0, 1.0))
        >>> guide = AutoStudentT(model, df=1.0, init_loc_fn=init_to_feasible)
        >>> guide.log_prob({"z": torch.tensor(0.0)})
        tensor(-1.1447, grad_fn=...)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        df: float = 4.0,
        learn_df: bool = False,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        self.df = positive_number("df", df, "; use AutoMeanField for infinity")
        self.learn_df = learn_df

    def _create_parameters(self) -> None:
        self.locs, self.scales, self.dfs = PyroModule(), PyroModule(), PyroModule()
        for name, latent in self.latents.items():
            u = latent.unconstrained
            event_dim = len(latent.unconstrained_event_shape)
            set_parameter(self.locs, name, u, event_dim=event_dim)
            set_parameter(
                self.scales,
                name,
                torch.full_like(u, self.init_scale),
                constraints.positive,
                event_dim=event_dim,
            )
            if self.learn_df:
                df = u.new_tensor(self.df)
                set_parameter(self.dfs, name, df, constraints.positive, event_dim=0)

    def _degrees(self, name: str) -> Tensor | float:
        return parameter_of(self.dfs, name) if self.learn_df else self.df

    def _distribution(self, latent: Latent, drawn: Mapping[str, Tensor]) -> Any:
        base = dist.StudentT(
            self._degrees(latent.name),
            parameter_of(self.locs, latent.name),
            parameter_of(self.scales, latent.name),
        )
        return constrained(latent, base.to_event(len(latent.unconstrained_event_shape)))

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of every unconstrained coordinate, transformed, over all data."""
        self._prepare(args, kwargs)
        return {
            name: latent.transform(parameter_of(self.locs, name).detach().clone())
            for name, latent in self.latents.items()
        }

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Quantiles of every site, ``(len(quantiles), *site_shape)``, over all data.

        Raises:
            NotDefined: for sites whose transform mixes coordinates (simplex, matrices).
        """
        self._prepare(args, kwargs)
        result = {}
        for name, latent in self.latents.items():
            loc, scale = parameter_of(self.locs, name), parameter_of(self.scales, name)
            df = float(torch.as_tensor(self._degrees(name)))
            standard = special.stdtrit(df, torch.as_tensor(quantiles).double().numpy())
            step = scale * torch.as_tensor(standard).to(loc).reshape(-1, *[1] * loc.dim())
            result[name] = latent.quantiles(loc + step, loc - step)
        return result
