"""Which loss is compared with which of Pyro's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyro import infer

from benchmarks.cases import Case
from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    estimators,
)
from pyro_klmodes.objectives.f_functions import jensen_shannon

__all__ = ["Contest", "contests"]

MakeLoss = Callable[[int], infer.ELBO]  # of the number of particles


@dataclass(frozen=True)
class Contest:
    """A loss of ours and the nearest one of Pyro's.

    Attributes:
        name: our loss.
        ours: makes it.
        peer: Pyro's loss, "" if there is none.
        theirs: makes it, None if there is none.
        min_particles: below this, at least one of the two is not defined.
    """

    name: str
    ours: MakeLoss
    peer: str = ""
    theirs: MakeLoss | None = None
    min_particles: int = 1


def _trace_elbo(particles: int) -> infer.ELBO:
    return infer.Trace_ELBO(num_particles=particles, vectorize_particles=True)


def _trace_enum_elbo(particles: int) -> infer.ELBO:
    return infer.TraceEnum_ELBO(num_particles=particles, vectorize_particles=True)


def _renyi_elbo(alpha: float) -> MakeLoss:
    return lambda k: infer.RenyiELBO(alpha=alpha, num_particles=k, vectorize_particles=True)


def _wake(particles: int) -> infer.ELBO:
    # insomnia=1 is the wake phase alone, the gradient of ForwardKL
    return infer.ReweightedWakeSleep(
        num_particles=particles, insomnia=1.0, vectorize_particles=True
    )


def _tail_adaptive_elbo(particles: int) -> infer.ELBO:
    return infer.TraceTailAdaptive_ELBO(num_particles=particles, vectorize_particles=True)


_WITH_PEER = (
    Contest("ReverseKL", ReverseKL, "Trace_ELBO", _trace_elbo),
    Contest("IWAE", IWAE, "RenyiELBO(0)", _renyi_elbo(0.0)),
    Contest("Renyi(0.5)", lambda k: Renyi(0.5, k), "RenyiELBO(0.5)", _renyi_elbo(0.5)),
    Contest("ForwardKL", ForwardKL, "ReweightedWakeSleep", _wake, min_particles=2),
    Contest(
        "TailAdaptive", TailAdaptive, "TraceTailAdaptive_ELBO", _tail_adaptive_elbo, min_particles=2
    ),
)

_WITHOUT_PEER = (
    Contest("CUBO(2)", lambda k: CUBO(2, k), min_particles=2),
    Contest("FDivergence(JS)", lambda k: FDivergence(jensen_shannon, k), min_particles=2),
    Contest("Thermodynamic(8)", lambda k: Thermodynamic(8, k)),
    Contest("ReverseKL, doubly", lambda k: ReverseKL(k, estimator=estimators.doubly)),
    Contest("ReverseKL, score", lambda k: ReverseKL(k, estimator=estimators.score)),
    Contest("IWAE, doubly", lambda k: IWAE(k, estimator=estimators.doubly)),
    Contest("IWAE, score", lambda k: IWAE(k, estimator=estimators.score)),
)


def contests(case: Case) -> tuple[Contest, ...]:
    """What is timed on a model. Of these losses of Pyro's only TraceEnum_ELBO sums sites out."""
    if case.amortised:
        return ()
    if not case.summed_out:
        return _WITH_PEER + _WITHOUT_PEER
    alone = [Contest(c.name, c.ours, min_particles=c.min_particles) for c in _WITH_PEER[1:]]
    enumerating = Contest("ReverseKL", ReverseKL, "TraceEnum_ELBO", _trace_enum_elbo)
    return (enumerating, *alone, *_WITHOUT_PEER)
