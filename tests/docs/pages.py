"""What README and documentation consist of: links, headings and blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + [ROOT / "benchmarks" / "README.md", ROOT / "tutorials" / "README.md"]
    + [p for p in (ROOT / "docs").rglob("*.md") if not p.is_symlink()]
)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page):
    """A page's path from the root."""
    return str(page.relative_to(ROOT))


def links(page):
    """Targets of all links within the project."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if not target.startswith(("http://", "https://"))]


def anchors(page):
    """Headings as addresses within a page."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def blocks(page, language):
    """The text of all blocks of code in a language."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]
