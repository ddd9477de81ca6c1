"""Doubly reparameterised gradients for the parameters of the prior, too."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.estimators.base import weighted_sum, with_gradient
from pyro_klmodes.estimators.doubly import Doubly
from pyro_klmodes.estimators.reach import reaches_beyond
from pyro_klmodes.objectives import Objective
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.prior_paths import PathAtLeaf, path_at_leaf

__all__ = ["GDReG"]


class GDReG(Doubly):
    r"""The path-only gradient for the guide, and for the learnable parameters of priors.

    With credit :math:`c_k` and curvature :math:`h_k` of what the model minimises, the score
    :math:`\sum_k c_k \nabla_\theta \log p_\theta(z_k)` of a prior has the mean of

    .. math:: \sum_k \Big[ h_k \frac{\partial \log w_k}{\partial z_k}
        + c_k \frac{\partial}{\partial z_k} \log \frac{q(z_k)}{p_\theta(z_k)} \Big]
        \frac{\partial T_\theta(\epsilon_k)}{\partial \theta}, \qquad
        \epsilon_k = T_\theta^{-1}(z_k) \text{ held constant},

    where T makes draws of the prior from noise; for the importance-weighted bound it is
    :math:`-\sum_k [\bar w_k \partial_z \log p(x|z_k) - \bar w_k^2 \partial_z \log w_k]
    \nabla_\theta T_\theta`. In a hierarchy this holds site by site, given what a site depends on.
    Often, not always, of less variance than the score.

    It serves latent sites whose prior has such a T (see ``tracing.prior_paths``) and which the
    guide draws by themselves, not as part of a joint vector of an autoguide. The parameters of
    other priors, and of the likelihood, keep their ordinary gradient.

    Source: Bauer and Mnih (2021).

    Example:
        >>> GDReG()
        gdreg
    """

    needs_sites = True
    needs_model_sites = True

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The objective's value; priors follow paths instead of scores."""
        loss = super().loss(objective, draws)
        return with_gradient(loss, loss + _paths_for_scores(objective, draws))


def _paths_for_scores(objective: Objective, draws: Draws) -> Tensor:
    """Surrogate of what the paths of the priors add, less their scores."""
    total = draws.log_p.new_zeros(())
    leaves = [leaf for _, leaf in draws.leaves]
    if not all(site.plain for site in draws.sites.values()):
        return total  # densities that are scaled inside of the weights are not those of the draws
    theirs = objective.for_model()
    credit = theirs.credit(draws.log_w)
    drawn = draws.log_q if draws.log_drawn is None else draws.log_drawn
    common = weighted_sum(theirs.curvature(draws.log_w), draws.log_w) + weighted_sum(credit, drawn)
    for name, site in draws.sites.items():
        if not reaches_beyond((site.log_p,), leaves):
            continue
        paths = _paths(draws, name, leaves)
        if not paths:
            continue
        score = weighted_sum(credit, site.log_p)
        slopes = torch.autograd.grad(
            common - score, [p.leaf for p in paths], retain_graph=True, allow_unused=True
        )
        for found, slope in zip(paths, slopes, strict=True):
            if slope is not None:
                total = total + (slope * found.keep * found.path).sum()
        total = total - score
    return total * draws.weight


def _paths(draws: Draws, name: str, leaves: list[Tensor]) -> list[PathAtLeaf]:
    """The path of a site in every run, or none at all."""
    terms = [term for where, term in draws.terms if where == "model" and term.name == name]
    found = [path_at_leaf(term, leaves) for term in terms if term.site is not None]
    return [] if None in found else [path for path in found if path is not None]
