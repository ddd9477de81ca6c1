"""Arguments of a finished inference that are missing or do not fit, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

from pyro_klmodes.errors import InvalidArgument, KLModesError
from pyro_klmodes.inference.calling import signature_of
from pyro_klmodes.tracing.full_data import FullData
from pyro_klmodes.tracing.runs import Pair

__all__ = ["check_given", "surveyed"]

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def check_given(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], **functions: Callable[..., Any] | None
) -> None:
    """Refuse to look at an inference whose model or guide cannot be called with these arguments.

    Args:
        args: positional arguments of all functions.
        kwargs: keyword arguments likewise.
        **functions: by what to call them, for instance ``model=``; None is skipped.

    Raises:
        InvalidArgument: naming the function, what does not fit, and what to write.

    Example:
        >>> def model(x, y=None): ...
        >>> check_given((1.0, 2.0), {}, model=model)
        >>> check_given((), {}, model=model)
        Traceback (most recent call last):
        ...
        pyro_klmodes.errors.InvalidArgument: the model takes (x, y=None) and got no arguments: \
missing a required argument: 'x'. Give what model and guide are called with, as args=(x, y).
    """
    for name, function in functions.items():
        signature = None if function is None else signature_of(function)
        if signature is None:
            continue
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgument(
                f"the {name} takes {signature} and got {_described(args, kwargs)}: {error}. Give "
                f"what model and guide are called with, as {_to_write(signature)}."
            ) from error


def surveyed(pair: Pair) -> FullData:
    """All data of a pair, after a look at whether it can be run with its arguments.

    Raises:
        InvalidArgument: saying what to write instead, if it cannot.
        KLModesError: whatever else is wrong with the pair.
    """
    check_given(pair.args, pair.kwargs, model=pair.model, guide=pair.guide)
    try:
        return FullData.of(pair)
    except KLModesError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        signature = signature_of(pair.model)
        keywords = "args=(...)" if signature is None else _to_write(signature)
        raise InvalidArgument(
            "model and guide cannot be run with these arguments: pass those they are called with "
            f"as {keywords}. If the data changed since the guide was trained, pass data of the "
            "size it knows or train it anew; if its parameters are NaN, fit it anew with a smaller "
            f"step. ({type(error).__name__}: {error})"
        ) from error


def _described(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    positional = [f"args of length {len(args)}"] if args else []
    named = [f"kwargs {sorted(kwargs)}"] if kwargs else []
    return " and ".join(positional + named) or "no arguments"


def _to_write(signature: Signature) -> str:
    """The keywords ``args=`` and ``kwargs=`` with the names of what belongs there."""
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind in POSITIONAL]
    keywords = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    told = [f"args=({', '.join(names)}{',' * (len(names) == 1)})"] * (bool(names) or not keywords)
    if keywords:
        told.append(f"kwargs={{{', '.join(f'{name!r}: {name}' for name in keywords)}}}")
    return ", ".join(told)
