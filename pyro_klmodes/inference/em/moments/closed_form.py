"""Which parameters have a closed M-step, found by running the model, and the step itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import NotRead
from pyro_klmodes.inference.em.moments.blame import (
    Run,
    blamed,
    refuse_coming_and_going,
    unseen,
)
from pyro_klmodes.inference.em.moments.block import Block, Update
from pyro_klmodes.inference.em.moments.concentrations import Concentrations
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.gammas import Gammas
from pyro_klmodes.inference.em.moments.multivariate_normals import MultivariateNormals
from pyro_klmodes.inference.em.moments.normals import Normals
from pyro_klmodes.inference.em.moments.odds import Odds
from pyro_klmodes.inference.em.moments.outcome import Maximised, outside
from pyro_klmodes.inference.em.moments.roles import roles
from pyro_klmodes.inference.em.moments.selections import check_selections
from pyro_klmodes.inference.em.moments.simplices import Simplices
from pyro_klmodes.inference.em.moments.uses import Use, read, vector_length
from pyro_klmodes.inference.em.parameters import ParameterInfo

__all__ = ["ClosedForm"]

_KINDS: dict[str, type[Block]] = {
    "normal": Normals,
    "mvn": MultivariateNormals,
    "simplex": Simplices,
    "probability": Odds,
    "rate": Odds,
    "gamma": Gammas,
    "concentration": Concentrations,
}


class ClosedForm:
    r"""M-steps by moment matching, for the parameters that are arguments of exponential families.

    The expected complete-data log-likelihood :math:`Q(\theta) = \sum_f w_f \log p_f(\theta)` of an
    exponential family is maximal where the expected statistics are the weighted means of the
    observed ones. A parameter has such a closed form if every site that depends on it has one of
    its entries as an argument, ``loc[z]``, ``transition[previous]`` or ``scale``, and not a
    function of them, and if all sites use it in the same role.

    ============================================ ==================================================
    distribution                                 arguments
    ============================================ ==================================================
    Normal, LogNormal                            loc; scale, its square, inverse square or
                                                 logarithm
    MultivariateNormal                           loc; covariance_matrix, precision_matrix, or
                                                 scale_tril
    Categorical, OneHotCategorical, Multinomial  probs
    Bernoulli, Binomial, Geometric               probs
    Poisson, Exponential                         rate
    Gamma                                        concentration, rate
    Beta, Dirichlet                              concentrations
    ============================================ ==================================================

    A latent site whose mode is sought is a parameter with a prior: Dirichlet on rows of ``probs``
    of categories, Beta on ``probs``, Gamma and Exponential on rates, Normal and
    MultivariateNormal on ``loc``.

    A parameter with other uses stays where it is and is taken for known. Components that have no
    weight, do not vary, or lie in a subspace have no maximum: see ``maximise``. The way out is a
    prior or a smallest variance, ``floor``.

    Limits: entries of constants in an otherwise selected argument are not recognised; selections
    by the data of another minibatch (``loc[group[index]]``) are refused, see ``check``.

    Attributes:
        covered: parameters that have a closed form.
        reasons: why the others have none.

    Source: Dempster, Laird and Rubin (1977), section 3; Meng and Rubin (1993).

    Example:
        >>> import pyro.distributions as dist
        >>> from torch.distributions import constraints
        >>> x = torch.tensor([1.0, 3.0, 8.0])
        >>> def run(values):
        ...     fn = dist.Normal(values["loc"], values["root"] ** 4)
        ...     counts = dist.Poisson(values["rate"]).expand([3])
        ...     return {"x": (fn.expand([3]), x), "count": (counts, x)}
        >>> parameters = {
        ...     "loc": ParameterInfo(torch.tensor(0.0), constraints.real),
        ...     "root": ParameterInfo(torch.tensor(1.0), constraints.real),
        ...     "rate": ParameterInfo(torch.tensor(1.0), constraints.positive),
        ... }
        >>> closed = ClosedForm.find(run, parameters)
        >>> closed.covered
        ('rate',)
        >>> closed.reasons["root"]
        "site 'x' has a scale that is computed from it, not selected..."
        >>> fn, value = run({name: info.value for name, info in parameters.items()})["count"]
        >>> factor = Factor("count", fn, value, weight=torch.ones(1, 3))
        >>> now = {name: info.value[None] for name, info in parameters.items()}
        >>> closed.maximise(closed.statistics({"count": factor}), now).values
        {'rate': tensor([4.])}
    """

    def __init__(
        self,
        entries: Entries,
        blocks: list[Block],
        reasons: Mapping[str, str],
        floor: float,
        sites: Collection[str] = (),
    ) -> None:
        self.blocks = blocks
        self._sites = frozenset(sites)
        self.reasons = dict(reasons)
        self.covered = tuple(n for n in entries.parameters if n not in self.reasons)
        self._entries = entries
        self._floor = floor

    @classmethod
    def find(
        cls,
        run: Run,
        parameters: Mapping[str, ParameterInfo],
        *,
        floor: float = 0.0,
        moved: Mapping[str, Collection[str]] | None = None,
    ) -> ClosedForm:
        """Run the model at values of the parameters that tell their entries apart.

        Args:
            run: gives distribution and value of every scored site at constrained values.
            parameters: values and constraints.
            floor: smallest variance, and smallest eigenvalue of a covariance.
            moved: the parameters that each site is computed from, as far as that is known: a site
                may depend on one at some of its values only.

        Raises:
            UnsupportedStructure: if a site comes and goes with the parameters' values.
        """
        entries = Entries(parameters)
        try:
            runs = [run(probe) for probe in entries.probes]
        except Exception as error:  # whatever a model does at values that it did not expect
            why = f"the model does not run at other values of the parameters ({error})"
            return cls(entries, [], dict.fromkeys(parameters, why), floor)
        refuse_coming_and_going(runs)
        uses: list[Use] = []
        wrong: dict[str, str] = {}
        for name in runs[0]:
            try:
                use = read(name, [r[name] for r in runs], entries)
            except NotRead as error:
                wrong[name] = f"site '{name}' {error}"
            else:
                uses += [] if use is None else [use]
        reasons = blamed(run, runs[0], entries, wrong)
        unseen(uses, entries, moved or {}, reasons)
        found = roles(uses, entries, reasons)
        return cls(entries, _blocks(uses, found, entries), reasons, floor, runs[0])

    @property
    def probe(self) -> Mapping[str, Tensor] | None:  # {parameter: (*shape)}
        """Values at which every entry is another number; None where the model does not run."""
        return self._entries.probes[0] if self._sites else None

    def check(self, factors: Mapping[str, Factor]) -> None:
        """See that the sites of a run at ``probe`` are those that the closed form was found for.

        Raises:
            UnsupportedStructure: naming a site that is new, or selects other entries.
        """
        uses = [use for block in self.blocks for use in block.uses]
        check_selections(uses, factors, self._sites, self._entries)

    def statistics(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {statistic: (R, ...)}
        """The expected sufficient statistics, which add up over disjoint parts of the data.

        A site that is not among the factors adds nothing: the prior of a parameter belongs to one
        part of the data, or with shares of its weight to all.

        Raises:
            InvalidArgument: naming a site, if a value counts that is nan or infinite, or shapes do
                not fit.
        """
        found = {}
        with torch.no_grad():
            for block in self.blocks:
                for name, statistic in block.sufficient(factors).items():
                    found[f"{block.key}.{name}"] = statistic
        return found

    def maximise(
        self,
        statistics: Mapping[str, Tensor],  # {statistic: (R, ...)}
        current: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> Maximised:
        """The parameters that maximise the expected log-likelihood, or increase it (ECM).

        A start in which anything has no maximum has a fault, and keeps the values of all
        parameters.
        """
        entries = self._entries
        update = self._update(current)
        with torch.no_grad():
            for block in self.blocks:
                mine = {
                    key.removeprefix(f"{block.key}."): s.double().cpu()
                    for key, s in statistics.items()
                    if key.startswith(f"{block.key}.")
                }
                if mine:
                    block.maximise(mine, update)
        values = {name: entries.shaped(name, update.flat) for name in self.covered}
        faults = update.faults + outside(values, entries, {f.start for f in update.faults})
        for start in {f.start for f in faults}:
            for name, value in values.items():
                value[start] = current[name][start].to(value)
        return Maximised(values, faults)

    def raised(
        self,
        values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    ) -> dict[str, Tensor]:  # {parameter: (R, *shape)}
        """The same with every variance that is below the floor at the floor.

        Points below have no place in a search under that restriction: the likelihood there may be
        higher than anywhere above.
        """
        if self._floor <= 0:
            return dict(values)
        update = self._update(values)
        with torch.no_grad():
            for block in self.blocks:
                if isinstance(block, Normals | MultivariateNormals):
                    block.raise_to_floor(update)
        return {**values, **{n: self._entries.shaped(n, update.flat) for n in self.covered}}

    def _update(self, current: Mapping[str, Tensor]) -> Update:
        """An update with nothing written, in which other parameters are held."""
        entries = self._entries
        held = torch.ones(entries.count, dtype=torch.bool)
        for name in self.covered:
            start = entries.offsets[name]
            held[start : start + entries.parameters[name].value.numel()] = False
        return Update(entries.flat(current), held, self._floor)


def _blocks(uses: list[Use], found: Mapping[int, str], entries: Entries) -> list[Block]:
    """Sites by the kind of their closed form, and by the length of their vectors."""
    parts: dict[str, tuple[str, list[Use]]] = {}
    for i, kind in found.items():
        size = str(vector_length(uses[i])) if kind in ("mvn", "concentration") else ""
        parts.setdefault(kind + size, (kind, []))[1].append(uses[i])
    return [
        _KINDS[kind](kind if kind in ("probability", "rate") else key, group, entries)
        for key, (kind, group) in parts.items()
    ]
