"""``AggressiveInference``: let the guide catch up before every step of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import Call, is_one_shot
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.inference.modules import evaluating
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.runs import Pair, run

__all__ = ["AggressiveInference", "check_inner", "parameters_of_guide"]


class AggressiveInference:
    r"""Inner steps of the guide alone, against an encoder that lags behind its decoder.

    Early in the training of a variational autoencoder the guide :math:`q(z|x)` is far from the
    posterior of the moment, and the model learns to do without z: the latents collapse. As long as
    this is active, before each step the guide's parameters alone are moved, on minibatches of their
    own, until the mean loss of ``every`` inner steps is no smaller than that of the ``every``
    before, or ``most`` were taken; the step itself then moves the model's parameters alone. At the
    end of each epoch the mutual information of data and latents under the guide is asked for; once
    it has not risen, training goes on as usual, with all parameters in every step.

    The guide's parameters are those that a run of the guide touches and a run of the model does
    not; shared ones are the model's. Inner steps do not count as steps, but schedules of the loss,
    which go by gradients, move on with them.

    Args:
        mutual_information: called with model and guide, returns a number. It should look at
            held-out data; random states are put back after it, and modules are as in evaluation.
        most: inner steps before a step, at most.
        every: inner steps that are compared to the ones before.
        check_every: steps between two looks at the mutual information, in a fit without batches.

    Attributes:
        active: whether the guide is still trained ahead.
        history: what ``mutual_information`` has returned.
        inner_steps: how many there were in all.

    Raises:
        InvalidArgument: for numbers out of range; by ``fit`` if the guide has no parameters of its
            own, or if the mutual information is not a number.

    Source: He, Spokoyny, Neubig and Berg-Kirkpatrick (2019), "Lagging inference networks and
        posterior collapse in variational autoencoders", Algorithm 1.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes import ReverseKL, fit
        >>> from pyro_klmodes.inference import AggressiveInference
        >>> x = torch.tensor([-1.0, 0.5, 2.0])
        >>> def model():
        ...     slope = pyro.param("slope", torch.tensor(0.5))
        ...     with pyro.plate("data", 3):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(slope * z, 1.0), obs=x)
        >>> def guide():
        ...     gain = pyro.param("gain", torch.tensor(0.0))
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("z", dist.Normal(gain * x, 0.7))
        >>> inner = AggressiveInference(
        ...     mutual_information=lambda model, guide: pyro.param("gain").abs(),
        ...     most=20, every=5, check_every=10)
        >>> result = fit(model, guide, ReverseKL(4), steps=30, inner=inner, progress=False)
        >>> result.steps, inner.inner_steps > 0, len(inner.history)
        (30, True, 3)
    """

    def __init__(
        self,
        *,
        mutual_information: Callable[[Callable[..., Any], Callable[..., Any]], Any],
        most: int = 100,
        every: int = 10,
        check_every: int = 100,
    ) -> None:
        if not callable(mutual_information):
            raise InvalidArgument(
                f"mutual_information={mutual_information!r} must be a function of model and guide."
            )
        self.mutual_information = mutual_information
        self.every = checked_whole("every", every, 1)
        self.most = checked_whole("most", most, 1)
        self.check_every = checked_whole("check_every", check_every, 1)
        self.begin()

    def __repr__(self) -> str:
        return (
            f"AggressiveInference(most={self.most}, every={self.every}, "
            f"check_every={self.check_every})"
        )

    def begin(self) -> None:
        """Forget another fit."""
        self.active = True
        self.history: list[float] = []
        self.inner_steps = 0

    def catch_up(self, step: Callable[[], float]) -> None:
        """Take inner steps as long as they help.

        Args:
            step: takes one and returns its loss, NaN if it was skipped.
        """
        last = math.inf
        seen: list[float] = []
        for _ in range(self.most):
            seen.append(step())
            self.inner_steps += 1
            if len(seen) == self.every:
                mean = float(torch.tensor(seen, dtype=torch.float64).nanmean())
                if not mean < last:
                    return
                last, seen = mean, []

    def look(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        """Stop once the mutual information has not risen.

        Raises:
            InvalidArgument: if it is not a number.
        """
        with seeded(None), evaluating(model, guide), torch.no_grad():
            value = torch.as_tensor(self.mutual_information(model, guide)).item()
        if not math.isfinite(value):
            raise InvalidArgument(
                f"mutual_information is {value} at look {len(self.history)}; it must be finite."
            )
        self.active = not self.history or value > max(self.history)
        self.history.append(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "active": self.active,
            "history": list(self.history),
            "inner_steps": self.inner_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.active = state["active"]
        self.history = list(state["history"])
        self.inner_steps = state["inner_steps"]


def check_inner(inner: Any, batches: Any) -> None:
    """Refuse what is none, and batches that cannot be gone through twice at a time.

    Raises:
        InvalidArgument: saying what to change.
    """
    if inner is None:
        return
    if not isinstance(inner, AggressiveInference):
        raise InvalidArgument(f"inner={inner!r} is no AggressiveInference(...).")
    if is_one_shot(batches):
        raise InvalidArgument(
            "inner steps take minibatches of their own, and batches can be iterated over only "
            "once. Pass a list or a DataLoader."
        )
    if getattr(batches, "persistent_workers", False) or hasattr(batches, "state_dict"):
        raise InvalidArgument(
            "inner steps take minibatches of their own, and a loader with persistent_workers or a "
            "state of its own has one iterator only. Pass a plain DataLoader."
        )


def parameters_of_guide(
    model: Callable[..., Any], guide: Callable[..., Any], call: Call
) -> set[Tensor]:
    """Unconstrained parameters that the guide touches and the model does not.

    Raises:
        InvalidArgument: if there are none.
    """
    with seeded(None), evaluating(model, guide), torch.no_grad():
        traces = run(Pair(model, guide, *call), particles=Single())
    found = _touched(guide, traces.guide) - _touched(model, traces.model)
    if not found:
        raise InvalidArgument(
            "inner: the guide has no parameters that the model does not have too, so that nothing "
            "can be trained ahead."
        )
    return found


def _touched(function: Callable[..., Any], trace: Any) -> set[Tensor]:
    of_run = {s["value"].unconstrained() for s in trace.nodes.values() if s["type"] == "param"}
    of_module = function.parameters() if isinstance(function, torch.nn.Module) else ()
    return of_run | set(of_module)
