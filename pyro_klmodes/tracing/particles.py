"""How many particles a run has, and which sites see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pyro

from pyro_klmodes.tracing.handlers import InnerParticles
from pyro_klmodes.tracing.plates import PARTICLES, STRATA

__all__ = ["Nested", "Particles", "Single", "Together"]


@dataclass(frozen=True)
class Single:
    """One particle, no particle dimension."""

    nesting: int = 0
    dims = 0

    @contextmanager
    def plate(self) -> Iterator[None]:
        """Nothing."""
        yield


@dataclass(frozen=True)
class Together:
    """K particles in one run: a plate left of the model's own."""

    count: int
    nesting: int
    stratified: bool = False  # whether a mixture may spread them over its components
    dims = 1

    @property
    def dim(self) -> int:
        """The batch dimension of the particles."""
        return -1 - self.nesting

    @contextmanager
    def plate(self) -> Iterator[None]:
        """The particle plate."""
        with pyro.plate(STRATA if self.stratified else PARTICLES, self.count, dim=self.dim):
            yield


@dataclass(frozen=True)
class Nested:
    """M outer particles for every site, and K inner ones for the sites inside of one plate."""

    outer: int
    inner: int
    inside: str
    nesting: int
    dims = 2

    @property
    def dim(self) -> int:
        """The batch dimension of the inner particles; the outer ones are left of it."""
        return -1 - self.nesting

    @contextmanager
    def plate(self) -> Iterator[None]:
        """Both plates."""
        with ExitStack() as stack:
            stack.enter_context(InnerParticles(self.inside, self.inner, self.dim))
            stack.enter_context(pyro.plate(f"{PARTICLES}_outer", self.outer, dim=self.dim - 1))
            yield


Particles = Single | Together | Nested
