"""The ELBO of a fit over all data as a function of the guide's parameters, in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.cavi.expectation import Expectation
from pyro_klmodes.inference.cavi.plan import Plan
from pyro_klmodes.inference.cavi.prepare import prepare
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.tracing.node_runs import NodeModel

__all__ = ["Target", "target_of"]

_SiteParams = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Target:
    """What is differentiated, and where.

    Attributes:
        expectation: the ELBO.
        params: of all sites.
        latents: the sites.
        families: of the sites.
        masks: of the sites, None where nothing is masked.
        conjugate: whether all expectations are exact.
    """

    expectation: Expectation
    params: _SiteParams
    latents: Mapping[str, Latent]
    families: Mapping[str, Any]
    masks: Mapping[str, Tensor | None]
    conjugate: bool


def target_of(fit: FitResult) -> Target:
    """Read model, guide and arguments of a fit; to be called in its param store.

    Raises:
        InvalidArgument: if the guide is not mean field.
        UnsupportedStructure: if it has blocks of several sites, naming one; if the arguments are
            those of a minibatch, naming the plate; where coordinate ascent has no expectations.
    """
    guide = fit.guide.unbound
    if not isinstance(guide, AutoMeanField):
        raise InvalidArgument(
            f"linear response corrects mean-field fits: the guide is {shown(guide)}, and it must "
            "be an AutoMeanField. A guide that has correlations, such as "
            "AutoMultivariateNormal, needs no such correction."
        )
    blocks = tuple(getattr(guide, "blocks", ()))
    if blocks:
        raise UnsupportedStructure(
            f"the guide has the block {blocks[0]!r}, and linear response is for factors of single "
            "sites. Fit without blocks: linear response brings in what blocks are for. Entries of "
            "one vector may have a full covariance: families={'w': MultivariateNormal()}."
        )
    ready = prepare(fit.model, guide, fit.args, fit.kwargs, exact=False)
    _refuse_minibatches(ready.plan.model)
    expectation, params = ready.sweeper.expectation, ready.sweeper.params
    doubled = _doubled(ready.plan, params)
    if doubled is not None:
        expectation, params = doubled
    views = expectation.plan.model.sites
    return Target(
        expectation=expectation,
        params=params,
        latents={name: guide.latents[name] for name in views},
        families={name: guide.families[name] for name in views},
        masks={name: view.mask for name, view in views.items()},
        conjugate=ready.plan.report.conjugate,
    )


def _refuse_minibatches(model: NodeModel) -> None:
    small = list(model.indices)
    for view in model.sites.values():
        small += [plate for plate in view.plates if view.ratio != 1 and plate not in small]
    if small:
        raise UnsupportedStructure(
            f"plate '{small[0]}' sees a minibatch, and the curvature of the ELBO is that over all "
            "data. Take the fit with arguments for which the model sees all of them, for instance "
            "linear_response(dataclasses.replace(fit, kwargs={'subsample_size': None}))."
        )


def _doubled(
    plan: Plan, params: Mapping[str, dict[str, Tensor]]
) -> tuple[Expectation, dict[str, dict[str, Tensor]]] | None:
    """The same at double precision; None if it is so already, or the model mixes no precisions."""
    wide = {n: {k: v.double() for k, v in p.items()} for n, p in params.items()}
    if all(v.dtype == torch.float64 for p in params.values() for v in p.values()):
        return None
    old = plan.model
    try:
        model = NodeModel(old.model, _cast(old.args), _cast(dict(old.kwargs)))
        model.look()
        model.validates = old.validates
        found = Expectation(replace(plan, model=model, rules={}))
        with torch.no_grad():
            value, before = found.elbo(wide), Expectation(plan).elbo(params)
    except (RuntimeError, TypeError, ValueError):
        return None
    agrees = torch.isclose(value, before.double(), rtol=1e-3, atol=1e-3)
    return (found, wide) if value.dtype == torch.float64 and bool(agrees) else None


def _cast(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_cast(v) for v in value)
    if type(value) is dict:
        return {key: _cast(v) for key, v in value.items()}
    return value
