"""A model's latent sites and plates, as an autoguide needs to know them before the first draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["Prototype", "indices_given", "prototype_of", "same_support"]

# A site that comes and goes by the flip of a fair coin escapes one run in two; this many see it.
_LOOKS = 8


@dataclass(frozen=True)
class Prototype:
    """One run of a model that stands for all of them.

    Attributes:
        trace: its latent sites, those that are enumerated left out, at initial values.
        given: the plates whose minibatch is the user's choice (``subsample=``), by name.
        observed: the sites that have a value in the data.
    """

    trace: Trace
    given: frozenset[str]
    observed: frozenset[str]

    @property
    def sites(self) -> dict[str, dict[str, Any]]:
        """The latent sites by name, in the order of the model."""
        return dict(self.trace.nodes)


class _Indices(Messenger):
    """Notes the indices that the user gives to plates, and stops once all wanted ones are known."""

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        super().__init__()
        self.wanted = None if wanted is None else set(wanted)
        self.found: dict[str, Tensor] = {}
        self.observed: set[str] = set()

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"]:
            self.observed.add(msg["name"])
        if site_is_subsample(msg) and msg["value"] is not None:
            self.found[msg["name"]] = torch.as_tensor(msg["value"])
            if self.wanted is not None and self.wanted <= set(self.found):
                raise _AllKnown


class _AllKnown(Exception):
    """The rest of the model need not run."""


def prototype_of(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    init_loc_fn: Callable[[Any], Tensor],
) -> Prototype:
    """Run a model several times, hidden from outer handlers, and describe its latent sites.

    Raises:
        InvalidArgument: if ``init_loc_fn`` returns no point of a site's support.
        UnsupportedStructure: if a site comes and goes, changes its shape or its support from one
            run to the next, or stands in a sequential plate.
    """
    indices = _Indices()
    with poutine.block(), torch.no_grad(), indices:
        # What is kept uses up its random numbers, or what is drawn next would depend on it.
        trace = _latents(InitMessenger(_checked(init_loc_fn))(model), args, kwargs)
        with same_random_state():
            for _ in range(_LOOKS):
                _check_same(trace, _latents(model, args, kwargs))
    for name, site in trace.nodes.items():
        for frame in site["cond_indep_stack"]:
            if not frame.vectorized:
                raise UnsupportedStructure(
                    f"site '{name}' is in sequential plate '{frame.name}', whose elements an "
                    "autoguide cannot tell from sites of their own. Use `with pyro.plate(...)`, or "
                    f"a plain `for i in range(n)` with site names f'{name}_{{i}}'."
                )
    return Prototype(trace, frozenset(indices.found), frozenset(indices.observed))


@same_random_state()
def indices_given(
    model: Callable[..., Any],
    plates: Collection[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Tensor]:
    """The minibatch that these arguments ask for.

    The model is run up to the last plate in question. Plates that draw their minibatch themselves
    have no entry.
    """
    indices = _Indices(plates)
    with poutine.block(), torch.no_grad(), indices, contextlib.suppress(_AllKnown):
        model(*args, **kwargs)
    return indices.found


def _latents(model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
    """A trace of the sites that a guide has to draw."""
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    for name, site in list(trace.nodes.items()):
        if not is_latent(site) or site["infer"].get("enumerate") == "parallel":
            trace.remove_node(name)
    return trace


def _checked(init_loc_fn: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The same function, refusing values that a site cannot have."""

    def checked(site: Any) -> Tensor:
        value = init_loc_fn(site)
        wrong = _why_no_value(value, site["fn"])
        if wrong:
            raise InvalidArgument(
                f"init_loc_fn returned {wrong} for site '{site['name']}'; it must return a tensor "
                f"of shape {tuple(site['fn'].shape())} in the support {site['fn'].support}."
            )
        return value

    return checked


def _why_no_value(value: Any, fn: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    if value.shape != fn.shape():
        return f"a tensor of shape {tuple(value.shape)}"
    if not bool(value.isfinite().all()):
        return "NaN or infinity"
    with contextlib.suppress(NotImplementedError):  # of supports that cannot tell
        if not fn.support.is_discrete and not value.is_floating_point():
            return f"a tensor of {value.dtype}"
        if not bool(fn.support.check(value).all()):
            return "a value outside of the support"
    return ""


def _check_same(first: Trace, other: Trace) -> None:
    """Two runs of one model with the same arguments."""
    for name in sorted(set(first.nodes) ^ set(other.nodes)):
        raise UnsupportedStructure(
            f"site '{name}' comes and goes from one run of the model to the next. A guide needs "
            "the same latent sites every time: sample the site always and mask it where it is not "
            "used (poutine.mask), or enumerate the choice that decides about it."
        )
    for name, site in first.nodes.items():
        now = other.nodes[name]
        if site["value"].shape != now["value"].shape:
            raise UnsupportedStructure(
                f"site '{name}' changes its shape from one run of the model to the next: "
                f"{tuple(site['value'].shape)}, then {tuple(now['value'].shape)}. Sample the "
                "largest shape and mask what is not used (poutine.mask)."
            )
        if not same_support(site["fn"].support, now["fn"].support):
            raise UnsupportedStructure(
                f"the support of site '{name}' ({site['fn'].support}) depends on another random "
                f"variable (now {now['fn'].support}), so one transform cannot serve it. Sample it "
                "on a fixed support, such as the unit interval, and rescale it in the model."
            )


def same_support(one: Any, other: Any) -> bool:
    """Whether two constraints are one, bounds included."""
    if type(one) is not type(other):
        return False
    mine, theirs = _bounds(one), _bounds(other)
    return mine.keys() == theirs.keys() and all(_same(mine[k], theirs[k]) for k in mine)


def _bounds(constraint: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(constraint).items() if not k.startswith("__")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        return one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, torch.distributions.constraints.Constraint):
        return same_support(one, other)
    return bool(one == other)
