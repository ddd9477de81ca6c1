"""Which modes draws reach, and with what mass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.matrices import checked_count, checked_matrix, normalised_weights
from pyro_klmodes.diagnostics.normal_mixtures import NormalMixture, fit_mixture
from pyro_klmodes.errors import InvalidArgument

__all__ = ["ModeCoverage", "Modes", "find_modes", "mode_coverage"]

#: a mode counts as hit if the draws give it at least this part of its mass
_HIT = 0.1
#: two components are two modes if the density between them falls to this part of the lower one
_DIP = 0.5
#: a mixture is fitted to this many draws at most
_MOST_DRAWS = 2000


@dataclass(frozen=True)
class Modes:
    """Modes found in draws, the largest first.

    Attributes:
        locations: ``(M, D)``, where the density of the draws is highest.
        masses: ``(M,)``, shares of the draws that belong to each.
        weighted_masses: ``(M,)``, the same under the weights of the draws; None without weights.
        labels: ``(S,)``, the mode that each draw belongs to.
    """

    locations: Tensor
    masses: Tensor
    weighted_masses: Tensor | None
    labels: Tensor


@dataclass(frozen=True)
class ModeCoverage:
    """How draws are spread over given modes.

    Attributes:
        counts: ``(M,)``, draws nearest to each mode.
        masses: ``(M,)``, their shares, weighted if the draws have weights; they sum to 1.
        entropy: of the masses over log M: 0 for one mode, 1 for equal masses.
        expected_entropy: the same of the true masses; 1 if none were given.
        jensen_shannon: divergence of masses and true masses in bits, 0 to 1; None if the true
            masses are not known.
        hit: share of modes with at least a tenth of their true mass (of 1/M if not known).
        missed: numbers of the other modes.
    """

    counts: Tensor
    masses: Tensor
    entropy: float
    expected_entropy: float
    jensen_shannon: float | None
    hit: float
    missed: tuple[int, ...]


def mode_coverage(
    draws: Tensor,  # (S, D)
    modes: Tensor | Modes,  # (M, D)
    *,
    masses: Tensor | None = None,  # (M,)
    log_w: Tensor | None = None,  # (S,)
    scale: Tensor | None = None,  # (D,)
) -> ModeCoverage:
    r"""Masses of draws over modes that are known, each draw counted for the nearest one.

    The entropic mode coverage is :math:`-\sum_m f_m \log f_m / \log M` with the shares f. It should
    be that of the true masses, which is 1 only if they are equal. With reference draws instead of
    modes, pass ``find_modes(reference)``: its masses are then the true ones.

    Args:
        draws: draws of a guide.
        modes: the locations of the modes, or what ``find_modes`` found in reference draws.
        masses: true masses of the modes, normalised here; a result of ``find_modes`` has them.
        log_w: log-weights, for the masses after importance weighting.
        scale: what coordinates are divided by before distances are taken; 1 by default.

    Raises:
        InvalidArgument: for fewer than two modes, shapes that do not match, numbers that are not
            finite or masses that are negative.

    Source: Blessing, Jia, Esslinger, Vargas and Neumann (2024), "Beyond ELBOs".

    Example:
        >>> modes = torch.tensor([[-4.0], [4.0]])
        >>> found = mode_coverage(torch.tensor([[-4.1], [-3.0], [-5.0], [4.5]]), modes,
        ...                       masses=torch.tensor([0.5, 0.5]))
        >>> found.masses, round(found.entropy, 4), round(found.jensen_shannon, 4)
        (tensor([0.7500, 0.2500], dtype=torch.float64), 0.8113, 0.0488)
    """
    x = checked_matrix("draws", draws, least=1)
    if isinstance(modes, Modes):
        if masses is None:
            masses = modes.masses if modes.weighted_masses is None else modes.weighted_masses
        modes = modes.locations
    centres = checked_matrix("modes", modes, rows="modes", least=2)
    if centres.shape[1] != x.shape[1]:
        raise InvalidArgument(f"draws have {x.shape[1]} columns and modes {centres.shape[1]}.")
    unit = _checked_scale(scale, x.shape[1])
    nearest = torch.cdist(x / unit, centres / unit).argmin(1)
    count = len(centres)
    w = normalised_weights(log_w, len(x))
    shares = _sum_by(nearest, w, count)
    truth = _checked_masses(masses, count)
    least = _HIT * (truth if truth is not None else torch.full((count,), 1 / count))
    missed = tuple(int(m) for m in (shares < least).nonzero()[:, 0])
    return ModeCoverage(
        counts=torch.bincount(nearest, minlength=count),
        masses=shares,
        entropy=_entropy(shares) / math.log(count),
        expected_entropy=1.0 if truth is None else _entropy(truth) / math.log(count),
        jensen_shannon=None if truth is None else _jensen_shannon(shares, truth),
        hit=1 - len(missed) / count,
        missed=missed,
    )


def find_modes(
    draws: Tensor,  # (S, D)
    *,
    log_w: Tensor | None = None,  # (S,)
    most: int = 12,
    least_mass: float = 0.01,
    seed: int = 0,
) -> Modes:
    r"""Modes of the density of draws, by a mixture of normals whose components are merged.

    Coordinates are divided by their standard deviation. A mixture of normals is fitted, its number
    of components chosen by BIC. Components belong to one mode if the density of the mixture on the
    line between their means stays above half of the lower of its values there, or if a chain of
    such pairs joins them, so that a curved or skewed posterior counts as one mode. Every draw goes
    to the component that most probably made it. Modes with less than ``least_mass`` of the draws
    (and of the weight) are given to the nearest of the others.

    Limits. The modes are those of the guide that made the draws: one that it does not reach cannot
    be found, whatever the weights. Two equal normals count as two modes from a distance of about
    3.4 standard deviations on. Above twenty dimensions, or with fewer than twenty draws per
    dimension, the components have diagonal covariances. Of more than 2000 draws every n-th is used
    to fit the mixture. Above ten dimensions or so far modes may go unseen: BIC charges every
    component for its covariance: pass the coordinates of interest. Strongly curved shapes may be
    cut into several modes.

    Args:
        draws: draws of a guide, or reference draws.
        log_w: log-weights, for the masses after importance weighting; modes that matter under
            either are looked for.
        most: largest number of components.
        least_mass: smallest mass that makes a mode.
        seed: of a generator of its own for the starting points.

    Raises:
        InvalidArgument: for bad shapes and numbers.

    Source: Hennig (2010), "Methods for merging Gaussian mixture components", for the principle;
        Fraley and Raftery (2007) for the prior on covariances.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 1, generator=generator)
        >>> x[:150] += 10.0
        >>> found = find_modes(x)
        >>> found.masses, bool((found.locations[:, 0] - torch.tensor([0.0, 10.0])).abs().max() < 1)
        (tensor([0.7000, 0.3000], dtype=torch.float64), True)
    """
    x = checked_matrix("draws", draws)
    checked_count("most", most, least=1)
    if not 0 <= least_mass < 1:
        raise InvalidArgument(f"least_mass={least_mass!r} must lie in [0, 1).")
    mean, scale = x.mean(0), x.std(0)
    flat = (scale <= 1e-12 * x.abs().amax(0)).nonzero()
    if len(flat):
        raise InvalidArgument(f"draws do not vary in coordinate {int(flat[0])}: leave it out.")
    z = (x - mean) / scale
    equal = normalised_weights(None, len(z))
    w = None if log_w is None else normalised_weights(log_w, len(z))
    both = equal if w is None else (equal + w) / 2
    every = math.ceil(len(z) / _MOST_DRAWS)
    mixture = fit_mixture(z[::every], both[::every] / both[::every].sum(), most=most, seed=seed)

    group = _merge(mixture)
    component = mixture.log_joint(z).argmax(1)
    peaks, labels = _peaks(mixture, group), group[component]
    largest = _sum_by(labels, equal, len(peaks))
    if w is not None:
        largest = torch.maximum(largest, _sum_by(labels, w, len(peaks)))
    keep = largest >= min(least_mass, float(largest.max()))
    small = ~keep[labels]
    kept = keep.nonzero()[:, 0]
    labels = torch.where(small, kept[torch.cdist(z, peaks[kept]).argmin(1)], labels)

    masses = _sum_by(labels, equal, len(peaks))
    order = kept[masses[kept].argsort(descending=True)]
    place = torch.empty(len(peaks), dtype=torch.long)
    place[order] = torch.arange(len(order))
    return Modes(
        locations=peaks[order] * scale + mean,
        masses=masses[order],
        weighted_masses=None if w is None else _sum_by(labels, w, len(peaks))[order],
        labels=place[labels],
    )


def _merge(mixture: NormalMixture) -> Tensor:  # (M,) number of the mode of each component
    """Join components between which the density does not fall."""
    size = len(mixture.means)
    group = torch.arange(size)
    way = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None]
    for i in range(size):
        for j in range(i):
            line = (1 - way) * mixture.means[i] + way * mixture.means[j]
            log_density = mixture.log_prob(line)
            lower = torch.minimum(log_density[0], log_density[-1])
            if float(log_density.min() - lower) > math.log(_DIP):
                group[group == group[i]] = group[j].clone()
    return torch.unique(group, return_inverse=True)[1]


def _peaks(mixture: NormalMixture, group: Tensor) -> Tensor:  # (number of modes, D)
    """The mean of highest density of every mode."""
    density = mixture.log_prob(mixture.means)
    modes = range(int(group.max()) + 1)
    return torch.stack(
        [mixture.means[density.masked_fill(group != m, -math.inf).argmax()] for m in modes]
    )


def _sum_by(
    labels: Tensor,  # (S,)
    w: Tensor,  # (S,)
    count: int,
) -> Tensor:  # (count,)
    return torch.zeros(count, dtype=w.dtype).index_add(0, labels, w)


def _entropy(shares: Tensor) -> float:
    return float(torch.special.entr(shares).sum())


def _jensen_shannon(p: Tensor, q: Tensor) -> float:
    middle = _entropy((p + q) / 2)
    return max(0.0, middle - (_entropy(p) + _entropy(q)) / 2) / math.log(2)


def _checked_masses(masses: Any, count: int) -> Tensor | None:
    if masses is None:
        return None
    found = torch.as_tensor(masses).detach().double()
    if found.shape != (count,):
        raise InvalidArgument(f"masses must be {count} numbers, one per mode, not {masses!r}.")
    if not bool((found >= 0).all() & found.isfinite().all()) or float(found.sum()) == 0:
        raise InvalidArgument("masses must be finite and not negative, and not all be zero.")
    return found / found.sum()


def _checked_scale(scale: Any, dimension: int) -> Tensor:
    if scale is None:
        return torch.ones(dimension, dtype=torch.float64)
    found = torch.as_tensor(scale).detach().double()
    if found.shape != (dimension,) or not bool((found > 0).all() & found.isfinite().all()):
        raise InvalidArgument(f"scale must be {dimension} positive numbers, not {scale!r}.")
    return found
