"""The decision guide as a table in Markdown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Choice", "as_markdown"]


@dataclass(frozen=True)
class Choice:
    """One recommendation with what was measured for it.

    Attributes:
        situation: what is known of the posterior, or wanted of it.
        take: what to do.
        measured: the number that speaks for it.
        exact: what it should be.
        instead: the number of what one might do instead.
        fails: where the recommendation itself fails, with a number.
    """

    situation: str
    take: str
    measured: str
    exact: str
    instead: str
    fails: str


def as_markdown(choices: list[Choice]) -> str:
    rows = ["| if | take | measured | exact | instead | and where that fails |",
            "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    rows += [
        f"| {c.situation} | {c.take} | {c.measured} | {c.exact} | {c.instead} | {c.fails} |"
        for c in choices
    ]
    return "\n".join(rows)
