"""``as_posterior``: whatever somebody holds in their hands after an inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer import SVI
from pyro.infer.mcmc.api import AbstractMCMC
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.result import FitResult, FittedGuide
from pyro_klmodes.inference.versions import versions
from pyro_klmodes.posteriors.chains import Chains
from pyro_klmodes.posteriors.guided import Guided

__all__ = ["Posterior", "as_posterior"]

Posterior = Guided | Chains


def as_posterior(
    source: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Posterior:
    """One view of a finished inference.

    Args:
        source: what ``fit`` returned; a pair (model, guide) with its parameters in Pyro's param
            store or in the guide; a ``pyro.infer.SVI`` after its last step; or a
            ``pyro.infer.MCMC`` that has run.
        args: positional arguments of model and guide. A fit and chains remember theirs; give the
            full data where the fit saw a minibatch.
        kwargs: keyword arguments likewise.

    Returns:
        ``Guided`` or ``Chains``.

    Raises:
        InvalidArgument: for anything else, and for chains that have not run.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> as_posterior((model, model)).attributes["guide"]
        'model'
    """
    if args is not None and not isinstance(args, tuple | list):
        raise InvalidArgument(f"args must be a tuple of arguments; pass ({type(args).__name__},).")
    if isinstance(source, Guided | Chains):
        return _with_arguments(source, args, kwargs)
    if isinstance(source, FitResult):
        return _with_arguments(_of_fit(source), args, kwargs)
    if isinstance(source, SVI):
        # SVI keeps the bound method of the loss it was given.
        loss = getattr(source.loss, "__self__", source.loss)
        pair = _of_pair(source.model, source.guide, {"loss": name_of(loss)})
        return _with_arguments(pair, args, kwargs)
    if isinstance(source, AbstractMCMC):
        return _with_arguments(_of_chains(source), args, kwargs)
    if isinstance(source, tuple) and len(source) == 2 and all(callable(part) for part in source):
        return _with_arguments(_of_pair(*source, {}), args, kwargs)
    raise InvalidArgument(
        f"an object of type {type(source).__name__} is no finished inference. Pass what `fit` "
        "returned, a pair (model, guide), a pyro.infer.SVI, or a pyro.infer.MCMC that has run."
    )


def _with_arguments(
    posterior: Posterior, args: tuple[Any, ...] | None, kwargs: Mapping[str, Any] | None
) -> Posterior:
    if args is None and kwargs is None:
        return posterior
    chosen_args = posterior.args if args is None else tuple(args)
    chosen_kwargs = posterior.kwargs if kwargs is None else dict(kwargs)
    if isinstance(posterior, Guided):
        return posterior.on(chosen_args, chosen_kwargs)
    return Chains(
        posterior.values,
        posterior.model,
        chosen_args,
        chosen_kwargs,
        posterior.statistics,
        posterior.attributes,
    )


def _of_fit(result: FitResult) -> Guided:
    return Guided(
        model=result.model,
        guide=result.guide.unbound,
        args=result.args,
        kwargs=result.kwargs,
        state=result.guide.state,
        losses=result.losses,
        attributes={
            "guide": name_of(result.guide.unbound),
            "loss": type(result.loss).__name__,
            "seed": result.seed,
            "steps": result.steps,
            "seconds": result.seconds,
            "versions": dict(result.versions),
        },
    )


def _of_pair(model: Callable[..., Any], guide: Any, known: dict[str, Any]) -> Guided:
    fitted = isinstance(guide, FittedGuide)
    unbound, state = (guide.unbound, guide.state) if fitted else (guide, None)
    attributes = {"guide": name_of(unbound), **known, "versions": versions()}
    return Guided(model=model, guide=unbound, state=state, attributes=attributes)


def _of_chains(mcmc: AbstractMCMC) -> Chains:
    samples = getattr(mcmc, "_samples", None)
    if not samples:
        raise InvalidArgument(
            "this pyro.infer.MCMC has no draws: call its run(...) before asking about them."
        )
    values = mcmc.get_samples(group_by_chain=True)
    chains, count = next(iter(values.values())).shape[:2]
    kernel = getattr(mcmc, "kernel", None)
    return Chains(
        values=values,
        model=getattr(kernel, "model", None),
        args=tuple(getattr(mcmc, "_args", None) or ()),
        kwargs=dict(getattr(mcmc, "_kwargs", None) or {}),
        statistics={"diverging": _diverging(mcmc, chains, count)},
        attributes={
            "kernel": type(kernel).__name__,
            "chains": chains,
            "draws": count,
            "versions": versions(),
        },
    )


def _diverging(mcmc: AbstractMCMC, chains: int, count: int) -> Tensor:  # (chains, draws)
    """Which draws ended a trajectory that diverged; none for kernels that do not tell."""
    found = torch.zeros(chains, count, dtype=torch.bool)
    diagnostics = getattr(mcmc, "_diagnostics", None) or []
    for chain, told in enumerate(diagnostics):
        divergences = (told or {}).get("divergences", ())
        found[chain, [int(i) for i in divergences]] = True
    return found


def name_of(thing: Any) -> str:
    """What to call a guide or model in a table."""
    return getattr(thing, "__name__", None) or type(thing).__name__
