"""The loop of all calibrations: simulate, refit, rank."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from pyro.infer import ELBO

from pyro_klmodes.calibration.parallel import run_all
from pyro_klmodes.calibration.result import Calibration
from pyro_klmodes.calibration.seeds import Part, seed_of
from pyro_klmodes.calibration.study import Study, flat, scalar_names
from pyro_klmodes.calibration.warm_start import Start
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.tracing.binding import Bind, find_slots
from pyro_klmodes.tracing.observed import observed_sites, parameter_names
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.simulate import Simulation, learned_names, simulate
from pyro_klmodes.tracing.survey import survey

__all__ = ["calibrate"]


def calibrate(
    kind: Literal["sbc", "vsbc"],
    study: Study,
    num_simulations: int,
    bind: Bind,
    jobs: int,
    *,
    refit: bool,
    warm_start: bool,
) -> Calibration:
    """Run the simulations of a study and collect ranks.

    Raises:
        InvalidArgument, UnsupportedStructure: see ``sbc``.
    """
    _check_arguments(study, num_simulations, jobs)
    observed = observed_sites(study.model, study.args, study.kwargs)
    names = parameter_names(study.model)
    study = replace(study, slots=find_slots(observed, study.args, study.kwargs, bind, names))
    _check_simulable(study, refit=refit)
    if not refit:
        as_given = Simulation({}, {})  # the user's own data, wherever they are
        once = study.fit(as_given, num_simulations)
        with once.scope():
            layout = survey(Pair(study.model, once.guide.unbound, study.args, study.kwargs))
        study = replace(study, once=once, layout=layout)
    # the last one is for looking at the guide, and to start from
    *simulations, spare = (_simulated(study, i) for i in range(num_simulations + 1))
    if refit and warm_start and study.steps > 0:
        study = replace(study, start=Start.of(study.fit(spare, num_simulations)))
    study = replace(study, sites=_sites(study, spare, num_simulations))
    truths = torch.stack([flat(s, study.sites) for s in simulations])
    low = truths.amin(0)
    study = replace(study, low=low, width=(truths.amax(0) - low).clamp(min=1e-300))
    outcomes = run_all(study, simulations, jobs if refit else 1)
    failures = tuple((i, o.failure) for i, o in enumerate(outcomes) if o.failure)
    kept = [i for i, o in enumerate(outcomes) if not o.failure]
    if not kept:
        raise InvalidArgument(f"all {num_simulations} fits failed; the first: {failures[0][1]}")
    ranks = torch.stack([r for o in outcomes if (r := o.ranks) is not None])
    nearer = torch.tensor([outcomes[i].nearer for i in kept])
    generator = torch.Generator().manual_seed(seed_of(study.seed, Part.TIES, num_simulations))
    count = study.num_draws + 1
    return Calibration(
        kind=kind,
        names=scalar_names(spare, study.sites),
        ranks=ranks,
        probabilities=(ranks + torch.rand(ranks.shape, generator=generator).double()) / count,
        tarp_shares=(nearer + torch.rand(nearer.shape, generator=generator).double()) / count,
        truths=truths[kept],
        num_draws=study.num_draws,
        failures=failures,
    )


def _check_simulable(study: Study, *, refit: bool) -> None:
    _simulated(study, 0)  # what cannot be simulated is said before any fit
    if refit:
        learned = learned_names(study.model, study.args, study.kwargs)
        if learned:
            raise UnsupportedStructure(
                f"the model learns parameters ({', '.join(learned)}), so that every refit would "
                "have another prior. Fix them, give them priors, or use refit=False."
            )
        with seeded(None):
            guide, other = study.make_guide(study.model), study.make_guide(study.model)
        if isinstance(guide, torch.nn.Module) and other is guide:
            raise InvalidArgument(
                "make_guide returns one and the same module every time, which would be trained on "
                "from simulation to simulation. Build a new one in it, as AutoNormal does."
            )
        return
    blind = sorted(site for site, slots in study.slots.items() if not slots)
    if blind or not study.slots:
        raise InvalidArgument(
            f"refit=False: the guide cannot see simulated data of {blind}, because no argument "
            "holds them. Pass the data as an argument, and name it by bind= if it is not found."
        )


def _sites(study: Study, spare: Simulation, index: int) -> tuple[str, ...]:
    """Latent sites that the guide draws, in the order of the model."""
    draws = study.draws(spare, index)
    sites = tuple(s for s in spare.latents if s in draws)
    if not sites:
        raise InvalidArgument(
            f"the guide draws none of the model's latent sites {sorted(spare.latents)}."
        )
    return sites


def _simulated(study: Study, index: int) -> Simulation:
    fitted = nullcontext() if study.once is None else study.once.scope()
    with fitted, seeded(seed_of(study.seed, Part.SIMULATION, index)):
        return simulate(study.model, study.args, study.kwargs)


def _check_arguments(study: Study, num_simulations: Any, jobs: Any) -> None:
    for name, value, least in (
        ("num_simulations", num_simulations, 10),
        ("num_draws", study.num_draws, 1),
        ("steps", study.steps, 0),
        ("jobs", jobs, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidArgument(f"{name}={value!r} must be an integer of at least {least}.")
    if isinstance(study.seed, bool) or not isinstance(study.seed, int):
        raise InvalidArgument(f"seed={study.seed!r} must be an integer.")
    if not isinstance(study.loss, ELBO):
        raise InvalidArgument(
            f"loss={study.loss!r} is not a loss. Pass an instance, for instance ReverseKL()."
        )
    if not callable(study.make_guide):
        raise InvalidArgument("make_guide must be callable with the model: AutoNormal, say.")
