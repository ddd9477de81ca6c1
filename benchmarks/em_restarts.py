"""Many starts of a Gaussian mixture in one batch, against a loop over scikit-learn.

Both make the same number of steps from the same starts on the same data, full covariances.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from models import gaussian_mixture
from pyro_klmodes.inference.em import EM

__all__ = ["PROBLEMS", "Problem", "restart_rows"]


@dataclass(frozen=True)
class Problem:
    """Data from clusters, or given ones.

    Attributes:
        name: what they are called.
        number: how many data.
        dims: of each.
        components: to be fitted.
    """

    name: str
    number: int
    dims: int
    components: int

    def data(self) -> Tensor:  # (N, D)
        """Simulated clusters, or Old Faithful's eruptions."""
        if self.name == "Old Faithful":
            return gaussian_mixture.old_faithful_data()
        generator = torch.Generator().manual_seed(1)
        options = {"generator": generator, "dtype": torch.float64}
        centres = 2 * torch.randn(self.components, self.dims, **options)
        x = torch.empty(self.number, self.dims, dtype=torch.float64)
        for part in x.split(10_000):  # for the sake of those who measure memory
            which = torch.randint(self.components, (len(part),), generator=generator)
            part.copy_(centres[which] + torch.randn(*part.shape, **options))
        return x


PROBLEMS = (
    Problem("Old Faithful", 272, 2, 2),
    Problem("clusters", 1_000, 2, 3),
    Problem("clusters", 1_000, 5, 5),
    Problem("clusters", 10_000, 5, 5),
    Problem("clusters", 10_000, 10, 10),
)


class _Contest:
    """One problem and its starts."""

    def __init__(self, problem: Problem, starts: int) -> None:
        self.x = problem.data()
        self.components = problem.components
        self.at = gaussian_mixture.random_start(self.x, problem.components, starts=starts)

    def ours(self, steps: int) -> tuple[float, Tensor]:
        """Seconds, and the log-likelihoods before the last step."""
        starts = {
            "weights": self.at.weights,
            "locs": self.at.locs,
            "scale_trils": torch.linalg.cholesky(self.at.covariances),
        }
        began = time.process_time()
        result = EM(gaussian_mixture.model, starts=starts).fit(
            self.x, components=self.components, steps=steps, tolerance=1e-300, progress=False
        )
        return time.process_time() - began, result.restarts.history[-1]

    def theirs(self, steps: int) -> tuple[float, Tensor]:
        """The same by scikit-learn."""
        x = self.x.numpy()
        precisions = torch.linalg.inv(self.at.covariances).numpy()
        found = []
        began = time.process_time()
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # steps are counted here
            for i in range(len(precisions)):
                fitted = GaussianMixture(
                    self.components,
                    tol=0.0,
                    reg_covar=0.0,
                    max_iter=steps,
                    weights_init=self.at.weights[i].numpy(),
                    means_init=self.at.locs[i].numpy(),
                    precisions_init=precisions[i],
                ).fit(x)
                found.append(fitted.lower_bound_ * len(x))
        return time.process_time() - began, torch.tensor(found)


def restart_rows(
    problems: tuple[Problem, ...], *, starts: int, steps: int, turns: int
) -> Iterator[list[str]]:
    """For every problem the cost of a step of all starts, and ratios of it and of the whole.

    A step costs what twice as many steps cost more.

    Raises:
        AssertionError: if the two do not find the same.
    """
    for problem in problems:
        contest = _Contest(problem, starts)
        totals, per_step = [], []
        for turn in range(turns + 1):
            long = contest.ours(2 * steps), contest.theirs(2 * steps)
            short = contest.ours(steps), contest.theirs(steps)
            (_, ours), (_, theirs) = long
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
            if turn:  # the first is not counted
                totals.append(short[0][0] / short[1][0])
                per_step.append([(a[0] - b[0]) / steps for a, b in zip(long, short, strict=True)])
        ratios = [a / b for a, b in per_step]
        yield [
            f"{problem.name}, {len(contest.x):,} x {problem.dims}",
            str(problem.components),
            f"{median(a for a, _ in per_step) * 1e3:.1f}",
            f"{median(b for _, b in per_step) * 1e3:.1f}",
            _cell(ratios),
            _cell(totals),
        ]


def _cell(ratios: list[float]) -> str:
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"
