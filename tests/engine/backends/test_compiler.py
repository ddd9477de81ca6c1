import os

import pytest
import torch

from pyro_klmodes.engine.backends import NoCompiler, build, why_no_compiler
from tests.engine.backends.steps import traced


@pytest.fixture
def path(monkeypatch, tmp_path):
    """An empty folder that is all of the PATH, and no CXX."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def program(path, name, status):
    (path / name).write_text(f"#!/bin/sh\nexit {status}\n")
    (path / name).chmod(0o755)


def test_no_compiler_on_the_path(path):
    assert why_no_compiler() == "there is no g++ or clang++ on the PATH, and CXX is not set"


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_one_on_the_path(path, name):
    program(path, name, 0)
    assert why_no_compiler() is None


def test_an_empty_variable_is_none(path, monkeypatch):
    monkeypatch.setenv("CXX", "")
    program(path, "g++", 0)
    assert why_no_compiler() is None


def test_the_variable_is_what_counts(path, monkeypatch):
    program(path, "g++", 0)
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert why_no_compiler() == "CXX is '/nowhere/g++', which is not there"
    program(path, "mine", 0)
    monkeypatch.setenv("CXX", str(path / "mine"))
    assert why_no_compiler() is None


def test_a_compiler_that_does_not_work(path):
    program(path, "g++", 3)
    assert "does not work" in why_no_compiler()
    (path / "g++").write_text("neither a script nor a program")
    assert "does not work" in why_no_compiler()


@pytest.mark.parametrize("tier", ["inductor", "aot"])
def test_without_a_compiler_nothing_is_compiled(path, tmp_path, tier):
    x = torch.randn(3)
    before = dict(os.environ)
    with pytest.raises(NoCompiler, match="there is no g.. or clang.. on the PATH.*set CXX"):
        build(traced(lambda x: (x + 1,), [x]), [x], tier, tmp_path)
    assert dict(os.environ) == before
