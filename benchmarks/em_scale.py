"""A Gaussian mixture on data of which memory holds little more: batches, against scikit-learn.

Each fit runs in a process of its own, whose largest resident size is told apart from what it had
before the fit. It is that of all data together for scikit-learn, and here that of a batch.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.em_restarts import Problem
from models import gaussian_mixture
from pyro_klmodes.inference.em import EM, StepSizes

__all__ = ["FITS", "measure", "scale_rows"]

COMPONENTS, DIMS, BATCH = 10, 10, 10_000

#: seconds of every pass over the data, and the log-likelihood per datum in the end
Found = tuple[list[float], float]


def _starts(x: Tensor) -> gaussian_mixture.Mixture:
    return gaussian_mixture.random_start(x[:BATCH], COMPONENTS, starts=1)


def _ours(x: Tensor, passes: int, online: StepSizes | None) -> Found:
    at = _starts(x)
    starts = {
        "weights": at.weights,
        "locs": at.locs,
        "scale_trils": torch.linalg.cholesky(at.covariances),
    }
    batches = _Batches(x)
    options = {"epochs": passes} if online is not None else {"steps": passes, "tolerance": 1e-300}
    result = EM(gaussian_mixture.model, starts=starts, online=online).fit(
        batches=batches, components=COMPONENTS, progress=False, **options
    )
    # online EM ends with a pass that only looks at the log-likelihood
    passed = batches.seconds[:-1] if online is not None else batches.seconds
    return passed[-passes:], result.log_likelihood / len(x)


class _Batches:
    """The data in parts, and how long each pass over them took."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[Tensor]:
        began = time.process_time()
        yield from self.x.split(BATCH)
        self.seconds.append(time.process_time() - began)


def _whole_passes(x: Tensor, passes: int) -> Found:
    """Exact steps, one for every pass."""
    return _ours(x, passes, None)


def _online(x: Tensor, passes: int) -> Found:
    """A step for every batch."""
    return _ours(x, passes, StepSizes())


def _theirs(x: Tensor, passes: int) -> Found:
    """scikit-learn on all data at once; a pass is what one step more costs."""
    at = _starts(x)
    seconds = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # steps are counted here
        for steps in (passes, 2 * passes):
            began = time.process_time()
            fitted = GaussianMixture(
                COMPONENTS,
                tol=0.0,
                reg_covar=0.0,
                max_iter=steps,
                weights_init=at.weights[0].numpy(),
                means_init=at.locs[0].numpy(),
                precisions_init=torch.linalg.inv(at.covariances[0]).numpy(),
            ).fit(x.numpy())
            seconds.append(time.process_time() - began)
            if steps == passes:
                reached = float(fitted.lower_bound_)
    return [(seconds[1] - seconds[0]) / passes], reached


FITS: dict[str, Callable[[Tensor, int], Found]] = {
    "EM(batches)": _whole_passes,
    "EM(batches, online)": _online,
    "scikit-learn": _theirs,
}


def measure(name: str, number: int, passes: int) -> dict[str, float]:
    """One fit in this process: seconds per pass, megabytes beyond the data, log-likelihood."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    x = Problem("clusters", number, DIMS, COMPONENTS).data()
    fit = FITS[name]
    fit(x[: 2 * BATCH], 1)  # what libraries set up at their first use
    before = _peak()
    seconds, reached = fit(x, passes)
    return {
        "seconds": median(seconds),
        "more": _peak() - before,
        "log_likelihood": reached,
    }


def _peak() -> float:
    """The largest resident size so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def scale_rows(number: int, *, passes: int, turns: int) -> Iterator[list[str]]:
    """Of every fit seconds per pass, over those of scikit-learn, memory and log-likelihood."""
    rounds = [{name: _apart(name, number, passes) for name in FITS} for _ in range(turns)]
    for name in FITS:
        seconds = [found[name]["seconds"] for found in rounds]
        ratios = [
            s / found["scikit-learn"]["seconds"] for s, found in zip(seconds, rounds, strict=True)
        ]
        one = rounds[0][name]
        yield [
            name,
            f"{median(seconds):.2f}",
            f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            f"{max(found[name]['more'] for found in rounds):.0f}",
            f"{one['log_likelihood']:.4f}",
        ]


def _apart(name: str, number: int, passes: int) -> dict[str, float]:
    """The same as ``measure`` in a process of its own."""
    call = f"measure({name!r}, {number}, {passes})"
    code = f"import json; from benchmarks.em_scale import measure; print(json.dumps({call}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])
