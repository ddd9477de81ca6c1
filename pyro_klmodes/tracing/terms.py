"""The log-probabilities of a trace, site by site, with their plates, masks and scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, NoDensity, NonFiniteLoss
from pyro_klmodes.tracing.computed import is_deterministic
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.obs_mask import drawn_for
from pyro_klmodes.tracing.outside_support import elementwise, outside_support
from pyro_klmodes.tracing.plates import plates_of, split_scale

__all__ = ["Term", "guide_terms", "model_term", "model_terms", "scored_sites"]


@dataclass(frozen=True)
class Term:
    """One summand of a log-density.

    Attributes:
        name: the site, or the sites summed out together.
        log_prob: masked, without any scale; batch dimensions as Pyro lays them out.
        plates: names and (negative) batch dimensions of its vectorised plates.
        scale: the user's ``poutine.scale``.
        ratios: full size over batch size of each subsampled plate around it.
        latent: whether it stands for random variables that the weights depend on by themselves.
        summed: of a term of several sites, those that an enumerated value joins, and which of
            them are latent.
        counts: which elements no mask takes out, of the data where sites are summed over together,
            and with the dimensions of ``log_prob`` or of one element; None where the site tells.
        site: the trace node, for messages.
        score: the log-density of the draw, without mask or scale, where it carries no path; else 0.
    """

    name: str
    log_prob: Tensor
    plates: Mapping[str, int]
    scale: float | Tensor = 1.0
    ratios: Mapping[str, float] = field(default_factory=dict)
    latent: bool = False
    summed: Mapping[str, bool] = field(default_factory=dict)
    coupled: bool = False
    score: Tensor | float = 0.0
    counts: Tensor | None = field(default=None, repr=False)
    site: Mapping[str, Any] | None = field(default=None, repr=False)


@contextmanager
def _named(site: Mapping[str, Any], where: str) -> Iterator[None]:
    """Say which site a distribution's complaint about a value is about."""
    try:
        yield
    except ValueError as error:
        name, value, kind = site["name"], site["value"], type(elementwise(site["fn"])).__name__
        if isinstance(value, Tensor) and bool(torch.isnan(value).any()):
            raise NonFiniteLoss(
                f"{int(torch.isnan(value).sum())} of {value.numel()} values of {where} site "
                f"'{name}' ({kind}) are nan. Check the data, or mask what is missing; nothing was "
                "updated."
            ) from error
        outside = outside_support(site)
        if outside:
            advice = (
                "Rescale the data, or use a likelihood that allows them."
                if site["is_observed"]
                else "Use a guide that stays inside of it."
            )
            raise InvalidArgument(
                f"{where} site '{name}' ({kind}) cannot have the value it has: {outside}. {advice}"
            ) from error
        raise InvalidArgument(
            f"{where} site '{name}' ({kind}) cannot have the value it has. Check its shape, and "
            f"that guide and data stay inside of its support. ({error})"
        ) from error


def _masked(value: Tensor, site: Mapping[str, Any]) -> Tensor:
    return value if site["mask"] is None else scale_and_mask(value, 1.0, site["mask"])


def _without_observed(log_prob: Tensor, site: Mapping[str, Any], model: Trace | None) -> Tensor:
    """A guide's log-probability without the values that ``obs_mask`` replaces."""
    drawn = None if model is None else drawn_for(site["name"], model)
    return log_prob if model is None or drawn is None else _masked(log_prob, model.nodes[drawn])


def _density_of_draw(site: Mapping[str, Any], log_prob: Tensor) -> Tensor:
    """How likely a value was drawn: a mask takes it out of the weights, not out of the world."""
    fn = site["fn"]
    return fn.base_dist.log_prob(site["value"]) if isinstance(fn, MaskedDistribution) else log_prob


def scored_sites(trace: Trace) -> list[dict[str, Any]]:
    """Sample sites that contribute; ``pyro.deterministic`` is a site without a density."""
    return [
        s
        for s in trace.nodes.values()
        if s["type"] == "sample" and not site_is_subsample(s) and not is_deterministic(s)
    ]


def guide_terms(
    trace: Trace,
    *,
    model: Trace | None = None,
    cut: bool = False,
) -> list[Term]:
    """The terms of log q; with ``cut`` no draw carries a path, whatever its distribution.

    With ``obs_mask`` Pyro draws all values of a site and replaces those that were observed: these
    draws are no part of the posterior. They are masked in the guide as in the model: left in, their
    density could make the bound as large as it likes.

    Raises:
        NoDensity: if a site cannot be evaluated at the value it has, for instance a flow
            without an inverse away from its own draws.
    """
    terms = []
    for site in scored_sites(trace):
        try:
            with _named(site, "guide"):
                log_prob, score, _ = site["fn"].score_parts(
                    site["value"], *site["args"], **site["kwargs"]
                )
        except (KeyError, NotImplementedError) as error:
            raise NoDensity(
                f"guide site '{site['name']}' ({type(site['fn']).__name__}) cannot be evaluated at "
                f"given values: {error!r}. Its transform has no inverse. Use one that has (affine, "
                "spline, coupling), or a loss with a pathwise gradient, such as ReverseKL or IWAE."
            ) from error
        scale, ratios = split_scale(site)
        if cut and is_latent(site):
            score = _density_of_draw(site, log_prob)
        terms.append(
            Term(
                site["name"],
                _without_observed(_masked(log_prob, site), site, model),
                plates_of(site),
                scale,
                ratios,
                latent=is_latent(site),
                coupled=bool(site["infer"].get("couples_plates", False)),
                score=score,
                site=site,
            )
        )
    return terms


def model_terms(
    trace: Trace,
) -> list[Term]:
    """The terms of log p of a trace without enumerated sites."""
    return [model_term(site) for site in scored_sites(trace)]


def model_term(
    site: Mapping[str, Any],
    log_prob: Tensor | None = None,
) -> Term:
    """The term of one site of a model; its raw log-probability may be known already."""
    if log_prob is None:
        with _named(site, "model"):
            log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if not isinstance(log_prob, Tensor):
        log_prob = torch.as_tensor(log_prob)
    scale, ratios = split_scale(site)
    return Term(
        site["name"],
        _masked(log_prob, site),
        plates_of(site),
        scale,
        ratios,
        latent=is_latent(site),
        site=site,
    )
