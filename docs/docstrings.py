"""Docstrings as they are meant, where reStructuredText or napoleon would read them otherwise."""

from __future__ import annotations

import re

__all__ = ["as_meant"]


def as_meant(
    app: object, what: str, name: str, of: object, options: object, lines: list[str]
) -> None:
    """Correct the lines of a docstring in place; a listener of ``autodoc-process-docstring``.

    Indented lines after ``Source: ...`` go on with it, and are no definition of it. A capital with
    a full stop, as in ``num_particles: K.``, is a number, and no item of a list. What stands before
    a colon in the docstring of an attribute is not its type.
    """
    in_source = False
    for number, line in enumerate(lines):
        in_source = bool(line.strip()) and (in_source or bool(re.match(r"Sources?: ", line)))
        if in_source:
            lines[number] = line.strip()
        lines[number] = re.sub(r"^( *\w+: )([A-Z]\.)$", r"\1\\\2", lines[number])
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"  # an empty type
