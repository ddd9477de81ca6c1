"""What all tutorials share: how long they run, prose with computed numbers, colours."""

from __future__ import annotations

import os
from typing import TypeVar

import matplotlib.pyplot as plt
import pyro
import torch

__all__ = ["COLOURS", "begin", "say", "sized"]

_T = TypeVar("_T")

#: one colour per idea, in every figure; they differ for colour-blind readers too (Okabe and Ito)
COLOURS = {
    "target": "#4d4d4d",
    "reverse": "#0072b2",
    "forward": "#d55e00",
    "importance": "#009e73",
    "other": "#cc79a7",
}


def sized(full: _T, short: _T) -> _T:
    """The first as a rule; the second where ``KLMODES_TUTORIALS=short``, for quick tests."""
    return short if os.environ.get("KLMODES_TUTORIALS") == "short" else full


def begin(seed: int = 0) -> None:
    """The same start for every tutorial: a seed, an empty parameter store, one thread, a style."""
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.5),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
    )


def say(text: str) -> None:
    """Prose with numbers of the cell above it: Markdown in a notebook, plain text elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import Markdown, display
    except ImportError:
        print(text)
        return
    if get_ipython() is None:
        print(text)
    else:
        display(Markdown(text))
