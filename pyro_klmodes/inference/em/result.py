"""What EM leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.labels import aligned
from pyro_klmodes.inference.em.memberships import memberships
from pyro_klmodes.inference.result import FitResult

__all__ = ["EMResult", "Optimum", "Restarts"]


class Optimum(NamedTuple):
    """Starts that ended at the same log-likelihood.

    Attributes:
        log_likelihood: the largest of them.
        starts: their numbers, the best first.
    """

    log_likelihood: float
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Restarts:
    """How every start ended.

    Attributes:
        params: constrained values of all parameters, ``{name: (R, *shape)}``.
        log_likelihood: in the end; -inf where a start has failed.
        history: after every evaluation, ``(T, R)``.
        evaluations: how many E-steps were needed.
        converged: whether the last step was below the tolerance.
        faults: by number of the start, what made it fail.
    """

    params: Mapping[str, Tensor]  # {name: (R, *shape)}
    log_likelihood: Tensor  # (R,)
    history: Tensor  # (T, R)
    evaluations: Tensor  # (R,)
    converged: Tensor  # (R,)
    faults: Mapping[int, str]

    @property
    def best(self) -> int:
        """The number of the start with the largest log-likelihood."""
        return int(self.log_likelihood.argmax())

    def optima(self, tolerance: float = 1e-3) -> tuple[Optimum, ...]:
        """The different log-likelihoods that starts have reached, the best first.

        Args:
            tolerance: how far the log-likelihoods of one optimum may lie below its largest. Starts
                that have not converged may be on their way to a better one.

        Returns:
            One entry for each; starts that have failed are in none.

        Raises:
            InvalidArgument: if the tolerance is negative or no number.

        Example:
            >>> from torch import inf, ones, tensor, zeros
            >>> Restarts({}, tensor([-5.0, -7.0, -5.0, -inf]), zeros(1, 4), ones(4),
            ...          ones(4).bool(), {3: "start 3: is empty"}).optima()
            (Optimum(log_likelihood=-5.0, starts=(0, 2)), Optimum(log_likelihood=-7.0, starts=(1,)))
        """
        if not tolerance >= 0:
            raise InvalidArgument(f"tolerance={tolerance!r} must be zero or a positive number.")
        found: list[Optimum] = []
        for start in self.log_likelihood.argsort(descending=True, stable=True).tolist():
            value = float(self.log_likelihood[start])
            if math.isfinite(value):
                if not found or value < found[-1].log_likelihood - tolerance:
                    found.append(Optimum(value, ()))
                best, starts = found[-1]
                found[-1] = Optimum(best, (*starts, start))
        return tuple(found)


@dataclass(frozen=True, repr=False)
class EMResult(FitResult):
    """A fit by EM: a ``FitResult`` of the best start, and what became of the others.

    ``losses`` are minus the log-likelihood (or its bound) at the evaluations of the best start.

    Attributes:
        restarts: all starts.
        closed_form: parameters with closed-form updates.
        optimised: why the other parameters have none, by name.
    """

    restarts: Restarts = field(kw_only=True)
    closed_form: tuple[str, ...] = field(kw_only=True)
    optimised: Mapping[str, str] = field(kw_only=True)

    def __repr__(self) -> str:
        words = [f"log_likelihood={self.log_likelihood:.6g}", f"steps={self.steps}"]
        if self.epochs is not None:
            words.append(f"epochs={self.epochs}")
        elif self.interrupted:
            words.append("interrupted")
        else:
            words.append("converged" if self.converged else "not converged")
        starts = len(self.restarts.log_likelihood)
        if starts > 1:
            failed = int((self.restarts.log_likelihood == -math.inf).sum())
            words.append(f"starts={starts}" + (f" ({failed} failed)" if failed else ""))
        words.append(f"closed_form={list(self.closed_form)}")
        if self.optimised:
            words.append(f"optimised={list(self.optimised)}")
        return f"EMResult({', '.join(words)}, seed={self.seed})"

    @property
    def converged(self) -> bool:
        """Whether the last step of the best start was below the tolerance."""
        return bool(self.restarts.converged[self.restarts.best])

    def responsibilities(
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:  # {latent: (*plates, states)}
        r"""The posterior probabilities :math:`p(z = k \mid x; \theta)` of each latent's states.

        Exact after exact E-steps; those of the guide after ``CoordinateAscent``. Of several latents
        each has its own marginal probabilities; ``sample`` draws them together. They are zero where
        the latent is masked.

        Args:
            *args: what the model is called with; new data, for which the parameters are those of
                the fit. Without any arguments: the data of the fit.
            **kwargs: likewise.

        Raises:
            UnsupportedStructure: if the model has no discrete latent, or they were summed out given
                draws of other latents.

        Example:
            >>> from pyro_klmodes.inference.em import EM
            >>> import torch, pyro, pyro.distributions as dist
            >>> def model(x):
            ...     rate = pyro.param("rate", torch.tensor([1.0, 9.0]))
            ...     with pyro.plate("data", len(x)):
            ...         z = pyro.sample("z", dist.Categorical(torch.ones(2) / 2))
            ...         pyro.sample("x", dist.Poisson(rate[z]), obs=x)
            >>> result = EM(model).fit(torch.tensor([0.0, 1.0, 0.0, 7.0, 9.0, 8.0]))
            >>> result.responsibilities()["z"].shape
            torch.Size([6, 2])
            >>> result.responsibilities(torch.tensor([0.0, 20.0]))["z"].argmax(-1)
            tensor([0, 1])
        """
        if not args and not kwargs:
            args, kwargs = self.args, dict(self.kwargs)
        return memberships(self.model, self.guide, self.params, args, kwargs)

    @property
    def log_likelihood(self) -> float:
        """Of the best start: the exact one after exact E-steps, else the bound."""
        return float(self.restarts.log_likelihood.max())

    def aligned(self) -> dict[str, Tensor]:  # {name: (R, *shape)}
        r"""The parameters of all starts with components in the order of the best start's.

        The labels of a mixture's components mean nothing, and starts end with different ones; means
        and spreads over starts make sense for aligned parameters only. Which axes of which
        parameters number the states of a latent is found out by permuting them: the log-likelihood
        must stay as it is. The order of a start is the one that maximises the agreement
        :math:`\sum_n \sum_j p(z_n = j \mid x; best) p(z_n = order(j) \mid x; start)` with the best
        start (the Hungarian algorithm), summed over all latents with the same states. Starts that
        have failed stay as they are.

        Raises:
            UnsupportedStructure: if the model has no discrete latent, or other latents that are no
                parameters; if its states are not exchangeable.

        Limits: the exact posterior of all starts is held in memory.

        Source: Stephens (2000), "Dealing with label switching in mixture models".

        Example:
            >>> from pyro_klmodes.inference.em import EM
            >>> import torch, pyro, pyro.distributions as dist
            >>> def model(x):
            ...     rate = pyro.param("rate", torch.tensor([1.0, 2.0]))
            ...     with pyro.plate("data", len(x)):
            ...         z = pyro.sample("z", dist.Categorical(torch.ones(2) / 2))
            ...         pyro.sample("x", dist.Poisson(rate[z]), obs=x)
            >>> x = torch.tensor([0.0, 1.0, 0.0, 7.0, 9.0, 8.0])
            >>> starts = {"rate": torch.tensor([[1.0, 9.0], [8.0, 2.0]])}
            >>> EM(model, starts=starts).fit(x).aligned()["rate"].round(decimals=1)
            tensor([[0.3..., 8.0...],
                    [0.3..., 8.0...]])
        """
        found = self.restarts
        return aligned(self.model, self.args, self.kwargs, found.params, found.log_likelihood)
