"""The prior and the guide's density latent by latent: what rates are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import Cells, Run
from pyro_klmodes.tracing.handlers import is_delta
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.terms import Term

__all__ = ["SiteDensity", "densities_by_site"]


@dataclass(frozen=True)
class SiteDensity:
    r"""Prior and guide at one latent, or at several that the guide draws together.

    Attributes:
        log_p: ``(K, *local)``, the log-density in the model given what the site depends on.
        log_q: same shape, that in the guide.
        count: gives ``elements``: how many elements the plates around it have in the full data,
            without those that are masked out, times a ``poutine.scale``: what the sum of
            :math:`\log q - \log p` over cells and minibatches is divided by to get nats per datum.
        plain: whether neither is scaled inside of the weights.
    """

    log_p: Tensor
    log_q: Tensor
    count: Callable[[], float] = field(repr=False)
    plain: bool

    @property
    def elements(self) -> float:
        """How many elements there are; asked only where it matters, as it looks at masks."""
        return self.count()

    @property
    def log_ratio(self) -> Tensor:  # (K, *local)
        """``log q - log p``, whose mean is the rate."""
        return self.log_q - self.log_p


@dataclass
class _Group:
    """A source of randomness in the guide, the point masses that follow it, and their priors."""

    q: list[Term]
    p: list[Term] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {t.name for t in self.q}

    @property
    def auxiliary(self) -> bool:
        site = self.q[0].site
        return site is not None and bool(site["infer"].get("is_auxiliary", False))


def densities_by_site(
    runs: Sequence[Run],
    cells: Cells,
    log_p: Tensor,  # (K, *local), or (K, M, *local)
    outer: int = 1,
) -> dict[str, SiteDensity]:
    """The densities of every latent site, over all runs; sites drawn together are one entry.

    A guide that draws one auxiliary vector for several latents has no density of each: they are one
    entry, named after all of them. Sites that are summed out belong to no entry.

    Args:
        runs: a single run with a particle dimension, or one run per particle.
        cells: how terms are added up.
        log_p: the whole log-density; cells where it is -inf for all particles are cut out of the
            graph.
        outer: number M of outer particles.

    Raises:
        UnsupportedStructure: if the prior of a latent is summed over together with data.
    """
    count, dead = log_p.shape[0] * outer, (log_p.detach() == -math.inf).all(0)
    grouped = [_groups(run, cells) for run in runs]
    if len({tuple(g) for g in grouped}) > 1:  # a branch draws a site in some runs only
        grouped = [{"all latent sites": _merged(g.values())} for g in grouped]

    def rows(name: str, of: Callable[[_Group], list[Term]]) -> Tensor:  # the shape of log_p
        columns = []
        for run, groups in zip(runs, grouped, strict=True):
            zero = cells.empty(run)
            columns.append(cells.weighed(of(groups[name]), zero) + zero)
        x = torch.cat(columns)
        x = x.expand(count, *x.shape[1:]).reshape(log_p.shape)  # it may be the same for all
        return torch.where(dead, x.detach(), x)

    return {
        name: SiteDensity(
            log_p=rows(name, lambda g: g.p),
            log_q=rows(name, lambda g: g.q),
            count=partial(_elements, group, cells),
            plain=_plain(group, cells),
        )
        for name, group in grouped[0].items()
    }


def _plain(group: _Group, cells: Cells) -> bool:
    terms = (*group.p, *group.q)
    return all(cells.structure.weighed(t, t.log_prob) is t.log_prob for t in terms)


def _groups(run: Run, cells: Cells) -> dict[str, _Group]:
    groups = _of_guide(run.q)
    for term in run.p:
        if term.name in cells.structure.rest or not term.latent:
            continue
        covered = term.summed or {term.name: True}
        owners = [g for g in groups if g.names & set(covered)]
        if not owners:
            continue  # summed out, with nothing of the guide in it
        if not all(covered.values()):
            _refuse(term, owners)
        owner = owners[0] if len(owners) == 1 else _merged(owners)
        owner.p.append(term)
        groups = [g for g in groups if g not in owners] + [owner]
    if any(not g.p for g in groups):  # auxiliary draws whose latents come later
        groups = [_merged(groups)]
    return _named(groups)


def _of_guide(terms: Sequence[Term]) -> list[_Group]:
    """Point masses belong to the auxiliary draw before them, of which they are made."""
    groups: list[_Group] = []
    for term in terms:
        fixed = term.site is not None and is_delta(term.site["fn"])
        drawn = term.latent and not (fixed and groups and groups[-1].auxiliary)
        if drawn or not groups:
            groups.append(_Group([term]))
        else:
            groups[-1].q.append(term)
    return groups


def _merged(groups: Iterable[_Group]) -> _Group:
    found = list(groups)
    return _Group([t for g in found for t in g.q], [t for g in found for t in g.p])


def _named(groups: Sequence[_Group]) -> dict[str, _Group]:
    """By the names of the model's sites, in the order of the guide."""
    named = {}
    for group in groups:
        priors = {name for t in group.p for name in (t.summed or (t.name,))}
        names = [t.name for t in group.q if t.name in priors]
        named[", ".join(names) or "none"] = group
    return named


def _elements(group: _Group, cells: Cells) -> float:
    """Elements of the plates of a site; of the draw behind it, where there are several."""
    alone = len(group.p) == 1 and not group.p[0].summed
    term = group.p[0] if alone else group.q[0]
    ones = torch.ones_like(term.log_prob)
    if term.counts is not None:
        ones = term.counts
    elif term.site is not None:
        ones = ones * unmasked(term.site).to(ones)
    inner = max((-d for d in term.plates.values()), default=0)
    copies = math.prod(ones.shape[: max(ones.dim() - inner, 0)])
    weighed = cells.structure.weighed(term, ones)
    return float(weighed.detach().sum()) * cells.structure.scale / copies


def _refuse(term: Term, owners: Sequence[_Group]) -> None:
    site = next(n for n in term.summed if any(n in g.names for g in owners))
    raise UnsupportedStructure(
        f"latent site '{site}' has no prior of its own: it is summed over together with "
        f"{', '.join(repr(n) for n in term.summed if n != site)}. Draw the enumerated site that it "
        "depends on in the guide, or use the loss without beta, free_bits and tempered likelihood."
    )
