"""Where the coordinates of all sites are in one vector: global ones first, then by plate member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.inference.linear_response.site import WhiteSite

__all__ = ["Layout", "layouts"]


@dataclass(frozen=True)
class Layout:
    """The order ``(global coordinates, coordinates of member 0, of member 1, ...)``.

    Attributes:
        sites: by name.
        plate: whose sites are local; None if all sites are global.
        members: of the plate, N.
        local: number of coordinates of a member, B.
        shared: number of global coordinates, G.
        offsets: where the coordinates of a site begin, within the global ones or a member's.
    """

    sites: Mapping[str, WhiteSite]
    plate: str | None
    members: int
    local: int
    shared: int
    offsets: Mapping[str, int]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.shared + self.members * self.local

    @property
    def cost(self) -> int:
        """Numbers that elimination keeps."""
        return self.shared**2 + self.members * self.local * (self.local + self.shared)

    def is_local(self, name: str) -> bool:
        """Whether a site is in the plate."""
        return self.plate is not None and self.plate in self.sites[name].plates

    def join(
        self,
        parts: Mapping[str, Tensor],  # {site: (*elements, M)}
    ) -> Tensor:  # (size,)
        """One vector."""
        shared = [parts[n].reshape(-1) for n in self.sites if not self.is_local(n)]
        local = [self._by_member(n, parts[n]) for n in self.sites if self.is_local(n)]
        if local:
            shared.append(torch.cat(local, 1).reshape(-1))
        return torch.cat(shared)

    def split(
        self,
        vector: Tensor,  # (size,)
    ) -> dict[str, Tensor]:  # {site: (*elements, M)}
        """The parts of a vector, differentiable."""
        members = vector[self.shared :].reshape(self.members, self.local)
        found = {}
        for name, site in self.sites.items():
            begin, shape = self.offsets[name], site.start.shape
            if not self.is_local(name):
                found[name] = vector[begin : begin + shape.numel()].reshape(shape)
                continue
            axis = site.axis(self.plate or "")
            width = shape.numel() // self.members
            rest = [s for d, s in enumerate(shape) if d != axis]
            part = members[:, begin : begin + width].reshape(self.members, *rest)
            found[name] = part.movedim(0, axis)
        return found

    def slopes(self, name: str) -> Tensor:  # (G_site, columns) or (N, B_site, columns)
        """The derivative of the means of a site; columns are its coordinates, in this order."""
        slopes = self.sites[name].slopes()
        if self.is_local(name):
            slopes = slopes.movedim(self.sites[name].axis(self.plate or ""), 0)
            blocks = slopes.reshape(self.members, -1, *slopes.shape[-2:])
        else:
            blocks = slopes.reshape(1, -1, *slopes.shape[-2:])
        n, r, v, m = blocks.shape
        eye = torch.eye(r, dtype=blocks.dtype, device=blocks.device)
        wide = torch.einsum("nrvm,rs->nrvsm", blocks, eye).reshape(n, r * v, r * m)
        return wide if self.is_local(name) else wide[0]

    def rows(self, name: str) -> Tensor:  # (N, B_site), or (1, G_site)
        """Which entry of the site, in its own order, each row of ``slopes`` is."""
        site = self.sites[name]
        elements = site.start.shape[:-1]
        values = max(1, site.coordinates.value_shape.numel())
        index = torch.arange(elements.numel() * values).reshape(*elements, values)
        if not self.is_local(name):
            return index.reshape(1, -1)
        return index.movedim(site.axis(self.plate or ""), 0).reshape(self.members, -1)

    def _by_member(self, name: str, value: Tensor) -> Tensor:  # (N, B_site)
        return value.movedim(self.sites[name].axis(self.plate or ""), 0).reshape(self.members, -1)


def layouts(sites: Mapping[str, WhiteSite]) -> list[Layout]:
    """All layouts, that with all sites global among them; those that take least memory first."""
    plates = dict.fromkeys(plate for site in sites.values() for plate in site.plates)
    found = [_layout(sites, plate) for plate in [None, *plates]]
    return sorted(found, key=lambda layout: layout.cost)


def _layout(sites: Mapping[str, WhiteSite], plate: str | None) -> Layout:
    shared = local = members = 0
    offsets: dict[str, int] = {}
    for name, site in sites.items():
        if plate is None or plate not in site.plates:
            offsets[name] = shared
            shared += site.start.numel()
            continue
        members = _members(site, plate)
        offsets[name] = local
        local += site.start.numel() // members
    return Layout(sites, plate, members, local, shared, offsets)


def _members(site: WhiteSite, plate: str) -> int:
    return int(site.start.shape[site.axis(plate)])
