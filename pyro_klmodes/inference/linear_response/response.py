"""Linear response covariances, site by site and together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.linear_response.factors import SiteFactors, covariance_between

__all__ = ["LinearResponse"]

#: entries of a covariance, on one side
_WIDEST = 5_000


@dataclass(frozen=True)
class LinearResponse:
    """Posterior covariances of the means of a mean-field fit, see ``linear_response``.

    Tensors by site have the site's shape, with the states of a Categorical as a last dimension.
    Entries that are masked in the model are NaN.

    Attributes:
        mean: of every site under ``q``, in the site's own space.
        mean_field_sd: its standard deviation under ``q``.
        sd: its standard deviation by linear response.
        distance: how far a Newton step of the ELBO would move any of the means, in units of
            ``sd``: by so much the fit has not converged.
        elbo_gap: what the ELBO would gain by it, about.
        least_curvature: the smallest eigenvalue of minus the Hessian of the ELBO, one being that of
            independent sites, after local sites are eliminated. By its inverse linear response may
            widen a variance; 0 is a flat direction. NaN where it is not known.
        exact: whether expectations are exact, all sites being conjugate; otherwise they are taken
            by Gauss-Hermite points.
    """

    mean: Mapping[str, Tensor]
    mean_field_sd: Mapping[str, Tensor]
    sd: Mapping[str, Tensor]
    distance: float
    elbo_gap: float
    least_curvature: float
    exact: bool
    factors: Mapping[str, SiteFactors] = field(repr=False)

    def __repr__(self) -> str:
        return f"LinearResponse(sites={list(self.mean)}, distance={self.distance:.2g})"

    @property
    def ratio(self) -> dict[str, Tensor]:
        """``sd / mean_field_sd`` by site; one for states that are certain, whose ``sd`` is zero."""
        return {n: torch.where(s == 0, 1.0, s / self.mean_field_sd[n]) for n, s in self.sd.items()}

    @property
    def labels(self) -> list[str]:
        """What the rows of ``covariance`` are: site by site, entries in row-major order."""
        return [label for name in self.mean for label in self.labels_of(name)]

    def labels_of(self, site: str) -> list[str]:
        """The labels of one site, such as ``w[0]``."""
        shape = self._known(site).shape
        if not shape:
            return [site]
        indices = itertools.product(*map(range, shape))
        return [f"{site}[{','.join(map(str, index))}]" for index in indices]

    @property
    def covariance(self) -> Tensor:  # (entries, entries)
        """The joint covariance of all entries of all sites, in the order of ``labels``.

        Raises:
            InvalidArgument: if it would be too large; ``covariance_of`` has parts of it.
        """
        return self.covariance_of(*self.mean)

    def covariance_of(self, *sites: str) -> Tensor:  # (entries, entries)
        """The joint covariance of some sites, in the order given.

        Raises:
            InvalidArgument: for an unknown site, or if it would be too large.
        """
        entries = sum(self._known(name).numel() for name in sites)
        if entries > _WIDEST:
            raise InvalidArgument(
                f"the covariance of {entries:,} entries has {entries**2:,} numbers "
                f"({entries**2 * 8 / 1e9:.1f} GB); {_WIDEST:,} entries is the "
                "limit. Ask for fewer sites, covariance_of(...), or take standard deviations, sd."
            )
        rows = [
            torch.cat([covariance_between(self.factors[a], self.factors[b]) for b in sites], 1)
            for a in sites
        ]
        return torch.cat(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        ratio = self.ratio
        return {
            "sites": {
                name: {
                    "mean": self.mean[name].tolist(),
                    "mean_field_sd": self.mean_field_sd[name].tolist(),
                    "sd": self.sd[name].tolist(),
                    "ratio": ratio[name].tolist(),
                }
                for name in self.mean
            },
            "distance": self.distance,
            "elbo_gap": self.elbo_gap,
            "least_curvature": self.least_curvature,
            "exact": self.exact,
        }

    def __rich__(self) -> Table:
        """A table with a row for each site."""
        table = Table("site", "shape", "mean-field sd", "linear response sd", "ratio")
        for name, ratio in self.ratio.items():
            shape = "x".join(map(str, ratio.shape)) or "-"
            columns = (self.mean_field_sd[name], self.sd[name], ratio)
            table.add_row(name, shape, *map(_range, columns))
        return table

    def _known(self, site: str) -> Tensor:
        if site not in self.mean:
            raise InvalidArgument(
                f"no site '{site}' in this linear response; it has "
                f"{', '.join(repr(n) for n in self.mean)}."
            )
        return self.mean[site]


def _range(values: Tensor) -> str:
    """One number, or the smallest and the largest."""
    finite = values[values.isfinite()]
    if not finite.numel():
        return "-"
    low, high = (f"{float(v):.3g}" for v in (finite.min(), finite.max()))
    return low if low == high else f"{low} to {high}"
