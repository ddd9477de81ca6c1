"""What to call a single number of a site."""

from __future__ import annotations

__all__ = ["element_name"]


def element_name(site: str, index: tuple[int, ...]) -> str:
    """The name of one element of a site.

    Example:
        >>> element_name("mu", ()), element_name("theta", (0, 2))
        ('mu', 'theta[0,2]')
    """
    return f"{site}[{','.join(map(str, index))}]" if index else site
