"""Whatever a diagnosis prints is explained where its last line says."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import Diagnosis, ForwardKL, diagnose, fit
from tests.comparison import made_up


def model():
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("modes", torch.zeros(()))


def guide():
    loc = pyro.param("loc", torch.zeros(2))
    pyro.sample("z", dist.Normal(loc, 1.2).to_event(1))


def fitted():
    return diagnose(fit(model, guide, ForwardKL(8), steps=200, progress=False))


def with_modes():
    return made_up.diagnosis(opinion=made_up.opinion(0.7, 0.3), coverage=made_up.coverage(1.0, 0.0))


def of_chains():
    return made_up.chains().diagnosis


def explained():
    """The lines and columns that the docstring has in its tables."""
    return set(re.findall(r"^ {4}(\S+(?: \S+)*) {2,}\S", Diagnosis.__doc__, re.MULTILINE))


def labels(text):
    """What stands before at least two blanks, and the headings of the columns of numbers."""
    first = re.findall(r"^ (\S+(?: \S+)*) {2,}", text, re.MULTILINE)
    headings = re.search(r"(mean, in sd) +(sd ratio) +(k-hat by itself)", text)
    return {*first, *(headings.groups() if headings else ())}


@pytest.mark.parametrize("made", [fitted, with_modes, of_chains])
def test_every_line_and_column_is_in_the_docstring(made):
    text = str(made())
    shown = {re.sub(r"IWAE_\d+", "IWAE_K", label) for label in labels(text)}
    parameters = {label for label in shown if label.startswith(("z[", "mu", "theta"))}
    headings = {"guide against weighted draws"} & shown

    assert len(shown) >= 3
    assert shown - parameters - headings <= explained()
    assert text.rstrip().endswith("what the lines mean: help(pyro_klmodes.Diagnosis)")
