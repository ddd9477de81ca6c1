"""Checks that diagnostics of matrices of draws share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import self_normalise

__all__ = ["checked_count", "checked_matrix", "normalised_weights", "own_generator"]


def checked_matrix(
    name: str,
    x: Any,
    *,
    rows: str = "draws",
    least: int = 2,
) -> Tensor:  # (rows, D)
    """A matrix in double precision, detached.

    Raises:
        InvalidArgument: naming the argument, if it is no finite matrix with enough rows.
    """
    if not isinstance(x, Tensor) or x.dim() != 2:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InvalidArgument(
            f"{name} must be a tensor of shape ({rows}, D), not {found}. Flatten every draw to a "
            "vector: x.reshape(len(x), -1)."
        )
    if x.shape[1] == 0:
        raise InvalidArgument(f"{name} has no columns: there is nothing to look at with D = 0.")
    if x.shape[0] < least:
        raise InvalidArgument(
            f"{name} has {x.shape[0]} {rows}; at least {least} are needed. Pass more."
        )
    x = x.detach().double()
    bad = ~torch.isfinite(x).all(1)
    if bool(bad.any()):
        raise InvalidArgument(
            f"{name}: {int(bad.sum())} of {len(x)} {rows} are not finite, the first is number "
            f"{int(bad.nonzero()[0])}. Find out why before leaving them out."
        )
    return x


def normalised_weights(
    log_w: Tensor | None,  # (S,)
    count: int,
) -> Tensor:  # (S,)
    """Self-normalised weights, equal ones for None.

    Raises:
        InvalidArgument: if their shape is wrong, one is NaN or infinite, or all are zero.
    """
    if log_w is None:
        return torch.full((count,), 1.0 / count, dtype=torch.float64)
    if not isinstance(log_w, Tensor) or log_w.shape != (count,):
        found = tuple(log_w.shape) if isinstance(log_w, Tensor) else type(log_w).__name__
        raise InvalidArgument(
            f"log_w must have shape ({count},), one log-weight per draw, not {found}."
        )
    log_w = log_w.detach().double()
    if bool(log_w.isnan().any()) or bool((log_w == torch.inf).any()):
        raise InvalidArgument("log_w has a NaN or infinite weight; -inf is a weight of zero.")
    if bool((log_w == -torch.inf).all()):
        raise InvalidArgument("log_w: all weights are zero. Guide and posterior do not overlap.")
    return self_normalise(log_w)


def own_generator(seed: int) -> torch.Generator:
    """A generator whose stream is not that of ``torch.manual_seed(seed)``.

    The draws that are judged were often made with the same seed: random references would be
    correlated with them.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + 0x5DEECE66D) % 2**63)


def checked_count(name: str, value: Any, least: int) -> int:
    """A whole number.

    Raises:
        InvalidArgument: naming the argument, if it is none or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name}={value!r} must be an integer of at least {least}.")
    return value
