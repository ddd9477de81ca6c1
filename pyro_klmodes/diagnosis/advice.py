"""What to try next, from what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyro_klmodes.diagnosis.weight_summary import WeightSummary

__all__ = ["Findings", "advice"]

# Beyond this many coordinates weights degenerate whatever loss is chosen, unless the guide is good.
MANY_COORDINATES = 15
UNSETTLED = 1.1  # split R-hat of the loss
FEW_BAD_CELLS = 0.1


@dataclass(frozen=True)
class Findings:
    """What the advice depends on.

    Attributes:
        word: of the verdict.
        weights: of the guide's draws.
        coordinates: number of scalar latent parameters.
        forward: whether the loss is one of those that cover mass.
        settled: split R-hat of the loss over the last half of training, None if unknown.
        worst_site: the site with the largest marginal k-hat, None if unknown.
        modes: number of modes found, None if nobody looked.
        matches: whether the optimum of the loss has the posterior's moments, if the family can.
        dependence: whether parameters are right one by one, and spreads of combinations are not.
        noise: whether parameters and spreads are right, and means of combinations are not.
    """

    word: str
    weights: WeightSummary
    coordinates: int
    forward: bool
    settled: float | None = None
    worst_site: str | None = None
    modes: int | None = None
    matches: bool = False
    dependence: bool = False
    noise: bool = False


def advice(found: Findings) -> tuple[str, ...]:
    """What to try next, most promising first; nothing for a fit that is reliable.

    The rules and where they are from:

    * The loss still moves (split R-hat above 1.1 over the last half of training): train on, with
      a smaller learning rate at the end (Dhaka et al., 2020; Welandawe et al., 2022).
    * Mass is missed: a mixture guide started at several modes (Morningstar et al., 2021), or a
      mass-covering loss with a start that is wide enough, in few dimensions.
    * The weights are good and the guide's moments are not: use the weighted draws (Vehtari et al.,
      2024), or fit the guide by a forward divergence, whose optimum has the right moments; if it
      was, the last step is noisy: a falling learning rate or averages (Dhaka et al., 2020).
      Where only spreads of combinations are off, the family lacks the dependence, or has not
      learned it yet; where only their means are, it is noise.
    * Few coordinates: a mass-covering loss or heavier tails. Many coordinates: reverse KL with a
      richer family; mass-covering losses fail there (Dhaka et al., 2021).
    * One site is worse than the others: reparameterise it (Papaspiliopoulos et al., 2007) or give
      it a guide that follows the model's structure.
    * A few cells of a local plate are bad: look at these data first.

    Example:
        >>> weights = WeightSummary(0.9, 0.7, 60.0, 4000, 1, 1, -1.2, 0.3)
        >>> advice(Findings("doubtful", weights, coordinates=50, forward=False))[0][:37]
        'Use a richer family under reverse KL:'
    """
    return tuple(_advice(found))


def _advice(found: Findings) -> Iterator[str]:
    if found.settled is not None and found.settled > UNSETTLED:
        yield (
            f"Train on: the loss was still moving at the end (its split R-hat is "
            f"{found.settled:.2f}); let the learning rate fall towards the end."
        )
    if found.word == "reliable":
        return
    if found.word == "reweight":
        yield (
            'Use the weighted draws: to_arviz(result, resample="psis"), or '
            "diagnose(result).moments for moments."
        )
        if found.dependence:
            yield (
                "Or use a family that has the dependence: AutoFullRank, AutoLowRank, "
                "AutoHierarchical, AutoFlow. If this one has it, train on."
            )
        elif found.matches or found.noise:
            yield (
                "Or take the noise out of the last step, which is all that a fit by this loss may "
                "lack: let the learning rate fall, or average (callbacks=[AverageIterates()])."
            )
        else:
            yield (
                "Or fit the guide by ForwardKL, whose optimum has the posterior's moments, started "
                "from this fit."
            )
        return
    if found.word == "misses mass":
        if (found.modes or 0) > 1:
            yield _several_modes(found.modes)
        else:
            yield (
                "The search found no second mode, so it is shape that is missing: dependence "
                "(AutoFullRank, AutoHierarchical), heavier tails (AutoMultivariateStudentT) or a "
                "bend (AutoFlow)."
            )
        if found.coordinates <= MANY_COORDINATES:
            yield "Or ForwardKL with many particles and a wide start (init_scale=3, defensive=0.1)."
        return
    yield from _about_bad_weights(found)


def _about_bad_weights(found: Findings) -> Iterator[str]:
    if (found.modes or 0) > 1:
        yield _several_modes(found.modes)
    bad, cells = found.weights.bad_cells, found.weights.cells
    if cells > 1 and bad <= FEW_BAD_CELLS * cells:
        yield (
            f"{bad} of {cells} cells are bad, the others are not: look at these data first, "
            "they may be outliers to the model."
        )
    if found.worst_site is not None:
        yield (
            f"Site '{found.worst_site}' is the worst by itself: reparameterise it (non-centred: "
            "pyro.infer.reparam.LocScaleReparam), or use AutoHierarchical, which chooses between "
            "centred and non-centred by its parameters."
        )
    if found.coordinates > MANY_COORDINATES:
        yield (
            "Use a richer family under reverse KL: AutoHierarchical, AutoAutoregressive, AutoFlow. "
            f"Mass-covering losses are no remedy in {found.coordinates} dimensions."
        )
    elif found.forward:
        yield "Use more particles, a wider start, or heavier tails: AutoMultivariateStudentT."
    else:
        yield (
            "Use a mass-covering loss (IWAE, ForwardKL with at least 100 particles) or a family "
            "with heavier tails (AutoMultivariateStudentT), more components (AutoMixture) or more "
            "shape (AutoFlow)."
        )
    yield "Where nothing helps, run NUTS: compare({'fit': fit, 'nuts': mcmc})."


def _several_modes(modes: int | None) -> str:
    found = f"The search found {modes} modes. " if (modes or 0) > 1 else ""
    return (
        f"{found}Use AutoMixture(model, num_components=8, start=FromModes()) with ReverseKL, or "
        "boost(model)."
    )
