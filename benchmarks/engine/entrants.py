"""Who takes part, and in which process each of them lives."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.engine import ours
from benchmarks.engine.cell import Cell
from benchmarks.engine.run import Run

__all__ = [
    "HAND",
    "NUMPYRO",
    "OTHERS",
    "PYRO",
    "build",
    "entrants",
    "missing",
    "process_of",
    "warm_up",
]

PYRO = "Pyro"
NUMPYRO = "NumPyro"
HAND = "by hand"
OTHERS = (PYRO, NUMPYRO, HAND)

# JAX and torch each bring a thread pool and an allocator, and Pyro's garbage should burden nobody.
_MODULES = {PYRO: "in_pyro", NUMPYRO: "in_numpyro", HAND: "hand"}
_SAMPLERS = {NUMPYRO: "numpyro_losses", HAND: "hand_losses"}
_PROCESSES = {PYRO: "pyro", NUMPYRO: "jax"}


def entrants() -> tuple[str, ...]:
    """All that can run here, ours last."""
    return tuple(name for name in OTHERS if not missing(name)) + ours.TIERS


def missing(name: str) -> list[str]:
    """Packages that a contestant lacks."""
    needed = ("jax", "numpyro", "funsor") if name == NUMPYRO else ()
    return [package for package in needed if find_spec(package) is None]


def process_of(name: str) -> str:
    """Contestants with the same answer share one worker process."""
    return _PROCESSES.get(name, "torch")


def build(name: str, cell: Cell) -> Run:
    """What a contestant makes of a cell."""
    if name in ours.TIERS:
        return _module("this_package").build(cell, name)
    return _module(_MODULES[name]).build(cell)


def sample(name: str, cell: Cell, count: int) -> tuple[list[float], list[float]]:
    """Losses and slopes at given parameters, of NumPyro or by hand."""
    return _module(_SAMPLERS[name]).sample(cell, count)


def warm_up(process: str) -> None:
    """Pay what is paid once per process or machine, so that it does not count for one cell."""
    for name, module in _MODULES.items():
        if process_of(name) == process:
            _module(module).warm_up()


def _module(name: str):
    return import_module(f"benchmarks.engine.contestants.{name}")
