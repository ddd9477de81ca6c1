"""Every public name has its place in the reference."""

import re

import pytest

import pyro_klmodes
from pyro_klmodes import errors, estimators, guides, losses
from tests.docs.pages import ROOT

REFERENCE = "\n".join(p.read_text() for p in sorted((ROOT / "docs" / "api").glob("*.rst")))


def missing(module):
    names = [n for n in module.__all__ if not n.startswith("_")]
    entries = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", REFERENCE, re.MULTILINE))
    entries |= set(re.findall(r"^   ([\w.]+)$", REFERENCE, re.MULTILINE))
    known = {entry.split(".")[-1] for entry in entries}
    # modules of the package are pages, not entries
    modules = {n for n in names if type(getattr(module, n)).__name__ == "module"}
    return sorted(set(names) - known - modules)


def test_of_the_package():
    assert missing(pyro_klmodes) == []


def test_of_losses():
    assert missing(losses) == []


def test_of_estimators():
    assert missing(estimators) == []


def test_of_guides():
    assert missing(guides) == []


def test_of_errors():
    assert missing(errors) == []


@pytest.mark.parametrize(
    "entry",
    ["FitResult", "EM", "EMResult", "Restarts", "CAVI", "CAVIResult", "LinearResponse", "Diagnosis",
     "Comparison", "Calibration", "DensityGuide", "DivergenceLoss", "Objective", "Estimator"],
)  # fmt: skip
def test_methods_of_what_a_user_holds_or_derives_from(entry):
    assert f".. autoclass:: {entry}\n   :members:\n" in REFERENCE
