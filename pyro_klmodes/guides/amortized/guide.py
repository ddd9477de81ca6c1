"""Local latents whose distributions a network reads off the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer.autoguide import init_to_median
from torch import Tensor, nn

from pyro_klmodes.errors import InvalidArgument, NotDefined, UnsupportedStructure
from pyro_klmodes.guides.amortized.encoder import MLP, encode
from pyro_klmodes.guides.amortized.families import DiagonalNormal, LocalFamily
from pyro_klmodes.guides.amortized.find import find_source
from pyro_klmodes.guides.amortized.head import Head, Site
from pyro_klmodes.guides.amortized.rows import placed
from pyro_klmodes.guides.amortized.source import Call, Source
from pyro_klmodes.guides.arguments import check_kind
from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.full_rank import AutoFullRank
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.sitewise import in_store
from pyro_klmodes.tracing.observed import hiding
from pyro_klmodes.tracing.prototype import Prototype

__all__ = ["AutoAmortized"]

_MLP, _DIAGONAL = MLP(), DiagonalNormal()


class AutoAmortized(DensityGuide):
    r"""Amortised local latents, :math:`q(g) \prod_n \prod_s q_s(z_{ns} \mid \mathrm{enc}(x_n))`.

    An encoder maps each datum x_n to features, and a linear head for each local site maps these to
    the parameters of its distribution. So the number of parameters does not grow with the data, and
    the guide applies to data, and numbers of data, that it has not seen. The price is a gap in the
    bound: one network serves all data (``amortisation_gap`` measures it). All sites start at the
    average initial value of the data, with ``init_scale``.

    The local latents are those in the plates of the data; all others are left to ``global_guide``
    and are independent of the local ones. Local latents that depend strongly on a global one have
    no better place here than in ``AutoMeanField``.

    Minibatches: data that have the full size of their plate are indexed by the minibatch of the
    plate; data that have the size of the minibatch are taken as they are. The encoder runs once for
    all particles of a run. A pass of the encoder is deterministic given the data: dropout or batch
    normalisation make the guide another one in every call.

    Missing data: the encoder takes numbers. Fill the gaps with a constant and add a column that
    marks them.

    Args:
        model: a Pyro model with continuous latents.
        data: what feeds the encoder: the position or the name of an argument of the model, or the
            name of an observed site. By default the one observed site that shares a plate with a
            latent. An argument has its rows along its leading axes, one axis for each plate; an
            observed site where its plates are. It is taken from the arguments if it is among
            them; if not, the model is run to read it in every call.
        encoder: ``MLP(hidden=...)``, or a module that maps rows ``(n, *datum_shape)``, numbers as
            ``(n, 1)``, to features ``(n, F)``. The heads are the guide's own.
        family: distribution of each local site in unconstrained space: ``DiagonalNormal()``,
            ``FullNormal()``, ``StudentT(df)`` or ``NormalMixture(num_components)``.
        coupled: whether the location of a local site also depends on the local sites before it,
            linearly in unconstrained space, with coefficients from the encoder. With
            ``FullNormal()`` all local sites of a datum have one normal with any covariance.
        plate: the name of the plate of the data, or several of nested ones. By default those that
            all latents have that share a plate with the data.
        global_guide: makes the guide of the other latents of a model: a class or a function,
            called with the model without the local sites. ``AutoFullRank`` by default.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: for arguments of the wrong kind; in the first call if the data are not
            found or not clear; in any call if they do not have the size of their plate.
        UnsupportedStructure: in the first call, naming the site: no local latents, a support
            without a transform, a site that comes and goes.

    Sources: Kingma and Welling (2014); Rezende, Mohamed and Wierstra (2014); Cremer, Li and
    Duvenaud (2018) for the gap.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z.exp(), 0.1), obs=x)
        >>> guide = AutoAmortized(model, data="x", encoder=MLP(hidden=(16,)))
        >>> guide(torch.rand(100))["z"].shape, guide(torch.rand(7))["z"].shape
        (torch.Size([100]), torch.Size([7]))
    """

    follows_data_size: ClassVar[bool] = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        data: int | str | None = None,
        encoder: MLP | nn.Module = _MLP,
        family: LocalFamily = _DIAGONAL,
        coupled: bool = False,
        plate: str | Sequence[str] | None = None,
        global_guide: Callable[..., Any] | None = None,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        _check(data, encoder, family, global_guide)
        self.data = data
        self.family = family
        self.coupled = coupled
        self.plate = [plate] if isinstance(plate, str) else plate
        self.encoder: Any = encoder if isinstance(encoder, nn.Module) else None
        self._architecture = encoder if isinstance(encoder, MLP) else None
        self.global_guide: Any = None
        self._make_global = global_guide
        self.sites: dict[str, Site] = {}

    # -- set-up ------------------------------------------------------------------------------------

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self._first_call = Call(self.model, args, kwargs)
        try:
            super()._setup_prototype(*args, **kwargs)
        finally:
            del self._first_call

    def _create_parameters(self) -> None:
        call = self._first_call
        self._source: Source = find_source(self.data, self.plate, self.latents, call)
        dims = {name: self._dim(name) for name in self._source.rows.axes}
        local = {n: x for n, x in self.latents.items() if dims.keys() <= x.plates.keys()}
        for latent in local.values():
            _refuse_partial_minibatches(latent, dims)
        self.sites = Site.all_of(local, self.family, dims, coupled=self.coupled)
        self._create_networks(self._source.example(call))
        others = self.latents.keys() - local.keys()
        if others:
            self._create_global_guide(hiding(self.model, list(local)), sorted(others))

    def _dim(self, plate: str) -> int:
        return next(x.plates[plate] for x in self.latents.values() if plate in x.plates)

    @torch.no_grad()
    def _create_networks(
        self,
        data: Tensor,  # (*rows, *datum_shape)
    ) -> None:
        rows = self._rows(data)
        if rows.is_floating_point() and not bool(rows.isfinite().all()):
            raise InvalidArgument(
                f"{self._source.rows.what} holds NaN or infinity, which no encoder can read. Fill "
                "the gaps with a constant, mark them in a column, and mask them in the model."
            )
        starts = [site.start(self.init_scale) for site in self.sites.values()]
        if self._architecture is not None:
            self.encoder = self._architecture.build(rows, starts[0])
        self._datum_shape = data.shape[len(self._source.rows.axes) :]
        num_features = encode(self._modules["encoder"], rows).shape[-1]
        self.heads = nn.ModuleList(
            Head(num_features, start, site.elements)
            for start, site in zip(starts, self.sites.values(), strict=True)
        )

    def _create_global_guide(self, model: Callable[..., Any], names: Sequence[str]) -> None:
        if self._make_global is None:
            self.global_guide = AutoFullRank(
                model, init_loc_fn=self.init_loc_fn, init_scale=self.init_scale
            )
            return
        guide = self._make_global(model)
        if not callable(guide):
            raise InvalidArgument(
                f"global_guide made {guide!r}; it must make a guide for "
                f"{', '.join(repr(n) for n in names)} from a model."
            )
        self.global_guide = guide
        self._make_global = None

    def _check_prototype(self, part: Any) -> None:
        """What the guide of the global latents shows of itself, as in an ``AutoGuideList``."""
        for name in part.nodes:
            if name in self.sites:
                raise UnsupportedStructure(f"site '{name}' is local, but the global guide has it.")

    def _prepare(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super()._prepare(args, kwargs)
        if self._model is None and self._seen.get(args, kwargs) is None:
            self._take_size_from_data(Call(None, args, kwargs))

    def _take_size_from_data(self, call: Call) -> None:
        """Without a model (after pickling) the data tell how large their plates are."""
        frames = dict(self._prototype_frames)
        data = self._source.whole(call)
        for name, length in zip(self._source.rows.axes, data.shape, strict=False):
            if length not in (frames[name].size, frames[name].full_size):
                frames[name] = frames[name]._replace(size=length, full_size=length)
        self._prototype_frames = frames

    def _check_unchanged(self, prototype: Prototype) -> None:
        super()._check_unchanged(prototype)
        for name, site in self.sites.items():
            latent = site.latent
            for frame in prototype.sites[name]["cond_indep_stack"]:
                known = latent.batch_shape[latent.plates[frame.name]]
                if frame.name not in self._source.rows.axes and frame.size != known:
                    raise UnsupportedStructure(
                        f"site '{name}': plate '{frame.name}' has {frame.size} elements with these "
                        f"arguments; AutoAmortized was set up with {known}, each with parameters "
                        "of its own. Only plates of the data may change."
                    )

    # -- draws -------------------------------------------------------------------------------------

    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        if self.global_guide is not None:
            result.update(self.global_guide(*args, **kwargs) or {})
        data = self._source.minibatch(self._call(args, kwargs), self.plates)
        unconstrained: dict[str, Tensor] = {}
        for name, raw in self._raw(data).items():
            site = self.sites[name]
            distribution = site.distribution(raw, unconstrained)
            with self._in_plates(site.latent):
                result[name] = pyro.sample(name, distribution)
            if self.coupled:
                unconstrained[name] = site.flat(result[name])
        return result

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        return Call(self._model[0] if self._model else None, args, kwargs)

    def _raw(
        self,
        data: Tensor,  # (*rows, *datum_shape)
    ) -> dict[str, Tensor]:  # (*batch, P) by site
        """Run the encoder and the heads, on all rows at once and once for all particles."""
        axes = self._source.rows.axes
        if data.shape[len(axes) :] != self._datum_shape:
            raise InvalidArgument(
                f"{self._source.rows.what} has data of shape {tuple(data.shape[len(axes) :])}; the "
                f"encoder was set up for {tuple(self._datum_shape)}."
            )
        features = encode(in_store(self, "encoder"), self._rows(data))
        sizes = dict(zip(axes, data.shape, strict=False))
        return {
            name: placed(head(features), site.latent, sizes)
            for head, (name, site) in zip(in_store(self, "heads"), self.sites.items(), strict=True)
        }

    def _rows(
        self,
        data: Tensor,  # (*rows, *datum_shape)
    ) -> Tensor:  # (n, *datum_shape), numbers as (n, 1)
        rows = data.flatten(0, len(self._source.rows.axes) - 1)
        return rows.unsqueeze(-1) if rows.dim() == 1 else rows

    # -- what users call ---------------------------------------------------------------------------

    def local_parameters(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """What the encoder puts out for every local site: raw parameters of ``family``.

        Returns:
            ``(*batch, P)`` by site, for all rows of the data that are passed; see the family for
            what the P numbers are. ``family.distribution`` makes a distribution of them.

        Raises:
            NotDefined: with ``coupled=True``, where a site's distribution depends on the draws of
                others.
        """
        if self.coupled:
            raise NotDefined(
                "with coupled=True the distribution of a site depends on the draws of those before "
                "it; use log_prob and sample."
            )
        self._prepare(args, kwargs)
        return self._raw(self._source.whole(self._call(args, kwargs)))

    def local_distributions(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The distribution of every local site, for all rows of the data that are passed.

        Unlike a call of the guide this takes no minibatch: data given in full are encoded in full.
        Gradients reach the encoder.

        Raises:
            NotDefined: with ``coupled=True``, where a site's distribution depends on the draws of
                others.
        """
        return {
            name: self.sites[name].distribution(raw, {})
            for name, raw in self.local_parameters(*args, **kwargs).items()
        }

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of every unconstrained coordinate, transformed to the sites' supports.

        Those of local sites are of all rows of the data that are passed.

        Raises:
            NotDefined: if the global guide has none in closed form, or with ``coupled=True``.
        """
        local = self.local_parameters(*args, **kwargs)
        result = {name: self.sites[name].median(raw) for name, raw in local.items()}
        return result | self._of_globals("median", *args, **kwargs)

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Marginal quantiles of every latent, ``(len(quantiles), *site_shape)``; see ``median``.

        Raises:
            NotDefined: as for ``median``, and for sites whose coordinates are mixed by their
                transform (simplex, matrices).
        """
        local = {
            name: self.sites[name].quantiles(raw, torch.as_tensor(quantiles).to(raw))
            for name, raw in self.local_parameters(*args, **kwargs).items()
        }
        return local | self._of_globals("quantiles", quantiles, *args, **kwargs)

    def _of_globals(self, method: str, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if self.global_guide is None:
            return {}
        function = getattr(self.global_guide, method, None)
        if function is None:
            raise NotDefined(f"the guide of the global latents has no method {method}.")
        result: dict[str, Tensor] = function(*args, **kwargs)
        return result


def _refuse_partial_minibatches(latent: Latent, plates: Mapping[str, int]) -> None:
    for name in sorted(latent.subsampled - plates.keys()):
        raise UnsupportedStructure(
            f"site '{latent.name}' is in subsampled plate '{name}', which is not one of the data "
            f"({', '.join(repr(p) for p in plates)}). Add it to plate=, if the data have an axis "
            "for it, or use all of it."
        )


def _check(data: Any, encoder: Any, family: Any, global_guide: Any) -> None:
    if isinstance(data, bool) or not isinstance(data, int | str | None):
        raise InvalidArgument(
            f"data={data!r} must be the position or the name of an argument of the model, or the "
            "name of an observed site."
        )
    if isinstance(data, int) and data < 0:
        raise InvalidArgument(f"data={data} must be a position from 0 on.")
    check_kind("encoder", encoder, (MLP, nn.Module), "MLP(...) or a torch.nn.Module")
    check_kind(
        "family",
        family,
        LocalFamily,
        "DiagonalNormal(), FullNormal(), StudentT(df) or NormalMixture(num_components)",
    )
    if global_guide is not None and not callable(global_guide):
        raise InvalidArgument(
            f"global_guide={global_guide!r} must make a guide from a model, such as AutoFullRank."
        )
