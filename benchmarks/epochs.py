"""Time per epoch of ``fit`` against a loop over Pyro's ``SVI.step``, on the digits autoencoder.

Run ``python -m benchmarks.epochs``. Both go through the same shuffled ``DataLoader`` with Adam.
They take turns of a few epochs, in processor time on one thread; the ratio is taken turn by turn.
Setting up a fit (its checks, and the making of optimizers) is outside, as the first epoch is.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO
from torch.utils.data import DataLoader, TensorDataset

from models import images, vae
from pyro_klmodes import IWAE, ReverseKL, fit

__all__ = ["CONTESTS", "compare_epochs"]

TURNS, EPOCHS = 15, 5


def _renyi(particles: int) -> ELBO:
    return RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True)


CONTESTS: dict[str, tuple[Callable[[], ELBO], Callable[[], ELBO]]] = {
    "ReverseKL(1) / Trace_ELBO()": (lambda: ReverseKL(1), Trace_ELBO),
    "IWAE(16) / RenyiELBO(alpha=0, num_particles=16)": (lambda: IWAE(16), lambda: _renyi(16)),
}


class _Clock:
    """Notes the processor time after every epoch of a fit."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, info: object) -> None:
        """Nothing to do in a step."""

    def after_epoch(self, info: object) -> None:
        """Look at the clock."""
        self.times.append(time.process_time())


def _loader() -> DataLoader[tuple[torch.Tensor, ...]]:
    (digits, _), _ = images.digits(binary=True)
    return DataLoader(TensorDataset(digits), batch_size=100, shuffle=True)


def _ours(loss: ELBO) -> float:
    task, clock = vae.training(), _Clock()
    optim = pyro.optim.Adam({"lr": 2e-3})
    options = {"batches": _loader(), "epochs": EPOCHS + 1, "optim": optim, "progress": False}
    fit(task.model, task.guide, loss, callbacks=[clock], **options)
    return (clock.times[-1] - clock.times[0]) / EPOCHS


def _theirs(loss: ELBO) -> float:
    task, loader = vae.training(), _loader()
    pyro.clear_param_store()
    svi = SVI(task.model, task.guide, pyro.optim.Adam({"lr": 2e-3}), loss=loss)
    times = []
    for _ in range(EPOCHS + 1):
        for (x,) in loader:
            svi.step(x)
        times.append(time.process_time())
    return (times[-1] - times[0]) / EPOCHS


def compare_epochs(name: str, turns: int = TURNS) -> tuple[list[float], float]:
    """Ratios of times turn by turn, and Pyro's median time of an epoch in seconds."""
    ours, theirs = CONTESTS[name]
    pairs = [(_ours(ours()), _theirs(theirs())) for _ in range(turns)]
    return [a / b for a, b in pairs], statistics.median(b for _, b in pairs)


def main() -> None:
    """Print a line for every contest."""
    torch.set_num_threads(1)
    logging.getLogger("pyro").setLevel(logging.WARNING)
    for name in CONTESTS:
        ratios, seconds = compare_epochs(name)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name}: {middle:.2f} ({low:.2f}-{high:.2f}), Pyro's epoch {1000 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
