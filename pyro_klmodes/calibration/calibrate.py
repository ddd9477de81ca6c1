"""``sbc`` and ``vsbc``: simulate from the model, refit, rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim

from pyro_klmodes.calibration.loop import calibrate
from pyro_klmodes.calibration.result import Calibration
from pyro_klmodes.calibration.study import Study
from pyro_klmodes.tracing.binding import Bind

__all__ = ["sbc", "vsbc"]

MakeGuide = Callable[[Callable[..., Any]], Callable[..., Any]]


def sbc(
    model: Callable[..., Any],
    make_guide: MakeGuide,
    loss: ELBO,
    *args: Any,
    num_simulations: int = 100,
    num_draws: int = 199,
    steps: int = 1000,
    optim: PyroOptim | None = None,
    refit: bool = True,
    warm_start: bool = True,
    bind: Bind | None = None,
    jobs: int = 1,
    seed: int = 0,
    **kwargs: Any,
) -> Calibration:
    r"""Simulation-based calibration of an inference: are true values uniformly ranked?

    Latents are drawn from the prior and data from the model, a guide is fitted to the data, and
    the latents that made them are ranked among L of its draws. Averaged over the prior the ranks
    are uniform over 0, ..., L if the guide is the posterior.

    The simulated data take the place of the values at the observed sites, whether the model has
    them from an argument or from elsewhere. Arguments that hold the observed values, as the same
    tensor or the same numbers, are replaced too, so that guides that look at the data see them.

    Limits. A guide that ignores the data and equals the prior passes. Being calibrated on average
    over the prior does not mean being right for the data at hand. With a wide prior most simulated
    data are unlike real ones. Latents that the guide does not have (enumerated ones) are left out.

    Args:
        model: a Pyro model that can be simulated from, without parameters to learn.
        make_guide: builds a guide for a model, for instance ``AutoNormal`` or, for a guide that is
            a function, ``lambda model: guide``.
        loss: one of this package's losses, or of Pyro's.
        *args: what model and guide are called with; the data serve as a pattern for shapes.
        num_simulations: number of simulated data sets; 100 find gross errors only.
        num_draws: L.
        steps: of every fit.
        optim: an optimizer, copied for every fit; Adam with learning rate 0.01 by default.
        refit: False for amortised guides: a single fit, to the data in ``args``, serves all
            simulated data, which the guide must get by an argument. ``steps=0`` for a guide that is
            trained.
        warm_start: start every fit from the parameters of one fit to another simulated data set.
            The same result if every fit converges, in fewer steps.
        bind: position or name of the argument that holds the data, by observed site, where it is
            not found.
        jobs: number of processes. Results do not depend on it. What is passed must be picklable;
            otherwise one process does it all, with a warning.
        seed: of everything.
        **kwargs: what model and guide are called with.

    Returns:
        Ranks, probabilities, coverage and a reading in words. Fits that break down are counted.

    Raises:
        UnsupportedStructure: for a model with parameters to learn, ``pyro.factor``, minibatches or
            ``poutine.scale``, which would simulate another model.
        InvalidArgument: for arguments out of range, or if all fits fail.

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018); Lemos et al. (2023) for coverage
        of all latents at once.

    Example:
        >>> import math, torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes import ReverseKL
        >>> def model(y):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(z, 1.0), obs=y)
        >>> def too_narrow(y):
        ...     pyro.sample("z", dist.Normal(y / 2, 0.5 * math.sqrt(0.5)))
        >>> found = sbc(model, lambda model: too_narrow, ReverseKL(), torch.tensor(0.0),
        ...             refit=False, steps=0)
        >>> found.num_simulations, found.readings()["z"].width
        (100, 'too narrow')
    """
    return _calibrated(
        "sbc",
        num_simulations,
        bind,
        jobs,
        refit=refit,
        warm_start=warm_start,
        model=model,
        make_guide=make_guide,
        loss=loss,
        args=args,
        kwargs=kwargs,
        steps=steps,
        optim=optim,
        num_draws=num_draws,
        seed=seed,
    )


def vsbc(
    model: Callable[..., Any],
    make_guide: MakeGuide,
    loss: ELBO,
    *args: Any,
    num_simulations: int = 100,
    num_draws: int = 999,
    steps: int = 1000,
    optim: PyroOptim | None = None,
    refit: bool = True,
    warm_start: bool = True,
    bind: Bind | None = None,
    jobs: int = 1,
    seed: int = 0,
    **kwargs: Any,
) -> Calibration:
    r"""Variational simulation-based calibration: is a guide biased, too narrow or too wide?

    As ``sbc``, with a milder question: no guide of a restricted family has uniform ranks. The
    probabilities :math:`P_q(\theta < \theta_i)` of the true values are symmetric about 1/2 as long
    as the guide's *centre* is right on average; a symmetric U means that it is too narrow, a
    symmetric hump that it is too wide, asymmetry that it is biased (see ``vsbc_reading``).

    Args:
        model: see ``sbc``.
        make_guide: see ``sbc``.
        loss: see ``sbc``.
        *args: see ``sbc``.
        num_simulations: number of simulated data sets.
        num_draws: how many draws a probability is taken from.
        steps: see ``sbc``.
        optim: see ``sbc``.
        refit: see ``sbc``.
        warm_start: see ``sbc``.
        bind: see ``sbc``.
        jobs: see ``sbc``.
        seed: see ``sbc``.
        **kwargs: see ``sbc``.

    Returns:
        As ``sbc``; its ``words`` read bias and width.

    Raises:
        UnsupportedStructure: as ``sbc`` does.
        InvalidArgument: as ``sbc`` does.

    Source: Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work?".

    Example:
        >>> import math, torch, pyro, pyro.distributions as dist
        >>> from pyro_klmodes import ReverseKL
        >>> def model(y):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(z, 1.0), obs=y)
        >>> def too_high(y):
        ...     pyro.sample("z", dist.Normal(y / 2 + 0.5, math.sqrt(0.5)))
        >>> vsbc(model, lambda model: too_high, ReverseKL(), torch.tensor(0.0),
        ...      refit=False, steps=0).suspicious()
        {'z': 'biased: the guide is too high'}
    """
    return _calibrated(
        "vsbc",
        num_simulations,
        bind,
        jobs,
        refit=refit,
        warm_start=warm_start,
        model=model,
        make_guide=make_guide,
        loss=loss,
        args=args,
        kwargs=kwargs,
        steps=steps,
        optim=optim,
        num_draws=num_draws,
        seed=seed,
    )


def _calibrated(
    kind: Literal["sbc", "vsbc"],
    num_simulations: int,
    bind: Bind | None,
    jobs: int,
    *,
    refit: bool,
    warm_start: bool,
    **study: Any,
) -> Calibration:
    """Both are the same study, read in two ways; where its data are is found out later."""
    return calibrate(
        kind,
        Study(**study, slots={}, dtype=torch.get_default_dtype()),
        num_simulations,
        bind or {},
        jobs,
        refit=refit,
        warm_start=warm_start,
    )
