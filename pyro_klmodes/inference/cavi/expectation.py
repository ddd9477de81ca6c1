"""The ELBO of a mean-field guide as a function of its parameters, by weighted nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_klmodes.inference.cavi.plan import Plan
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params
from pyro_klmodes.inference.cavi.structure import IMPOSSIBLE, with_jacobian
from pyro_klmodes.tracing.node_runs import NodeTerm

__all__ = ["Evaluation", "Expectation"]


@dataclass(frozen=True)
class Evaluation:
    """The ELBO at some parameters, with gradients.

    Attributes:
        elbo: the value.
        size: sum of the absolute values of what it is a sum of, for the size of rounding errors.
        points: by site.
        gradients: of the expected log-joint with respect to the points.
    """

    elbo: float
    size: float
    points: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


class Expectation:
    """Expectations under ``q``, exact for what is affine in the statistics of every site.

    Args:
        plan: what was decided on the sites.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Points of all sites that have some, differentiable."""
        found: dict[str, Tensor] = {}
        for rule in self.plan.rules.values():
            found.update(rule.points(params))
        return found

    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """Nodes of all sites at some points."""
        found: dict[str, Nodes] = {}
        for rule in self.plan.rules.values():
            found.update(rule.nodes(points))
        return {name: found[name] for name in self.plan.model.sites}

    def terms(self, nodes: Mapping[str, Nodes]) -> list[NodeTerm]:
        """The terms of the log-joint at all combinations of nodes."""
        plan = self.plan
        values = {name: node.values for name, node in nodes.items()}
        terms = plan.model.terms(values, plan.positions, plan.apart)
        for name, node in nodes.items():
            if node.log_det is not None:
                log_det = plan.model.laid_out_batch(node.log_det, plan.positions[name])
                terms = with_jacobian(terms, plan.model.sites[name], log_det)
        return terms

    def mean(
        self,
        term: NodeTerm,
        nodes: Mapping[str, Nodes],
    ) -> Tensor:  # (*batch)
        """The expectation of one term, scaled, for every element of its plates."""
        plan, value = self.plan, term.value.clamp(min=IMPOSSIBLE)
        for name, depending in plan.terms.items():
            node = nodes[name]
            dim = plan.model.node_dim(plan.positions[name])
            if term.name not in depending or len(node.values) == 1:
                continue
            if value.dim() < -dim or value.shape[dim] == 1:
                continue
            if node.number:
                if term.name in plan.choices[name].found.elsewhere:
                    value = value.narrow(dim, len(node.weights), 1)
                    continue
                value = value.narrow(dim, 0, len(node.weights))
            if node.weights.dim() == 1:
                weights = node.weights.reshape(-1, *([1] * (-dim - 1)))
            else:
                weights = plan.model.laid_out_batch(node.weights, plan.positions[name])
            value = (value * weights).sum(dim, keepdim=True)
        batch = value.reshape(value.shape[value.dim() - min(value.dim(), plan.model.nesting) :])
        return batch * term.scale

    def log_joint(self, nodes: Mapping[str, Nodes]) -> tuple[Tensor, float]:
        """``E_q[log p(x, z)]``, and the sum of absolute values in it."""
        means = [self.mean(term, nodes) for term in self.terms(nodes)]
        total = torch.stack([m.sum() for m in means]).sum()
        return total, float(sum(m.detach().abs().sum() for m in means))

    def entropy(self, params: Mapping[str, Params]) -> Tensor:
        """The entropy of ``q`` in the space of the points, minibatches scaled up."""
        parts = []
        entropies = [e for rule in self.plan.rules.values() for e in rule.entropy(params).items()]
        for name, members in entropies:
            view = self.plan.model.sites[name]
            batch_dim = len(view.shape) - view.fn.event_dim
            each = sum_rightmost(members, members.dim() - batch_dim)
            if view.mask is not None:
                each = torch.where(view.mask, each, torch.zeros_like(each))
            parts.append(view.ratio * each.sum())
        return torch.stack(parts).sum()

    def expected_log_joint(self, params: Mapping[str, Params]) -> Tensor:
        """``E_q[log p(x, z)]``, in unconstrained space where normals live there; differentiable."""
        return self.log_joint(self.nodes(self.points(params)))[0]

    def elbo(self, params: Mapping[str, Params]) -> Tensor:
        """The ELBO as a function of the parameters of all sites, twice differentiable."""
        return self.expected_log_joint(params) + self.entropy(params)

    def evaluate(self, params: Mapping[str, Params]) -> Evaluation:
        """The ELBO and its gradients with respect to the points of every site."""
        with torch.no_grad():
            points = self.points(params)
            entropy = self.entropy(params)
        leaves = {name: p.detach().requires_grad_() for name, p in points.items()}
        with torch.enable_grad():
            total, size = self.log_joint(self.nodes(leaves))
            found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        elbo = float(total.detach() + entropy)
        gradients = dict(zip(leaves, found, strict=True))
        return Evaluation(elbo, size + abs(float(entropy)), points, gradients)
