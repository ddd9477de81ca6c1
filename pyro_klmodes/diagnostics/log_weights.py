"""Checks of the log-weights that the diagnostics are given, and their place next to values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument

__all__ = ["check_log_weights", "normalised_for_site"]


def check_log_weights(
    log_w: Tensor,  # (S, *cells)
    caller: str,
) -> Tensor:  # (S, *cells)
    """The log-weights, detached and in float64, or an error that says what is wrong with them."""
    if log_w.dim() == 0 or log_w.shape[0] < 2:
        raise InvalidArgument(
            f"{caller}: log_w of shape {tuple(log_w.shape)} has fewer than two draws; its first "
            "dimension is the draws. Draw more."
        )
    if log_w.isnan().any() or (log_w == math.inf).any():
        bad = int((log_w.isnan() | (log_w == math.inf)).sum())
        raise InvalidArgument(
            f"{caller}: {bad} of {log_w.numel()} entries of log_w are NaN or +inf. Look for draws "
            "at which the model's or the guide's log-density is not finite."
        )
    if (log_w.amax(0) == -math.inf).any():
        raise InvalidArgument(
            f"{caller}: all weights of a cell are zero (log_w is -inf): no draw of the guide is "
            "possible under the model. Check that the supports of guide and model agree."
        )
    return log_w.detach().double()


def normalised_for_site(
    log_v: Tensor,  # (S, *cells), normalised over the draws
    value: Tensor,  # (S, *site_shape)
    *,
    site: str,
    caller: str,
) -> tuple[Tensor, Tensor]:  # (S, *cells, *ones), (S, *site_shape)
    """Weights that broadcast against the values of a site, and the values in float64.

    The cells are the leading dimensions of the site's shape; one joint weight has none.
    """
    if value.shape[: log_v.dim()] != log_v.shape:
        raise InvalidArgument(
            f"{caller}: values of site {site!r} have shape {tuple(value.shape)}, which must begin "
            f"with the shape of log_w, {tuple(log_v.shape)}: draws, then the cells of the local "
            "plates. Move these to the front, or give one joint weight per draw."
        )
    if not value.isfinite().all():
        raise InvalidArgument(f"{caller}: values of site {site!r} are not all finite.")
    weight = log_v.exp().reshape(*log_v.shape, *[1] * (value.dim() - log_v.dim()))
    return weight, value.detach().to(torch.float64)
