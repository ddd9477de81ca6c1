"""A long-lived process that builds contestants and times them on request.

Requests and replies are lines of JSON on standard input and output.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.engine import entrants
from benchmarks.engine.cell import Cell
from benchmarks.engine.run import Run

__all__ = ["Workshop", "main"]

Reply = dict[str, Any]
UNCOUNTED = 2


class Workshop:
    """The runs that are under way in this process."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    def answer(self, request: dict[str, Any]) -> Reply:
        """Do what is asked for; whatever goes wrong is the reply."""
        do: dict[str, Callable[..., Reply]] = {
            "warm up": self._warm_up,
            "build": self._build,
            "time": self._time,
            "whole": self._whole,
            "sample": self._sample,
            "drop": self._drop,
        }
        arguments = dict(request)
        try:
            return do[arguments.pop("do")](**arguments)
        except Exception as error:  # any contestant may fail in any way; the grid goes on
            traceback.print_exc()
            return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}

    def _warm_up(self, process: str) -> Reply:
        entrants.warm_up(process)
        return {}

    def _build(self, name: str, cell: dict[str, Any], seconds: float) -> Reply:
        """Seconds until the first steps are done, without the steps, and steps per block."""
        start = _spent_in_all()
        run = entrants.build(name, Cell(**cell))
        for _ in range(UNCOUNTED):  # a compiler may be called again in the second
            run.block(run.chunk)
        ready = _spent_in_all() - start
        steps, per_step = _block_size(run, seconds)
        self.runs[name] = run
        first = ready - UNCOUNTED * run.chunk * per_step
        return {"first": max(first, 0.0), "steps": steps}

    def _time(self, name: str, steps: int) -> Reply:
        return {"seconds": _spent(self.runs[name], steps) / steps}

    def _whole(self, name: str, cell: dict[str, Any], steps: int) -> Reply:
        """All of a run, from nothing to the last step."""
        start = _spent_in_all()
        run = entrants.build(name, Cell(**cell))
        run.block(-(-steps // run.chunk) * run.chunk)
        return {"seconds": _spent_in_all() - start}

    def _sample(self, name: str, cell: dict[str, Any], count: int) -> Reply:
        losses, slopes = entrants.sample(name, Cell(**cell), count)
        return {"loss": losses, "slope": slopes}

    def _drop(self) -> Reply:
        self.runs.clear()
        return {}


def _block_size(run: Run, seconds: float) -> tuple[int, float]:
    """How many steps take about so long, and how long one takes."""
    steps = run.chunk
    while (taken := _spent(run, steps)) < seconds / 4:
        steps *= 4
    chunks = max(1, round(seconds / taken * steps / run.chunk))
    return chunks * run.chunk, taken / steps


def _spent(run: Run, steps: int) -> float:
    """Processor time of this process, all of its threads."""
    start = time.process_time()
    run.block(steps)
    return time.process_time() - start


def _spent_in_all() -> float:
    """Processor time of this process and of the compilers it has called."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Serve until the input ends."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not a reply
    torch.set_num_threads(1)
    torch.manual_seed(0)
    workshop = Workshop()
    for line in sys.stdin:
        replies.write(json.dumps(workshop.answer(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
