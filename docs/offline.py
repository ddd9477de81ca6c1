"""Whether a built site needs the network: whatever a page loads has to be a file of the site.

Run as ``python docs/offline.py build/docs``; what is loaded from elsewhere or is missing is listed,
and the exit code is then 1. Links that a reader may follow can point anywhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# elements and the attributes by which they load something without being asked
LOADS = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
# a link element to another page is a hint, and loads nothing
HINTS = {"index", "search", "next", "prev", "canonical", "author", "copyright"}
IN_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")


class Loads(HTMLParser):
    """Everything that one page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element loads."""
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.found += _in_style(values.get("style", ""))
        if tag == "link" and set(values.get("rel", "").split()) <= HINTS:
            return
        self.found += [
            part.split()[0]
            for name in LOADS.get(tag, ())
            if values.get(name)
            for part in (values[name].split(",") if name == "srcset" else [values[name].strip()])
        ]

    def handle_endtag(self, tag: str) -> None:
        """A style sheet within the page ends."""
        self._in_style = False

    def handle_data(self, data: str) -> None:
        """Note what a style sheet within the page loads."""
        if self._in_style:
            self.found += _in_style(data)


def _in_style(text: str) -> list[str]:
    return [a or b for a, b in IN_STYLES.findall(text)]


def loads(file: Path) -> list[str]:
    """Addresses that a page or a style sheet loads, as they are written."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".css":
        return _in_style(text)
    page = Loads()
    page.feed(text)
    return page.found


def problems(site: Path) -> Iterator[str]:
    """What does not come from the site, and what is not there."""
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for address in loads(file):
            parts = urlsplit(address)
            where = f"{file.relative_to(site)}: {address[:100]}"
            if parts.scheme == "data" or address.startswith("#"):
                continue
            if parts.scheme or parts.netloc:
                yield f"{where} is loaded from elsewhere"
            elif not (file.parent / unquote(parts.path)).exists():
                yield f"{where} is not in the site"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    print("\n".join(found) or "Nothing is loaded from outside of the site.")
    sys.exit(bool(found))
