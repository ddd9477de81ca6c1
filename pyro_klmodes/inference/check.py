"""``check``: what a pair looks like to a loss, and what is wrong with it, before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.inference.check_problems import (
    held_by_others,
    scale_problems,
    shared_parameters,
)
from pyro_klmodes.inference.check_report import CheckReport, site_reports
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.joint_weights import why_joint
from pyro_klmodes.inference.modules import evaluating
from pyro_klmodes.losses import DivergenceLoss, ReverseKL
from pyro_klmodes.tracing.density import why_unscored
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.runs import Pair, run

__all__ = ["check", "examine"]


def check(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    loss: DivergenceLoss | None = None,
    **kwargs: Any,
) -> CheckReport:
    """Look at a model, a guide and a loss before training, print what they look like, and object.

    Shows each site with its plates, effective scale, enumeration and whether it is
    reparameterised; the granularity of the weights; what is probably not meant (``problem:``), and
    what is right as it is but good to know (``remark:``). Random states and the param store's
    existing parameters are left as they are.

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
        >>> report.estimator, report.granularity, report.problems, report.remarks
        ('mixed', (), (), ())
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
    """The report of ``check``, without printing it; modules are as in evaluation."""
    with evaluating(model, guide):
        return _examine(model, guide, args, kwargs, loss)


def _examine(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    loss: DivergenceLoss | None,
) -> CheckReport:
    pair = Pair(model, guide, args, kwargs)
    asked = ReverseKL() if loss is None else loss
    held = held_by_others(guide)
    layout, estimator = asked.resolve(model, guide, *args, **kwargs)
    with poutine.block():
        traces = run(pair, particles=Single(layout.nesting), enumerated=bool(layout.enumerated))
    problems = [*scale_problems(traces, asked), *shared_parameters(guide, held)]
    remarks = []
    unscored = why_unscored(pair)
    if unscored is not None:
        # A loss that needs the density was refused above.
        remarks.append(f"forward KL, doubly and score estimators cannot be used: {unscored}")
    granularity, reason = _granularity(asked, pair)
    if granularity is None:
        remarks.append(reason)
    if granularity == () and not asked.objective.linear:
        joint = why_joint(traces, layout)
        problems += [joint.problem] * bool(joint.problem)
        remarks += [joint.remark] * bool(joint.remark)
    return CheckReport(
        sites=tuple(site_reports(traces, layout)),
        granularity=granularity,
        sharing=layout.sharing,
        estimator="" if loss is None else repr(estimator),
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def _granularity(loss: DivergenceLoss, pair: Pair) -> tuple[tuple[str, ...] | None, str]:
    """Local plates of the weights, by drawing some; a structure no weight exists for is an error.

    For a loss that is linear in the weights such a structure is harmless: None, and the reason.
    """
    try:
        with poutine.block():
            return loss.draws(pair.model, pair.guide, *pair.args, **pair.kwargs).plates, ""
    except UnsupportedStructure as error:
        if not loss.objective.linear:
            raise
        return None, str(error)
