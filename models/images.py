"""Binary images to learn from: handwritten digits of 8 by 8, simulated shapes of 28 by 28.

The digits are those of scikit-learn, a part of the handwritten digits of Alpaydin and Kaynak
(1998): 1797 images with whole numbers from 0 to 16. A pixel is drawn once, black with probability
value / 16, so that all fits learn from the same binary images ("fixed binarisation").

The shapes are made up for this file: an outline of an ellipse and one or two strokes, anywhere, at
any angle. They are for scale: any number of them, at the size of the images that variational
autoencoders are usually tried on.

Everything is drawn from the uniform numbers of a seeded PCG64 generator, as NumPy may change its
samplers of other distributions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["DIGIT_SIDE", "SHAPE_SIDE", "digits", "shapes"]

DIGIT_SIDE = 8
SHAPE_SIDE = 28
TRAIN_DIGITS = 1400
SEED = 1998
CHUNK = 1000  # images that are drawn at a time, to keep memory in bounds


def digits(*, binary: bool = True) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test images, each with its labels: 1400 and 397 of them, in a random order.

    Args:
        binary: Whether pixels are 0 or 1; otherwise they are sixteenths between 0 and 1.

    Returns:
        ``(x, label)`` twice; ``x`` has shape (N, 64), ``label`` (N,) whole numbers from 0 to 9.

    Example:
        >>> (x, label), (x_test, _) = digits()
        >>> x.shape, x_test.shape, x.unique(), label[:5]
        (torch.Size([1400, 64]), torch.Size([397, 64]), tensor([0., 1.]), tensor([3, 0, 5, 8, 2]))
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    uniform = np.random.Generator(np.random.PCG64(SEED)).random
    order = np.argsort(uniform(len(found.data)))
    grey, label = found.data[order] / 16, torch.as_tensor(found.target[order])
    pixels = uniform(grey.shape) < grey if binary else grey
    x = torch.as_tensor(pixels, dtype=torch.get_default_dtype())
    return (x[:TRAIN_DIGITS], label[:TRAIN_DIGITS]), (x[TRAIN_DIGITS:], label[TRAIN_DIGITS:])


def shapes(num_data: int, seed: int = SEED) -> Tensor:
    """Simulated images, (N, 784), of zeros and ones.

    Raises:
        ValueError: If ``num_data`` is less than one.

    Example:
        >>> x = shapes(100)
        >>> x.shape, 0.1 < float(x.mean()) < 0.3
        (torch.Size([100, 784]), True)
    """
    if num_data < 1:
        raise ValueError(f"num_data must be at least 1, got {num_data}")
    uniform = np.random.Generator(np.random.PCG64(seed)).random((num_data, 14))
    chunks = [_drawn(uniform[i : i + CHUNK]) for i in range(0, num_data, CHUNK)]
    return torch.as_tensor(np.concatenate(chunks), dtype=torch.get_default_dtype())


def _drawn(
    u: np.ndarray,  # (N, 14), uniform numbers
) -> np.ndarray:  # (N, 784), whether a pixel is black
    """One ellipse and one or two strokes per image."""
    centres = (np.arange(SHAPE_SIDE) + 0.5) / SHAPE_SIDE
    down, right = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    black = _ellipse(u[:, :5, None], right, down) | _stroke(u[:, 5:9, None], right, down)
    second = _stroke(u[:, 9:13, None], right, down)
    return black | (second & (u[:, 13:14] < 0.5))


def _ellipse(
    u: np.ndarray,  # (N, 5, 1)
    right: np.ndarray,  # (pixels,)
    down: np.ndarray,  # (pixels,)
) -> np.ndarray:  # (N, pixels)
    """An outline about two pixels wide; radii of a tenth to a third of the side."""
    x, y = right - (0.3 + 0.4 * u[:, 0]), down - (0.3 + 0.4 * u[:, 1])
    angle = np.pi * u[:, 2]
    long, short = 0.1 + 0.25 * u[:, 3], 0.1 + 0.25 * u[:, 4]
    along = (np.cos(angle) * x + np.sin(angle) * y) / long
    across = (np.cos(angle) * y - np.sin(angle) * x) / short
    return np.abs(np.hypot(along, across) - 1) * np.minimum(long, short) < 0.04


def _stroke(
    u: np.ndarray,  # (N, 4, 1)
    right: np.ndarray,  # (pixels,)
    down: np.ndarray,  # (pixels,)
) -> np.ndarray:  # (N, pixels)
    """A straight line about two pixels wide between two points at least 0.1 from the border."""
    ends = 0.1 + 0.8 * u
    x, y = ends[:, 0], ends[:, 1]
    dx, dy = ends[:, 2] - x, ends[:, 3] - y
    share = ((right - x) * dx + (down - y) * dy) / np.maximum(dx**2 + dy**2, 1e-12)
    share = np.clip(share, 0, 1)
    return np.hypot(right - x - share * dx, down - y - share * dy) < 0.04
