"""The parameters of a model: where they start, what constrains them, and as one vector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import init_to_median
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.terms import model_terms

__all__ = ["ParameterInfo", "Parameters", "parameters_of"]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of a model.

    Attributes:
        value: its constrained value at the start, ``(*shape)``.
        constraint: what constrains it.
        point: whether it is a latent site with a prior, of which the mode is sought.
        raw: the unconstrained tensor behind a parameter, in the param store or in a module.
    """

    value: Tensor
    constraint: Constraint
    point: bool = False
    raw: Tensor | None = field(default=None, repr=False, compare=False)

    def put_back(self, value: Tensor) -> None:
        """Give the model's own parameter a constrained value, in place."""
        if self.raw is not None:
            with torch.no_grad():
                self.raw.copy_(transform_to(self.constraint).inv(value))


class Parameters(dict[str, ParameterInfo]):
    """Parameters by name, R values of all of them as one matrix of vectors.

    Fixed points are sought in constrained coordinates: a probability may become zero there. For
    gradients there are unconstrained ones.
    """

    def flat(
        self,
        values: Mapping[str, Tensor],  # {name: (R, *shape)}
    ) -> Tensor:  # (R, P)
        """Constrained values one after the other."""
        return torch.cat([values[n].reshape(len(values[n]), -1) for n in self], dim=1)

    def shaped(
        self,
        flat: Tensor,  # (R, P)
    ) -> dict[str, Tensor]:  # {name: (R, *shape)}
        """Constrained values by name."""
        sizes = [info.value.numel() for info in self.values()]
        parts = flat.split(sizes, dim=1)
        return {
            name: part.reshape(len(flat), *info.value.shape)
            for (name, info), part in zip(self.items(), parts, strict=True)
        }

    def allowed(
        self,
        values: Mapping[str, Tensor],  # {name: (R, *shape)}
    ) -> Tensor:  # (R,)
        """Which starts have all values inside of what constrains them."""
        inside = [
            info.constraint.check(values[n]).reshape(len(values[n]), -1).all(1)
            & values[n].reshape(len(values[n]), -1).isfinite().all(1)
            for n, info in self.items()
        ]
        return torch.stack(inside).all(0)

    def unconstrained(
        self,
        values: Mapping[str, Tensor],  # {name: (R, *shape)}
    ) -> Tensor:  # (R, U)
        """Constrained values as unconstrained vectors."""
        parts = [transform_to(info.constraint).inv(values[n]) for n, info in self.items()]
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)

    def constrained(
        self,
        vectors: Tensor,  # (R, U)
    ) -> dict[str, Tensor]:  # {name: (R, *shape)}
        """Unconstrained vectors as constrained values, differentiable."""
        values = {}
        for name, part in self.by_coordinate(vectors).items():
            transform = transform_to(self[name].constraint)
            shape = transform.inverse_shape(self[name].value.shape)
            values[name] = transform(part.reshape(len(vectors), *shape))
        return values

    def by_coordinate(
        self,
        vectors: Tensor,  # (R, U)
    ) -> dict[str, Tensor]:  # {name: (R, coordinates)}
        """The unconstrained coordinates of every parameter."""
        shapes = [
            transform_to(info.constraint).inverse_shape(info.value.shape) for info in self.values()
        ]
        parts = vectors.split([torch.Size(shape).numel() for shape in shapes], dim=1)
        return dict(zip(self, parts, strict=True))

    def initial(self) -> dict[str, Tensor]:  # {name: (*shape)}
        """Where the model lets them start."""
        return {name: info.value for name, info in self.items()}


@same_random_state()
def parameters_of(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    points: Collection[str],
) -> Parameters:
    """Find the parameters of a model: its ``pyro.param`` and ``PyroParam``, and some latents.

    Raises:
        InvalidArgument: if ``points`` names what is no continuous latent site, or there is nothing
            to maximise over.
        UnsupportedStructure: naming a parameter that is handed to the model past Pyro.
        InvalidArgument, NonFiniteLoss: naming a site with data that it cannot have.
    """
    with poutine.block():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
        with torch.no_grad():
            model_terms(trace)  # complains of data that a site cannot have
    found = Parameters()
    for name, node in trace.nodes.items():
        if node["type"] == "param":
            constraint = _constraint(name, node)
            value = node["value"]
            if getattr(value.unconstrained(), "_pyro_subsample", None):
                raise UnsupportedStructure(
                    f"parameter '{name}' has an entry for every datum, and a subsampled plate "
                    "takes a part of it, another one in every batch. Use all data at once."
                )
            found[name] = ParameterInfo(
                value.detach().clone(), constraint, raw=value.unconstrained()
            )
    for name in points:
        found[name] = _point(name, trace.nodes)
    if not found:
        raise InvalidArgument(
            "the model has no pyro.param and no PyroParam, so there is nothing to maximise. Make "
            "what is to be estimated a parameter, or name latent sites of which the posterior mode "
            'is wanted: points=["loc", ...].'
        )
    return found


def _constraint(name: str, node: Mapping[str, Any]) -> Constraint:
    if "$$$" in name:
        raise UnsupportedStructure(
            f"parameter '{name}' is that of a network given to pyro.module, which uses it past "
            "Pyro. EM needs parameters made by pyro.param or PyroParam; networks are trained by "
            "fit."
        )
    stored = pyro.get_param_store()._constraints
    if name in stored:
        return stored[name]
    # parameters local to a module are not in the store
    given = node["kwargs"].get("constraint")
    return given if given is not None else torch.distributions.constraints.real


def _point(name: str, nodes: Mapping[str, Any]) -> ParameterInfo:
    node = nodes.get(name)
    sites = {n: s for n, s in nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
    latent = [n for n, s in sites.items() if not s["is_observed"]]
    if node is None or name not in latent:
        raise InvalidArgument(
            f"points: '{name}' is no latent site of the model; it has {sorted(latent)}."
        )
    if node["fn"].has_enumerate_support:
        raise InvalidArgument(
            f"points: site '{name}' is discrete and is summed over in the E-step; name continuous "
            "sites only."
        )
    value = init_to_median(dict(node), num_samples=51).detach()
    return ParameterInfo(value, node["fn"].support, point=True)
