"""Processor time of posterior draws with log-weights, on radon with an unmodified a[county].

Run ``python -m benchmarks.draws``. After a short fit 100 000 draws are made by a loop over Pyro's
own handlers (extrapolated from a few), by ``draws``, which runs the model as it is in blocks, and
by ``FitResult.draws``, which runs it through its graph. The latter two take turns; seconds are
those of one thread, lowest and median over the turns, and the ratio is taken turn by turn. All is
in them: the survey of the pair, and to write down the graph and compare it, anew in every call. The
last number is what draws take without weights.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from benchmarks.engine.problems.in_pyro import MODELS, arguments
from pyro_klmodes import FitResult, ReverseKL, draws, fit, guides

__all__ = ["GUIDES", "fitted", "seconds_of_draws"]

DRAWS, TURNS, FEW = 100_000, 9, 200
GUIDES = {"AutoNormal": AutoNormal, "AutoMeanField": guides.AutoMeanField}


def fitted(guide: str, steps: int = 300) -> FitResult:
    """A fit of radon that is short: what draws cost does not depend on where it ends."""
    model = MODELS["radon"]
    make = GUIDES[guide]
    return fit(model, make(model), ReverseKL(), *arguments("radon"), steps=steps, progress=False)


def by_pyro(result: FitResult, count: int) -> None:
    """One draw after the other, as one writes it with Pyro."""
    with result.scope(), torch.no_grad():
        for _ in range(count):
            guide = poutine.trace(result.guide.unbound).get_trace(*result.args)
            model = poutine.trace(poutine.replay(result.model, guide)).get_trace(*result.args)
            model.log_prob_sum() - guide.log_prob_sum()


def in_blocks(result: FitResult, count: int) -> None:
    """As many draws share a run as fit into little memory."""
    with result.scope():
        draws(result.model, result.guide.unbound, result.args, num_particles=count)


def seconds_of_draws(result: FitResult, count: int = DRAWS, turns: int = TURNS) -> dict:
    """Seconds of every way, in turns; of the loop as many seconds as all draws would take."""
    ways: dict[str, Callable[[], object]] = {
        "in blocks": lambda: in_blocks(result, count),
        "through the graph": lambda: result.draws(count),
        "draws alone": lambda: result.sample(count),
    }
    found = {name: [] for name in ways}
    for _ in range(turns):
        for name, work in ways.items():
            found[name].append(_seconds(work))
    few = min(FEW, count)
    return {"loop of Pyro": [_seconds(lambda: by_pyro(result, few)) * count / few], **found}


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print a table for every guide."""
    torch.set_num_threads(1)
    logging.getLogger("pyro").setLevel(logging.WARNING)
    for guide in GUIDES:
        pyro.clear_param_store()
        found = seconds_of_draws(fitted(guide))
        print(f"{guide}, {DRAWS} draws")
        for name, seconds in found.items():
            print(f"  {name}: {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
        pairs = zip(found["in blocks"], found["through the graph"], strict=True)
        print(f"  in blocks / through the graph: {statistics.median(a / b for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
