"""Mean and standard deviation of a site, and the names of its elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.names import element_name

__all__ = ["Moments", "element_names"]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of one site, each of the site's shape."""

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, mean: Any, sd: Any) -> Moments:
        """Moments from numbers, arrays or tensors.

        Raises:
            InvalidArgument: If the two differ in shape, are not finite, or a standard deviation is
                negative.

        Example:
            >>> Moments.of([0.5, 1.0], [0.25, 2.0]).sd
            array([0.25, 2.  ])
        """
        found = cls(_array(mean), _array(sd))
        if found.mean.shape != found.sd.shape:
            raise InvalidArgument(
                f"the mean has shape {found.mean.shape} and the standard deviation "
                f"{found.sd.shape}; give both in the shape of the site"
            )
        if not (np.isfinite(found.mean).all() and np.isfinite(found.sd).all()):
            raise InvalidArgument("mean and standard deviation must be finite numbers")
        if (found.sd < 0).any():
            raise InvalidArgument("a standard deviation is negative; give sd, not its logarithm")
        return found

    @classmethod
    def of_draws(
        cls,
        values: np.ndarray,  # (S, *site_shape)
    ) -> Moments:
        """Moments of draws, the standard deviation with S - 1.

        Example:
            >>> Moments.of_draws(np.array([1.0, 2.0, 3.0]))
            Moments(mean=array(2.), sd=array(1.))
        """
        values = np.asarray(values, dtype=np.float64)
        return cls(np.asarray(values.mean(0)), np.asarray(values.std(0, ddof=1)))


def element_names(site: str, shape: tuple[int, ...]) -> list[str]:
    """Names of a site's elements in row-major order.

    Example:
        >>> element_names("mu", ()), element_names("theta", (2,))
        (['mu'], ['theta[0]', 'theta[1]'])
    """
    return [element_name(site, index) for index in np.ndindex(shape)]


def _array(value: Any) -> np.ndarray:
    # Tensors may carry gradients or live on another device; they know how to leave both behind.
    array = value.numpy(force=True) if hasattr(value, "detach") else np.asarray(value)
    return array.astype(np.float64)
