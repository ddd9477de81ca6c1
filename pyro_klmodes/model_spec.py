"""What to compare on: a model named on the command line, found and loaded."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from pyro_klmodes.entries import Moments, Reference
from pyro_klmodes.errors import InvalidArgument

__all__ = ["Target", "call", "did_you_mean", "find", "load_target"]

DEFAULT_ATTRIBUTE = "problem"


@dataclass(frozen=True)
class Target:
    """A model to fit and what is known about its posterior.

    Attributes:
        name: A short name, used for the output folder and the page.
        model: The Pyro model.
        args: Positional arguments of the model.
        kwargs: Keyword arguments of the model.
        reference: Trusted posterior moments by site; empty when nothing is known.
        log_evidence: The exact log evidence, None when unknown.
        guide: A hand-written guide that comes with the model, called ``own`` among the guides.
        guides: Names of the autoguides worth trying; empty when the model does not say.
        how: How the reference was obtained.
        source: Where model and data come from.
    """

    name: str
    model: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Moments] = field(default_factory=dict)
    log_evidence: float | None = None
    guide: Callable[..., Any] | None = None
    guides: tuple[str, ...] = ()
    how: str = ""
    source: str = ""

    @property
    def known(self) -> Reference:
        """What fits are held against."""
        origin = self.how or "given with the model"
        return Reference(dict(self.reference), self.log_evidence, origin if self.reference else "")


def load_target(spec: str) -> Target:
    """Load ``package.module``, ``package.module:attribute`` or ``path/to/file.py:attribute``.

    The attribute is ``problem`` unless given. An attribute called ``problem``, or with a name that
    ends in ``_problem``, is a function without arguments that returns an object with ``name``,
    ``model``, ``args``, ``kwargs``, ``reference``, ``log_evidence``, ``guide``, ``guides``, ``how``
    and ``source``. Any other attribute is a Pyro model, called without arguments.

    Raises:
        InvalidArgument: If the module or the attribute does not exist or cannot be loaded, or a
            plain model needs arguments.
    """
    attribute, found = find(spec, DEFAULT_ATTRIBUTE)
    if attribute != DEFAULT_ATTRIBUTE and not attribute.endswith(f"_{DEFAULT_ATTRIBUTE}"):
        _check_no_arguments(found, spec)
        return Target(name=attribute, model=found)
    problem = call(spec, attribute, found)
    return _target_from(problem, spec)


def _check_no_arguments(model: Callable[..., Any], spec: str) -> None:
    try:
        signature = inspect.signature(model)
    except ValueError:  # code that is not Python's has none
        return
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidArgument(
            f"{spec}: the model is called without arguments, and is {error}; name a function "
            "that returns it with its data: def my_problem(): return "
            "SimpleNamespace(name=..., model=..., args=(...,))"
        ) from error


def find(spec: str, default: str) -> tuple[str, Callable[..., Any]]:
    """The attribute that is named after the colon, or the default one, and what it is.

    Raises:
        InvalidArgument: If the module or the attribute does not exist or cannot be loaded.
    """
    place, _, attribute = spec.partition(":")
    attribute = attribute or default
    module = _module_from_file(Path(place)) if place.endswith(".py") else _module(place)
    return attribute, _attribute(module, attribute, place)


def call(spec: str, attribute: str, found: Callable[..., Any]) -> Any:
    """What the user's function returns, called without arguments.

    Raises:
        InvalidArgument: If it raises, whatever that is: the message is for the user.
    """
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise InvalidArgument(
            f"{spec}: calling {attribute}() failed: {_describe(error)}"
        ) from error


def did_you_mean(name: str, known: list[str]) -> str:
    """A sentence part that suggests the closest known names and lists all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"{suggestion}known: {', '.join(known) or 'none'}"


def _target_from(problem: Any, spec: str) -> Target:
    missing = [name for name in ("name", "model") if not hasattr(problem, name)]
    if missing:
        raise InvalidArgument(
            f"{spec} returned {type(problem).__name__} without {' and '.join(missing)}; return an "
            "object with at least these attributes, or name a plain model after the colon"
        )
    try:
        known = Reference.of({} if _says_nothing(problem) else problem, ())
    except InvalidArgument as error:
        raise InvalidArgument(f"{spec}: {error}") from error
    return Target(
        name=problem.name,
        model=problem.model,
        args=tuple(getattr(problem, "args", ())),
        kwargs=dict(getattr(problem, "kwargs", {})),
        reference=known.moments,
        log_evidence=known.log_evidence,
        guide=getattr(problem, "guide", None),
        guides=tuple(getattr(problem, "guides", ())),
        how=getattr(problem, "how", ""),
        source=getattr(problem, "source", ""),
    )


def _says_nothing(problem: Any) -> bool:
    return not (hasattr(problem, "reference") or hasattr(problem, "log_evidence"))


def _module(name: str) -> ModuleType:
    # `python -m` puts the working directory on the path, the console script does not.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InvalidArgument(f"importing {name} failed: {_describe(error)}") from error
        raise InvalidArgument(
            f"there is no module {name!r} (searched from {Path.cwd()}); {_similar_modules(name)}"
        ) from error
    except (
        Exception,
        SystemExit,
    ) as error:  # the user's module may fail in any way while it is imported
        raise InvalidArgument(f"importing {name} failed: {_describe(error)}") from error


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidArgument(f"there is no file {path}")
    # A name of its own: a file json.py must not take the place of the standard library's module.
    name = f"klmodes_model_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise InvalidArgument(f"{path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(specification)
    # Classes of the module, dataclasses above all, look their own module up by name.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except (
        Exception,
        SystemExit,
    ) as error:  # the user's file may fail in any way while it is imported
        raise InvalidArgument(f"importing {path} failed: {_describe(error)}") from error
    return module


def _attribute(module: ModuleType, attribute: str, place: str) -> Callable[..., Any]:
    found = getattr(module, attribute, None)
    if callable(found):
        return found
    if found is not None:
        raise InvalidArgument(
            f"{place}:{attribute} is a {type(found).__name__} and cannot be called as a model"
        )
    own = sorted(
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    )
    raise InvalidArgument(f"{place} has no {attribute!r}; {did_you_mean(attribute, own)}")


def _similar_modules(name: str) -> str:
    package, _, _ = name.rpartition(".")
    if not package:
        return "name it as models.eight_schools or path/to/file.py:model"
    try:
        parent = importlib.import_module(package)
    except ImportError:
        return f"there is no package {package!r} either"
    known = [
        f"{package}.{info.name}" for info in pkgutil.iter_modules(getattr(parent, "__path__", []))
    ]
    return did_you_mean(name, known)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
