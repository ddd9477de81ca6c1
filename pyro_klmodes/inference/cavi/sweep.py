"""One site after the other: exact coordinate updates, and guarded steps where there are none."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_klmodes.errors import NonFiniteLoss, NotMonotone, UnsupportedStructure
from pyro_klmodes.inference.cavi.expectation import Evaluation, Expectation
from pyro_klmodes.inference.cavi.rules.base import Nodes

__all__ = ["Sweeper"]

#: how often a step that lowers the ELBO is halved; rounding errors that count as none
_HALVINGS, _ROUNDING = 40, 1e3

_SiteParams = dict[str, Tensor]


@dataclass
class Sweeper:
    """Updates the sites of a mean-field guide in turn.

    Expectations are taken anew only where an update before has changed what they depend on: sites
    that share no term are updated from one run of the model.

    Attributes:
        expectation: how expectations are taken.
        params: of all sites, constrained, minibatches at their size.
        lengths: of the next step of sites whose full step may overshoot.
    """

    expectation: Expectation
    params: dict[str, _SiteParams]
    lengths: dict[str, float] = field(default_factory=dict)
    _last: Evaluation | None = None
    _since: set[str] = field(default_factory=set)  # updated after the last evaluation

    @property
    def evaluation(self) -> Evaluation:
        """The ELBO and its gradients at the present parameters.

        Raises:
            NonFiniteLoss: if the ELBO is not finite, naming a site.
        """
        if self._last is None or self._since:
            self._last = self._evaluated(self.params)
            self._since = set()
        return self._last

    @property
    def elbo(self) -> float:
        """The ELBO at the present parameters."""
        return self.evaluation.elbo

    def rounding(self) -> float:
        """What rounding may change in the ELBO."""
        dtype = next(iter(self.evaluation.points.values())).dtype
        return _ROUNDING * torch.finfo(dtype).eps * (1 + self.evaluation.size)

    def forget(self) -> None:
        """Evaluate anew: parameters of the model, or of sites, were changed from outside."""
        self._last, self._since = None, set()

    def converge(self, most: int = 1000, tolerance: float = 1e-8) -> int:
        """Sweep until no point moves by more than ``tolerance``; how many sweeps it took."""
        for number in range(1, most + 1):
            if self.sweep() <= tolerance:
                return number
        return most

    def nodes(self) -> dict[str, Nodes]:
        """Nodes and weights of all sites at the present parameters."""
        with torch.no_grad():
            return self.expectation.nodes(self.expectation.points(self.params))

    def sweep(
        self, rho: float = 1.0, sites: Collection[str] | None = None, *, guarded: bool = True
    ) -> float:
        """Update sites in the order of the model; how far the points of any of them moved.

        Args:
            rho: length of the steps.
            sites: which ones; all of them if None.
            guarded: whether a step that could lower the ELBO is shortened until it does not.

        Raises:
            NotMonotone: if an exact update lowers the ELBO beyond rounding, naming the sites.
        """
        plan = self.expectation.plan
        moved = 0.0
        for name, rule in plan.rules.items():
            if sites is not None and not any(site in sites for site in rule.sites):
                continue
            if any(plan.meets(site, other) for other in self._since for site in rule.sites):
                self._refresh(guarded=guarded)
            before = self._points(name)
            if guarded and not rule.ascends:
                self._guarded(name, rho)
            else:
                self.params.update(self._stepped(name, rho))
                self._since.update(rule.sites)
            after = self._points(name)
            moved = max(moved, *(_distance(before[n], after[n]) for n in after))
        if self._since:
            self._refresh(guarded=guarded)
        return moved

    def _refresh(self, *, guarded: bool) -> None:
        """Evaluate again after exact updates, which cannot have lowered the ELBO."""
        old, updated = self._last, sorted(self._since)
        now = self.evaluation
        if guarded and old is not None and now.elbo < old.elbo - self.rounding():
            raise NotMonotone(
                f"the ELBO fell from {old.elbo:.12g} to {now.elbo:.12g} in the update of "
                f"{', '.join(repr(n) for n in updated)}, which cannot be if its expectations are "
                "exact. Is the model random beyond its latent sites, or does it branch on their "
                "values? Small steps may still work: CAVI(..., step=0.1)."
            )

    def _stepped(self, name: str, rho: float) -> dict[str, _SiteParams]:
        """Parameters of the sites of a factor after its step."""
        last = self.evaluation if self._last is None else self._last
        plan = self.expectation.plan
        rule = plan.rules[name]
        old = {site: self.params[site] for site in rule.sites}
        gradients = {
            site: last.gradients[site] / plan.model.sites[site].ratio
            for site in rule.sites
            if site in last.gradients
        }
        points = {site: last.points[site] for site in gradients}
        with torch.no_grad():
            try:
                new = rule.step(old, points, gradients, rho)
            except torch.linalg.LinAlgError:
                new = {
                    site: {p: torch.full_like(v, math.nan) for p, v in params.items()}
                    for site, params in old.items()
                }
        for site in rule.sites:
            view = plan.model.sites[site]
            if view.mask is not None and not bool(view.mask.all()):
                if site in gradients:
                    self._refuse_use(site, view.mask, gradients[site])
                batch_dim = len(view.shape) - view.fn.event_dim
                for p, value in new[site].items():
                    new[site][p] = _where(view.mask, value, old[site][p], batch_dim)
            self._check(site, new[site])
        return new

    @staticmethod
    def _check(site: str, params: _SiteParams) -> None:
        bad = [p for p, v in params.items() if not bool(torch.isfinite(v).all())]
        if bad:
            raise NonFiniteLoss(
                f"the update of site '{site}' has no proper distribution: {', '.join(bad)} is not "
                "finite. Nothing determines the site, or the data are not finite: give it a "
                "proper prior, and check the data."
            )

    def _refuse_use(
        self,
        name: str,
        mask: Tensor,  # (*batch)
        gradient: Tensor,  # (S, *batch, *event)
    ) -> None:
        """What is masked has no distribution, and stays as it is: nothing may depend on it."""
        view = self.expectation.plan.model.sites[name]
        batch_dim = len(view.shape) - view.fn.event_dim
        masked = [_where(mask, torch.zeros_like(g), g, batch_dim) for g in gradient]
        if any(bool((g != 0).any()) for g in masked):
            raise UnsupportedStructure(
                f"site '{name}' is masked where other sites depend on its values: a flat prior "
                "in all but name, for which there is no update. Give it a wide proper prior, or "
                "mask what depends on it too."
            )

    def _guarded(self, name: str, rho: float) -> None:
        """A step as long as the ELBO allows; it is tried longer again the next time."""
        start = self.evaluation
        slack = self.rounding()
        length = min(rho, 2 * self.lengths.get(name, rho))
        for _ in range(_HALVINGS):
            try:
                trial = {**self.params, **self._stepped(name, length)}
                found = self._evaluated(trial)
            except NonFiniteLoss:
                found = None
            if found is not None and found.elbo >= start.elbo - slack:
                self.params, self._last = trial, found
                self.lengths[name] = length
                return
            length /= 2

    def _points(self, name: str) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.expectation.plan.rules[name].points(self.params)

    def _evaluated(self, params: Mapping[str, _SiteParams]) -> Evaluation:
        found = self.expectation.evaluate(params)
        if math.isfinite(found.elbo):
            return found
        raise NonFiniteLoss(
            f"the ELBO is {found.elbo} at the nodes of the sites "
            f"{', '.join(repr(n) for n in params)}. Check the data for values that are not finite "
            "or outside of the support, and the model for overflows."
        )


def _where(
    mask: Tensor,  # (*batch)
    new: Tensor,  # (*batch, *event)
    old: Tensor,
    batch_dim: int,
) -> Tensor:
    shape = mask.expand(new.shape[:batch_dim]).shape
    return torch.where(
        mask.expand(shape).reshape((*shape, *([1] * (new.dim() - batch_dim)))), new, old
    )


def _distance(before: Tensor, after: Tensor) -> float:
    """The largest change of a point, next to the size of the points."""
    scale = 1 + before.abs().max()
    return float((after - before).abs().max() / scale)
