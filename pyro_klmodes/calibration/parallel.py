"""Run the simulations of a study here or in other processes; the numbers are the same."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from pyro_klmodes.calibration.study import Outcome, Study
from pyro_klmodes.errors import KLModesWarning
from pyro_klmodes.tracing.simulate import Simulation

__all__ = ["run_all"]


def run_all(study: Study, simulations: Sequence[Simulation], jobs: int) -> list[Outcome]:
    """Outcomes in the order of the simulations.

    Processes are started anew, not forked, which is unsafe once torch has threads. Model, guide
    factory and loss must therefore be picklable; if they are not, everything runs here.
    """
    tasks = list(enumerate(simulations))
    if jobs > 1:
        try:
            pickle.dumps(study)
            context = multiprocessing.get_context("spawn")
            size = max(1, len(tasks) // (4 * jobs))
            with ProcessPoolExecutor(jobs, mp_context=context) as pool:
                return list(pool.map(study, tasks, chunksize=size))
        except (pickle.PicklingError, AttributeError, TypeError, BrokenProcessPool) as error:
            warnings.warn(
                f"jobs={jobs}: everything runs in one process, because other processes cannot take "
                "model, guide or loss. Define them at the top level of a module (not as lambdas or "
                'inside of functions), and start scripts under if __name__ == "__main__". '
                f"({error!r})",
                KLModesWarning,
                stacklevel=4,
            )
    threads = torch.get_num_threads()
    try:
        return [study(task) for task in tasks]
    finally:
        torch.set_num_threads(threads)
