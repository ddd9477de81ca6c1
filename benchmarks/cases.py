"""The models that are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch import Tensor

from models import eight_schools

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A model, its data, and whether it sums out discrete sites.

    Attributes:
        name: what to call it in a table.
        model: a Pyro model.
        data: makes the arguments of model and guide.
        summed_out: sites that the model enumerates.
        amortised: whether all latents are local ones, which a network can read off the data. Such
            a model is for guides alone.
    """

    name: str
    model: Callable[..., Any]
    data: Callable[[], tuple[Tensor, ...]]
    summed_out: list[str] = field(default_factory=list)
    amortised: bool = False

    def guided(self) -> Callable[..., Any]:
        """What a guide sees of the model."""
        return poutine.block(self.model, hide=self.summed_out)


def logistic_model(x: Tensor, y: Tensor) -> None:
    """Logistic regression; x has shape (data, features), y (data,)."""
    features = x.shape[-1]
    intercept = pyro.sample("intercept", dist.Normal(x.new_zeros(()), 2.0))
    slopes = pyro.sample("slopes", dist.Normal(x.new_zeros(features), 1.0).to_event(1))
    products = slopes @ x.T
    if products.dim() > 1:  # (particles, 1, data): the data take the place of the one
        products = products.squeeze(-2)
    logits = intercept + products
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def logistic_data(size: int = 1000, features: int = 25) -> tuple[Tensor, Tensor]:
    """Data from the model's own prior."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, features, generator=generator)
    slopes = torch.randn(features, generator=generator)
    return x, torch.bernoulli(torch.sigmoid(x @ slopes), generator=generator)


def mixture_model(x: Tensor) -> None:
    """Mixture of three normals in one dimension; x has shape (data,)."""
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(3)))
    means = pyro.sample("means", dist.Normal(x.new_tensor([-3.0, 0.0, 3.0]), 2.0).to_event(1))
    with pyro.plate("data", x.shape[0]):
        component = pyro.sample(
            "component", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        pyro.sample("x", dist.Normal(Vindex(means)[..., component], 1.0), obs=x)


def mixture_data(size: int = 500) -> tuple[Tensor]:
    """Three clusters of unequal size."""
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(
        torch.tensor([0.5, 0.3, 0.2]), size, replacement=True, generator=generator
    )
    centres = torch.tensor([-3.0, 0.0, 4.0])[component]
    return (centres + torch.randn(size, generator=generator),)


def local_model(x: Tensor) -> None:
    """A nonlinear factor for every datum; x has shape (data, 2)."""
    with pyro.plate("data", x.shape[0]):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + z.sin(), 0.3).to_event(1), obs=x)


def local_data(size: int = 500) -> tuple[Tensor]:
    """Data from the model."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(size, 2, generator=generator)
    return (z + z.sin() + 0.3 * torch.randn(size, 2, generator=generator),)


CASES = (
    Case("eight schools", eight_schools.non_centred_model, eight_schools.data),
    Case("logistic regression, 1000 x 25", logistic_model, logistic_data),
    Case("mixture of 3, 500 data, summed out", mixture_model, mixture_data, ["component"]),
    Case("local factors, 500 x 2", local_model, local_data, amortised=True),
)
