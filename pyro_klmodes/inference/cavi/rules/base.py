"""What coordinate ascent asks of the family of a site: nodes, and the update from gradients there.

A rule stands for ``q`` of one site by a few values with weights, the nodes, such that the mean of a
function that is affine in the sufficient statistics of the site is right. The coefficients of such
a function follow from its gradients at the nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["JointRule", "Nodes", "Params", "Rule", "Single", "blended"]

Params = Mapping[str, Tensor]  # of one site, minibatches at their size


@dataclass(frozen=True)
class Nodes:
    """Values that stand for one site.

    Attributes:
        values: constrained, ``(S, *batch, *event)``.
        weights: ``(S,)``; of discrete sites, whose states weigh differently in every element,
            ``(S, *batch)``.
        number: whether the last value is the mean, for terms in which discrete elements meet; it
            has no weight.
        log_det: log-Jacobian of unconstrained space at every node, ``(S, *batch)``; None where the
            family lives on the support itself.
    """

    values: Tensor
    weights: Tensor
    log_det: Tensor | None = None
    number: bool = False


class Rule(ABC):
    """Nodes and updates of one site.

    Points are what a function is differentiated by: values, unconstrained values, or the weights
    of states.

    Attributes:
        family: of the site in the guide.
        ascends: whether a full step to the coefficients cannot lower the ELBO.
    """

    family: Any
    ascends: bool = True

    @abstractmethod
    def points(self, params: Params) -> Tensor:  # (S, *shape)
        """Points as a differentiable function of the parameters."""

    @abstractmethod
    def nodes(self, points: Tensor) -> Nodes:
        """The nodes at some points."""

    @abstractmethod
    def step(
        self,
        params: Params,
        points: Tensor,
        gradient: Tensor,  # the shape of points, of the weighted mean over nodes
        rho: float,
    ) -> dict[str, Tensor]:
        """Parameters after a natural-gradient step of length rho; 1 is the coordinate update."""

    def entropy(self, params: Params) -> Tensor:
        """Entropy of every element in the space of the points, ``A(eta) - <eta, E[t]>``."""
        natural = self.family.natural(params)
        mean = self.family.mean_parameters(params)
        found: Tensor = self.family.log_normaliser(natural) - self.family.inner(natural, mean)
        return found


class JointRule(ABC):
    """Nodes and updates of all sites that share a factor, in one node dimension.

    The s-th nodes of all sites belong together; weights are the same for all of them.

    Attributes:
        sites: their names.
        ascends: whether a full step to the coefficients cannot lower the ELBO.
    """

    sites: tuple[str, ...]
    ascends: bool = True

    @abstractmethod
    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Points of the sites that have some, differentiable."""

    @abstractmethod
    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """The nodes of every site at some points."""

    @abstractmethod
    def step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
    ) -> dict[str, dict[str, Tensor]]:
        """Parameters of every site after a natural-gradient step of length rho."""

    @abstractmethod
    def entropy(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Entropy of every site given those drawn before it, ``(*members)``; they add up."""


class Single(JointRule):
    """A site with a factor of its own."""

    def __init__(self, site: str, rule: Rule) -> None:
        self.site, self.rule = site, rule
        self.sites, self.ascends = (site,), rule.ascends

    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Those of its rule."""
        return {self.site: self.rule.points(params[self.site])}

    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """Those of its rule."""
        return {self.site: self.rule.nodes(points[self.site])}

    def step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
    ) -> dict[str, dict[str, Tensor]]:
        """That of its rule."""
        at = self.site
        return {at: self.rule.step(params[at], points[at], gradients[at], rho)}

    def entropy(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """That of its rule."""
        return {self.site: self.rule.entropy(params[self.site])}


def blended(old: tuple[Tensor, ...], new: tuple[Tensor, ...], rho: float) -> tuple[Tensor, ...]:
    """``(1 - rho) old + rho new``, exactly the new ones for rho = 1."""
    if rho == 1:
        return new
    return tuple((1 - rho) * a + rho * b for a, b in zip(old, new, strict=True))
