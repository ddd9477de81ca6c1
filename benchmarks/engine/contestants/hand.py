"""The step written directly in torch and compiled whole by ``torch.compile``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad_and_value

from benchmarks.engine.cell import Cell
from benchmarks.engine.problems.hand_guides import Parameters, Written, written_for
from benchmarks.engine.problems.in_pyro import arguments
from benchmarks.engine.run import Run

__all__ = ["LOSSES", "build", "warm_up"]

Loss = Callable[..., Tensor]


def elbo(written: Written) -> Loss:
    """Minus the mean log-weight."""

    def loss(parameters: Parameters, noise: Tensor, *data: Tensor) -> Tensor:
        log_p, log_q = written.draw(parameters, noise, *data)
        return -(log_p - log_q).mean(0).sum()

    return loss


def iwae(written: Written) -> Loss:
    """Minus the logarithm of the mean weight."""

    def loss(parameters: Parameters, noise: Tensor, *data: Tensor) -> Tensor:
        log_p, log_q = written.draw(parameters, noise, *data)
        log_w = log_p - log_q
        return -(torch.logsumexp(log_w, 0) - math.log(log_w.shape[0])).sum()

    return loss


def forward_kl(written: Written) -> Loss:
    """Its gradient is that of the forward divergence; a model's parameters follow the IWAE."""

    def loss(parameters: Parameters, noise: Tensor, *data: Tensor) -> Tensor:
        log_p, log_q = written.score(parameters, noise, *data)
        weights = torch.softmax((log_p - log_q).detach(), 0)
        return -(weights * (log_p + log_q)).sum()

    return loss


LOSSES: dict[str, Callable[[Written], Loss]] = {
    "ELBO": elbo,
    "IWAE": iwae,
    "forward KL": forward_kl,
}


def build(cell: Cell) -> Run:
    """A whole step as one function without side effects, given to the compiler.

    Parameters are one vector: what a step costs besides its arithmetic grows with the number of
    tensors that go in and out.
    """
    data = arguments(cell.model)
    written = written_for(cell, data)
    loss = LOSSES[cell.objective](written)
    start = written.start()
    sizes, shapes = [p.numel() for p in start], [p.shape for p in start]
    rate = cell.learning_rate

    def of_vector(vector: Tensor, noise: Tensor, *data: Tensor) -> Tensor:
        parts = zip(vector.split(sizes), shapes, strict=True)
        return loss(tuple(part.reshape(shape) for part, shape in parts), noise, *data)

    differentiate = grad_and_value(of_vector)

    def step(vector, first, second, count, noise, *data):
        gradient, value = differentiate(vector, noise, *data)
        count = count + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        root = (1 - 0.999**count).sqrt()
        vector = vector - rate / (1 - 0.9**count) * first / (second.sqrt() / root + 1e-8)
        return vector, first, second, count, value

    torch._dynamo.reset()  # another cell's steps count against the limit of recompilations
    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    vector = torch.cat([p.reshape(-1) for p in start])
    state = (vector, torch.zeros_like(vector), torch.zeros_like(vector), torch.zeros(()))
    shape = (cell.particles, *written.noise)

    @torch.no_grad()
    def block(steps: int) -> float:
        nonlocal state
        for _ in range(steps):
            *state, value = compiled(*state, torch.randn(shape), *data)
        return float(value)

    return Run(block)


def warm_up() -> None:
    """What the compiler needs once per machine: headers, and its own modules."""
    torch.compile(lambda x: x.sin() + 1)(torch.zeros(3))
