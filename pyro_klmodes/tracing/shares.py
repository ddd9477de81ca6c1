"""Particles that are spread over the components of a mixture, and what each of them counts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator

__all__ = ["Shares"]


@dataclass(frozen=True)
class Shares:
    """What a mixture notes at its sites (``infer={"shares": ...}``) about K * M stratified draws.

    Attributes:
        log_share: ``(K * M,)``, log of the number of draws times the share of each in an average
            over the mixture.
        strata: the number of components; the draws are in their order.
    """

    log_share: Tensor
    strata: int

    def by_outer(self, outer: int) -> Tensor:  # (K,), or (K, M)
        """The shares within each of M groups of K particles.

        Raises:
            IncompatibleEstimator: if the groups are not alike.
        """
        if outer == 1:
            return self.log_share
        shares = self.log_share.reshape(-1, outer)
        if len(shares) % self.strata:
            raise IncompatibleEstimator(
                f"num_particles={len(shares)} with num_outer={outer}: the particles cannot be "
                f"spread evenly over the {self.strata} components of the guide. Make num_particles "
                "a multiple of that, or draw from the mixture itself (draws=Implicit())."
            )
        return shares
