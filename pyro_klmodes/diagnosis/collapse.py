"""``collapse``: whether the latents of the data are in use, and what they are used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.latent_use import Collapse, SiteUse
from pyro_klmodes.diagnostics import MutualInformation, active_units
from pyro_klmodes.diagnostics import mutual_information as information_of
from pyro_klmodes.errors import InvalidArgument, NoDensity
from pyro_klmodes.inference.given import surveyed
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.posteriors import Chains, as_posterior
from pyro_klmodes.tracing import Draws
from pyro_klmodes.tracing.contrasts import contrasts, data_plate, kept_data

__all__ = ["collapse"]

#: draws per datum for the information where every particle has a run of its own
FEW = 4


def collapse(
    source: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    plate: str | None = None,
    num_samples: int = 64,
    compared_with: int = 256,
    threshold: float = 1e-2,
    seed: int = 0,
) -> Collapse:
    r"""Say whether the latents of the data are in use, or have collapsed onto their prior.

    A latent has collapsed when its distribution in the guide is the same for all data. Per datum,

    .. math:: \text{rate} = E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)),

    with the aggregate :math:`q(z) = E_x q(z|x)`. The information counts what latents say about
    data; the rest of the rate is a mismatch of aggregate and prior, which a collapsed guide can
    have too. Active units are those whose mean in the guide varies between data.

    The information is compared over M data: it is biased down as an estimate for the population
    behind the data, and never above ``log M``. Where model and guide draw minibatches, M is at most
    the minibatch. The prior is taken to be the same for all data. Sites some of whose draws
    ``obs_mask`` replaces are left out of the information, and data without any latent that counts
    are left out altogether.

    Args:
        source: what ``fit`` returned, a pair (model, guide), or a ``pyro.infer.SVI``.
        args: positional arguments of model and guide: for a pair or an ``SVI``, and the full data
            where the fit saw minibatches.
        kwargs: keyword arguments likewise.
        plate: the one whose elements are the data; the only one around all local latents if None.
        num_samples: draws S for each datum.
        compared_with: M at most; the guide is run M times.
        threshold: of the variance of an active unit's mean; 0.01 is for priors of scale one.
        seed: of the draws.

    Returns:
        A ``Collapse``, which prints as a table.

    Raises:
        InvalidArgument: for fewer than two draws or data, for Markov chains, and if no plate of
            the guide holds latents of its own or several do.
        ModelGuideMismatch, UnsupportedStructure: as training would.

    Source: Burda, Grosse and Salakhutdinov (2016) for active units; Hoffman and Johnson (2016) for
        the parts of the rate; Alemi et al. (2018) for rate and distortion.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> x = torch.linspace(-2.0, 2.0, 40)
        >>> def model():
        ...     with pyro.plate("data", 40):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide():
        ...     with pyro.plate("data", 40):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5 ** 0.5))
        >>> collapse((model, guide)).word, collapse((model, model)).word
        ('in use', 'collapsed')
    """
    for name, value in (("num_samples", num_samples), ("compared_with", compared_with)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise InvalidArgument(f"{name}={value!r} must be an integer of at least 2.")
    posterior = as_posterior(source, args=args, kwargs=kwargs)
    if isinstance(posterior, Chains):
        raise InvalidArgument("Markov chains have no guide that could collapse; pass a fit.")
    notes: list[str] = []
    with posterior.scope(), seeded(seed):
        full = surveyed(posterior.pair)
        chosen = data_plate(full, plate)
        draws = full.draws(num_samples, by_site=True)
        kept = kept_data(draws, chosen)
        together = full.layout.vectorised
        information = None
        if len(kept) > 1:
            try:
                few = num_samples if together else FEW
                information = information_of(contrasts(full, chosen, draws=few, most=compared_with))
            except NoDensity as error:
                notes.append(f"no mutual information: {error}")
    return _collapse(draws, chosen, kept, information, threshold, tuple(notes))


def _collapse(
    draws: Draws,
    plate: str,
    kept: Tensor,  # (N,)
    information: MutualInformation | None,
    threshold: float,
    notes: tuple[str, ...],
) -> Collapse:
    size = len(kept)
    if size < 2:
        raise InvalidArgument(f"plate '{plate}' has {size} data; it takes two to tell them apart.")
    places = _places(draws, plate)
    groups = {
        group: names
        for group in draws.sites
        if (names := [name for name in group.split(", ") if name in places])
    }
    rates = {group: _per_draw(draws.sites[group].log_ratio) / size for group in groups}
    rate = torch.stack(list(rates.values())).sum(0)
    rest = draws.rest / draws.scale
    return Collapse(
        plate=plate,
        num_data=size,
        distortion=float((-_per_draw(draws.log_likelihood).mean() - rest) / size),
        rate=float(rate.mean()),
        rate_error=float(rate.std() / len(rate) ** 0.5),
        information=information,
        sites={
            name: SiteUse(
                rate=float(rates[group].mean()),
                units=active_units(_units(draws.values[name], places[name], kept), threshold),
            )
            for group, names in groups.items()
            for name in names
        },
        notes=notes,
    )


def _per_draw(
    cells: Tensor,  # (S, *local)
) -> Tensor:  # (S,)
    return cells.reshape(len(cells), -1).sum(1)


def _places(draws: Draws, plate: str) -> dict[str, int]:
    """The axis of the plate, from the right, in the values of each of its latent sites."""
    return {
        term.name: term.plates[plate] - term.site["fn"].event_dim
        for where, term in draws.terms
        if where == "guide" and term.latent and term.site is not None and plate in term.plates
    }


def _units(
    values: Tensor,  # (S, *site_shape)
    axis: int,
    kept: Tensor,  # (N,)
) -> Tensor:  # (S, N, *unit_shape)
    """Draws by datum; a category becomes one unit for each value it takes."""
    moved = values.movedim(axis, 1).index_select(1, kept)
    if moved.is_floating_point():
        return moved
    return torch.nn.functional.one_hot(moved.long()).to(torch.get_default_dtype())
