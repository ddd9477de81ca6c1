"""Observed sites forget what was observed."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger

from pyro_klmodes.tracing.computed import is_deterministic

__all__ = ["ObserveAnew"]


class ObserveAnew(Messenger):
    """Draw observed sites as if nothing had been observed.

    Deterministic sites and factors are observed in form only, and stay.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"] or is_deterministic(msg):
            return
        if isinstance(msg["fn"], dist.Unit):
            return
        msg["is_observed"] = False
        msg["value"] = None
        msg["done"] = False
