"""What a model file hands out: the model, its arguments, and what the right answer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["Moments", "Problem"]

Quantiles = Callable[[Tensor], Tensor]  # probabilities (P,) -> (P, *site)


@dataclass(frozen=True)
class Moments:
    """Posterior mean and standard deviation of one site, in the constrained space.

    Example:
        >>> Moments.of([0.5, 1.0], [0.25, 2.0]).sd.shape
        torch.Size([2])
    """

    mean: Tensor  # the shape of the site
    sd: Tensor  # the shape of the site

    @classmethod
    def of(cls, mean: ArrayLike, sd: ArrayLike) -> Moments:
        """Moments from numbers or arrays, in the default dtype at the time of the call."""
        dtype = torch.get_default_dtype()
        return cls(torch.as_tensor(mean, dtype=dtype), torch.as_tensor(sd, dtype=dtype))


@dataclass(frozen=True)
class Problem:
    """A Pyro model with its data and its reference answer.

    Attributes:
        name: What to call it in a table.
        model: The Pyro model, called as ``model(*args, **kwargs)``.
        reference: Posterior moments per site name. Deterministic sites may be among them. A site
            without a finite standard deviation is not; it has quantiles.
        log_evidence: ``log p(data)``, the value every importance-weighted bound climbs to; None
            if it is not known.
        how: How the reference was made: "closed form", "quadrature" or "enumeration".
        source: Where data and model were published, or that they were made up for this file.
        args: Positional arguments of the model and of every guide.
        kwargs: Keyword arguments of the model and of every guide.
        guide: A hand-written guide, where an autoguide will not do or a second one is instructive.
        exact_guide: The posterior itself as a guide, where Pyro can express it; ``log p - log q``
            is then the log evidence at every draw.
        guides: Names of the autoguides in ``pyro.infer.autoguide`` that are worth comparing.
        quantiles: Exact quantiles of the marginals per site name, where moments say little: a
            function of probabilities of shape (P,) that returns a tensor of shape (P, *site).
        summed_out: Sites the model enumerates. Hide them from an autoguide:
            ``AutoNormal(poutine.block(model, hide=list(problem.summed_out)))``.

    Example:
        >>> import pyro
        >>> from models.conjugate_normal import problem
        >>> case = problem()
        >>> trace = pyro.poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
        >>> trace.nodes["z"]["value"].shape == case.reference["z"].mean.shape
        True
    """

    name: str
    model: Callable[..., Any]
    reference: Mapping[str, Moments]
    log_evidence: float | None
    how: str
    source: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    guide: Callable[..., Any] | None = None
    exact_guide: Callable[..., Any] | None = None
    guides: tuple[str, ...] = ("AutoNormal", "AutoMultivariateNormal")
    quantiles: Mapping[str, Quantiles] = field(default_factory=dict)
    summed_out: tuple[str, ...] = ()
