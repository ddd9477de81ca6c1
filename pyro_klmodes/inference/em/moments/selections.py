"""Whether sites select the entries that they were found to select, in another run of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import MATRICES, NotRead, arguments, core_of
from pyro_klmodes.inference.em.moments.entries import Entries, unexpanded
from pyro_klmodes.inference.em.moments.scale_forms import SCALE_FORMS
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["check_selections"]


def check_selections(
    uses: Iterable[Use],
    factors: Mapping[str, Factor],
    sites: Collection[str],
    entries: Entries,
) -> None:
    """See that the sites of a run at the first probe select what they were found to select.

    Another minibatch may have other sites, as a longer series has, or select other entries, as
    ``loc[group]`` does where the groups are data.

    Raises:
        UnsupportedStructure: naming the site.
    """
    for name in factors:
        if name not in sites:
            raise UnsupportedStructure(
                f"site '{name}' is not in the first batch, so that its parameters are not known. "
                "Let the batch with all sites be the first one (of series, that of the longest), "
                "or pad and mask what is shorter (poutine.mask)."
            )
    flat = entries.flat({n: v[None] for n, v in entries.probes[0].items()})[0]
    for use in uses:
        if use.site not in factors:
            continue
        factor = factors[use.site]
        for argument, places in use.maps.items():
            found, wanted = _both(argument, factor, places, flat)
            if found is None or not _equal(found, wanted, entries.rounding(found)):
                raise UnsupportedStructure(
                    f"site '{use.site}' selects other entries of its parameters than in the first "
                    "batch, as loc[group] does where groups are data. Use all data at once, or a "
                    "table of all groups with those of other data masked."
                )


def _both(
    argument: str, factor: Factor, places: Tensor, flat: Tensor
) -> tuple[Tensor | None, Tensor]:
    """What an argument is, and what it is by the entries that it was found to select."""
    if argument == "value":
        return unexpanded(factor.value), flat[places]
    try:
        given = arguments(core_of(factor.fn))
    except NotRead:
        return None, flat[places]
    if argument in MATRICES:
        size = factor.fn.event_shape[-1]
        square = torch.arange(size**2).reshape(size, size)
        return given.get(argument), flat[places[..., None, None] + square]
    if argument in SCALE_FORMS:
        scale = given.get("scale")
        return None if scale is None else SCALE_FORMS[argument].of_scale(scale), flat[places]
    return given.get(argument), flat[places]


def _equal(found: Tensor, wanted: Tensor, rounding: float) -> bool:
    found = found.double().cpu()
    try:
        one, other = torch.broadcast_tensors(found, wanted)
    except RuntimeError:
        return False
    return torch.allclose(one, other, rtol=rounding, atol=1e-300)
