"""Draw latents and data from a model, and have the model observe these data instead of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NotDefined, UnsupportedStructure
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.observe_anew import ObserveAnew
from pyro_klmodes.tracing.observed import observed_sites, parameter_names
from pyro_klmodes.tracing.plates import split_scale, subsampled
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = [
    "Simulation",
    "data_arguments",
    "learned_names",
    "observing",
    "simulate",
    "with_data",
]

Path = tuple[Any, ...]  # position or name of an argument, then keys and indices inside of it


@dataclass(frozen=True)
class Simulation:
    """Values of all sites in one run of a model.

    Attributes:
        latents: values of the latent sites by name.
        data: values of the observed sites by name.
    """

    latents: Mapping[str, Tensor]
    data: Mapping[str, Tensor]


def simulate(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Simulation:
    """Draw latents from their prior and data given these.

    Raises:
        UnsupportedStructure: for ``pyro.factor``, ``poutine.scale`` and minibatches, with which a
            run does not draw from the density that inference sees.
        NotDefined: if a site cannot be sampled.
        InvalidArgument: if there is nothing observed or nothing latent.
    """
    anew = _Anew()
    with poutine.block(), torch.no_grad(), poutine.trace() as tracer, anew:
        try:
            model(*args, **kwargs)
        except NotImplementedError as error:
            raise NotDefined(
                "a site of the model has a density but cannot be sampled, so that no data can be "
                f"simulated from it. ({error!r})"
            ) from error
    sites = tracer.trace.nodes
    for name, site in sites.items():
        if site["type"] == "sample":
            _refuse(name, site)
    latents = {n: s["value"] for n, s in sites.items() if is_latent(s) and n not in anew.names}
    data = {n: sites[n]["value"] for n in anew.names}
    deterministic = {n for n in latents if sites[n]["infer"].get("_deterministic")}
    latents = {n: v for n, v in latents.items() if n not in deterministic}
    if not data or not latents:
        missing = "latent" if data else "observed"
        raise InvalidArgument(f"the model has no {missing} site: there is nothing to calibrate.")
    return Simulation(latents, data)


def _refuse(name: str, site: Mapping[str, Any]) -> None:
    if isinstance(site["fn"], dist.Unit):
        raise UnsupportedStructure(
            f"site '{name}' is a pyro.factor: its weight has no part in a simulation, so that the "
            "simulated data would be those of another model. Express it as a pyro.sample."
        )
    plates = subsampled(site)
    if plates:
        raise UnsupportedStructure(
            f"plate '{next(iter(plates))}' around site '{name}' sees a minibatch. Simulate all "
            "data: call the model without subsample_size."
        )
    scale, _ = split_scale(site)
    if isinstance(scale, Tensor) or scale != 1.0:
        raise UnsupportedStructure(
            f"site '{name}' is under poutine.scale, which inference sees and a simulation does "
            "not. Take the scale off."
        )


class _Anew(ObserveAnew):
    """Draw observed sites, and remember which they were."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        before = msg["is_observed"]
        super()._pyro_sample(msg)
        if before and not msg["is_observed"]:
            self.names.append(msg["name"])


class _Observe(Messenger):
    """Observe given values at the sites that are observed."""

    def __init__(self, data: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.data = data

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] and msg["name"] in self.data:
            msg["value"] = self.data[msg["name"]]


def observing(model: Callable[..., Any], data: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The model with other data at its observed sites, wherever it has its own from."""
    observed: Callable[..., Any] = _Observe(data)(model)
    return observed


@same_random_state()
def learned_names(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[str]:
    """Names of the parameters that a model would learn."""
    with poutine.block(), torch.no_grad(), poutine.trace(param_only=True) as tracer:
        model(*args, **kwargs)
    return list(tracer.trace.nodes)


def data_arguments(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    bind: Mapping[str, int | str],
) -> dict[str, tuple[Path, ...]]:
    """Where among the arguments each observed site has its data from; empty if it is not there.

    Args:
        model: a model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        bind: position or name of the argument by site, for those that are known.

    Raises:
        InvalidArgument: if ``bind`` names what there is not, or several arguments hold the numbers
            of a site or one those of several.
    """
    observed = observed_sites(model, args, kwargs)
    names = parameter_names(model)
    for site in bind:
        if site not in observed:
            raise InvalidArgument(
                f"bind: '{site}' is not an observed site; there are {sorted(observed)}."
            )
    tensors = list(_tensors(args, kwargs))
    found: dict[str, tuple[Path, ...]] = {}
    for site, seen in observed.items():
        if site in bind:
            found[site] = (_bound(site, bind[site], args, kwargs, names),)
            continue
        paths = tuple(path for path, x in tensors if x is seen.value)
        if not paths:  # a plate's indices make a copy
            paths = tuple(
                path
                for path, x in tensors
                if x.shape == seen.value.shape
                and x.dtype == seen.value.dtype
                and torch.equal(x, seen.value)
            )
            if len(paths) > 1:
                raise InvalidArgument(
                    f"several arguments hold the numbers that site '{site}' observes. Say which by "
                    f'bind={{"{site}": position or name}}.'
                )
        found[site] = paths
    taken = [path for paths in found.values() for path in paths]
    if len(set(taken)) < len(taken):
        raise InvalidArgument(
            f"observed sites {sorted(found)} share an argument. Pass their data in separate ones."
        )
    return found


def with_data(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    places: Mapping[str, tuple[Path, ...]],
    data: Mapping[str, Tensor],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other data in their places."""
    new = _by_place(args, kwargs)
    for site, value in data.items():
        for path in places.get(site, ()):
            new[path[0]] = _replaced(new[path[0]], path[1:], value)
    return tuple(new[i] for i in range(len(args))), {name: new[name] for name in kwargs}


def _bound(
    site: str, place: int | str, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: list[str]
) -> Path:
    if isinstance(place, str) and place not in kwargs and place in names:
        place = names.index(place)
    if (isinstance(place, int) and not 0 <= place < len(args)) or (
        isinstance(place, str) and place not in kwargs
    ):
        raise InvalidArgument(
            f"bind: site '{site}' is bound to argument {place!r}, which is not passed."
        )
    return (place,)


def _by_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    found: dict[int | str, Any] = dict(enumerate(args))
    found.update(kwargs)
    return found


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Path, Tensor]]:
    for place, x in _by_place(args, kwargs).items():
        yield from _inside((place,), x)


def _inside(path: Path, x: Any) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(x, Tensor):
        yield path, x
    elif isinstance(x, dict):
        for key, value in x.items():
            yield from _inside((*path, key), value)
    elif type(x) in (list, tuple):
        for key, value in enumerate(x):
            yield from _inside((*path, key), value)


def _replaced(x: Any, path: Path, value: Tensor) -> Any:
    if not path:
        return value
    key, *rest = path
    if isinstance(x, dict):
        return {**x, key: _replaced(x[key], tuple(rest), value)}
    return type(x)(_replaced(y, tuple(rest), value) if i == key else y for i, y in enumerate(x))
