"""Links lead somewhere, code can be read, and what it imports is there."""

import ast
import importlib
import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, name

TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))
INCLUDES = sorted(
    page for page in (ROOT / "docs" / "handbook").glob("*.md") if "{include}" in page.read_text()
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_exist(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", INCLUDES, ids=name)
def test_included_sections_exist(page):
    marks = re.findall(r':(?:start-after|end-before): "(.*)"', page.read_text())
    readme = (ROOT / "README.md").read_text().splitlines()
    assert len(marks) == 2
    first, last = (readme.index(mark) for mark in marks)
    # the section ends where the next one begins
    assert [line for line in readme[first + 1 : last] if line.startswith("## ")] == []


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_can_be_read_and_imports_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "console")], ids=name)
def test_targets_of_make_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(page, "console"):
        for target in re.findall(r"^\$ make ([\w-]+)", block, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_index_lists_every_tutorial():
    listed = links(ROOT / "tutorials" / "README.md")
    assert sorted(listed) == [t.name for t in TUTORIALS]


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_has_few_cells_and_alt_texts(tutorial):
    text = tutorial.read_text()
    # escapes of LaTeX that a string literal has swallowed
    assert not re.search("[\t\v\f\a\b]", text)
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    assert len(cells) <= 15
    for cell in cells:
        if "plt.show()" in cell:
            assert re.match(r' mystnb=\{"image": \{"alt": ".{20,}"\}\}\n', cell), cell[:80]


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda p: p.stem)
def test_displayed_formulas_stand_alone(tutorial):
    """Within a paragraph two dollars are two empty formulas, and all that follows is one."""
    for cell in re.split(r"^# %%", tutorial.read_text(), flags=re.MULTILINE):
        prose = "\n".join(line[2:] for line in cell.splitlines() if line.startswith("#"))
        blocks = [b.strip() for b in re.split(r"\n\s*\n", prose) if "$$" in b]
        assert all(b.startswith("$$") and b.rstrip(" .,").endswith("$$") for b in blocks), blocks
