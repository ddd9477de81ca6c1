"""MultivariateNormals: mean vectors and covariance matrices, shared in any way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import MATRICES, Core
from pyro_klmodes.inference.em.moments.block import (
    EMPTY,
    Block,
    Update,
    complaints,
    elements,
    finite,
)
from pyro_klmodes.inference.em.moments.covariances import Given, covariance_from, singular_in
from pyro_klmodes.inference.em.moments.entries import Entries, unexpanded
from pyro_klmodes.inference.em.moments.groups import (
    centre_of,
    group_centres,
    grouped,
    spread_over,
)
from pyro_klmodes.inference.em.moments.products import outer_sums
from pyro_klmodes.inference.em.moments.sums import padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use, vector_length
from pyro_klmodes.inference.em.moments.vector_priors import of_prior

__all__ = ["MultivariateNormals"]


class MultivariateNormals(Block):
    r"""Mean vectors and covariances of MultivariateNormals of one size D.

    Vectors with the same mean l and covariance s are a group g, with the weight :math:`n_g` and the
    moments of x around a centre. Then

    .. math:: \mu_l = \Big(\sum_{g \in l} n_g P_g\Big)^{-1} \sum_{g \in l} n_g P_g \bar x_g \qquad
        \Sigma_s = \sum_{g \in s} n_g E_g[(x - \mu_g)(x - \mu_g)^T] \Big/ \sum_{g \in s} n_g

    in this order, P the precisions so far, which cancel where all groups of a mean have the same
    one. Where they do not, this is conditional maximisation (ECM), see ``Normals``. A Normal or
    MultivariateNormal prior on a mean is one more vector of known precision. With a floor the
    eigenvalues of a covariance that are below are set to it, which is the maximum under that
    restriction.

    Source: Dempster, Laird and Rubin (1977); Meng and Rubin (1993); Bishop (2006), section 9.2.
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        self.length = vector_length(uses[0])
        known = torch.full((1, self.length), -1)
        vectors = [u.maps.get("loc", u.maps.get("value", known[0])) for u in uses]
        flat = [known, *(v.reshape(-1, self.length) for v in vectors)]
        # the row of known means is the first
        self.rows, numbers = torch.cat(flat).unique(dim=0, return_inverse=True)
        parts = numbers.split([len(f) for f in flat])[1:]
        self.numbers = [p.reshape(v.shape[:-1]) for p, v in zip(parts, vectors, strict=True)]
        self.data = [i for i, u in enumerate(uses) if not u.prior]
        self.priors = [i for i, u in enumerate(uses) if u.prior]
        self._group()

    def _group(self) -> None:
        uses = [self.uses[i] for i in self.data]
        maps: list[tuple[Tensor | None, ...]] = []
        for i, use in zip(self.data, uses, strict=True):
            given = [use.maps[n] for n in MATRICES if n in use.maps]
            # a known precision has a number of its own
            matrix = given[0] if given else torch.tensor(-1 - i)
            maps.append((self.numbers[i], matrix))
        found = grouped(maps) if maps else None
        self.cells = dict(zip(self.data, found.cells if found else [], strict=True))
        members = found.members if found else torch.zeros(0, 2, dtype=torch.long)
        self.loc = members[:, 0]
        self.matrices, self.matrix = members[:, 1].unique(return_inverse=True)
        self.given = [self._given(int(m)) for m in self.matrices]
        self.centres = {
            i: centre_of(u.example[1], self.cells[i], 1)
            if "loc" in u.maps
            else torch.zeros(self.length)
            for i, u in zip(self.data, uses, strict=True)
        }
        self.centre = (
            group_centres(list(self.centres.values()), list(self.cells.values()), len(self.loc), 1)
            if self.data
            else torch.zeros(0, self.length, dtype=torch.float64)
        )
        # the centre of a mean: between those of its groups
        size = len(self.rows)
        met = torch.zeros(size, dtype=torch.float64)
        met.index_add_(0, self.loc, torch.ones(len(self.loc), dtype=torch.float64))
        around = torch.zeros(size, self.length, dtype=torch.float64)
        around.index_add_(0, self.loc, self.centre)
        self.around = around / met.clamp(min=1)[:, None]

    def _given(self, number: int) -> Given:
        """How a matrix is given, by its first entry; or a known one."""
        for i in self.data:
            use = self.uses[i]
            if number < 0 and i == -1 - number:
                matrix = unexpanded(use.core.fn.precision_matrix)
                return Given("known", matrix.reshape(-1, self.length, self.length)[0].double())
            for name in MATRICES:
                if name in use.maps and bool((use.maps[name] == number).any()):
                    return Given(name)
        raise AssertionError(number)

    def sufficient(self, factors: Mapping[str, Factor]) -> dict[str, Tensor]:
        """``count``: (R, G), ``first``: (R, G, D), ``second``: (R, G, D, D); sums over priors."""
        found: dict[str, Tensor] = {}
        for i, use, factor, core in self.present(factors):
            parts = (
                of_prior(use, factor, core, self.numbers[i], self.around)
                if use.prior
                else self._of_site(i, use, factor, core)
            )
            for name, part in parts.items():
                found[name] = found[name] + part if name in found else part
        return found

    def _of_site(self, i: int, use: Use, factor: Factor, core: Core) -> dict[str, Tensor]:
        grid = elements(use, factor, core, vectors=True)
        x = finite(factor, core, 1).to(factor.weight)
        x = x - (self.centres[i].to(x) if "loc" in use.maps else unexpanded(core.fn.loc))
        mask = None if core.mask is None else core.mask.to(x)
        cells = padded(self.cells[i], len(grid.shape))
        count = grid.sum(mask, cells.shape)
        first = grid.sum(x if mask is None else x * mask[..., None], cells.shape, features=1)
        # from the centre of the site to that of the group, which several sites may have in common
        step = spread_over(self.centres[i], cells, 1) - self.centre[cells]
        moved = first + step * count[..., None]
        parts = {"count": count, "first": moved}
        if any(n in use.maps for n in MATRICES):
            second = outer_sums(grid, x, mask, cells.shape)
            cross = step[..., :, None] * first[..., None, :]
            square = step[..., :, None] * step[..., None, :] * count[..., None, None]
            parts["second"] = second + cross + cross.mT + square
        else:  # its covariance is known
            parts["second"] = count.new_zeros(*moved.shape, self.length)
        return {n: scatter(p, cells, len(self.loc)) for n, p in parts.items()}

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """Means at the covariances so far, then covariances at the new means."""
        starts = len(update.flat)
        empty = update.flat.new_zeros(starts, 0)
        count = statistics.get("count", empty)
        first = statistics.get("first", empty[..., None].expand(starts, 0, self.length))
        if len(self.rows) > 1:
            self._locs(count, first, statistics, update)
        if "second" not in statistics:
            return
        mean = update.flat[:, self.rows[self.loc].flatten()].reshape(first.shape)
        step = torch.where((self.loc == 0)[:, None], 0.0, mean - self.centre)
        cross = step[..., :, None] * first[..., None, :]
        square = step[..., :, None] * step[..., None, :] * count[..., None, None]
        size = (statistics["second"] + square).diagonal(dim1=-2, dim2=-1)
        spread = statistics["second"] - cross - cross.mT + square
        self._matrices(count, size, spread, update)

    def raise_to_floor(self, update: Update) -> None:
        """Give eigenvalues below the floor the floor."""
        for number, given in zip(self.matrices.tolist(), self.given, strict=True):
            if given.how != "known":
                matrix = self._matrix_at(number, update)
                covariance = given.covariance(matrix)
                raised = covariance_from(covariance, given.how, update.floor)
                low = torch.linalg.eigvalsh(covariance)[:, :1, None] < update.floor
                new = torch.where(low, raised, matrix)
                update.write(self._places(number), new.flatten(1))

    def _locs(
        self, count: Tensor, first: Tensor, statistics: Mapping[str, Tensor], update: Update
    ) -> None:
        shift = self.centre - self.around[self.loc]
        moved = first + shift * count[..., None]
        total = _summed(moved, self.loc, len(self.rows))
        weight = _summed(count, self.loc, len(self.rows))
        empty = weight <= EMPTY * weight.amax(1, keepdim=True)
        prior = statistics.get("prior_precision")
        if prior is not None:
            empty = empty & (prior.diagonal(dim1=-2, dim2=-1).amin(-1) <= 0)
        told = "has no weight left in site {sites}. Start elsewhere, use fewer components, or a "
        complaints(
            self,
            update,
            empty[:, 1:],
            self.rows[1:, 0],
            told + "prior (points=[...]).",
            event_dim=1,
        )
        safe = torch.where(empty, torch.ones_like(weight), weight)
        step = total / safe[..., None]
        if prior is not None or self._mixed():
            precision = self._precisions(update)[:, self.matrix]
            left = _summed(precision * count[..., None, None], self.loc, len(self.rows))
            right = _summed((precision @ moved[..., None]).squeeze(-1), self.loc, len(self.rows))
            if prior is not None:
                left, right = left + prior, right + statistics["prior_first"]
            eye = torch.eye(self.length, dtype=left.dtype)
            left = torch.where(empty[..., None, None], eye, left)
            left[:, 0] = eye  # known means
            step = torch.linalg.solve(left, right[..., None]).squeeze(-1)
        values = (self.around + step)[:, 1:]
        update.write(self.rows[1:].flatten(), values.flatten(1))

    def _mixed(self) -> bool:
        """Whether a mean has groups with different covariances."""
        pairs = torch.stack([self.loc, self.matrix], -1)[self.loc > 0].unique(dim=0)
        return len(pairs) != len(pairs[:, 0].unique())

    def _precisions(self, update: Update) -> Tensor:  # (R, matrices, D, D)
        found = []
        for number, given in zip(self.matrices.tolist(), self.given, strict=True):
            found.append(given.precision(self._matrix_at(number, update)))
        return torch.stack([p.expand(len(update.flat), -1, -1) for p in found], 1)

    def _places(self, number: int) -> Tensor:  # (D * D,)
        return number + torch.arange(self.length**2)

    def _matrix_at(self, number: int, update: Update) -> Tensor:  # (R, D, D)
        places = self._places(max(number, 0)).clamp(max=update.flat.shape[1] - 1)
        return update.flat[:, places].reshape(-1, self.length, self.length)

    def _matrices(self, count: Tensor, size: Tensor, spread: Tensor, update: Update) -> None:
        weight = _summed(count, self.matrix, len(self.matrices))
        empty = weight <= EMPTY * weight.amax(1, keepdim=True)
        safe = torch.where(empty, torch.ones_like(weight), weight)
        covariance = _summed(spread, self.matrix, len(self.matrices)) / safe[..., None, None]
        size = _summed(size, self.matrix, len(self.matrices)) / safe[..., None]
        for m, given in enumerate(self.given):
            if given.how == "known":
                continue
            corner = self.matrices[m : m + 1]
            told = "has no weight left in site {sites}. Start elsewhere, or use fewer components."
            complaints(self, update, empty[:, m : m + 1], corner, told, event_dim=2)
            bad = singular_in(covariance[:, m], size[:, m], self.entries.eps) | empty[:, m]
            if update.floor <= 0:
                complaints(
                    self,
                    update,
                    (bad & ~empty[:, m])[:, None],
                    corner,
                    "is singular: what is left in site {sites} lies in fewer dimensions. Start "
                    "elsewhere, use fewer components, or set a smallest variance (floor=...).",
                    event_dim=2,
                )
            else:
                bad = empty[:, m]
            eye = torch.eye(self.length, dtype=covariance.dtype)
            fine = torch.where(bad[:, None, None], eye, covariance[:, m])
            new = covariance_from(fine, given.how, update.floor)
            update.write(self._places(int(corner)), new.flatten(1))


def _summed(
    x: Tensor,  # (R, G, *features)
    places: Tensor,  # (G,)
    count: int,
) -> Tensor:  # (R, count, *features)
    return x.new_zeros(len(x), count, *x.shape[2:]).index_add(1, places, x)
