"""What each loss does to a variational autoencoder of the digits: two tables, three seeds.

Run ``python -m benchmarks.digits losses`` for the bound on held-out digits of every loss, and
``python -m benchmarks.digits factorial`` for bounds of the model by divergences of the guide (about
half an hour each on one core; ``--epochs 3`` for a look).

Binary digits of 8 by 8 (scikit-learn's, 1400 to learn from and 397 held out), 20 latents, one
hidden layer of 100 units, Adam at 2e-3, batches of 100. The bound is that of 5000 draws from the
guide, in nats per digit; the standard error is over seeds. Active units have a variance of their
posterior means over the training data above 0.01 (Burda, Grosse and Salakhutdinov, 2016).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import click
import pyro
import torch
from torch.utils.data import DataLoader, TensorDataset

from models import images
from models.networks import Decoder, Encoder
from models.vae import VAE, BernoulliPixels, NormalPrior
from pyro_klmodes import (
    IWAE,
    ForwardKL,
    ReverseKL,
    ScoreClimbing,
    Separate,
    WakeSleep,
    estimators,
    fit,
    held_out_bound,
    objectives,
)
from pyro_klmodes.inference import by_index
from pyro_klmodes.losses import DivergenceLoss

__all__ = ["FACTORIAL", "LOSSES", "Trained", "train"]

LATENTS, HIDDEN, BATCH, K = 20, 100, 100, 20
SEEDS = (0, 1, 2)

ELBO, BOUND = objectives.ReverseKL(), objectives.PowerMean(0.0)

LOSSES: dict[str, Callable[[], DivergenceLoss]] = {
    "ELBO": lambda: ReverseKL(1),
    "IWAE 5": lambda: IWAE(5),
    "IWAE 50": lambda: IWAE(50),
    "DReG 20": lambda: IWAE(20, estimator=estimators.doubly),
    "RWS 20": lambda: ForwardKL(20),
    "wake-sleep 20": lambda: WakeSleep(20),
    "score climbing 20": lambda: ScoreClimbing(20),
}

# The bound that the model raises, by the divergence of the guide, all with K draws.
FACTORIAL: dict[str, Callable[[], DivergenceLoss]] = {
    "ELBO x reverse": lambda: ReverseKL(K),
    "ELBO x forward": lambda: WakeSleep(K, wake_phi=1.0, sleep_phi=0.0, bound="elbo"),
    "ELBO x sleep": lambda: WakeSleep(K, bound="elbo"),
    "IWAE x reverse": lambda: Separate(ELBO, BOUND, K),
    "IWAE x forward": lambda: ForwardKL(K),
    "IWAE x sleep": lambda: WakeSleep(K),
}


class Trained(NamedTuple):
    """What came of one fit."""

    bound: float  # of 5000 draws, in nats per held-out digit
    elbo: float
    active: int
    seconds: float


def train(make: Callable[[], DivergenceLoss], seed: int, epochs: int) -> Trained:
    """Train an autoencoder by a loss and look at it."""
    torch.manual_seed(seed)
    pyro.clear_param_store()
    size = images.DIGIT_SIDE**2
    vae = VAE(
        Encoder(size, HIDDEN, LATENTS),
        Decoder(LATENTS, HIDDEN, size),
        NormalPrior(LATENTS),
        BernoulliPixels(),
    )
    (digits, _), (test, _) = images.digits(binary=True)
    loss = make()
    started = time.process_time()
    result = fit(
        vae.model,
        vae.guide,
        loss,
        *((digits,) if isinstance(loss, ScoreClimbing) else ()),
        batches=_batches(digits, by_position=isinstance(loss, ScoreClimbing)),
        epochs=epochs,
        optim=pyro.optim.Adam({"lr": 2e-3}),
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - started
    with torch.no_grad():
        means, _ = vae.encoder(digits)
    return Trained(
        bound=held_out_bound(vae.model, result.guide, test, num_particles=5000).bound,
        elbo=held_out_bound(vae.model, result.guide, test, num_particles=1, seed=1).bound,
        active=int((means.var(0) > 0.01).sum()),
        seconds=seconds,
    )


def _batches(digits: torch.Tensor, *, by_position: bool) -> object:
    """Shuffled batches: chains of score climbing belong to a datum, so they need its index."""
    data = TensorDataset(torch.arange(len(digits)) if by_position else digits)
    if not by_position:
        return DataLoader(data, batch_size=BATCH, shuffle=True)
    order = torch.utils.data.RandomSampler(data)
    return by_index(torch.utils.data.BatchSampler(order, BATCH, drop_last=False))


@click.command()
@click.argument("table", type=click.Choice(["losses", "factorial"]))
@click.option("--epochs", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--only", default="", help="Rows whose name contains this.")
def main(table: str, epochs: int, only: str) -> None:
    """Print a row for every fit, and one for the seeds together."""
    torch.set_num_threads(1)
    rows = {"losses": LOSSES, "factorial": FACTORIAL}[table]
    click.echo(
        "loss | bound, nats | its standard error | ELBO | active units by seed | s per epoch"
    )
    for name, make in rows.items():
        if only not in name:
            continue
        found = [train(make, seed, epochs) for seed in SEEDS]
        bounds = torch.tensor([each.bound for each in found])
        elbo = sum(each.elbo for each in found) / len(found)
        pace = sum(each.seconds for each in found) / len(found) / epochs
        click.echo(
            f"{name} | {float(bounds.mean()):.3f} | {float(bounds.std()) / len(found) ** 0.5:.3f} "
            f"| {elbo:.3f} | {', '.join(str(each.active) for each in found)} | {pace:.3f}"
        )


if __name__ == "__main__":
    main()
