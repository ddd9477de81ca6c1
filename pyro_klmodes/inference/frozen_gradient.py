"""``frozen_gradient``: whether the end of a fit is where the gradient vanishes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO
from scipy import stats
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.gradients import frozen_parameters
from pyro_klmodes.inference.sizes_of_terms import sizes_of_terms
from pyro_klmodes.tracing.runs import Pair

__all__ = ["FrozenGradient", "frozen_gradient"]

#: how many roundings, each of about eps times the size of a term, may add up in one gradient
_OPERATIONS = 4


@dataclass(frozen=True)
class FrozenGradient:
    """The mean of a stochastic gradient while the parameters stand still, by name of the parameter.

    Attributes:
        mean: means of the gradient.
        mean_error: their standard errors, from the means of consecutive batches.
        batches: number of batches.
        rounding: how far from zero a sum of the terms of the gradient may be by rounding alone.
        guide: names of the guide's parameters.
        model: names of the model's.
    """

    mean: Mapping[str, Tensor] = field(repr=False)
    mean_error: Mapping[str, Tensor] = field(repr=False)
    batches: int
    rounding: Mapping[str, Tensor] = field(repr=False)
    guide: tuple[str, ...]
    model: tuple[str, ...]

    @property
    def ratio(self) -> dict[str, Tensor]:
        """``mean / mean_error`` of every element, NaN where there is no gradient at all.

        Where the error is less than the rounding, that is taken in its place: a gradient without
        noise, such as that of ``estimators.doubly`` at the posterior, is what rounding leaves.
        """
        found = {}
        for name, mean in self.mean.items():
            error = self.mean_error[name]
            none = (mean == 0) & (error == 0)
            ratio = mean / torch.maximum(error, self.rounding[name])
            found[name] = ratio.masked_fill(none, math.nan)
        return found

    @property
    def p_value(self) -> float:
        """Probability of a largest ratio like this by chance, if all means were zero.

        By Student's t, times the number of elements (Bonferroni).
        """
        ratios = torch.cat([r.flatten().abs() for r in self.ratio.values()])
        ratios = ratios[~ratios.isnan()]
        if len(ratios) == 0:
            return 1.0
        tail = stats.t.sf(float(ratios.max()), self.batches - 1)
        return min(1.0, 2.0 * float(tail) * len(ratios))

    def __str__(self) -> str:
        largest = {n: r.nan_to_num(nan=0.0).abs().max() for n, r in self.ratio.items()}
        name = max(largest, key=lambda n: float(largest[n]))
        verdict = (
            "does not vanish: the fit has not ended where this loss would"
            if self.p_value < 0.01
            else "is zero up to its error"
        )
        return (
            f"The mean gradient {verdict} (p = {self.p_value:.2g}; largest at '{name}', "
            f"{float(largest[name]):.1f} standard errors)."
        )


def frozen_gradient(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    loss: ELBO,
    *args: Any,
    repeats: int = 1000,
    burn_in: int = 200,
    batches: int = 20,
    seed: int = 0,
    **kwargs: Any,
) -> FrozenGradient:
    r"""Mean gradient of a loss at the present parameters, with an error that chains allow for.

    ``ScoreClimbing`` is biased while the parameters move, because its chains follow a posterior
    approximation that is no longer there. While they stand still the chains reach the posterior,
    and the mean of the gradient becomes that of :math:`KL(p \| q)` and of the log-evidence. It
    vanishes at the end of a fit that was led there, and does not where learning rates that never
    fell, or chains that hardly moved, led elsewhere. The same holds for a fit by another loss:
    asked with ``ScoreClimbing``, it shows the bias of ``ForwardKL`` at few particles.

    Consecutive gradients are correlated. Standard errors are those of the means of ``batches``
    consecutive stretches, which must be long against the ages of the chains (``loss.ages``). Every
    fit is off its optimum by the noise of its last steps, which enough ``repeats`` find too: look
    at the size of the mean, not at the p-value alone.

    A gradient whose terms cancel is zero up to rounding only. Ratios are to no less than some
    machine epsilons of what the sites of model and guide add to it, in absolute value at one draw.

    Parameters, random states, ``.grad`` and the chains of the loss are left as they were. For a
    finished fit call it inside of ``result.scope()``.

    Args:
        model: a Pyro model.
        guide: a guide for it.
        loss: one of this package's losses, or of Pyro's. One that was trained goes on with its
            chains.
        *args: what model and guide are called with.
        repeats: number of gradients, a multiple of ``batches``.
        burn_in: gradients before these, in which chains forget.
        batches: number of stretches, at least 5.
        seed: for all generators.
        **kwargs: what model and guide are called with.

    Raises:
        InvalidArgument: for numbers out of range, or if there are no parameters.

    Source: Naesseth, Lindsten and Blei (2020) on the bias of adaptation; Geyer (1992) on batch
        means.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes.losses import ScoreClimbing
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.3))
        >>> frozen_gradient(model, guide, ScoreClimbing(4), repeats=300).p_value > 0.01
        True
        >>> pyro.get_param_store()["loc"] = torch.tensor(0.5)
        >>> frozen_gradient(model, guide, ScoreClimbing(4), repeats=300).p_value < 0.01
        True
    """
    for name, value, least in (("batches", batches, 5), ("burn_in", burn_in, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidArgument(f"{name}={value!r} must be an integer of at least {least}.")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < batches:
        raise InvalidArgument(f"repeats={repeats!r} must be an integer of at least {batches}.")
    if repeats % batches:
        raise InvalidArgument(f"repeats={repeats} must be a multiple of {batches=}.")
    with frozen_parameters(model, guide, loss, args, kwargs, seed) as frozen:
        for _ in range(burn_in):
            frozen.gradient()
        means: dict[str, list[Tensor]] = {name: [] for name in frozen.params}
        for _ in range(batches):
            total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in frozen.params.items()}
            for _ in range(repeats // batches):
                for name, g in frozen.gradient().items():
                    total[name] += g
            for name, g in total.items():
                means[name].append(g / (repeats // batches))
        sizes = sizes_of_terms(Pair(model, guide, args, kwargs), frozen.params)
    stacked = {name: torch.stack(found) for name, found in means.items()}
    return FrozenGradient(
        mean={name: x.mean(0) for name, x in stacked.items()},
        mean_error={name: x.std(0) / batches**0.5 for name, x in stacked.items()},
        batches=batches,
        rounding={
            name: _OPERATIONS * torch.finfo(frozen.params[name].dtype).eps * size
            for name, size in sizes.items()
        },
        guide=frozen.guide,
        model=frozen.model,
    )
