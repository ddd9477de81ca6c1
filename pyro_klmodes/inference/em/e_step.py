"""What an E-step hands to an M-step: a bound, and the weight of every filling of the latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.em.parameters import Parameters
from pyro_klmodes.tracing.filled import Filled
from pyro_klmodes.tracing.fillings import weights_of

__all__ = ["EStep", "Expected", "RunningEStep", "check_guide", "expected"]


class Expected(NamedTuple):
    """The result of one E-step at R values of the parameters.

    Attributes:
        bound: the log-likelihood, or what stands for it.
        weights: of every scored site's log-probability in the bound, its derivative.
        filled: the model with the latent values that were weighed.
    """

    bound: Tensor  # (R,)
    weights: dict[str, Tensor]  # {site: (R, *batch)}
    filled: Filled


def expected(
    filled: Filled,
    bound: Callable[[Mapping[str, Tensor]], Tensor],  # {site: (R, *batch)} -> (R,)
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
) -> Expected:
    """The value of a bound in the log-probabilities of a filled model, and its derivatives."""
    log_probs = filled.log_probs({n: v.detach() for n, v in values.items()})
    value, weights = weights_of(bound, log_probs)
    return Expected(value, weights, filled)


class RunningEStep(Protocol):
    """An E-step for one model and its data.

    Attributes:
        filled: the model with some values of its latents.
    """

    filled: Filled

    def expect(
        self,
        values: dict[str, Tensor],  # {parameter: (R, *shape)}
    ) -> Expected:
        """Weigh the latents at R values of the parameters."""


class EStep(ABC):
    """A way to average over latents; a value, which knows no model."""

    #: whether a decrease of the bound is an error
    monotone: ClassVar[bool] = False
    #: whether several starts share their runs
    batched: ClassVar[bool] = False

    @abstractmethod
    def start(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> RunningEStep:
        """Get ready for one model and its data."""


def check_guide(guide: Any) -> None:
    """Refuse what is no guide.

    Raises:
        InvalidArgument: saying what to pass.
    """
    if isinstance(guide, type):
        raise InvalidArgument(
            f"guide is {shown(guide)}; make an object of it, as in AutoNormal(model)."
        )
    if not callable(guide):
        raise InvalidArgument(
            f"guide is {shown(guide)}; it must be a function or a module with pyro.sample "
            "statements."
        )
