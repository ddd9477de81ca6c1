"""The base of all guides: which latents there are, in which plates, and that they stay the same."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer.autoguide import AutoGuide, init_to_median
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined, UnsupportedStructure
from pyro_klmodes.guides.arguments import check_callable, positive_number
from pyro_klmodes.guides.bijection import is_discrete
from pyro_klmodes.guides.latents import Latent, latents_of
from pyro_klmodes.guides.signature import Signatures
from pyro_klmodes.tracing import log_density
from pyro_klmodes.tracing.guide_alone import draw_alone
from pyro_klmodes.tracing.prototype import (
    Prototype,
    indices_given,
    prototype_of,
    same_support,
)
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.surroundings import refuse_plates_to_the_right

__all__ = ["DensityGuide"]


class DensityGuide(AutoGuide):
    """An autoguide with a density at given values: each latent at one site, no auxiliary ones.

    A subclass creates its parameters in ``_create_parameters``, when the latents are known, and
    draws them in ``_draw``. The model is looked at in the first call, hidden from all handlers
    outside, and again whenever the arguments have another shape.

    Args:
        model: a Pyro model. Sites marked ``infer={"enumerate": "parallel"}`` are left to the loss.
        init_loc_fn: initial value by site, see ``pyro.infer.autoguide.initialization``.
        init_scale: initial standard deviation in unconstrained space. It is 1, and not Pyro's
            0.1, because a divergence learns nothing about places that no draw reaches.
        create_plates: a function of the model's arguments that returns plates, as in Pyro; plates
            given a minibatch by ``subsample=`` in the model follow it without.

    Raises:
        InvalidArgument: for arguments of the wrong kind.
    """

    #: whether sites that are counted and not measured have a place in the guide
    takes_discrete: ClassVar[bool] = False
    #: whether the guide still fits when a plate gets another size
    follows_data_size: ClassVar[bool] = False

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(model):
            raise InvalidArgument(f"model={model!r} must be a Pyro model, something to call.")
        check_callable("init_loc_fn", init_loc_fn, "a function of a site, such as init_to_median")
        if create_plates is not None:
            check_callable("create_plates", create_plates, "a function of the model's arguments")
        super().__init__(model, create_plates=create_plates)
        self.init_loc_fn = init_loc_fn
        self.init_scale = positive_number("init_scale", init_scale)
        self.latents: dict[str, Latent] = {}
        self._seen = Signatures()
        self._given: frozenset[str] = frozenset()
        self._observed: frozenset[str] = frozenset()

    # -- what a subclass provides ------------------------------------------------------------------

    @abstractmethod
    def _create_parameters(self) -> None:
        """Create the parameters; ``self.latents`` is known."""

    @abstractmethod
    def _draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every latent at its site, in its plates."""

    # -- what users call ---------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every latent; called with the model's arguments."""
        self._prepare(args, kwargs)
        self._create_plates(*args, **kwargs)
        return self._draw(*args, **kwargs)

    def log_prob(self, values: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Log-density at given constrained values, see ``log_density``: scalar or ``(K,)``."""
        return log_density(self, values, *args, **kwargs)

    def sample(self, num_samples: int, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw values of every latent, ``(num_samples, *site_shape)``, without gradients.

        The indices of a minibatch come under the plate's name, so that ``log_prob`` takes the
        result as it is.
        """
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise InvalidArgument(f"num_samples={num_samples!r} must be a positive integer.")
        return draw_alone(self, args, kwargs, num_samples)

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of every latent.

        Raises:
            NotDefined: if it has no closed form.
        """
        raise NotDefined(self._no_closed_form("median"))

    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Marginal quantiles of every latent, ``(len(quantiles), *site_shape)``.

        Raises:
            NotDefined: if they have no closed form.
        """
        raise NotDefined(self._no_closed_form("quantiles"))

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution over the flat unconstrained vector, of guides that have one.

        Raises:
            NotDefined: if the guide is not one distribution over such a vector.
        """
        raise NotDefined(
            f"{type(self).__name__} is not one distribution over a flat vector; use log_prob and "
            "sample."
        )

    # -- structure ---------------------------------------------------------------------------------

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        prototype = prototype_of(self.model, args, kwargs, self.init_loc_fn)
        self._check_latents(prototype)
        if self.master is not None:
            self.master()._check_prototype(prototype.trace)
        self.latents = latents_of(prototype)
        self._observed = prototype.observed
        self._check_initial()
        self._remember(prototype, args, kwargs)
        self._create_parameters()
        self.prototype_trace = prototype.trace  # last: a set-up that fails is tried again

    def _prepare(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Set up in the first call; later look again where the arguments are of another shape."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
            return
        known = self._seen.get(args, kwargs)
        if known is not None:
            self._prototype_frames, self._given = known
            return
        if self._model is None:  # unpickled without the model: nothing to look at
            return
        with same_random_state():
            prototype = prototype_of(self.model, args, kwargs, self.init_loc_fn)
        self._check_unchanged(prototype)
        self._remember(prototype, args, kwargs)

    def _remember(
        self, prototype: Prototype, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._given = prototype.given
        self._prototype_frames = {
            f.name: f for s in prototype.sites.values() for f in s["cond_indep_stack"]
        }
        refuse_plates_to_the_right(self._prototype_frames.values())
        self._seen.put(args, kwargs, (self._prototype_frames, self._given))

    def _check_latents(self, prototype: Prototype) -> None:
        sites = prototype.sites
        discrete = [n for n, s in sites.items() if is_discrete(s["fn"].support)]
        if not sites:
            raise UnsupportedStructure(
                f"{type(self).__name__}: the model has no latent sites to guide; all its sites are "
                "observed, enumerated or blocked."
            )
        if discrete and not self.takes_discrete:
            only = "only discrete latents" if len(discrete) == len(sites) else "discrete ones"
            raise UnsupportedStructure(
                f"{type(self).__name__} is for continuous latents; the model has {only}: site "
                f"'{discrete[0]}'. Mark it infer={{'enumerate': 'parallel'}} to have it summed "
                "out, or give it to AutoMeanField, alone or in an AutoGuideList."
            )

    def _check_initial(self) -> None:
        for name, latent in self.latents.items():
            if not latent.discrete and not bool(latent.unconstrained.isfinite().all()):
                raise InvalidArgument(
                    f"init_loc_fn puts site '{name}' on the boundary of its support, "
                    f"{latent.support}, where unconstrained space has no point. Start inside, for "
                    "instance with init_loc_fn=init_to_feasible."
                )

    def _check_unchanged(self, prototype: Prototype) -> None:
        # what was observed at set-up and is not now is predicted, and no part of the guide
        now = {n: x for n, x in latents_of(prototype).items() if n not in self._observed}
        for name in sorted(set(now) ^ set(self.latents)):
            raise UnsupportedStructure(
                f"site '{name}' is {'new' if name in now else 'gone'}: with these arguments the "
                f"model has other latent sites than when {type(self).__name__} was set up. Use a "
                "guide for each structure, or sample the site always and mask it."
            )
        for name, latent in now.items():
            before = self.latents[name]
            if not same_support(latent.support, before.support):
                raise UnsupportedStructure(
                    f"site '{name}' has support {latent.support} with these arguments and had "
                    f"{before.support} when {type(self).__name__} was set up; its transform is for "
                    "that one. Sample it on a fixed support and rescale it in the model."
                )
            if latent.event_shape != before.event_shape:
                raise UnsupportedStructure(
                    f"site '{name}' has event shape {tuple(latent.event_shape)} with these "
                    f"arguments; {type(self).__name__} was set up with "
                    f"{tuple(before.event_shape)}. Make a new guide for them."
                )
            if latent.batch_shape != before.batch_shape and not self.follows_data_size:
                raise UnsupportedStructure(
                    f"site '{name}' in {_plates(latent)} has {tuple(latent.batch_shape)} elements "
                    f"with these arguments; {type(self).__name__} was set up for "
                    f"{tuple(before.batch_shape)}, each with parameters of its own. Use "
                    "AutoAmortized for data of another size, or declare the full size and the "
                    "minibatch in the model: pyro.plate(name, size, subsample=indices)."
                )

    # -- plates ------------------------------------------------------------------------------------

    def _create_plates(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.master is not None:
            return dict(super()._create_plates(*args, **kwargs))
        self.plates = {p.name: p for p in self._own_plates(args, kwargs)}
        missing = self._prototype_frames.keys() - self.plates.keys()
        asked = self._given & missing
        given = indices_given(self.model, asked, args, kwargs) if asked and self._model else {}
        for name in sorted(missing):
            frame = self._prototype_frames[name]
            size = frame.size if frame.full_size is None else frame.full_size
            minibatch: dict[str, Any] = {"subsample_size": frame.size}
            if name in given:
                if not self.follows_data_size:
                    _refuse_permutation(name, given[name], size)
                minibatch = {"subsample": given[name]}
            self.plates[name] = pyro.plate(name, size, dim=frame.dim, **minibatch)
        return self.plates

    def _own_plates(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterable[Any]:
        if self.create_plates is None:
            return ()
        returned = self.create_plates(*args, **kwargs)
        several = isinstance(returned, Iterable) and not isinstance(returned, pyro.plate)
        plates = list(returned) if several else [returned]
        if not all(isinstance(plate, pyro.plate) for plate in plates):
            raise InvalidArgument(
                f"create_plates returned {returned!r}; it must return a pyro.plate or several."
            )
        for plate in plates:
            self._check_plate(plate)
        return plates

    def _check_plate(self, plate: Any) -> None:
        frame = self._prototype_frames.get(plate.name)
        if frame is None:
            return
        size = frame.size if frame.full_size is None else frame.full_size
        whole = frame.size == size  # with these arguments the model takes no minibatch
        fits = plate.size == size and not (whole and plate.subsample_size != size)
        if not fits or plate.dim not in (None, frame.dim):
            raise InvalidArgument(
                f"create_plates returned plate '{plate.name}' with size={plate.size}, "
                f"subsample_size={plate.subsample_size}, dim={plate.dim}; the model has it with "
                f"size={size}, subsample_size={frame.size}, dim={frame.dim}. Give both the same."
            )

    @contextmanager
    def _in_plates(self, latent: Latent) -> Iterator[None]:
        """Enter the plates of a site."""
        with ExitStack() as stack:
            for name in latent.plates:
                stack.enter_context(self.plates[name])
            yield

    # -- copies ------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # A model is often a closure, which cannot be pickled; the guide works without it. (Pyro
        # drops it from the original, too.)
        for parameter in self.parameters():  # Pyro hangs a weak reference on those of plain modules
            vars(parameter).pop("unconstrained", None)
        state = self.__dict__.copy()
        state.update(_model=None, master=None, plates={})
        if self.prototype_trace is not None:
            state.update(init_loc_fn=init_to_median)
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> DensityGuide:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        new.init_loc_fn, new._model = self.init_loc_fn, self._model
        return new

    def _no_closed_form(self, what: str) -> str:
        return (
            f"{type(self).__name__} has no closed form for the {what}; take it of draws: "
            "guide.sample(10_000, *args)."
        )


def _refuse_permutation(plate: str, indices: Tensor, size: int) -> None:
    """Pyro hands out parameters by index in a part of the data only, and in order in the whole."""
    if len(indices) == size and not torch.equal(indices.cpu(), torch.arange(size)):
        raise UnsupportedStructure(
            f"plate '{plate}' was given subsample indices for all {size} elements in another "
            "order; Pyro then hands out parameters in the old one. Pass the data in order."
        )


def _plates(latent: Latent) -> str:
    names = " and ".join(f"'{n}'" for n in latent.plates)
    return f"plate {names}" if names else "no plate"
