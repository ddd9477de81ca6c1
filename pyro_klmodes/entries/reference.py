"""What fits are held against: moments and evidence that are trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pyro_klmodes.entries.moments import Moments
from pyro_klmodes.errors import InvalidArgument

__all__ = ["Reference"]


@dataclass(frozen=True)
class Reference:
    """Trusted posterior moments and evidence; nothing is known where they are empty.

    Attributes:
        moments: By site.
        log_evidence: The exact log evidence, None if it is not known.
        origin: Where they are from, in words.
        label: The fit whose moments they are, None if they are not from a fit.
    """

    moments: Mapping[str, Moments] = field(default_factory=dict)
    log_evidence: float | None = None
    origin: str = ""
    label: str | None = None

    @classmethod
    def of(
        cls, reference: Any, labels: Collection[str], log_evidence: float | None = None
    ) -> Reference:
        """A reference from what a user has.

        Args:
            reference: None; the label of a fit, whose moments are filled in later by
                ``with_moments``; a dictionary from site to (mean, sd) or to an object with these
                attributes; or an object with ``reference`` (such a dictionary) and
                ``log_evidence``.
            labels: Of the fits.
            log_evidence: Takes the place of that of ``reference``.

        Raises:
            InvalidArgument: For a label that no fit has, moments that are none, or an evidence that
                is no finite number.

        Example:
            >>> Reference.of({"mu": (0.0, 1.0)}, []).moments["mu"].sd
            array(1.)
            >>> Reference.of("nuts", ["nuts", "forward"]).origin
            'the fit nuts'
        """
        if reference is None:
            return cls(log_evidence=_number(log_evidence))
        if isinstance(reference, str):
            if reference not in labels:
                raise InvalidArgument(
                    f"reference={reference!r} is not the label of a fit; the labels are "
                    f"{', '.join(labels)}"
                )
            evidence = _number(log_evidence)
            return cls({}, evidence, f"the fit {reference}", reference)
        if isinstance(reference, Mapping):
            return cls(_moments(reference), _number(log_evidence), "given")
        if not (hasattr(reference, "reference") or hasattr(reference, "log_evidence")):
            raise InvalidArgument(
                f"reference is of type {type(reference).__name__}; pass the label of a fit, a "
                "dictionary from site to (mean, sd), or an object with the attributes `reference` "
                "or `log_evidence`"
            )
        own = getattr(reference, "log_evidence", None)
        return cls(
            _moments(getattr(reference, "reference", None) or {}),
            _number(own if log_evidence is None else log_evidence),
            getattr(reference, "how", "") or "given",
        )

    def with_moments(self, moments: Mapping[str, Moments]) -> Reference:
        """The same with the moments of the fit that it names."""
        return replace(self, moments=dict(moments))

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a reference of a site that is not among these, or has another shape.

        Raises:
            InvalidArgument: Naming the site.
        """
        for site, moments in self.moments.items():
            if site not in shapes:
                raise InvalidArgument(
                    f"the reference names site {site!r}, which no fit has; the sites are "
                    f"{', '.join(shapes) or 'none'}"
                )
            if moments.mean.shape != shapes[site]:
                raise InvalidArgument(
                    f"the reference of site {site!r} has shape {moments.mean.shape}, but the site "
                    f"has shape {shapes[site]}"
                )


def _moments(given: Mapping[str, Any]) -> dict[str, Moments]:
    found = {}
    for site, entry in given.items():
        pair = (entry.mean, entry.sd) if hasattr(entry, "sd") else entry
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise InvalidArgument(
                f"the reference of site {site!r} must be a pair (mean, sd), not "
                f"{type(entry).__name__}"
            )
        try:
            found[str(site)] = Moments.of(*pair)
        except (InvalidArgument, ValueError, TypeError) as error:
            raise InvalidArgument(f"the reference of site {site!r}: {error}") from error
    return found


def _number(log_evidence: Any) -> float | None:
    if log_evidence is None:
        return None
    number = float(log_evidence)
    if not np.isfinite(number):
        raise InvalidArgument(f"log_evidence={log_evidence!r} must be a finite number")
    return number
