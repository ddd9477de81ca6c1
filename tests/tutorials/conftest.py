"""The tutorial of a test file, run once: ``test_01_one_line.py`` is about ``01_one_line.py``."""

import pytest

from tests.tutorials.runs import run


def tutorial_of(request):
    return request.module.__name__.rpartition(".test_")[2]


@pytest.fixture(scope="module")
def ran(request):
    return run(tutorial_of(request), "short")


@pytest.fixture(scope="module")
def full(request):
    return run(tutorial_of(request), "full")
