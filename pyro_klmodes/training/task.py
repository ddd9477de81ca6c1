"""What to train: model, guide and data that are named on the command line, found and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import ByIndex, by_index
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.model_spec import call, find
from pyro_klmodes.tracing.observed import takes_keyword

__all__ = ["Task", "load_task"]

DEFAULT_ATTRIBUTE = "training"
Data = Dataset[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Task:
    """A model and a guide to train, and data to train them on.

    Attributes:
        name: a short name, used for the output folder and the summary.
        model: the Pyro model, called with the tensors of a batch; for losses that remember every
            datum, with all data and the indices of a batch as ``subsample``.
        guide: the guide, called likewise.
        train: data whose items are tuples of tensors, or an iterable over batches of them.
        test: data held out, whose items are tuples of tensors.
        batch_size: how many items make a batch.
        learning_rate: of Adam.
        epochs: how often to go through the data.
        exact: log-evidence of every item of a batch at the present parameters, or None.
        samples: pictures of new data, called with their number, ``(number, height, width)``, or
            None.
        reconstructions: pictures of a batch's items and of their reconstructions,
            ``(B, height, width)`` both, or None.
    """

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    train: Data
    test: Data
    batch_size: int
    learning_rate: float
    epochs: int
    exact: Callable[..., Tensor] | None = None
    samples: Callable[[int], Tensor] | None = None
    reconstructions: Callable[..., tuple[Tensor, Tensor]] | None = None

    def train_batches(self, batch_size: int | None) -> DataLoader[tuple[Tensor, ...]]:
        """Batches in a new order every epoch, as torch's generator has it.

        Raises:
            InvalidArgument: if there is a choice of size where the data come in batches already.
        """
        if not isinstance(self.train, IterableDataset):
            return DataLoader(self.train, batch_size=batch_size or self.batch_size, shuffle=True)
        if batch_size is not None:
            raise InvalidArgument(
                f"--batch-size {batch_size}: the data of {self.name!r} come in batches already; "
                "leave it out."
            )
        return DataLoader(self.train, batch_size=None)

    def train_by_index(self, batch_size: int | None) -> tuple[tuple[Tensor, ...], ByIndex]:
        """All data to learn from, and batches of their indices in a new order every epoch.

        Raises:
            InvalidArgument: if the data are not all in memory, or model or guide takes no indices.
        """
        for name, function in (("model", self.model), ("guide", self.guide)):
            if not takes_keyword(function, "subsample"):
                raise InvalidArgument(
                    f"the {name} of {self.name!r} takes no argument subsample, and this loss has "
                    "to know which data it sees; have model and guide take their batch by "
                    'pyro.plate("data", N, subsample=subsample), or choose another --loss'
                )
        if not isinstance(self.train, TensorDataset):
            raise InvalidArgument(
                f"the data of {self.name!r} are a {type(self.train).__name__}, and this loss has "
                "to know which of them it sees; make a torch.utils.data.TensorDataset of them, or "
                "choose another --loss"
            )
        sampler = RandomSampler(self.train)
        size = batch_size or self.batch_size
        return self.train.tensors, by_index(BatchSampler(sampler, size, drop_last=False))

    def test_batches(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of the data held out, always in the same order."""
        return DataLoader(self.test, batch_size=self.batch_size)


def load_task(spec: str, seed: int = 0) -> Task:
    """Load ``package.module``, ``package.module:attribute`` or ``path/to/file.py:attribute``.

    The attribute, ``training`` unless given, is a function without arguments that returns an object
    with at least ``name``, ``model``, ``guide``, ``train``, ``test``, ``batch_size``,
    ``learning_rate`` and ``epochs``. Networks that it makes start alike for a seed.

    Raises:
        InvalidArgument: if the module or the attribute does not exist, cannot be loaded, or returns
            something else.

    Example:
        >>> task = load_task("models.linear_vae")
        >>> task.name, len(task.train), task.batch_size
        ('linear VAE', 1000, 100)
    """
    attribute, found = find(spec, DEFAULT_ATTRIBUTE)
    if attribute != DEFAULT_ATTRIBUTE and not attribute.endswith(f"_{DEFAULT_ATTRIBUTE}"):
        raise InvalidArgument(
            f"{spec}: what to train is made by a function called {DEFAULT_ATTRIBUTE!r}, or with a "
            f"name that ends in '_{DEFAULT_ATTRIBUTE}', not by {attribute!r}"
        )
    with seeded(seed):
        made = call(spec, attribute, found)
    given = {f.name: getattr(made, f.name) for f in fields(Task) if hasattr(made, f.name)}
    _check(spec, made, given)
    return Task(**given)


def _check(spec: str, made: Any, given: Mapping[str, Any]) -> None:
    """What is there, and of a kind that training can use."""
    missing = [f.name for f in fields(Task) if f.name not in given and f.default is not None]
    if missing:
        raise InvalidArgument(
            f"{spec} returned {type(made).__name__} without {', '.join(missing)}; return an object "
            "with at least these attributes"
        )
    for name in ("train", "test"):
        if not isinstance(given[name], Dataset):
            raise InvalidArgument(
                f"{spec}: {name} is a {type(given[name]).__name__}; make a "
                "torch.utils.data.TensorDataset of it"
            )
        if hasattr(given[name], "__len__") and len(given[name]) == 0:
            raise InvalidArgument(f"{spec}: {name} has no data")
    if isinstance(given["test"], IterableDataset):
        raise InvalidArgument(f"{spec}: test has to stay the same; make a TensorDataset of it")
    for name in ("batch_size", "epochs"):
        if type(given[name]) is not int or given[name] < 1:
            raise InvalidArgument(f"{spec}: {name} is {given[name]!r}; it must be at least 1")
    if not isinstance(given["learning_rate"], float) or not given["learning_rate"] > 0:
        raise InvalidArgument(
            f"{spec}: learning_rate is {given['learning_rate']!r}; it must be a number above 0"
        )
