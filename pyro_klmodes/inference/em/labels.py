"""The same labels in all starts: components in the order that those of the best start have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.parameters import Parameters, parameters_of
from pyro_klmodes.inference.em.symmetries import permuted, symmetries
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.responsibilities import Responsibilities
from pyro_klmodes.tracing.sites import describe

__all__ = ["aligned"]


@same_random_state()
def aligned(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    params: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    log_likelihood: Tensor,  # (R,)
) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
    """Permute the components of every start to match those of the best one.

    Args:
        model: the model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        params: of all starts.
        log_likelihood: of all starts; one that is not finite has failed, and stays as it is.

    Raises:
        UnsupportedStructure: if the model has no discrete latent, or continuous ones that are no
            parameters, or nothing can be permuted.
    """
    with pyro.get_param_store().scope(), poutine.block():
        sites = describe(model, args, kwargs, known=frozenset(params))
        points = frozenset(n for n in params if n in sites)
        _check(sites, points)
        found = parameters_of(model, args, kwargs, points)
        parameters = Parameters({n: found[n] for n in params})
        one = {n: v[0] for n, v in params.items()}
        posterior = Responsibilities(model, args, kwargs, sites, one, points)
        groups = symmetries(posterior, parameters)
        starts = log_likelihood.isfinite().nonzero().flatten()
        _, tables = posterior({n: v[starts] for n, v in params.items()})
    best = int(log_likelihood[starts].argmax())
    result = {n: v.clone() for n, v in params.items()}
    for group in groups:
        share = [tables[name] for name in group.latents]
        # how often a state of the best start and one of another are those of the same data
        agreement = torch.stack(
            [torch.einsum("jn,rkn->rjk", t[best], t) for t in share],
        ).sum(0)
        for start, table in zip(starts.tolist(), agreement, strict=True):
            _, order = linear_sum_assignment(table.numpy(force=True), maximize=True)
            here = {n: v[start : start + 1] for n, v in result.items()}
            for name, value in permuted(here, group.axes, torch.as_tensor(order)).items():
                result[name][start] = value[0]
    return result


def _check(sites: Mapping[str, Any], points: frozenset[str]) -> None:
    kinds = {n: s.kind for n, s in sites.items()}
    if all(kind != "enumerated" for kind in kinds.values()):
        raise UnsupportedStructure("the model has no discrete latent, so there are no labels.")
    for name, kind in kinds.items():
        if kind == "latent" and name not in points:
            raise UnsupportedStructure(
                f"labels are compared by the exact posterior of discrete latents, which latent "
                f"site '{name}' is in the way of: it is continuous."
            )
