"""Which sites of a model are conditionally conjugate, and what is done about the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["ConjugacyReport", "SiteReport"]


@dataclass(frozen=True)
class SiteReport:
    """What coordinate ascent does with one site.

    Attributes:
        site: its name.
        family: of ``q`` for it.
        conjugate: whether its coordinate update is exact, in closed form.
        why: the reason, naming the terms that stand in the way.
        update: what is done.
        remedy: what to change for an exact update, "" if nothing helps or is needed.
    """

    site: str
    family: str
    conjugate: bool
    why: str
    update: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = "conjugate" if self.conjugate else "not conjugate"
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{self.site}: {self.family}, {mark}: {self.why}; {self.update}.{remedy}"


@dataclass(frozen=True)
class ConjugacyReport:
    """The report on all sites.

    Attributes:
        sites: by name, in the order of the model.
    """

    sites: Mapping[str, SiteReport]

    @property
    def conjugate(self) -> bool:
        """Whether all sites are."""
        return all(site.conjugate for site in self)

    @property
    def others(self) -> list[str]:
        """The sites that are not."""
        return [site.site for site in self if not site.conjugate]

    def __iter__(self) -> Iterator[SiteReport]:
        return iter(self.sites.values())

    def __getitem__(self, site: str) -> SiteReport:
        return self.sites[site]

    def __str__(self) -> str:
        return "\n".join(str(site) for site in self)
