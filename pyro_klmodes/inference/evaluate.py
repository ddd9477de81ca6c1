"""``Evaluate``: a callback that follows the bound on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import check_batches, is_one_shot
from pyro_klmodes.inference.callbacks import StepInfo
from pyro_klmodes.inference.held_out import held_out_bound, refuse_shared_latents
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.iterate_log import checked_whole
from pyro_klmodes.inference.stream import Stream

__all__ = ["Evaluate", "Evaluation"]


class Evaluation(NamedTuple):
    """One look at held-out data.

    Attributes:
        epoch: from 0; None in a fit without batches.
        step: the last one before it, from 0.
        bound: per datum.
        standard_error: over data.
    """

    epoch: int | None
    step: int
    bound: float
    standard_error: float


class Evaluate:
    """A callback of ``fit`` that computes ``held_out_bound`` as the fit goes on.

    Every look uses the same random numbers, so that differences between looks are those of the
    parameters; the fit draws as it would without. Looks are not made again when a fit resumes from
    a checkpoint, which keeps them.

    Args:
        *args: what model and guide are called with, after the batch if there are batches.
        batches: held-out data in parts, as for ``fit``.
        num_particles: K.
        every: epochs between two looks, or steps in a fit without batches.
        chunk: how many draws are held in memory at a time.
        seed: of the draws.
        **kwargs: what model and guide are called with.

    Attributes:
        records: one ``Evaluation`` for every look.

    Raises:
        InvalidArgument: for numbers that are not positive integers, for batches that are none, or
            that can be iterated over only once.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from pyro_klmodes import ReverseKL, fit
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     slope = pyro.param("slope", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(slope * x, 0.7))
        >>> evaluate = Evaluate(torch.linspace(-2, 2, 9), num_particles=10)
        >>> loader = DataLoader(TensorDataset(torch.randn(40)), batch_size=10, shuffle=True)
        >>> result = fit(model, guide, ReverseKL(2), batches=loader, epochs=3,
        ...              callbacks=[evaluate], progress=False)
        >>> [(look.epoch, look.step) for look in evaluate.records]
        [(0, 3), (1, 7), (2, 11)]
    """

    def __init__(
        self,
        *args: Any,
        batches: Iterable[Any] | None = None,
        num_particles: int = 100,
        every: int = 1,
        chunk: int = 100,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.num_particles = checked_whole("num_particles", num_particles, 1)
        self.every = checked_whole("every", every, 1)
        self.chunk = checked_whole("chunk", chunk, 1)
        if batches is not None:
            check_batches(batches, None)
            if is_one_shot(batches):
                raise InvalidArgument(
                    "batches can be iterated over only once, which is not enough for several "
                    "looks. Pass a list or a DataLoader."
                )
        self.args, self.kwargs, self.batches, self.seed = args, kwargs, batches, seed
        self.records: list[Evaluation] = []
        self._pair: tuple[Callable[..., Any], Callable[..., Any]] | None = None

    def before_fit(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        parameters: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Begin a fit: forget the looks of another one.

        Raises:
            InvalidArgument: for a latent that several batches share, rather than at the first look.
        """
        self._pair = model, guide
        self.records = []
        with seeded(None):  # a loader draws when it is begun
            refuse_shared_latents(model, guide, Stream(self.batches, self.args, self.kwargs))

    def __call__(self, info: StepInfo) -> None:
        """Look after a step, if there are no epochs."""
        if info.epoch is None and (info.step + 1) % self.every == 0:
            self._look(info)

    def after_epoch(self, info: StepInfo) -> None:
        """Look after an epoch."""
        if info.epoch is not None and (info.epoch + 1) % self.every == 0:
            self._look(info)

    def _look(self, info: StepInfo) -> None:
        if self._pair is None:
            raise InvalidArgument("Evaluate is a callback of fit, which tells it what to look at.")
        found = held_out_bound(
            *self._pair,
            *self.args,
            batches=self.batches,
            num_particles=self.num_particles,
            chunk=self.chunk,
            seed=self.seed,
            **self.kwargs,
        )
        self.records.append(Evaluation(info.epoch, info.step, found.bound, found.standard_error))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"records": [tuple(record) for record in self.records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.records = [Evaluation(*record) for record in state["records"]]
