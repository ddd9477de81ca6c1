"""One number per cell that tells whether it still holds the data it held before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_klmodes.tracing.observed import Observed

__all__ = ["DataSums"]

#: relative to the sum of absolute values: far above rounding, far below a change of the data
_ROUNDING = 1e-9


class DataSums:
    """Weighted sums of what is observed in every cell.

    The weights depend on site and position, so that data in another order have another sum.

    Covariates are not in it: they may be noisy on purpose, and arguments need not be laid out as
    the plates are.

    Attributes:
        sums: ``(*local)``, in double precision.
        rounding: ``(*local)``, below which two sums are the same.
    """

    def __init__(
        self,
        observed: Mapping[str, Observed],
        plates: Sequence[str],  # local, in the order of the axes of the result
        shape: Sequence[int],  # (*local)
    ) -> None:
        self.sums = torch.zeros(tuple(shape), dtype=torch.float64)
        self.rounding = torch.zeros_like(self.sums)
        for number, name in enumerate(sorted(observed)):
            site = observed[name]
            if not set(plates) <= set(site.plates):
                continue  # it depends on no latent value
            rows = _by_cell(site, plates).cpu()
            weights = torch.arange(1.0, rows.shape[-1] + 1, dtype=torch.float64).add(number).cos()
            self.sums = self.sums + (rows * weights).sum(-1)
            self.rounding = self.rounding + rows.abs().sum(-1) * _ROUNDING

    def differ(self, before: Tensor) -> Tensor:  # (*local), bool
        """Where the data are not those of earlier sums; NaN there stands for none."""
        return (self.sums - before).abs() > self.rounding


def _by_cell(site: Observed, plates: Sequence[str]) -> Tensor:  # (*local, n), ones where the same
    """What a site observes, cells first, without what is masked out."""
    value = torch.nan_to_num(site.value.detach().double(), nan=0.0, posinf=1.0, neginf=-1.0)
    if site.mask is not None:
        mask = site.mask.reshape(site.mask.shape + (1,) * site.event_dim)
        value = torch.where(mask.to(value.device), value, torch.zeros_like(value))
    deepest = max((-d for d in site.plates.values()), default=0) + site.event_dim
    value = value.reshape((1,) * (deepest - value.dim()) + value.shape)
    for plate, dim in site.plates.items():
        axis = dim - site.event_dim
        if plate not in plates and plate in site.indices:
            order = site.indices[plate].argsort()
            if value.shape[axis] == len(order):
                value = value.index_select(axis, order.to(value.device))
    axes = [site.plates[plate] - site.event_dim for plate in plates]
    value = value.movedim(axes, list(range(len(axes))))
    return value.reshape((*value.shape[: len(axes)], -1))
