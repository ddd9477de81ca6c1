"""Tutorials as a reader runs them, with the names they leave behind."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "tutorials"


def run(name: str, setting: str) -> dict[str, Any]:
    """All variables after the last cell.

    Args:
        name: of the file, without ``.py``.
        setting: ``"short"`` or ``"full"``.
    """
    with pytest.MonkeyPatch.context() as patch, pyro.get_param_store().scope():
        patch.setenv("KLMODES_TUTORIALS", setting)
        patch.syspath_prepend(FOLDER)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # what a reader has
        try:
            return runpy.run_path(str(FOLDER / f"{name}.py"))
        finally:
            torch.set_default_dtype(before)
            plt.close("all")
