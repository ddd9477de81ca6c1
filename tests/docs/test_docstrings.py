"""What reStructuredText would misread is corrected, and nothing else is touched."""

import runpy

import pytest

from tests.docs.pages import ROOT

as_meant = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))["as_meant"]


def corrected(*lines, what="class"):
    lines = list(lines)
    as_meant(None, what, "Name", object, None, lines)
    return lines


def test_a_source_of_two_lines_is_one_paragraph():
    lines = ["Source: Dempster, Laird", "    and Rubin (1977).", "", "    Indented."]
    assert corrected(*lines) == [
        "Source: Dempster, Laird",
        "and Rubin (1977).",
        "",
        "    Indented.",
    ]


def test_a_number_called_by_a_capital_is_no_item_of_a_list():
    assert corrected("Args:", "    num_particles: K.") == ["Args:", "    num_particles: \\K."]


@pytest.mark.parametrize("what", ["attribute", "data", "property"])
def test_what_precedes_a_colon_is_not_the_type_of_an_attribute(what):
    assert corrected("KL(p || q): ``r log r``", what=what) == [": KL(p || q): ``r log r``"]
    assert corrected(what=what) == []


def test_all_else_stays():
    lines = ["A sentence: K.", "", "Args:", "    n: K, draws.", "        Of the guide.", "    m: M"]
    assert corrected(*lines) == lines
