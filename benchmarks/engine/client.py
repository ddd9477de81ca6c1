"""The other end of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine.entrants import process_of

__all__ = ["Stopped", "Workers", "workers"]

REPOSITORY = Path(__file__).parents[2]

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class Stopped(Exception):
    """A worker process ended by itself."""


class Worker:
    """One process."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        # Caches begin empty, so that compile times are those of a new model.
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.engine.worker"],
                cwd=REPOSITORY,
                env=os.environ | ONE_THREAD | caches,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its reply."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            last = self.log.read_text()[-500:]
            raise Stopped(f"the worker process ended with {self.process.wait()}: {last}")
        return json.loads(reply)

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Workers:
    """All worker processes of a run, each started when it is first asked."""

    def __init__(self, folder: Path, *, warm: bool) -> None:
        self.folder = folder
        self.warm = warm
        self.started = 0
        self.running: dict[str, Worker] = {}

    def ask(self, contestant: str, **request: Any) -> dict[str, Any]:
        """Ask the process of a contestant; one that ends is replaced and the reply says so."""
        process = process_of(contestant)
        try:
            if process not in self.running:
                self.running[process] = self._start()
                if self.warm:
                    self.running[process].ask(do="warm up", process=process)
            return self.running[process].ask(**request)
        except Stopped as error:
            self.running.pop(process).close()
            return {"failed": " ".join(str(error).split())}

    def drop(self) -> None:
        """Let go of all runs."""
        for worker in self.running.values():
            worker.ask(do="drop")

    def close(self) -> None:
        """End all processes."""
        for worker in self.running.values():
            worker.close()
        self.running.clear()

    def _start(self) -> Worker:
        self.started += 1
        folder = self.folder / str(self.started)
        folder.mkdir()
        return Worker(folder)


@contextmanager
def workers(*, warm: bool = True) -> Iterator[Workers]:
    """Worker processes that share one processor core, where the system can arrange it.

    Args:
        warm: whether each first pays what is paid once per process or machine, the compilers'
            headers above all; without, that is part of the first cell's time to the first step.
    """
    with tempfile.TemporaryDirectory() as folder, _one_core():
        group = Workers(Path(folder), warm=warm)
        try:
            yield group
        finally:
            group.close()


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and with it those it starts, on one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})  # the first serves most interrupts
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
