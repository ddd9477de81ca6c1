"""Which guide is compared with which of Pyro's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
from pyro import infer
from pyro.infer import autoguide
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.contests import MakeLoss
from pyro_klmodes import ReverseKL, guides
from pyro_klmodes.guides.amortized.guide import AutoAmortized
from pyro_klmodes.guides.autoregressive import AutoAutoregressive
from pyro_klmodes.guides.flow import Affine, Autoregressive
from pyro_klmodes.guides.flow.guide import AutoFlow
from pyro_klmodes.guides.hierarchical import AutoHierarchical

__all__ = ["LOSSES", "GuideContest", "guide_contests"]

HIDDEN = 32

MakeGuide = Callable[[Callable[..., Any]], Callable[..., Any]]  # of a model


@dataclass(frozen=True)
class GuideContest:
    """A guide of ours and the nearest one of Pyro's, under the same loss.

    Attributes:
        name: our guide.
        ours: makes it.
        peer: Pyro's guide.
        theirs: makes it.
        alike: whether the two are the same family; if not, the ratio says what the richer costs.
    """

    name: str
    ours: MakeGuide
    peer: str
    theirs: MakeGuide
    alike: bool = True


def _trace_elbo(particles: int) -> infer.ELBO:
    return infer.Trace_ELBO(num_particles=particles, vectorize_particles=True)


LOSSES: dict[str, MakeLoss] = {"ReverseKL": ReverseKL, "Trace_ELBO": _trace_elbo}


def _mixture(model: Callable[..., Any]) -> guides.AutoMixture:
    return guides.AutoMixture(model, num_components=4)


def _flow(model: Callable[..., Any]) -> AutoFlow:
    """The architecture of AutoIAFNormal."""
    layers = Autoregressive(Affine(), transforms=1, hidden_features=(HIDDEN,), activation=nn.ReLU)
    return AutoFlow(model, architecture=layers)


def _iaf(model: Callable[..., Any]) -> autoguide.AutoIAFNormal:
    return autoguide.AutoIAFNormal(model, hidden_dim=[HIDDEN])


def _amortised_by_hand(_: Callable[..., Any]) -> Callable[..., Any]:
    """A guide for ``local_model`` with the network that AutoAmortized has by default."""
    network = nn.Sequential(
        nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4)
    )

    def guide(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = network(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return guide


_NORMAL = ("AutoNormal", autoguide.AutoNormal)
_FULL = ("AutoMultivariateNormal", autoguide.AutoMultivariateNormal)
_STRUCTURED = ("AutoStructured", autoguide.AutoStructured)
_IAF = ("AutoIAFNormal", _iaf)
_LOW_RANK = ("AutoLowRankMultivariateNormal", autoguide.AutoLowRankMultivariateNormal)

_FOR_ANY_MODEL = (
    GuideContest("AutoMeanField", guides.AutoMeanField, *_NORMAL),
    GuideContest("AutoStudentT", guides.AutoStudentT, *_NORMAL),
    GuideContest("AutoFullRank", guides.AutoFullRank, *_FULL),
    GuideContest("AutoMultivariateStudentT", guides.AutoMultivariateStudentT, *_FULL),
    GuideContest("AutoLowRank", guides.AutoLowRank, *_LOW_RANK),
    GuideContest("AutoMixture of 4", _mixture, *_FULL, alike=False),
    GuideContest("AutoAutoregressive", AutoAutoregressive, *_STRUCTURED),
    GuideContest("AutoHierarchical", AutoHierarchical, *_STRUCTURED),
    GuideContest("AutoFlow, one affine layer", _flow, *_IAF),
    GuideContest("AutoFlow", AutoFlow, *_IAF, alike=False),
)
_AMORTISED = (GuideContest("AutoAmortized", AutoAmortized, "by hand", _amortised_by_hand),)


def guide_contests(case: Case) -> Sequence[GuideContest]:
    """What is timed on a model; one with summed-out sites has few latents left to guide."""
    if case.summed_out:
        return ()
    return _AMORTISED if case.amortised else _FOR_ANY_MODEL
