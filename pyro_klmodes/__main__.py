"""The command line: ``python -m pyro_klmodes`` with ``compare`` or ``train``, or ``klmodes``."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from pyro_klmodes import tables
from pyro_klmodes.comparison import Comparison, fit_pairs
from pyro_klmodes.entries import Failed, Fitted, Outcome, Settings
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.model_spec import Target, load_target
from pyro_klmodes.named_choices import OWN, guides_named, losses_named
from pyro_klmodes.training import train

__all__ = ["main"]

DEFAULT_LOSSES = ("reverse_kl", "forward_kl")
DEFAULT_GUIDES = ("AutoNormal", "AutoMultivariateNormal")
USAGE_ERROR, ALL_FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A mistake of the user is one line on stderr and exit code 2, never a traceback.
    """
    try:
        return _commands.main(args=arguments, prog_name="klmodes", standalone_mode=False) or 0
    except (click.ClickException, InvalidArgument) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"klmodes: {' '.join(message.split())}", err=True)
        return USAGE_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo("klmodes: interrupted; what was finished is on disk", err=True)
        return 130


@click.group(no_args_is_help=False)
def _commands() -> None:
    """Choose the divergence of a variational fit in Pyro."""


_commands.add_command(train)


@_commands.command("compare")
@click.argument("spec", metavar="MODEL")
@click.option(
    "--losses", multiple=True, default=DEFAULT_LOSSES, show_default=True, help="Names, by commas."
)
@click.option(
    "--guides",
    multiple=True,
    help="Autoguide names, by commas; `own` is the guide that comes with the model. "
    f"[default: the model's, else {','.join(DEFAULT_GUIDES)}]",
)
@click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True)
@click.option("--draws", type=click.IntRange(min=100), default=4000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder. [default: build/compare/<model name>]"
)
def _compare(
    spec: str,
    losses: tuple[str, ...],
    guides: tuple[str, ...],
    steps: int,
    draws: int,
    seed: int,
    out: Path | None,
) -> int:
    """Fit MODEL by every pair of guide and loss, and write tables, figures and a page.

    MODEL is package.module, package.module:attribute or path/to/file.py:attribute. The attribute
    is `problem` unless given; an attribute `problem` or `*_problem` is a function that returns a
    model with its data and reference, any other attribute is a Pyro model without arguments.
    What an earlier comparison wrote into the folder is replaced; all else in it stays.
    """
    target = load_target(spec)
    chosen_losses = losses_named(_names(losses))
    worth_trying = target.guides or ((OWN,) if target.guide else DEFAULT_GUIDES)
    chosen_guides = guides_named(_names(guides or worth_trying), own=target.guide)
    folder = _writable_folder(out or Path("build", "compare", _slug(target.name)))
    command = ["klmodes", "compare", spec, "--losses", ",".join(chosen_losses)]
    command += ["--guides", ",".join(chosen_guides), "--steps", str(steps)]
    command += ["--draws", str(draws), "--seed", str(seed)]
    settings = Settings(num_draws=draws, seed=seed, command=shlex.join(command), steps=steps)

    console, outcomes = Console(), list[Outcome]()
    for outcome in fit_pairs(
        target,
        chosen_losses,
        chosen_guides,
        steps=steps,
        seed=seed,
        num_draws=draws,
        progress=sys.stderr.isatty(),
    ):
        if not outcomes:  # until now there was nothing to put in the place of an earlier run
            tables.remove_earlier(folder)
        outcomes.append(outcome)
        # At once: what is done stays on disk, whatever happens to the fits after it.
        so_far = _comparison(target, outcomes, settings)
        if isinstance(outcome, Fitted):
            tables.write_draws(folder, so_far, outcome)
        tables.write_tables(folder, so_far)
        console.print(_line(outcome, len(outcomes), len(chosen_guides) * len(chosen_losses)))
    comparison = _comparison(target, outcomes, settings)
    page = comparison.save(folder)
    console.print(comparison)
    console.print("Page:", end=" ")
    # Not wrapped at the terminal's width: the path is there to be copied.
    console.print(str(page.resolve()), soft_wrap=True, markup=False, highlight=False)
    return 0 if comparison.fits else ALL_FAILED


def _comparison(target: Target, outcomes: Sequence[Outcome], settings: Settings) -> Comparison:
    return Comparison(tuple(outcomes), target.known, target.name, target.source, settings)


def _line(outcome: Outcome, done: int, count: int) -> Text:
    if isinstance(outcome, Failed):
        return Text(f"{done}/{count}  {outcome.label}: failed")
    return Text(f"{done}/{count}  {outcome.label}: {outcome.verdict}")


def _names(options: Iterable[str]) -> list[str]:
    """Names from options given several times or with commas; spaces do not matter."""
    names = (name.strip() for option in options for name in option.split(","))
    return [name for name in names if name]


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"


def _writable_folder(folder: Path) -> Path:
    """Make the folder and try to write in it, now rather than after minutes of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise click.ClickException(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another by --out"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
