"""Peak memory of the tensors of one step, counted at the allocator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import Case
from benchmarks.contests import MakeLoss
from benchmarks.training import Training

__all__ = ["peak_bytes", "peak_of"]


def peak_bytes(case: Case, make_loss: MakeLoss, particles: int) -> float:
    """The most that tensors take up at once within a step, on top of what lives between steps.

    The resident size of the process would hide a few megabytes in what was allocated before.
    """
    training = Training(case, make_loss(particles))
    training.run(2, lambda work: float(len(work())))  # parameters, moments of Adam, layouts
    return training.run(1, peak_of)


def peak_of(work: Callable[[], object]) -> float:
    """The most that tensors take up at once while something is done."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]"]
    changes.sort(key=lambda e: e["ts"])
    return float(max(accumulate(e["args"]["Bytes"] for e in changes), default=0))
