"""``check``: what a pair looks like to a loss, and what is wrong with it, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
from pyro import poutine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.losses import DivergenceLoss, ReverseKL
from pyro_klmodes.tracing.density import why_unscored
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import plates_of, split_scale
from pyro_klmodes.tracing.runs import Pair, Traces, run
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["CheckReport", "SiteReport", "check", "examine"]


@dataclass(frozen=True)
class SiteReport:
    """One site of a pair, as the loss sees it."""

    name: str
    role: str  # "latent", "auxiliary", "observed", "summed out"
    plates: tuple[str, ...]
    scale: float | str  # plate ratios and poutine.scale together
    gradient: str  # "path", "score", or "" for sites that the guide does not draw


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found.

    Attributes:
        sites: every site, in order.
        granularity: local plates, by whose elements the weights are; empty: one joint weight.
        vectorised: whether particles share one run.
        estimator: the estimator of the loss, "" without one.
        problems: what is legitimate but probably not meant, in words.
    """

    sites: tuple[SiteReport, ...]
    granularity: tuple[str, ...] | None
    vectorised: bool
    estimator: str
    problems: tuple[str, ...]

    def print(self) -> None:
        """Show the report in the terminal."""
        table = Table("site", "role", "plates", "scale", "gradient", title="model and guide")
        for s in self.sites:
            table.add_row(s.name, s.role, ", ".join(s.plates), f"{s.scale}", s.gradient)
        console = Console()
        console.print(table)
        console.print(f"weights: {self._weights()}; particles {self._layout()}")
        for problem in self.problems:
            console.print(f"problem: {problem}", markup=False)

    def _weights(self) -> str:
        if self.granularity is None:
            return "not available, see the problems"
        if not self.granularity:
            return "one joint weight per particle"
        return f"one per particle and element of {', '.join(self.granularity)}"

    def _layout(self) -> str:
        together = "share one run" if self.vectorised else "run one after the other"
        return f"{together}; estimator {self.estimator}" if self.estimator else together


def check(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    loss: DivergenceLoss | None = None,
    **kwargs: Any,
) -> CheckReport:
    """Look at a model, a guide and a loss before training, print what they look like, and object.

    Shows each site with its plates, effective scale, enumeration and whether it is
    reparameterised; the granularity of the weights; and every problem found. Random states and
    the param store's existing parameters are left as they are.

    Args:
        model: a Pyro model.
        guide: a guide for it.
        *args: what both are called with.
        loss: the loss to check for; without one, only what no loss could accept is an error.
        **kwargs: what both are called with.

    Returns:
        The report.

    Raises:
        KLModesError: for what cannot be right: sites or shapes that do not match, a minibatch that
            guide and model do not share, an estimator that does not fit, a guide without density.

    Example:
        >>> import contextlib, io, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> with contextlib.redirect_stdout(io.StringIO()):
        ...     report = check(model, model, loss=ReverseKL())
        >>> report.estimator, report.granularity, report.problems
        ('mixed', (), ())
    """
    if loss is not None and not isinstance(loss, DivergenceLoss):
        raise InvalidArgument(f"loss={loss!r} is not one of this package's losses.")
    with seeded(None):
        report = examine(model, guide, args, kwargs, loss)
    report.print()
    return report


def examine(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    loss: DivergenceLoss | None,
) -> CheckReport:
    """The report of ``check``, without printing it."""
    pair = Pair(model, guide, args, kwargs)
    asked = ReverseKL() if loss is None else loss
    problems: list[str] = []
    held = _held_by_others(guide)
    layout, estimator = asked.resolve(model, guide, *args, **kwargs)
    with poutine.block():
        traces = run(pair, particles=Single(layout.nesting), enumerated=bool(layout.enumerated))
    unscored = why_unscored(pair)
    if unscored is not None:
        problems.append(f"forward KL, doubly and score estimators cannot be used: {unscored}")
    problems += _scale_problems(traces, asked)
    problems += _shared_parameters(guide, held)
    granularity = _granularity(asked, pair, problems)
    if granularity == () and not asked.objective.linear:
        problems += _joint_weight(traces)
    return CheckReport(
        sites=tuple(_site_reports(traces, layout)),
        granularity=granularity,
        vectorised=layout.vectorised,
        estimator="" if loss is None else repr(estimator),
        problems=tuple(problems),
    )


def _granularity(loss: DivergenceLoss, pair: Pair, problems: list[str]) -> tuple[str, ...] | None:
    """Local plates of the weights, by drawing some; a structure no weight exists for is an error.

    For a loss that is linear in the weights such a structure is harmless, and only reported.
    """
    try:
        with poutine.block():
            return loss.draws(pair.model, pair.guide, *pair.args, **pair.kwargs).plates
    except UnsupportedStructure as error:
        if not loss.objective.linear:
            raise
        problems.append(str(error))
        return None


def _site_reports(traces: Traces, layout: Layout) -> list[SiteReport]:
    model = {s["name"]: s for s in scored_sites(traces.model)}
    guide = {s["name"]: s for s in scored_sites(traces.guide)}
    sites = {**{n: s for n, s in guide.items() if n not in model}, **model}
    return [
        SiteReport(
            name,
            _role(name, site, layout, in_model=name in model),
            tuple(plates_of(site)),
            _scale(site),
            _gradient(name, layout) if name in guide else "",
        )
        for name, site in sites.items()
    ]


def _role(name: str, site: Mapping[str, Any], layout: Layout, *, in_model: bool) -> str:
    if not in_model:
        return "auxiliary"
    if name in layout.enumerated:
        return "summed out"
    return "latent" if is_latent(site) else "observed"


def _scale(site: Mapping[str, Any]) -> float | str:
    scale = site["scale"]
    return "tensor" if isinstance(scale, Tensor) and scale.numel() > 1 else round(float(scale), 6)


def _gradient(name: str, layout: Layout) -> str:
    return "score" if name in layout.unreparameterised else "path"


def _scale_problems(traces: Traces, loss: DivergenceLoss) -> list[str]:
    """A poutine.scale on some sites only tempers the target inside of a nonlinear objective."""
    if loss.objective.linear:
        return []
    scales = {
        f"{where} site '{s['name']}'": split_scale(s)[0]
        for where, trace in (("model", traces.model), ("guide", traces.guide))
        for s in scored_sites(trace)
    }
    numbers = {k: v for k, v in scales.items() if not isinstance(v, Tensor)}
    if len(numbers) == len(scales) and len(set(numbers.values())) <= 1:
        return []
    odd = next(k for k, v in scales.items() if isinstance(v, Tensor) or v != 1.0)
    return [
        f"{odd} has a poutine.scale that other sites do not share. It stays inside of the "
        "divergence and changes the target (tempering), not only the weight of the data."
    ]


def _held_by_others(guide: Callable[..., Any]) -> set[int]:
    """Identities of the parameters in the param store that are not (yet) those of a guide."""
    bare = poutine.unwrap(guide)
    own = {id(p) for p in bare.parameters()} if isinstance(bare, pyro.nn.PyroModule) else set()
    return {id(p) for p in pyro.get_param_store()._params.values()} - own


def _shared_parameters(guide: Callable[..., Any], held: set[int]) -> list[str]:
    """Two guides of one class share parameters by name through the global param store.

    A module takes over what the store holds under its names as soon as it runs, so that only the
    comparison with the state before tells.
    """
    bare = poutine.unwrap(guide)
    if not isinstance(bare, pyro.nn.PyroModule):
        return []
    shared = [p for p in bare.parameters() if id(p) in held]
    if not shared:
        return []
    name = pyro.get_param_store().param_name(shared[0])
    return [
        f"parameter '{name}' is shared through the param store with another module of the "
        "same name, so training one moves the other. Call pyro.clear_param_store() before, "
        "use fit(), or pyro.settings.set(module_local_params=True)."
    ]


def _joint_weight(traces: Traces) -> list[str]:
    latent = [s for s in scored_sites(traces.model) if is_latent(s)]
    sequential = {f.name for s in latent for f in s["cond_indep_stack"] if not f.vectorized}
    if sequential:
        return [
            f"latent sites in sequential plate(s) {sorted(sequential)} share one joint weight, "
            "whose variance grows with the size of the plates. Write them as vectorised plates "
            "(`with pyro.plate(...)`) in model and guide, or use ReverseKL."
        ]
    plates = {p for s in latent for p in plates_of(s)}
    if not plates:
        return []
    return [
        f"latent sites in plate(s) {sorted(plates)} share one joint weight, because other latents "
        "or a joint guide lie outside; its variance grows with the size of the plates. Use a guide "
        "with a site per latent, or ReverseKL."
    ]
