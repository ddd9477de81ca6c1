"""``python -m benchmarks [--quick] [--update] [--case NAME]``."""

from __future__ import annotations

import logging
from pathlib import Path

import click
import torch

from benchmarks.cases import CASES
from benchmarks.run import FULL, QUICK, report
from benchmarks.table import update


@click.command()
@click.option("--quick", is_flag=True, help="A smoke run: few steps, K = 16 only.")
@click.option("--case", "part", default="", help="Only the models whose name contains this.")
@click.option("--update", "write", is_flag=True, help="Put the tables into benchmarks/README.md.")
def main(quick: bool, part: str, write: bool) -> None:
    """Compare the cost of a training step with that of Pyro's losses."""
    torch.set_num_threads(1)
    logging.getLogger("pyro").setLevel(logging.WARNING)
    cases = [case for case in CASES if part in case.name]
    if not cases:
        raise click.BadParameter(f"no model's name contains {part!r}.", param_hint="--case")
    text = report(cases, QUICK if quick else FULL, lambda line: click.echo(line, err=True))
    click.echo(text)
    if write:
        update(Path(__file__).with_name("README.md"), text)


if __name__ == "__main__":
    main()
