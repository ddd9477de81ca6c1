"""Mean field over groups of sites: a joint factor for every block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import init_to_median
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined
from pyro_klmodes.guides.block_families import BlockFamily, block_families
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.mean_field import AutoMeanField
from pyro_klmodes.guides.site_families import ExponentialFamily, SiteFamily

__all__ = ["AutoBlocks", "checked_blocks"]


class AutoBlocks(AutoMeanField):
    r"""Structured mean field :math:`q(z) = \prod_b q_b(z_b)`, with joint factors for blocks.

    Sites in no block have a factor of their own, as in ``AutoMeanField``. The family of a block
    follows from the supports of its sites:

    - real sites and one positive site: ``NormalGamma``,
      :math:`\tau \sim \mathrm{Gamma}, \; w \mid \tau \sim N(m, (\tau K)^{-1})`;
    - a real vector and a positive definite matrix: ``NormalWishart``,
      :math:`\Lambda \sim \mathrm{Wishart}, \; \mu \mid \Lambda \sim N(m, (\kappa \Lambda)^{-1})`;
    - real sites: ``JointNormal``, one normal with full covariance;
    - discrete sites: ``JointStates``, a probability for every combination of states.

    Each latent is drawn at its own site, given those of its block that come before it, with its
    true conditional density, in its plates.

    Args:
        model: a Pyro model.
        blocks: names of sites that belong together, for instance ``[("w", "tau")]``.
        families: families that replace the default, by site, for sites in no block.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Attributes:
        blocks: the families of the blocks, known after the first call.

    Raises:
        InvalidArgument: if ``blocks`` is no list of lists of names; in the first call, naming the
            sites, if one is unknown or in two blocks, or if a block has no joint family.
        UnsupportedStructure: as ``AutoMeanField``.

    Source: Saul and Jordan (1996), "Exploiting tractable substructures in intractable networks";
    Bishop (2006), section 10.2.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        ...     mu = pyro.sample("mu", dist.Normal(0.0, tau.rsqrt()))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)
        >>> guide = AutoBlocks(model, [("mu", "tau")])
        >>> sorted(guide(torch.zeros(2)))
        ['mu', 'tau']
        >>> guide.blocks
        (NormalGamma('tau', 'mu'),)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        blocks: Sequence[Sequence[str]],
        *,
        families: Mapping[str, SiteFamily] | None = None,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model,
            families=families,
            init_loc_fn=init_loc_fn,
            init_scale=init_scale,
            create_plates=create_plates,
        )
        self._asked = checked_blocks(blocks)
        self.blocks: tuple[BlockFamily, ...] = ()

    def _create_parameters(self) -> None:
        for name in self.families:
            if any(name in block for block in self._asked):
                raise InvalidArgument(
                    f"families names site '{name}', which is in a block: its family follows from "
                    "the block. Take it out of families, or out of blocks."
                )
        self.blocks = block_families(self._asked, self.latents)
        super()._create_parameters()
        for block in self.blocks:
            for name, initial in block.initial(self.init_scale).items():
                self._create_site(name, initial)

    def _alone(self) -> dict[str, Latent]:
        return {n: x for n, x in self.latents.items() if self.block_of(n) is None}

    def block_of(self, name: str) -> BlockFamily | None:
        """The family of the block that a site is in, None if it is in none."""
        return next((block for block in self.blocks if name in block.sites), None)

    # -- draws -------------------------------------------------------------------------------------

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        drawn: dict[str, Tensor] = {}
        for name in self.latents:
            block = self.block_of(name)
            # in the order of the model, but for sites that another one of the block is given
            for site in () if block is None else block.before(name):
                self._draw_site(site, drawn)
            self._draw_site(name, drawn)
        return {name: drawn[name] for name in self.latents}

    def _draw_site(self, name: str, drawn: dict[str, Tensor]) -> None:
        if name in drawn:
            return
        latent = self.latents[name]
        with self._in_plates(latent):
            drawn[name] = pyro.sample(name, self._distribution(latent, drawn))

    def _distribution(self, latent: Latent, drawn: Mapping[str, Tensor]) -> Any:
        block = self.block_of(latent.name)
        if block is None:
            return super()._distribution(latent, drawn)
        needed = (*block.before(latent.name), latent.name)
        return block.distribution(latent.name, {n: self.parameters_of(n) for n in needed}, drawn)

    # -- closed forms ------------------------------------------------------------------------------

    def exponential_family(self, name: str) -> ExponentialFamily:
        """The family of a site in no block, if it is an exponential family.

        Raises:
            NotDefined: if it is not, or if the site is in a block.
        """
        block = self.block_of(name)
        if block is None:
            return super().exponential_family(name)
        raise NotDefined(
            f"site '{name}' is in the block {block!r} and has no natural or mean parameters of its "
            "own; its parameters are parameters_of(name)."
        )

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The marginal median of every site, over all data of its plates.

        Raises:
            NotDefined: if a family has no closed median.
        """
        self._prepare(args, kwargs)
        found = {}
        for name, latent in self.latents.items():
            block = self.block_of(name)
            if block is None:
                own = self.parameters_of(name)
                found[name] = self.families[name].median(own, latent.support)
            else:
                params = {n: self.parameters_of(n) for n in block.sites}
                found[name] = block.median(name, params)
        return found

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Quantiles of every site, if there are no blocks.

        Raises:
            NotDefined: if there are, or if a family has no closed quantiles.
        """
        self._prepare(args, kwargs)
        if self.blocks:
            raise NotDefined(self._no_closed_form("quantiles of sites in blocks"))
        return super().quantiles(quantiles, *args, **kwargs)


def checked_blocks(blocks: Any) -> tuple[tuple[str, ...], ...]:
    """Blocks as tuples of names.

    Raises:
        InvalidArgument: if they are something else.
    """
    plain = isinstance(blocks, list | tuple) and all(isinstance(b, list | tuple) for b in blocks)
    if not plain or not all(isinstance(name, str) for block in blocks for name in block):
        raise InvalidArgument(
            f'blocks={blocks!r} must be a list of groups of site names, such as [("w", "tau")].'
        )
    return tuple(tuple(block) for block in blocks)
