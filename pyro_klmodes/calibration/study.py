"""One simulation of a calibration: fit a guide to simulated data, rank the truth in its draws."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_klmodes.calibration.seeds import Part, seed_of
from pyro_klmodes.calibration.warm_start import Start
from pyro_klmodes.diagnostics.ranks import randomised_ranks
from pyro_klmodes.errors import KLModesError, NonFiniteLoss
from pyro_klmodes.inference.fit import fit
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.tracing.binding import Slot, rebound
from pyro_klmodes.tracing.guide_samples import sample_guide
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.simulate import Simulation, observing

__all__ = ["Outcome", "Study", "flat", "scalar_names"]


@dataclass(frozen=True)
class Outcome:
    """What came of one simulation.

    Attributes:
        ranks: ``(P,)``, of the true values among the draws.
        nearer: draws nearer to the reference point than the true value.
        failure: why there is no rank; "" if there is.
    """

    ranks: Tensor | None = None
    nearer: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Study:
    """Everything that a simulation needs, so that it can run in another process.

    Attributes:
        model: the model as the user gave it.
        make_guide: builds a guide for a model.
        loss: what is minimised.
        args: arguments of the user.
        kwargs: keyword arguments of the user.
        slots: where among them the data are.
        steps: of a fit.
        optim: an optimizer that is copied for every fit.
        num_draws: L.
        seed: of the whole calibration.
        dtype: torch's default.
        start: parameters to start from, None to start anew.
        once: a fit that is used for all data, None to fit anew.
        layout: of the pair, where one fit serves all data.
        sites: the sites that are ranked; found by ``ranked`` if empty.
        low: ``(P,)``, least true values, for distances.
        width: ``(P,)``, their range.
    """

    model: Callable[..., Any]
    make_guide: Callable[[Callable[..., Any]], Callable[..., Any]]
    loss: ELBO
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    slots: Mapping[str, tuple[Slot, ...]]
    steps: int
    optim: PyroOptim | None
    num_draws: int
    seed: int
    dtype: torch.dtype
    start: Start | None = None
    once: FitResult | None = None
    layout: Layout | None = None
    sites: tuple[str, ...] = ()
    low: Tensor = field(default_factory=lambda: torch.zeros(0))
    width: Tensor = field(default_factory=lambda: torch.ones(0))

    def fit(self, simulation: Simulation, index: int) -> FitResult:
        """Fit a new guide to simulated data."""
        model = observing(self.model, simulation.data)
        args, kwargs = rebound(self.args, self.kwargs, self.slots, simulation.data)
        seed = seed_of(self.seed, Part.FIT, index)
        with seeded(seed):  # networks start at random
            guide = self.make_guide(model)
        if self.start is not None:
            guide = self.start.at(guide, args, kwargs)
        return fit(
            model,
            guide,
            self.loss,
            *args,
            steps=self.steps,
            optim=copy.deepcopy(self.optim),
            seed=seed,
            progress=False,
            **kwargs,
        )

    def draws(self, simulation: Simulation, index: int) -> dict[str, Tensor]:
        """Draws of the guide that belongs to simulated data, ``{site: (L, *site_shape)}``."""
        seed = seed_of(self.seed, Part.DRAWS, index)
        if self.once is None:
            return self.fit(simulation, index).sample(self.num_draws, seed=seed)
        model = observing(self.model, simulation.data)
        args, kwargs = rebound(self.args, self.kwargs, self.slots, simulation.data)
        with self.once.scope(), seeded(seed), torch.no_grad():
            guide = self.once.guide.unbound
            return sample_guide(model, guide, args, kwargs, self.num_draws, self.layout)

    def __call__(self, task: tuple[int, Simulation]) -> Outcome:
        """Run one simulation; a fit that breaks down is an outcome too."""
        index, simulation = task
        torch.set_num_threads(1)
        torch.set_default_dtype(self.dtype)
        try:
            draws = self.draws(simulation, index)
            values = torch.cat([_columns(draws[site]) for site in self.sites], 1)
            if not bool(torch.isfinite(values).all()):
                raise NonFiniteLoss("the fitted guide draws values that are not finite.")
        except (KLModesError, ArithmeticError, ValueError, RuntimeError) as error:
            return Outcome(failure=f"{type(error).__name__}: {error}")
        truth = flat(simulation, self.sites)
        ties = torch.Generator().manual_seed(seed_of(self.seed, Part.TIES, index))
        places = torch.Generator().manual_seed(seed_of(self.seed, Part.REFERENCES, index))
        reference = torch.rand(truth.shape, generator=places, dtype=torch.float64)
        far = ((truth - self.low) / self.width - reference).norm()
        distances = ((values - self.low) / self.width - reference).norm(dim=1)
        return Outcome(
            ranks=randomised_ranks(values, truth, generator=ties),
            nearer=int(randomised_ranks(distances, far, generator=ties)),
        )


def _columns(x: Tensor) -> Tensor:  # (L, *shape) -> (L, P)
    return x.detach().reshape(len(x), -1).double()


def flat(simulation: Simulation, sites: tuple[str, ...]) -> Tensor:  # (P,)
    """True values of sites in one vector."""
    return torch.cat([simulation.latents[s].detach().reshape(-1).double() for s in sites])


def scalar_names(simulation: Simulation, sites: tuple[str, ...]) -> tuple[str, ...]:
    """A name for every entry of ``flat``."""
    names: list[str] = []
    for site in sites:
        shape = simulation.latents[site].shape
        if not shape:
            names.append(site)
            continue
        for at in torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape)):
            names.append(f"{site}[{','.join(str(int(i)) for i in at)}]")
    return tuple(names)
