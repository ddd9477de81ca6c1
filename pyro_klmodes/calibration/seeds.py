"""Seeds of the parts of a calibration: no two share a stream, in whatever order they run."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["Part", "seed_of"]


class Part(IntEnum):
    """What a seed is for."""

    SIMULATION = 0
    FIT = 1
    DRAWS = 2
    TIES = 3
    REFERENCES = 4


def seed_of(seed: int, part: Part, index: int = 0) -> int:
    """A seed for one part of one simulation (numpy's SeedSequence)."""
    entropy = [abs(seed), int(seed < 0), int(part), index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
