"""``gradient_snr``: how much of a gradient is signal, for choosing estimator and particles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.gradients import frozen_parameters

__all__ = ["GradientSNR", "gradient_snr"]


@dataclass(frozen=True)
class GradientSNR:
    """Moments of a stochastic gradient at fixed parameters, by name of the parameter.

    Attributes:
        mean: means of the gradient.
        sd: standard deviations of single gradients.
        repeats: number of gradients that were computed.
        guide: names of the guide's parameters.
        model: names of the model's.
    """

    mean: Mapping[str, Tensor] = field(repr=False)
    sd: Mapping[str, Tensor] = field(repr=False)
    repeats: int
    guide: tuple[str, ...]
    model: tuple[str, ...]

    def __str__(self) -> str:
        groups = [
            f"{group}'s parameters {self.overall(group):.3g}"
            for group, names in (("guide", self.guide), ("model", self.model))
            if names
        ]
        return f"Signal-to-noise of {self.repeats} gradients: {', '.join(groups)}."

    @property
    def mean_error(self) -> dict[str, Tensor]:
        """Standard errors of the means."""
        return {name: sd / math.sqrt(self.repeats) for name, sd in self.sd.items()}

    @property
    def snr(self) -> dict[str, Tensor]:
        """``|mean| / sd`` of every element; without noise infinite, without gradient NaN.

        By chance alone it is about ``0.8 / sqrt(repeats)`` where the mean is zero.
        """
        return {name: self.mean[name].abs() / self.sd[name] for name in self.mean}

    @property
    def snr_error(self) -> dict[str, Tensor]:
        """Standard errors of ``snr`` for normal gradients, ``sqrt((1 + snr^2 / 2) / repeats)``."""
        return {n: ((1 + r**2 / 2) / self.repeats).sqrt() for n, r in self.snr.items()}

    def overall(self, group: str = "guide") -> float:
        r"""Signal-to-noise ratio of all parameters of a group together.

        :math:`\|E g\| / \sqrt{E \|g - E g\|^2}`, with the part of the squared norm of the mean that
        is chance taken off; 0 if nothing is left of it, NaN for a group without parameters.

        Args:
            group: "guide" or "model".

        Raises:
            InvalidArgument: for another group.
        """
        if group not in ("guide", "model"):
            raise InvalidArgument(f"group={group!r} must be 'guide' or 'model'.")
        names = self.guide if group == "guide" else self.model
        noise = sum(float((self.sd[n] ** 2).sum()) for n in names)
        signal = sum(float((self.mean[n] ** 2).sum()) for n in names) - noise / self.repeats
        if noise == 0:
            return math.inf if signal > 0 else math.nan
        return math.sqrt(max(0.0, signal) / noise)


def gradient_snr(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    *args: Any,
    repeats: int = 100,
    seed: int = 0,
    **kwargs: Any,
) -> GradientSNR:
    r"""Signal-to-noise ratio :math:`|E g| / sd(g)` of every parameter's gradient.

    Computes the gradient of a loss ``repeats`` times at the present parameters, which do not
    change, and neither do random states or ``.grad``. Gradients are those of unconstrained
    parameters, which the optimizer sees. For a finished fit call it inside of ``result.scope()``.

    More particles help the model's gradient but may drown the guide's: under the
    importance-weighted bound the ratio of the latter falls as :math:`K^{-1/2}`, and grows as
    :math:`K^{1/2}` with the estimator ``doubly``. At an optimum the ratio is zero; compare standard
    deviations there.

    Args:
        model: a Pyro model.
        guide: a guide for it.
        loss: one of this package's losses, or of Pyro's.
        *args: what model and guide are called with.
        repeats: number of gradients.
        seed: for all generators.
        **kwargs: what model and guide are called with.

    Raises:
        InvalidArgument: for fewer than two repeats, or if there are no parameters.

    Source: Rainforth, Kosiorek, Le, Maddison, Igl, Wood and Teh (2018), "Tighter variational bounds
        are not necessarily better"; Tucker, Lawson, Gu and Maddison (2019).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes import ReverseKL
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(2.0)), 1.0))
        >>> found = gradient_snr(model, guide, ReverseKL(4), repeats=400)
        >>> found.guide, bool((found.snr["loc"] - 4.0).abs() < 3 * found.snr_error["loc"])
        (('loc',), True)
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 2:
        raise InvalidArgument(f"repeats={repeats!r} must be an integer of at least 2.")
    with frozen_parameters(model, guide, loss, args, kwargs, seed) as frozen:
        mean = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in frozen.params.items()}
        square = {name: torch.zeros_like(m) for name, m in mean.items()}
        for count in range(1, repeats + 1):
            for name, g in frozen.gradient().items():
                change = g - mean[name]
                mean[name] += change / count
                square[name] += change * (g - mean[name])  # Welford (1962)
    return GradientSNR(
        mean=mean,
        sd={name: (s / (repeats - 1)).sqrt() for name, s in square.items()},
        repeats=repeats,
        guide=frozen.guide,
        model=frozen.model,
    )
