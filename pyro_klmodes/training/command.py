"""The command ``klmodes train``."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pyro_klmodes.errors import InvalidArgument, KLModesError, NonFiniteLoss
from pyro_klmodes.inference import Checkpoint
from pyro_klmodes.named_choices import FEW, MANY, known_losses, losses_named
from pyro_klmodes.training.files import write
from pyro_klmodes.training.run import Settings, Trained, minibatches, run
from pyro_klmodes.training.show import summary_table
from pyro_klmodes.training.task import Task, load_task

__all__ = ["named_loss", "train"]

CHECKPOINT = "checkpoint.pt"
FAILED, INTERRUPTED = 1, 130
# renyi_<alpha> is not among the known ones
PARTICLES_HELP = "Draws per datum. [default: {} for {}, {} for the others]".format(
    FEW,
    ", ".join(name for name, make in known_losses().items() if make().num_particles == FEW),
    MANY,
)


@click.command("train")
@click.argument("spec", metavar="MODEL")
@click.option("--loss", "loss_name", default="reverse_kl", show_default=True, help="Its name.")
@click.option("--particles", type=click.IntRange(min=1), help=PARTICLES_HELP)
@click.option("--epochs", type=click.IntRange(min=1), help="[default: the model's]")
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: the model's]")
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate of Adam. [default: the model's]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--held-out-particles",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Draws per datum for the bound on held-out data at the end.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder. [default: build/train/<model name>-<loss>]",
)
@click.option("--resume", is_flag=True, help="Go on with the training that is in the folder.")
def train(
    *,
    spec: str,
    loss_name: str,
    particles: int | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int,
    held_out_particles: int,
    out: Path | None,
    resume: bool,
) -> int:
    """Train MODEL and its guide on its data by a loss, and write tables and pictures.

    MODEL is package.module, package.module:attribute or path/to/file.py:attribute. The attribute
    is `training` unless given: a function that returns model, guide, data to learn from and data
    held out. The folder holds a checkpoint, written after every epoch, to --resume from.
    """
    loss = named_loss(loss_name, particles)
    task = load_task(spec, seed)
    settings = Settings(
        loss=loss_name,
        epochs=epochs or task.epochs,
        batch_size=batch_size,
        learning_rate=lr or task.learning_rate,
        seed=seed,
        held_out_particles=held_out_particles,
    )
    minibatches(task, loss, batch_size)  # refused before a folder is made
    folder = _folder(out or Path("build", "train", f"{_slug(task.name)}-{_slug(loss_name)}"))
    checkpoint = _checkpoint(folder, resume=resume)
    console = Console()
    try:
        trained = run(
            task,
            loss,
            settings,
            checkpoint,
            progress=sys.stderr.isatty(),
            say=lambda line: console.print(line, highlight=False, soft_wrap=True),
        )
    except NonFiniteLoss as error:
        return _failed(str(error))
    except KLModesError as error:  # this loss, or these data, are not for this model
        raise click.ClickException(str(error)) from error
    except Exception as error:  # of the user's own model
        return _failed(f"training failed: {type(error).__name__}: {error}")
    done = trained.result.epochs or 0
    if done > settings.epochs:
        console.print(
            f"--epochs {settings.epochs}: the training in the folder has {done} epochs already; "
            "nothing was added",
            highlight=False,
            soft_wrap=True,
        )
        settings = replace(settings, epochs=done)
    write(folder, task, settings, trained, _command(spec, settings, particles, folder))
    return _told(console, task, settings, trained, folder)


def named_loss(name: str, particles: int | None) -> Any:
    """A new loss of this name, with a number of particles where one is asked for.

    Raises:
        InvalidArgument: if there is no such loss, or it takes no such number.
    """
    make: Any = losses_named([name])[name]
    if particles is None:
        return make()
    if "num_particles" not in inspect.signature(make).parameters:
        raise InvalidArgument(f"--particles {particles}: {name} takes no number of particles")
    try:
        return make(num_particles=particles)
    except InvalidArgument as error:
        raise InvalidArgument(f"--particles {particles}: {error}") from error


def _folder(folder: Path) -> Path:
    """Make the folder and try to write in it, now rather than after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InvalidArgument(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another by --out"
        ) from error


def _checkpoint(folder: Path, *, resume: bool) -> Checkpoint:
    """The checkpoint in a folder; an hour of training is not overwritten by mistake."""
    path = folder / CHECKPOINT
    if path.exists() and not resume:
        raise InvalidArgument(
            f"{folder} already holds a training; go on with it by --resume, or choose another "
            "folder by --out"
        )
    return _InFolder(path)


class _InFolder(Checkpoint):
    """A checkpoint that speaks of options rather than of arguments."""

    def problem(self, what: str) -> InvalidArgument:
        return InvalidArgument(
            f"cannot --resume from {self.path}: {what}. Nothing was overwritten; give the options "
            "that the training was begun with, or choose another folder by --out and leave out "
            "--resume"
        )


def _command(spec: str, settings: Settings, particles: int | None, folder: Path) -> str:
    """The command that does all this again."""
    words = ["klmodes", "train", spec, "--loss", settings.loss]
    if particles is not None:
        words += ["--particles", str(particles)]
    if settings.batch_size is not None:
        words += ["--batch-size", str(settings.batch_size)]
    words += ["--epochs", str(settings.epochs), "--lr", str(settings.learning_rate)]
    words += ["--seed", str(settings.seed)]
    words += ["--held-out-particles", str(settings.held_out_particles), "--out", str(folder)]
    return shlex.join(words)


def _told(console: Console, task: Task, settings: Settings, trained: Trained, folder: Path) -> int:
    console.print(summary_table(task, settings, trained))
    console.print("Folder:", end=" ")
    # Not wrapped at the terminal's width: the path is there to be copied.
    console.print(str(folder.resolve()), soft_wrap=True, markup=False, highlight=False)
    if trained.result.interrupted:
        click.echo("klmodes: interrupted; go on with the same command and --resume", err=True)
        return INTERRUPTED
    return 0


def _failed(message: str) -> int:
    click.echo(f"klmodes: {' '.join(message.split())}", err=True)
    return FAILED


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
