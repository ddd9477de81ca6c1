"""A process may be killed at any moment: its fit, taken up again, ends bitwise as it would have."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("resuming.py")
ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL
EPOCHS = 5


def command(*processes):
    """Warnings are errors there too."""
    return [sys.executable, "-W", "error", str(SCRIPT), str(EPOCHS), *processes]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*processes):
    """One process after the other, each as ``folder=kill``; their exit codes."""
    done = subprocess.run(
        command(*processes), capture_output=True, text=True, check=True, env=environment()
    )
    return [int(code) for code in done.stdout.split()]


@pytest.fixture
def folders(tmp_path):
    """One for a fit that is not killed, one for another that is."""
    both = tmp_path / "reference", tmp_path / "killed"
    for folder in both:
        folder.mkdir()
    return both


def assert_same(folder, reference):
    one, other = (torch.load(f / "found.pt", weights_only=True) for f in (folder, reference))
    assert one.keys() == other.keys()
    assert len(one["losses"]) == 5 * EPOCHS
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_kills_do_not_change_a_fit(folders):
    """After steps, within writes, and at moments that nobody chose.

    A checkpoint is written after every fifth step, and some 30 kB long.
    """
    reference, killed = folders
    random.seed(1)
    moments = ["step:3", "step:8", "write:1:0", "write:1:20000", "step:12"]
    moments += [f"after:{random.uniform(0.05, 0.4):.3f}" for _ in range(2)]
    moments += ["write:1:60", "never", "step:30"]  # the last has nothing left to do
    codes = run(f"{reference}=never", *(f"{killed}={moment}" for moment in moments))
    assert codes[:6] == [0] + [KILLED] * 5
    assert {*codes[6:9]} <= {KILLED, 0}
    assert codes[9:] == [0, 0]
    assert_same(killed, reference)
    assert (killed / "fit.ckpt").is_file()


@pytest.mark.slow
def test_fresh_processes_that_are_killed_from_outside(folders):
    """Whole interpreters, killed some milliseconds after they have written a new checkpoint."""
    reference, killed = folders
    random.seed(2)
    for _ in range(3):
        before = written(killed)
        fit = subprocess.Popen(
            command(f"{killed}=never"),
            env=environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        while written(killed) == before and fit.poll() is None:
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.02))
        os.killpg(fit.pid, signal.SIGKILL)  # the one that forks and the one that fits
        fit.wait()
    assert not (killed / "found.pt").exists()
    assert run(f"{reference}=never", f"{killed}=never") == [0, 0]
    assert_same(killed, reference)


def written(folder):
    file = folder / "fit.ckpt"
    return file.stat().st_mtime_ns if file.exists() else None
