"""What a fit leaves behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.engine import Explanation
from pyro_klmodes.engine.draws import through_graph
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.tracing import Draws
from pyro_klmodes.tracing.guide_samples import sample_guide
from pyro_klmodes.tracing.many_draws import many_draws
from pyro_klmodes.tracing.runs import Pair

__all__ = ["FitResult", "FittedGuide"]


class FittedGuide:
    """A guide bound to its fitted parameters, wherever the param store has gone since.

    Callable like the guide; attributes (``median``, ``quantiles``) are those of the guide, and
    methods run with the fitted parameters. A guide that is a module is not copied: training that
    module on moves this guide too (``FitResult.params`` stays); fit a fresh one, or a deep copy.
    """

    def __init__(self, guide: Callable[..., Any], state: dict[str, Any]) -> None:
        self.unbound = guide
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the guide with its fitted parameters."""
        with pyro.get_param_store().scope(self.state):
            return self.unbound(*args, **kwargs)

    def to_train(self) -> Callable[..., Any]:
        """The module itself, which has the fitted parameters, to be fitted further.

        Raises:
            InvalidArgument: if the guide is a function, whose parameters are in the store only.
        """
        if not isinstance(self.unbound, torch.nn.Module):
            raise InvalidArgument(
                "this fitted guide is a function, which starts anew in every fit: pass the "
                "function itself."
            )
        return self.unbound

    def __getattr__(self, name: str) -> Any:
        if name in ("unbound", "state"):  # not set yet: while being copied or unpickled
            raise AttributeError(name)
        value = getattr(self.unbound, name)
        if not inspect.isroutine(value):
            return value

        def bound(*args: Any, **kwargs: Any) -> Any:
            with pyro.get_param_store().scope(self.state):
                return value(*args, **kwargs)

        return bound


@dataclass(frozen=True)
class FitResult:
    """A finished (or interrupted) fit.

    ``losses`` and ``params`` are copies and stay. Modules are trained in place and not copied:
    another fit of the same networks, as parts of the model or of the guide, goes on from where this
    one left them and moves this result's guide and model too. Build new networks for every fit that
    is to be compared.

    Attributes:
        guide: the guide with its fitted parameters.
        losses: the loss of every step; NaN where a step was skipped.
        params: constrained values of all parameters by name.
        model: the model.
        loss: the loss object.
        args: positional arguments that model and guide are called with now. For a fit on
            minibatches those for all data where they are at hand, see ``fit``.
        kwargs: keyword arguments likewise.
        seed: what the generators were seeded with.
        versions: of Python, torch, Pyro and this package.
        seconds: wall-clock time.
        interrupted: whether it ended before its last step.
        epochs: how many passes over the batches were finished; None for a fit without batches.
        explanation: how the steps were run, None where there were no gradient steps.
        optimizer: kind, arguments and last learning rates, "" where there were no gradient steps.
    """

    guide: FittedGuide
    losses: Tensor = field(repr=False)
    params: Mapping[str, Tensor] = field(repr=False)
    model: Callable[..., Any] = field(repr=False)
    loss: ELBO = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    seed: int
    versions: Mapping[str, str] = field(repr=False)
    seconds: float
    interrupted: bool = False
    epochs: int | None = None
    explanation: Explanation | None = field(default=None, repr=False)
    optimizer: str = field(default="", repr=False)

    def __repr__(self) -> str:
        epochs = "" if self.epochs is None else f", epochs={self.epochs}"
        ended = ", interrupted" if self.interrupted else ""
        loss = type(self.loss).__name__
        return f"FitResult({loss}, steps={self.steps}{epochs}, seed={self.seed}{ended})"

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def explain(self) -> str:
        """How the steps were run, by Pyro or compiled, and why."""
        if self.explanation is None:
            return "There were no gradient steps to compile."
        return str(self.explanation)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Make the fitted parameters those of the global param store, inside."""
        with pyro.get_param_store().scope(self.guide.state):
            yield

    def draws(self, n: int, seed: int = 0) -> Draws:
        """Draw n times from the guide with their log-weights, see ``pyro_klmodes.draws``.

        Where many are drawn the model is run as a graph, unless the fit had ``engine="eager"``:
        the draws are the same, their log-weights are up to rounding.
        """
        eager = self.explanation is not None and self.explanation.asked == "eager"
        pair = Pair(self.model, self.guide.unbound, self.args, self.kwargs)
        with self.scope(), seeded(seed):
            return many_draws(pair, n, by=None if eager else through_graph)

    def log_weights(self, n: int, seed: int = 0) -> Tensor:  # (n, *local)
        """Log-weights of n draws from the guide."""
        return self.draws(n, seed).log_w

    def sample(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Draw n values of every latent site from the guide, ``(n, *site_shape)``."""
        with self.scope(), seeded(seed), torch.no_grad():
            return sample_guide(self.model, self.guide.unbound, self.args, self.kwargs, n)
