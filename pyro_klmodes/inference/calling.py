"""Arguments of the wrong kind, in words: before model and guide are called with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from pyro.infer import ELBO
from pyro.nn import PyroModule
from pyro.optim import PyroOptim
from torch.nn import Module
from torch.utils.data import DataLoader

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.batches import ByIndex, Call

__all__ = ["check_pair", "check_positional", "check_signatures", "shown", "signature_of"]

_LENGTHS = ("step", "num_steps", "n_steps", "num_iterations", "iterations")
_EPOCHS = ("epoch", "num_epochs", "n_epochs")
_CALLBACKS = ("callback", "callbacks")


def shown(value: Any) -> str:
    """A value for a message: itself if it is short, and otherwise what it is."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"an object of type {type(value).__name__}"


def check_pair(model: Any, guide: Any) -> None:
    """Refuse what is no model or no guide.

    Raises:
        InvalidArgument: naming which of them.
    """
    for name, value in (("model", model), ("guide", guide)):
        if not callable(value) or isinstance(value, ELBO | PyroOptim):
            raise InvalidArgument(
                f"{name} is {shown(value)}; it must be a function or a module with pyro.sample "
                "statements. The order is (model, guide, ...)."
            )
        if isinstance(value, type):
            raise InvalidArgument(
                f"{name} is {shown(value)}; make an object of it, as in AutoNormal(model)."
            )


def check_positional(args: Iterable[Any]) -> None:
    """Refuse minibatches among what model and guide are called with.

    Raises:
        InvalidArgument: saying which keyword they belong to.
    """
    for value in args:
        if isinstance(value, DataLoader | ByIndex):
            raise InvalidArgument(
                f"a {type(value).__name__} was given as a positional argument, which model and "
                "guide would be called with as it is; pass it as batches=."
            )


def check_signatures(
    model: Callable[..., Any], guide: Callable[..., Any], call: Call, *, batches: Any
) -> None:
    """Refuse arguments that model or guide do not take, as far as their signatures tell.

    Raises:
        InvalidArgument: naming the function, what does not fit, and what was probably meant.
    """
    for name, function in (("model", model), ("guide", guide)):
        signature = signature_of(function)
        if signature is None:
            continue
        try:
            signature.bind(*call.args, **call.kwargs)
        except TypeError as error:
            raise InvalidArgument(
                f"the {name} takes {signature} and cannot be called with {_described(call)}: "
                f"{error}.{_hint(call, signature, batches)}"
            ) from error


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """What it is called with, None if that cannot be known.

    The signature of a wrapper is its own, whatever it passes on.
    """
    plain = type(function).__call__ in (Module.__call__, PyroModule.__call__)
    target = function.forward if isinstance(function, Module) and plain else function
    try:
        return inspect.signature(target, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _described(call: Call) -> str:
    count = len(call.args)
    words = f"{count} positional argument{'' if count == 1 else 's'}"
    return words + (f" and keywords {sorted(call.kwargs)}" if call.kwargs else "")


def _hint(call: Call, signature: inspect.Signature, batches: Any) -> str:
    for name in call.kwargs:
        if name not in signature.parameters:
            if name in _LENGTHS:
                return f" To say how many steps to take, pass steps= instead of {name}=."
            if name in _EPOCHS:
                return f" To say how often to go through batches, pass epochs= instead of {name}=."
            if name in _CALLBACKS:
                return " EM.fit takes one function, callback=; fit and CAVI.fit callbacks=[...]."
    if batches is None:
        return ""
    if isinstance(batches, ByIndex):
        return f" Indices are given as {batches.name}=, see by_index(sampler, name=...)."
    return (
        " Of a batch, tuples and lists are spread over the positional arguments, dicts become "
        "keywords, and the other arguments follow. Change the signature or the batches."
    )
