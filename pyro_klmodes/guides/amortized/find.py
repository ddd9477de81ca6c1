"""Find the data of the local latents, in the first call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.amortized.rows import Rows, data_plates
from pyro_klmodes.guides.amortized.source import Call, FromArgument, FromSite, Source, argument
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.tracing.arguments import tensors_in
from pyro_klmodes.tracing.observed import Observed, observed_sites, parameter_names

__all__ = ["find_source"]


def find_source(
    data: int | str | None,
    plate: Sequence[str] | None,
    latents: Mapping[str, Latent],
    call: Call,
) -> Source:
    """Find the data of the local latents.

    Args:
        data: a position, the name of an argument or of an observed site, or None to search.
        plate: the plates named by the user, if any.
        latents: those of the model.
        call: the model with its arguments.

    Raises:
        InvalidArgument: if there are no such data, or several where none are named.
        UnsupportedStructure: if no latent is local to them.
    """
    assert call.model is not None
    names = parameter_names(call.model)
    if isinstance(data, int):
        name = names[data] if 0 <= data < len(names) else None
        return _from_argument(data, name, plate, latents, call)
    position = names.index(data) if data in names else None
    if data is not None and isinstance(argument(call, position, data), Tensor):
        return _from_argument(position, data, plate, latents, call)
    observed = observed_sites(call.model, call.args, call.kwargs)
    if data is None:
        data = _only_candidate(observed, latents, names)
    elif data not in observed:
        raise InvalidArgument(
            f"data='{data}' is neither an argument of this call that holds a tensor nor an "
            f"observed site. Arguments: {_listed([*names, *call.kwargs])}; observed sites: "
            f"{_listed(observed)}."
        )
    return _from_site(data, observed[data], plate, latents, call, names)


def _from_argument(
    position: int | None,
    name: str | None,
    plate: Sequence[str] | None,
    latents: Mapping[str, Latent],
    call: Call,
) -> Source:
    what = f"argument '{name}'" if name is not None else f"argument {position}"
    tensor = FromArgument(Rows(what, {}), position, name).tensor(call)
    length = tensor.shape[0] if tensor.dim() > 0 else None
    plates = data_plates(latents, asked=plate, around=None, length=length, what=what)
    return FromArgument(Rows(what, {p: axis for axis, p in enumerate(plates)}), position, name)


def _from_site(
    site: str,
    observed: Observed,
    plate: Sequence[str] | None,
    latents: Mapping[str, Latent],
    call: Call,
    names: Sequence[str],
) -> Source:
    what = f"observed site '{site}'"
    plates = data_plates(latents, asked=plate, around=observed.plates, length=None, what=what)
    batch_dim = observed.value.dim() - observed.event_dim
    axes = {}
    for name in plates:
        if name not in observed.plates:
            raise InvalidArgument(f"{what} is not in plate '{name}', which plate= names.")
        axes[name] = batch_dim + observed.plates[name]
        if axes[name] < 0:
            raise InvalidArgument(
                f"{what} has no axis for plate '{name}': its value, {tuple(observed.value.shape)}, "
                "is broadcast along it."
            )
    # the very tensor first: another argument may hold the same numbers, zeros for instance
    for matches in (lambda x: x is observed.value, lambda x: _cut_out(x, observed, axes)):
        for (place, *inside), tensor in tensors_in(call.args, call.kwargs):
            if matches(tensor):
                position, argument = _place(place, names)
                return FromArgument(Rows(what, axes), position, argument, tuple(inside))
    return FromSite(Rows(what, axes), site)


def _place(place: int | str, names: Sequence[str]) -> tuple[int | None, str | None]:
    """Position and name of an argument that was passed by one of them."""
    if isinstance(place, int):
        return place, names[place] if place < len(names) else None
    return names.index(place) if place in names else None, place


def _cut_out(tensor: Tensor, observed: Observed, axes: Mapping[str, int]) -> bool:
    """Whether the site observes the rows of a tensor that are in the minibatch."""
    value = observed.value
    if tensor.dim() != value.dim() or tensor.dtype != value.dtype:
        return False
    for name, axis in axes.items():
        index = observed.indices.get(name)
        if index is not None and index.numel() and int(index.max()) < tensor.shape[axis]:
            tensor = tensor.index_select(axis, index.to(tensor.device))
    return tensor.shape == value.shape and torch.equal(tensor, value)


def _only_candidate(
    observed: Mapping[str, Observed], latents: Mapping[str, Latent], names: Sequence[str]
) -> str:
    """The one observed site that shares a plate with a latent."""
    plates = {p for latent in latents.values() for p in latent.plates}
    candidates = [name for name, site in observed.items() if plates & site.plates.keys()]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InvalidArgument(
            "no observed site shares a plate with a latent site, so the data that tell of the "
            "local latents are not known. Name them by data=: one of the arguments "
            f"{_listed(names)} or of the observed sites {_listed(observed)}. Local latents must be "
            "in a plate."
        )
    raise InvalidArgument(
        f"several observed sites share a plate with a latent site: {_listed(candidates)}. Say "
        "which feeds the encoder by data=, or name an argument that holds all of it: one of "
        f"{_listed(names)}."
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names)) or "none"
