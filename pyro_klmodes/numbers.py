"""Numbers as people read them."""

from __future__ import annotations

import math

__all__ = ["count", "short_number", "two_decimals", "with_spread"]

UNKNOWN = "–"


def short_number(value: float | None) -> str:
    """Two decimals with a true minus sign, a dash for what is unknown.

    Example:
        >>> short_number(-1.234), short_number(None), short_number(float("inf"))
        ('−1.23', '–', '∞')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    # Three digits for numbers that two decimals would flatten or drown in digits.
    digits = ".2f" if 0.1 <= abs(value) < 1e4 or value == 0 else ".3g"
    return format(value, digits).replace("-", "−")


def two_decimals(value: float | None) -> str:
    """Always two decimals, for numbers around one.

    Example:
        >>> two_decimals(-0.018), two_decimals(0.7), two_decimals(None)
        ('−0.02', '0.70', '–')
    """
    if value is None or not math.isfinite(value):
        return short_number(value)
    return f"{value:.2f}".replace("-", "−")


def with_spread(value: float | None, spread: float | None) -> str:
    """A number with its standard deviation or error, to two significant digits of the latter.

    Example:
        >>> with_spread(-31.3478, 0.0436), with_spread(6.21, 12.57), with_spread(None, None)
        ('−31.348 ± 0.044', '6 ± 13', '–')
        >>> with_spread(-84.3004727615, 2e-15)
        '−84.30 ± 2e−15'
    """
    if value is None or spread is None or math.isnan(value):
        return UNKNOWN
    if spread == 0 or not math.isfinite(spread) or not math.isfinite(value):
        return f"{short_number(value)} ± {short_number(spread)}"
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    if decimals > 6:  # rounding only
        return f"{short_number(value)} ± {spread:.0e}".replace("-", "−")
    return f"{value:.{decimals}f} ± {spread:.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    r"""A whole number with thin spaces between its thousands.

    Example:
        >>> count(None), count(612.3), count(64000) == "64\u2009000"
        ('–', '612', True)
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:,.0f}".replace(",", "\u2009").replace("-", "−")
