"""What it costs that one network serves all data, and that the family is what it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides.amortized.guide import AutoAmortized
from pyro_klmodes.guides.amortized.head import Site

__all__ = ["Gaps", "amortisation_gap"]


@dataclass(frozen=True)
class Gaps:
    """Lower bounds of the log evidence of every datum.

    Attributes:
        log_evidence: ``log p(x_n)``, ``(N,)``.
        best: the ELBO of the best member of the family found for the datum, ``(N,)``.
        amortised: the ELBO of what the encoder gives it, ``(N,)``.
    """

    log_evidence: Tensor
    best: Tensor
    amortised: Tensor

    @property
    def approximation(self) -> float:
        """Mean over data of ``log_evidence - best``: what the family cannot express."""
        return float((self.log_evidence - self.best).mean())

    @property
    def amortisation(self) -> float:
        """Mean over data of ``best - amortised``: what the encoder falls short of the family."""
        return float((self.best - self.amortised).mean())

    def __str__(self) -> str:
        return (
            f"per datum: log evidence {float(self.log_evidence.mean()):.4f}, approximation gap "
            f"{self.approximation:.4f}, amortisation gap {self.amortisation:.4f}"
        )


def amortisation_gap(
    guide: AutoAmortized,
    log_joint: Callable[[Tensor], Tensor],
    points: Tensor,  # (G, *event_shape)
    cell: float,
    *args: Any,
    steps: int = 300,
    **kwargs: Any,
) -> Gaps:
    r"""The amortisation gap of a guide and, beside it, the approximation gap, by quadrature.

    For each datum, with q_n from the encoder and Q the family,

    .. math:: \log p(x_n) \ge \max_{q \in Q} \mathrm{ELBO}_n(q) \ge \mathrm{ELBO}_n(q_n).

    The first difference is the approximation gap, the second the amortisation gap. Both bounds are
    sums over a grid, so there is no Monte Carlo error. The maximum is that of gradient ascent in
    the parameters of each datum from three starts: the encoder's, the mean and the mode of the
    posterior. So it is a lower bound of the best ELBO, and the amortisation gap as well.

    Args:
        guide: with a single local site, of one or two coordinates, and no other latents.
        log_joint: ``log p(x_n, z)`` at values z: ``(G, 1, *event_shape)`` to ``(G, N)``.
        points: values of the site on a regular grid that holds the posteriors and the guide.
        cell: the volume of a cell of the grid.
        *args: what the guide is called with, for N data.
        steps: gradient steps from each start.
        **kwargs: what the guide is called with.

    Raises:
        UnsupportedStructure: if the guide has other latents, more than one local site, or several
            elements of it for a datum.
        InvalidArgument: if more than 1 % of the guide's mass of a datum is outside of the grid or
            between its points.

    Source: Cremer, Li and Duvenaud (2018).

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> x, z = torch.tensor([-1.0, 0.0, 1.0]), torch.linspace(-7, 7, 281)
        >>> def log_joint(z):
        ...     return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)
        >>> from pyro.infer.autoguide import init_to_mean
        >>> guide = AutoAmortized(model, init_loc_fn=init_to_mean)  # every datum has the prior
        >>> gaps = amortisation_gap(guide, log_joint, z, 0.05, x)
        >>> round(gaps.approximation, 3)  # the posteriors are normal
        0.0
        >>> round(gaps.amortisation, 3)  # KL(prior || posterior), (1 + x^2 / 2 - log 2) / 2
        0.32
    """
    site, amortised = _only_site(guide, args, kwargs)
    grid = _Grid(site, points.unsqueeze(1), log_joint(points.unsqueeze(1)).detach(), cell)
    grid.check(amortised)
    # the encoder's own value is among the candidates, so that the gap cannot be negative
    found = [grid.elbo(amortised)]
    for start in (amortised, *grid.starts(amortised)):
        found.append(grid.elbo(_ascend(grid, start, steps)))
    best = torch.stack([x.nan_to_num(nan=-math.inf) for x in found]).amax(0)
    return Gaps(grid.log_evidence, best, found[0])


class _Grid:
    """A regular grid of values, and the joint density of every datum there."""

    def __init__(
        self,
        site: Site,
        points: Tensor,  # (G, 1, *event_shape)
        log_p: Tensor,  # (G, N)
        cell: float,
    ) -> None:
        self.site = site
        self.points = points
        self.log_p = log_p
        self.log_cell = math.log(cell)
        self.log_evidence = torch.logsumexp(log_p, 0) + self.log_cell

    @torch.no_grad()
    def check(
        self,
        raw: Tensor,  # (N, P)
    ) -> None:
        """The grid holds the guide's distributions."""
        mass = torch.exp(self._log_q(raw) + self.log_cell).sum(0)
        worst = mass[(mass - 1).abs().argmax()]
        if not bool((worst - 1).abs() < 1e-2):
            raise InvalidArgument(
                f"the guide's distribution of a datum adds up to {float(worst):.4f} over points, "
                "and not to 1. Take a wider or a finer grid."
            )

    def elbo(
        self,
        raw: Tensor,  # (N, P)
    ) -> Tensor:  # (N,)
        """``sum_g q (log p - log q)`` over the normalised q on the grid."""
        log_q = torch.log_softmax(self._log_q(raw), 0)
        return (log_q.exp() * (self.log_p - (log_q - self.log_cell))).sum(0)

    @torch.no_grad()
    def starts(
        self,
        like: Tensor,  # (N, P)
    ) -> tuple[Tensor, Tensor]:  # (N, P) each
        """The family at the mean of the posterior of every datum, and at its mode."""
        u = self.site.flat(self.points).squeeze(1)  # (G, D)
        weight = torch.softmax(self.log_p, 0)  # (G, N)
        mean = weight.T @ u
        mode = u[self.log_p.argmax(0)]
        sd = (weight.T @ u**2 - mean**2).clamp(min=0).sqrt().mean(-1)
        narrow = float(sd.quantile(0.25))
        return self._at(mean, sd, like), self._at(mode, torch.full_like(sd, narrow), like)

    def _at(
        self,
        loc: Tensor,  # (N, D)
        scale: Tensor,  # (N,)
        like: Tensor,
    ) -> Tensor:  # (N, P)
        smallest = 1e-3
        pairs = zip(loc, scale.clamp(min=smallest).tolist(), strict=True)
        return torch.stack([self.site.family.start(u, sd) for u, sd in pairs]).to(like)

    def _log_q(
        self,
        raw: Tensor,  # (N, P)
    ) -> Tensor:  # (G, N)
        log_q: Tensor = self.site.distribution(raw, {}).log_prob(self.points)
        return log_q


def _ascend(
    grid: _Grid,
    start: Tensor,  # (N, P)
    steps: int,
) -> Tensor:  # (N, P)
    """Adam with a step size that falls to zero: each datum has parameters of its own."""
    raw = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        optimizer.zero_grad()
        (raw.grad,) = torch.autograd.grad(-grid.elbo(raw).sum(), raw)
        optimizer.step()
        schedule.step()
    return raw.detach()


def _only_site(guide: AutoAmortized, args: Any, kwargs: Any) -> tuple[Site, Tensor]:
    """The one local site, and the parameters that the encoder gives it, (N, P)."""
    with torch.no_grad():
        raw = guide.local_parameters(*args, **kwargs)
    if len(raw) != 1 or guide.global_guide is not None:
        raise UnsupportedStructure(
            "the gap is measured datum by datum: the model must have one local site and no global "
            f"latents, and has {', '.join(repr(n) for n in guide.latents)}. Condition it on the "
            "others (pyro.condition)."
        )
    ((name, parameters),) = raw.items()
    if parameters.dim() != 2 or guide.sites[name].elements != 1:
        raise UnsupportedStructure(
            f"site '{name}' has batch shape {tuple(parameters.shape[:-1])}; the gap is measured "
            "for data along one plate, dim=-1, and one value of the site for each."
        )
    return guide.sites[name], parameters
