"""What a model file hands out for training: model and guide with networks, and data in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """A pair of model and guide whose parameters are both learnt, with data to learn from.

    Networks are made, with random weights, when a factory ``training()`` is called; seed torch
    before to have the same ones again.

    Attributes:
        name: What to call it in a table.
        model: The Pyro model, called as ``model(*batch)``.
        guide: The guide, called likewise.
        train: Data whose items are tuples of tensors, which a ``DataLoader`` stacks to batches.
        test: Data held out, of the same form.
        batch_size: How many items make a batch.
        learning_rate: A learning rate that suits Adam.
        epochs: How often to go through the data.
        likelihood: What the data are given their latents, in words.
        source: Where data and model were published, or that they were made up for this file.
        exact: ``log p(x)`` of every item of a batch at the present parameters of the model, called
            as ``exact(*batch)``, shape (B,); None where it has no closed form.
        samples: Pictures of new data, called with their number, (number, height, width) in [0, 1];
            None if data are no pictures.
        reconstructions: Pictures of the items of a batch and of what becomes of them through guide
            and decoder, called as ``reconstructions(*batch)``, (B, height, width) both; None if
            data are no pictures.

    Example:
        >>> from models.vae import training
        >>> task = training()
        >>> x = task.test[:2][0]
        >>> x.shape, task.samples(3).shape
        (torch.Size([2, 64]), torch.Size([3, 8, 8]))
    """

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    train: Dataset[tuple[Tensor, ...]]
    test: Dataset[tuple[Tensor, ...]]
    batch_size: int
    learning_rate: float
    epochs: int
    likelihood: str
    source: str
    exact: Callable[..., Tensor] | None = None
    samples: Callable[[int], Tensor] | None = None
    reconstructions: Callable[..., tuple[Tensor, Tensor]] | None = None
