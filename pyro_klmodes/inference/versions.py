"""What a fit was done with."""

from __future__ import annotations

import platform

import pyro
import torch

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Versions of Python, torch, Pyro and this package."""
    from pyro_klmodes import __version__

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pyro-ppl": pyro.__version__,
        "pyro-klmodes": __version__,
    }
