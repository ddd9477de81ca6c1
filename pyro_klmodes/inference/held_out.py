"""``held_out_bound``: an importance-weighted bound on the evidence of data, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import Call, check_batches
from pyro_klmodes.inference.calling import check_positional, check_signatures
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.inference.modules import evaluating
from pyro_klmodes.inference.result import FittedGuide
from pyro_klmodes.inference.shared_latents import shared_latent
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.tracing.cells_with_data import cells_with_data
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.plates import PARTICLES
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.survey import survey

__all__ = ["HeldOutBound", "held_out_bound", "refuse_shared_latents"]


@dataclass(frozen=True)
class HeldOutBound:
    """A lower bound on the log-evidence per datum.

    Attributes:
        bound: mean over data.
        standard_error: of that mean, over data; NaN for a single one.
        per_datum: bound of every datum, ``(*local)``; ``(N,)`` for batches. NaN in the places of
            data that are masked out.
        num_particles: K.
        num_data: how many data there are, without those that are masked out.
    """

    bound: float
    standard_error: float
    per_datum: Tensor = field(repr=False)
    num_particles: int
    num_data: int

    def __str__(self) -> str:
        return (
            f"log p(x) >= {self.bound:.4f} +- {self.standard_error:.4f} per datum "
            f"({self.num_data} data, {self.num_particles} draws each)"
        )


def held_out_bound(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    batches: Iterable[Any] | None = None,
    num_particles: int = 5000,
    chunk: int = 100,
    seed: int = 0,
    **kwargs: Any,
) -> HeldOutBound:
    r"""The K-sample bound :math:`\log \frac1K \sum_k p(x, z_k) / q(z_k | x)` of every datum.

    With K = 1 it is the ELBO. It grows towards the log-evidence with K, from below in expectation,
    by about :math:`\operatorname{var}(w) / 2K` for weights of mean one; and it equals the evidence
    at any K where the guide is the posterior.

    A datum is a cell of the local plates, see ``Draws``; a model without latents in plates has one
    for all its data. Modules are as in evaluation (no dropout), random states and parameters stay
    as they are, and nothing is differentiated. The log-probability of sites that no latent reaches
    is shared out evenly.

    A datum all of whose observations are masked out (by ``poutine.mask``, ``obs_mask`` or the
    distribution), as one that fills up a batch, is none: it is left out of the mean, of its error
    and of their number, also where its latents are not masked.

    The model must be the one that was fitted with the guide, with the very networks that were
    trained: one that is built anew has not learned, and its bound is that of a stranger.

    Args:
        model: a Pyro model.
        guide: a guide for it, or that of a fit, which brings along its parameters and those of the
            model that are in the param store.
        *args: what both are called with, after the batch if there are batches.
        batches: data in parts, as for ``fit``.
        num_particles: K.
        chunk: how many draws are held in memory at a time. Other chunks give other draws.
        seed: for all generators.
        **kwargs: what both are called with.

    Raises:
        InvalidArgument: for numbers that are not positive integers, for batches that are none, and
            if all data are masked out; for a latent that several batches share, naming it.
        ModelGuideMismatch, UnsupportedStructure: as training would.

    Source: Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def posterior(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5 ** 0.5))
        >>> x = torch.tensor([0.0, 2.0])
        >>> held_out_bound(model, posterior, x, num_particles=10).per_datum
        tensor([-1.2655, -2.2655])
        >>> dist.Normal(0.0, 2 ** 0.5).log_prob(x)
        tensor([-1.2655, -2.2655])
    """
    checked_whole("num_particles", num_particles, 1)
    checked_whole("chunk", chunk, 1)
    if batches is not None:
        check_batches(batches, 1)
    check_positional(args)
    with ExitStack() as stack:
        if isinstance(guide, FittedGuide):
            stack.enter_context(pyro.get_param_store().scope(guide.state))
            guide = guide.unbound
        stack.enter_context(seeded(seed))
        stack.enter_context(evaluating(model, guide))
        stack.enter_context(poutine.block())
        stack.enter_context(torch.no_grad())
        found = []
        stream = Stream(batches, args, kwargs)
        check_signatures(model, guide, stream.first(), batches=batches)
        refuse_shared_latents(model, guide, stream)
        for call in _calls(stream):
            found.append(_bound(Pair(model, guide, *call), num_particles, chunk))
    parts = found if batches is None else [(v.reshape(-1), k.reshape(-1)) for v, k in found]
    per_datum, kept = (
        torch.cat(column) if batches is not None else column[0]
        for column in zip(*parts, strict=True)
    )
    values = per_datum[kept]
    count = values.numel()
    if count == 0:
        raise InvalidArgument("all data are masked out, so there is nothing to bound.")
    return HeldOutBound(
        bound=float(values.mean()),
        standard_error=float(values.std()) / math.sqrt(count) if count > 1 else math.nan,
        per_datum=per_datum,
        num_particles=num_particles,
        num_data=count,
    )


def refuse_shared_latents(
    model: Callable[..., Any], guide: Callable[..., Any], stream: Stream
) -> None:
    """Refuse batches that have no evidence of their own.

    Raises:
        InvalidArgument: naming the latent that several of them share.
    """
    shared = shared_latent(model, guide, stream)
    if shared is not None:
        raise InvalidArgument(
            f"batches: latent '{shared.latent}' is outside of plate '{shared.plate}', so that all "
            "data share it: they have one evidence together, and none of a batch's says what one "
            "datum has. Pass all data at once, without batches=, for the bound on that."
        )


def _calls(stream: Stream) -> Iterable[Call]:
    yield stream.first()
    if stream.batches is not None:
        stream.take()  # the first one again
        while (call := stream.take()) is not None:
            yield call


def _bound(pair: Pair, num_particles: int, chunk: int) -> tuple[Tensor, Tensor]:  # (*local) twice
    """The bound of every cell, NaN where it holds no datum, and which do."""
    layout = survey(pair)
    first = _draws(pair, layout, min(chunk, num_particles), None)
    total = torch.logsumexp(first.log_w, 0)
    done = first.log_w.shape[0]
    while done < num_particles:
        # the data of a model that draws its own minibatch must be the same throughout
        more = _draws(pair, layout, min(chunk, num_particles - done), first)
        total = torch.logaddexp(total, torch.logsumexp(more.log_w, 0))
        done += more.log_w.shape[0]
    values = total - math.log(num_particles)
    kept = cells_with_data(first).to(values.device)
    # of a batch without any data nobody has a share
    values = values + first.rest / (first.scale * kept.sum().clamp(min=1))
    return values.masked_fill(~kept, math.nan), kept


def _draws(pair: Pair, layout: Layout, count: int, first: Draws | None) -> Draws:
    indices = first.indices if first else {}
    fixed = {name: index for name, index in indices.items() if not name.startswith(PARTICLES)}
    return sample(pair, layout, count, Cut.DRAWS, fixed=fixed)
