"""Laws of losses: strict drop-ins for Pyro's."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from torch.distributions import constraints

from pyro_klmodes.losses import DivergenceLoss

__all__ = ["LOSS_LAWS"]

LossMaker = Callable[[], DivergenceLoss]


def _model(data: torch.Tensor) -> None:
    prior = pyro.param("prior", torch.tensor(0.3))
    z = pyro.sample("z", dist.Normal(prior, 1.0))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=data)


def _guide(data: torch.Tensor) -> None:
    # off the posterior on the far side of the prior, so that weights are uneven and signs known
    loc = pyro.param("loc", torch.tensor(4.0))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


_DATA = (2.4, 3.1)


def _gradients(
    make: LossMaker, *, seed: int = 0, before: int = 0
) -> tuple[float, dict[str, torch.Tensor]]:
    """A loss and its gradients, after some that are not looked at."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    loss = make()
    for _ in range(before):
        loss.loss_and_grads(_model, _guide, torch.tensor(_DATA))
        for _, p in pyro.get_param_store().named_parameters():
            p.grad = None
    value = loss.loss_and_grads(_model, _guide, torch.tensor(_DATA))
    found = dict(pyro.get_param_store().named_parameters())
    return value, {n: torch.zeros(()) if p.grad is None else p.grad for n, p in found.items()}


def trains_in_svi(make: LossMaker) -> None:
    """``SVI`` takes it, steps return one float, and every parameter moves."""
    pyro.clear_param_store()
    svi = SVI(_model, _guide, pyro.optim.Adam({"lr": 0.01}), loss=make())
    value = svi.step(torch.tensor(_DATA))
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert isinstance(svi.evaluate_loss(torch.tensor(_DATA)), float)
    start = {"prior": 0.3, "loc": 4.0, "scale": 0.5}
    moved = {n: float(pyro.param(n).detach()) for n in start}
    assert all(abs(moved[n] - start[n]) > 1e-4 for n in start), f"parameters {moved}"


def differentiable_loss_has_the_same_gradient(make: LossMaker) -> None:
    """The tensor form, the module form and the step form agree for one seed."""
    value, expected = _gradients(make)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    loss = make().differentiable_loss(_model, _guide, torch.tensor(_DATA))
    loss.backward()
    assert float(loss.detach()) == value
    for name, p in pyro.get_param_store().named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


def the_model_raises_a_bound(make: LossMaker) -> None:
    """Parameters of the model follow a bound on the evidence, whatever the guide follows.

    Draws and data all lie above the prior's mean, so that every bound rises with it.
    """
    gradients = [float(_gradients(make, seed=seed)[1]["prior"]) for seed in range(10)]
    assert max(gradients) < 0, f"gradients of the prior's mean {gradients}"


def survives_copies(make: LossMaker) -> None:
    """A deep copy and a pickled copy give the same numbers, and go on where the loss stood."""
    loss = make()
    _gradients(lambda: loss)
    copied, pickled = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
    value, _ = _gradients(lambda: loss)
    assert _gradients(lambda: copied)[0] == value
    assert _gradients(lambda: pickled)[0] == value


def gradient_is_its_own(make: LossMaker, others: dict[str, LossMaker]) -> None:
    """No other loss gives the same training signal to the guide, in its second step at least."""
    _, own = _gradients(make, before=1)
    for name, other in others.items():
        _, theirs = _gradients(other, before=1)
        same = all(torch.allclose(own[n], theirs[n], rtol=1e-6) for n in ("loc", "scale"))
        assert not same, f"the gradient is that of {name}"


LOSS_LAWS: tuple[Callable[[LossMaker], None], ...] = (
    trains_in_svi,
    differentiable_loss_has_the_same_gradient,
    the_model_raises_a_bound,
    survives_copies,
)
