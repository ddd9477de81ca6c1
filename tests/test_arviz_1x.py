"""Inference data under ArviZ 1.x, which needs an interpreter of its own.

ArviZ 1.x needs Python 3.12 or newer, so an environment with Python 3.11 cannot hold it. The layer
needs neither torch nor Pyro: a small second environment is enough. `make venv-arviz1` makes it.
"""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
VARIABLE = "KLMODES_ARVIZ1_PYTHON"
MADE = REPOSITORY / ".venv-arviz1" / "bin" / "python"


def test_inference_data_under_arviz_1x():
    python = os.environ.get(VARIABLE) or (str(MADE) if MADE.exists() else None)
    if python is None:
        pytest.skip(f"ArviZ 1.x is not tested: make venv-arviz1, or set {VARIABLE}")

    run = subprocess.run(
        [
            *(python, "-m", "pytest", "-q", "-c", "tests/arviz_1x/pytest.ini"),
            *("tests/arviz_1x", "tests/inference_data"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
