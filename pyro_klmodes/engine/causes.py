"""What went wrong while a step was written down, in words of the model's author."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

__all__ = ["cause_of", "place_of"]

_OURS = ("pyro_klmodes", "/pyro/", "/torch/", "<string>", "<eval_with_key>")

#: what torch says, and what it means
_MEANINGS = (
    (
        ("get value out of a tracing tensor", "_local_scalar_dense", "Could not guard on"),
        "a value decides what is computed: a Python `if`, `float()`, `int()`, `.item()` or "
        "`while` on a tensor",
    ),
    (
        ("data-dependent", "nonzero", "masked_select", "aten.unique"),
        "a shape depends on values: a boolean mask or `nonzero` on a tensor",
    ),
    (("can't call numpy", "numpy() on", ".numpy"), "a tensor is turned into a numpy array"),
)


def cause_of(error: BaseException) -> str:
    """One line about an error: what it means, and the line of the user's code where it arose."""
    chain = list(_chain(error))
    text = " ".join(" ".join(str(e).split()) for e in chain)
    meaning = next((m for words, m in _MEANINGS if any(w in text for w in words)), None)
    if meaning is None:
        first = chain[-1]
        meaning = f"{type(first).__name__}: {' '.join(str(first).split())[:200]}"
    return meaning + place_of(error)


def place_of(error: BaseException) -> str:
    """The last line of the user's code that an error came through, in brackets."""
    for each in reversed(list(_chain(error))):
        frames = traceback.extract_tb(each.__traceback__)
        users = [f for f in frames if not any(part in f.filename for part in _OURS)]
        if users:
            return f" (in {users[-1].name}, line {users[-1].lineno}: {users[-1].line})"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
