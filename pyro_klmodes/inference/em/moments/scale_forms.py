"""What may stand for the standard deviation of a Normal: its square, inverse square, logarithm.

A maximum is one in any parametrisation: where ``scale`` is ``variance.sqrt()`` or
``log_scale.exp()`` the closed form of the scale gives that of the parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

__all__ = ["SCALE_FORMS", "Form"]


class Form(NamedTuple):
    """A way to give a standard deviation.

    Attributes:
        of_scale: the parameter of a standard deviation.
        to_variance: the variance of the parameter.
    """

    of_scale: Callable[[Tensor], Tensor]
    to_variance: Callable[[Tensor], Tensor]


#: by the name that messages use
SCALE_FORMS = {
    "scale": Form(lambda s: s, lambda x: x**2),
    "variance": Form(lambda s: s**2, lambda x: x),
    "precision": Form(lambda s: s**-2, lambda x: 1 / x),
    "log_scale": Form(lambda s: s.log(), lambda x: (2 * x).exp()),
}
