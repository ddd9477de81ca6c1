"""Compiling in processes of their own: at once, without a home, with a compiler that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]

# Prints seconds, the loss and what was imported, all on one line; anything else it says is seen.
SCRIPT = """
import json, sys, time, warnings
import torch
from pyro_klmodes.engine.backends import CompileFailed, build
from tests.engine.backends.steps import STATE, inputs_of_step, step, traced
warnings.simplefilter("error")
torch.set_num_threads(1)
torch.manual_seed(0)
inputs = inputs_of_step()
graph = traced(step, inputs)
compiling_parts = "torch._inductor.compile_fx"
before = compiling_parts in sys.modules
start = time.perf_counter()
try:
    program = build(graph, inputs, sys.argv[1], in_place=STATE)
except CompileFailed as error:
    print(json.dumps({"error": str(error)}))
else:
    seconds = time.perf_counter() - start
    loss = float(program(inputs)[0])
    imported = compiling_parts in sys.modules and not before
    print(json.dumps({"seconds": seconds, "loss": loss, "imported": imported}))
"""


def begin(tier, environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHINDUCTOR", "XDG"))}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tier],
        cwd=ROOT,
        env={k: v for k, v in {**kept, **environment}.items() if v is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, err = process.communicate(timeout=900)
    assert err == ""
    return json.loads(out)


class AtOnce(NamedTuple):
    cache: Path
    environment: dict
    losses: set  # what the programs of both processes give


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """Two processes compile the same graph at the same time, with nothing there yet."""
    cache = tmp_path_factory.mktemp("at_once") / "cache"
    environment = {"PYRO_KLMODES_CACHE": str(cache)}
    first, second = begin("aot", environment), begin("aot", environment)
    return AtOnce(cache, environment, {result(first)["loss"], result(second)["loss"]})


@pytest.mark.slow
def test_after_two_that_compiled_at_once_a_third_process_starts_at_once(at_once):
    third = result(begin("aot", at_once.environment))
    assert at_once.losses == {third["loss"]}
    assert third["seconds"] < 1.5
    assert not third["imported"]
    assert not list(at_once.cache.glob("*.part"))


@pytest.mark.slow
def test_a_spoiled_library_is_compiled_again(at_once):
    for library in at_once.cache.glob("*.so"):
        library.write_bytes(library.read_bytes()[:1000])
    again = result(begin("aot", at_once.environment))
    assert {again["loss"]} == at_once.losses
    assert again["imported"]
    assert not result(begin("aot", at_once.environment))["imported"]


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "home"), [("inductor", None), ("aot", "/dev/null")])
def test_without_a_home_and_a_cache_it_compiles_and_cleans_up(tmp_path, tier, home):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"HOME": home, "PYRO_KLMODES_CACHE": "/dev/null/cache", "TMPDIR": str(temporary)}
    found = result(begin(tier, environment))
    assert found["imported"]
    assert not list(temporary.glob("pyro_klmodes*"))


@pytest.mark.slow
def test_a_compiler_that_fails_is_named_with_its_first_error(tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = "--version" ] && exec g++ --version\n'
        'echo "here.cpp:1:1: error: nothing works" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "PYRO_KLMODES_CACHE": str(tmp_path / "cache")}
    found = result(begin("aot", environment))
    assert found["error"].startswith("the graph was not compiled: ")
    assert "here.cpp:1:1: error: nothing works" in found["error"]
