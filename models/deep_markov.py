"""Sequences with a latent at every time: a deep Markov model, and a linear one that is exact.

    z_t ~ Normal(transition(z_{t-1})),   x_t ~ Normal(emitter(z_t)),   t = 1..length of the sequence
    guide: z_t ~ Normal(combiner(z_{t-1}, h_t)),   h_t = a network that has read x from the end to t

The transition is gated between a linear and a nonlinear one. The guide has the structure of the
posterior, in which z_t depends on z_{t-1} and on what is seen from t on. Sequences are a plate and
time is not, so a sequence has an importance weight of its own. Those of unequal lengths are padded,
and masked where they have ended. ``annealing_factor`` scales what latents contribute to the bound,
in model and guide alike.

With a linear transition and emitter the log likelihood comes from a Kalman filter, and the
posterior itself can be drawn from: given z_{t-1}, the latent z_t is normal, with what the future
says about it summed up in a precision and a shift.

Source: the model is that of Krishnan, Shalit and Sontag (2017), "Structured inference networks for
nonlinear state space models"; Kalman (1960) for the filter. Data are made up for this file.
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy.special import ndtri
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from models.deep_markov_exact import LinearSystem
from models.networks import LinearNormal
from models.problem import Moments, Problem
from models.training import Training

__all__ = [
    "Combiner",
    "DeepMarkov",
    "Emitter",
    "GatedTransition",
    "curved_data",
    "linear_data",
    "linear_model",
    "linear_problem",
    "linear_training",
    "training",
]

SMALLEST_SCALE = 1e-3
SEED = 2017
TURN = 0.9 * np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
READ_OUT = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]])
TRANSITION_NOISE, EMISSION_NOISE = 0.4, 0.3
START = (1.5, 0.0)

SOURCE = "simulated for this file, after Krishnan, Shalit and Sontag (2017)"


class GatedTransition(nn.Module):
    """Mean and standard deviation of a latent given the one before: a gate mixes two means.

    Example:
        >>> loc, scale = GatedTransition(2, 8)(torch.zeros(5, 2))
        >>> loc.shape, scale.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(self, latents: int, hidden: int) -> None:
        super().__init__()
        self.gate = _two_layers(latents, hidden)
        self.proposal = _two_layers(latents, hidden)
        self.linear = nn.Linear(latents, latents)
        self.raw_scale = nn.Linear(latents, latents)
        with torch.no_grad():  # at first, a latent stays where it is
            self.linear.weight.copy_(torch.eye(latents))
            self.linear.bias.zero_()

    def forward(
        self,
        z: Tensor,  # (*batch, latents)
    ) -> tuple[Tensor, Tensor]:  # (*batch, latents) both
        """Mean and standard deviation."""
        gate, proposal = self.gate(z).sigmoid(), self.proposal(z)
        return (1 - gate) * self.linear(z) + gate * proposal, _scale(
            self.raw_scale(proposal.relu())
        )


class Emitter(nn.Module):
    """Mean and standard deviation of an observation given its latent.

    Example:
        >>> Emitter(2, 8, 3)(torch.zeros(5, 2))[0].shape
        torch.Size([5, 3])
    """

    def __init__(self, latents: int, hidden: int, size: int) -> None:
        super().__init__()
        self.loc = nn.Sequential(nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, size))
        self.log_scale = nn.Parameter(torch.full((size,), -0.5))

    def forward(
        self,
        z: Tensor,  # (*batch, latents)
    ) -> tuple[Tensor, Tensor]:  # (*batch, size) and (size,)
        """Mean and standard deviation."""
        return self.loc(z), self.log_scale.exp()


class Combiner(nn.Module):
    """Mean and standard deviation of a latent given the one before and what the network has read.

    Example:
        >>> Combiner(2, 8)(torch.zeros(2), torch.zeros(5, 8))[0].shape
        torch.Size([5, 2])
    """

    def __init__(self, latents: int, hidden: int) -> None:
        super().__init__()
        self.of_latent = nn.Linear(latents, hidden)
        self.loc = nn.Linear(hidden, latents)
        self.raw_scale = nn.Linear(hidden, latents)

    def forward(
        self,
        z: Tensor,  # (*batch, latents)
        read: Tensor,  # (B, hidden)
    ) -> tuple[Tensor, Tensor]:  # (*batch, latents) both
        """Mean and standard deviation."""
        features = 0.5 * (self.of_latent(z).tanh() + read)
        return self.loc(features), _scale(self.raw_scale(features))


class _Generative(nn.Module):
    """What the model learns."""

    def __init__(self, transition: nn.Module, emitter: nn.Module, latents: int) -> None:
        super().__init__()
        self.transition, self.emitter = transition, emitter
        self.start = nn.Parameter(torch.zeros(latents))


class _Inference(nn.Module):
    """What the guide learns."""

    def __init__(self, latents: int, size: int, hidden: int) -> None:
        super().__init__()
        self.reader = nn.GRU(size, hidden, batch_first=True)
        self.combiner = Combiner(latents, hidden)
        self.start = nn.Parameter(torch.zeros(latents))


class DeepMarkov(nn.Module):
    """Model and guide.

    Args:
        transition: ``GatedTransition``, or ``LinearNormal`` without a bias.
        emitter: ``Emitter``, or ``LinearNormal``.
        latents: Number of latents at every time.
        size: Number of observations at every time.
        hidden: Width of the network that the guide reads a sequence with.

    Example:
        >>> dmm = DeepMarkov(GatedTransition(2, 8), Emitter(2, 8, 3), latents=2, size=3, hidden=8)
        >>> x, lengths = curved_data(5, steps=4)
        >>> poutine.trace(dmm.model).get_trace(x, lengths).nodes["z_4"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, transition: nn.Module, emitter: nn.Module, *, latents: int, size: int, hidden: int
    ) -> None:
        super().__init__()
        self.generative = _Generative(transition, emitter, latents)
        self.inference = _Inference(latents, size, hidden)

    def model(
        self,
        x: Tensor,  # (B, steps, size)
        lengths: Tensor,  # (B,)
        annealing_factor: float = 1.0,
    ) -> None:
        """Latents ``z_1``, ``z_2``, ... and observations ``x_1``, ``x_2``, ... of all sequences.

        Args:
            x: Sequences, padded to the same number of steps.
            lengths: How many steps of each sequence are data, at least one.
            annealing_factor: What the log-probability of latents is multiplied by.
        """
        pyro.module("generative", self.generative)
        seen = _seen(x, lengths)
        with pyro.plate("sequences", len(x)):
            z = self.generative.start
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=seen[:, t]):
                    loc, scale = self.generative.transition(z)
                    with poutine.scale(scale=annealing_factor):
                        z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, scale).to_event(1))
                    loc, scale = self.generative.emitter(z)
                    pyro.sample(f"x_{t + 1}", dist.Normal(loc, scale).to_event(1), obs=x[:, t])

    def guide(
        self,
        x: Tensor,  # (B, steps, size)
        lengths: Tensor,  # (B,)
        annealing_factor: float = 1.0,
    ) -> None:
        """Every latent given the one before and the present and future observations."""
        pyro.module("inference", self.inference)
        seen, read = _seen(x, lengths), self._read_backwards(x, lengths)
        with pyro.plate("sequences", len(x)):
            z = self.inference.start
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=seen[:, t]), poutine.scale(scale=annealing_factor):
                    loc, scale = self.inference.combiner(z, read[:, t])
                    z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, scale).to_event(1))

    def _read_backwards(
        self,
        x: Tensor,  # (B, steps, size)
        lengths: Tensor,  # (B,)
    ) -> Tensor:  # (B, steps, hidden)
        """What a recurrent network knows that has read every sequence from its own end."""
        time = torch.arange(x.shape[1], device=x.device)
        # Turned around within its own length; the padding stays behind, where it is read last.
        place = torch.where(_seen(x, lengths), lengths[:, None] - 1 - time, time)
        turned = x.gather(1, place[..., None].expand_as(x))
        read, _ = self.inference.reader(turned)
        return read.gather(1, place[..., None].expand_as(read))

    def system(self) -> LinearSystem:
        """The matrices of a linear transition and emitter at their present values.

        Raises:
            ValueError: If one of them is not linear.
        """
        transition, emitter = self.generative.transition, self.generative.emitter
        if not (isinstance(transition, LinearNormal) and isinstance(emitter, LinearNormal)):
            raise ValueError("only a model with a linear transition and emitter is a linear system")
        return LinearSystem(
            start=self.generative.start.detach(),
            transition=transition.linear.weight.detach(),
            transition_sd=transition.log_scale.detach().exp(),
            emission=emitter.linear.weight.detach(),
            offset=emitter.linear.bias.detach(),
            emission_sd=emitter.log_scale.detach().exp(),
        )


def _linear_transition() -> LinearNormal:
    return LinearNormal(2, 2, bias=False)


def _two_layers(latents: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, latents))


def _scale(raw: Tensor) -> Tensor:
    return SMALLEST_SCALE + nn.functional.softplus(raw)


def _seen(
    x: Tensor,  # (B, steps, size)
    lengths: Tensor,  # (B,)
) -> Tensor:  # (B, steps), whether a step is data
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def linear_data(
    num_data: int, steps: int = 12, seed: int = SEED, *, equal: bool = False
) -> tuple[Tensor, Tensor]:
    """Sequences, (N, steps, 3), that turn and shrink with noise, and their lengths, (N,).

    Lengths are at least half of ``steps``, and as long as that if they are to be ``equal``. The
    padding is zero.

    Raises:
        ValueError: If there are no data or no steps.

    Example:
        >>> x, lengths = linear_data(4)
        >>> x.shape, lengths
        (torch.Size([4, 12, 3]), tensor([ 9,  6, 11,  7]))
    """
    return _simulate(num_data, steps, seed, equal=equal, curved=False)


def curved_data(num_data: int, steps: int = 12, seed: int = SEED) -> tuple[Tensor, Tensor]:
    """As ``linear_data`` but for a transition and an emission that bend: ``tanh`` and squares.

    Raises:
        ValueError: If there are no data or no steps.

    Example:
        >>> curved_data(4)[0].shape
        torch.Size([4, 12, 3])
    """
    return _simulate(num_data, steps, seed, equal=False, curved=True)


def _simulate(
    num_data: int, steps: int, seed: int, *, equal: bool, curved: bool
) -> tuple[Tensor, Tensor]:
    if min(num_data, steps) < 1:
        raise ValueError(f"num_data and steps must be at least 1, got {num_data} and {steps}")
    generator = np.random.Generator(np.random.PCG64(seed))
    normal = ndtri(generator.random((num_data, steps, 5)))
    shortest = (steps + 1) // 2
    lengths = shortest + (generator.random(num_data) * (steps + 1 - shortest)).astype(int)
    if equal:
        lengths[:] = steps
    x = np.zeros((num_data, steps, 3))
    z = np.tile(START, (num_data, 1))
    for t in range(steps):
        turned = z @ TURN.T
        z = (1.6 * np.tanh(turned) if curved else turned) + TRANSITION_NOISE * normal[:, t, :2]
        shown = z @ READ_OUT.T
        shown[:, 2] += 0.5 * curved * z[:, 0] ** 2
        x[:, t] = (shown + EMISSION_NOISE * normal[:, t, 2:]) * (t < lengths)[:, None]
    return torch.as_tensor(x, dtype=torch.get_default_dtype()), torch.as_tensor(lengths)


@torch.no_grad()
def linear_model(hidden: int = 16) -> DeepMarkov:
    """The linear system that ``linear_data`` comes from, with the guide of a deep Markov model.

    Example:
        >>> linear_model().system().transition_sd
        tensor([0.4000, 0.4000])
    """
    transition, emitter = _linear_transition(), LinearNormal(2, 3)
    dmm = DeepMarkov(transition, emitter, latents=2, size=3, hidden=hidden)
    transition.linear.weight.copy_(torch.as_tensor(TURN))
    transition.log_scale.fill_(math.log(TRANSITION_NOISE))
    emitter.linear.weight.copy_(torch.as_tensor(READ_OUT))
    emitter.linear.bias.zero_()
    emitter.log_scale.fill_(math.log(EMISSION_NOISE))
    dmm.generative.start.copy_(torch.tensor(START))
    return dmm


def linear_problem(num_data: int = 8, steps: int = 5) -> Problem:
    """The latents of a few sequences of equal lengths, in the linear system they come from.

    Example:
        >>> case = linear_problem()
        >>> case.reference["z_5"].mean.shape
        torch.Size([8, 2])
    """
    x, lengths = linear_data(num_data, steps, equal=True)
    dmm = linear_model()
    dmm.generative.requires_grad_(requires_grad=False).eval()  # it is given, not learnt
    system = dmm.system()
    mean, sd = system.smoothed(x, lengths)

    def exact_guide(x: Tensor, lengths: Tensor, annealing_factor: float = 1.0) -> None:
        gains, shifts, roots = system.conditionals(x, lengths)
        with pyro.plate("sequences", len(x)):
            z = system.start
            for t in range(x.shape[1]):
                loc = (gains[:, t] @ z[..., None])[..., 0] + shifts[:, t]
                q = dist.MultivariateNormal(loc, scale_tril=roots[:, t])
                with poutine.mask(mask=_seen(x, lengths)[:, t]):
                    z = pyro.sample(f"z_{t + 1}", q)

    return Problem(
        name="linear deep Markov model",
        model=dmm.model,
        args=(x, lengths),
        guide=dmm.guide,
        exact_guide=exact_guide,
        reference={f"z_{t + 1}": Moments(mean[:, t], sd[:, t]) for t in range(steps)},
        log_evidence=float(system.log_likelihood(x, lengths).sum()),
        how="closed form",
        source=SOURCE,
        guides=("AutoNormal",),
    )


def training(num_train: int = 500, num_test: int = 200) -> Training:
    """A deep Markov model for sequences that bend.

    Example:
        >>> training().train[0][0].shape
        torch.Size([12, 3])
    """
    dmm = DeepMarkov(GatedTransition(2, 16), Emitter(2, 16, 3), latents=2, size=3, hidden=16)
    x, lengths = curved_data(num_train + num_test)
    return _training("deep Markov model", dmm, x, lengths, num_train)


def linear_training(num_train: int = 500, num_test: int = 200) -> Training:
    """A linear one for sequences that turn; the exact log likelihood is there.

    Example:
        >>> task = linear_training()
        >>> task.exact(*task.test[:]).shape
        torch.Size([200])
    """
    dmm = DeepMarkov(_linear_transition(), LinearNormal(2, 3), latents=2, size=3, hidden=16)
    x, lengths = linear_data(num_train + num_test)
    return _training("linear deep Markov model", dmm, x, lengths, num_train)


def _training(name: str, dmm: DeepMarkov, x: Tensor, lengths: Tensor, num_train: int) -> Training:
    def exact(x: Tensor, lengths: Tensor) -> Tensor:
        return dmm.system().log_likelihood(x, lengths)

    return Training(
        name=name,
        model=dmm.model,
        guide=dmm.guide,
        train=TensorDataset(x[:num_train], lengths[:num_train]),
        test=TensorDataset(x[num_train:], lengths[num_train:]),
        batch_size=50,
        learning_rate=1e-2,
        epochs=50,
        likelihood="normal",
        source=SOURCE,
        exact=exact if isinstance(dmm.generative.transition, LinearNormal) else None,
    )
