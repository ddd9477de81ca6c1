"""The benchmarks run, and their tables say what was measured."""

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.contests import contests
from benchmarks.memory import peak_bytes
from benchmarks.table import BEGIN, END, update
from benchmarks.training import Training
from pyro_klmodes import ReverseKL


def test_a_quick_run_has_a_row_for_every_contest():
    result = CliRunner().invoke(main, ["--quick", "--case", "eight schools"])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| eight")]
    pairs = [c for c in contests(CASES[0]) if c.theirs is not None]
    assert len(rows) == len(contests(CASES[0])) + 2 * len(pairs)  # costs, and ratios and memory
    ratios = [float(row[3].split()[0]) for row in rows[: len(pairs)]]
    assert all(0.1 < ratio < 10 for ratio in ratios)


def test_an_unknown_case_is_refused():
    result = CliRunner().invoke(main, ["--case", "no such model"])
    assert result.exit_code == 2
    assert "no model's name contains 'no such model'" in result.output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cases_broadcast_over_particles(case):
    # a case that did not would warn, and its particles would be timed one after the other
    training = Training(case, ReverseKL(2))
    assert training.run(1, lambda work: len(work())) == 1


def test_two_trainings_do_not_share_parameters():
    one, other = (Training(CASES[0], ReverseKL(2)) for _ in range(2))
    one.run(1, lambda work: len(work()))
    before = {n: p.detach().clone() for n, p in one.parameters["params"].items()}
    other.run(5, lambda work: len(work()))
    assert before
    assert all(bool((p == before[n]).all()) for n, p in one.parameters["params"].items())
    moved = other.parameters["params"]
    assert any(bool((p != before[n]).any()) for n, p in moved.items())


def test_peak_memory_grows_with_the_particles():
    # 1000 logits per particle, in double precision, are kept for the backward pass at least once
    small, large = (peak_bytes(CASES[1], ReverseKL, k) for k in (2, 34))
    assert large - small > 32 * 1000 * 8


def test_update_replaces_what_is_between_the_marks(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update(file, "new")
    assert file.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
