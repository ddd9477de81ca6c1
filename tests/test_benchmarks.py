"""The benchmarks run, and their tables say what was measured."""

import math

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.contests import contests
from benchmarks.draws import GUIDES, fitted, seconds_of_draws
from benchmarks.em import evaluation_rows
from benchmarks.em_restarts import PROBLEMS, restart_rows
from benchmarks.em_scale import FITS, measure
from benchmarks.guide_contests import LOSSES, guide_contests
from benchmarks.memory import peak_bytes
from benchmarks.table import BEGIN, END, update
from benchmarks.training import Training
from pyro_klmodes import ReverseKL


def test_a_quick_run_has_a_row_for_every_contest():
    result = CliRunner().invoke(main, ["--quick", "--case", "eight schools"])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| eight")]
    pairs = [c for c in contests(CASES[0]) if c.theirs is not None]
    guides = guide_contests(CASES[0])
    # costs, ratios and memory of losses, and guides
    assert len(rows) == len(contests(CASES[0])) + 2 * len(pairs) + len(guides)
    by_loss = [float(row[3].split()[0]) for row in rows[: len(pairs)]]
    by_guide = [float(cell.split()[0]) for row in rows[-len(guides) :] for cell in row[3:5]]
    assert all(0.1 < ratio < 10 for ratio in (*by_loss, *by_guide))


def test_an_unknown_case_is_refused():
    result = CliRunner().invoke(main, ["--case", "no such model"])
    assert result.exit_code == 2
    assert "no model's name contains 'no such model'" in result.output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cases_broadcast_over_particles(case):
    # a case that did not would warn, and its particles would be timed one after the other
    training = Training(case, ReverseKL(2))
    assert training.run(1, lambda work: len(work())) == 1


@pytest.mark.parametrize(
    ("case", "contest"),
    [pytest.param(c, g, id=f"{c.name}, {g.name}") for c in CASES for g in guide_contests(c)],
)
def test_both_guides_of_a_contest_train_under_both_losses(case, contest):
    for make_loss in LOSSES.values():
        for make_guide in (contest.ours, contest.theirs):
            training = Training(case, make_loss(2), make_guide)
            (loss,) = training.run(1, lambda work: work())
            assert math.isfinite(loss)


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


def test_restarts_of_em_are_compared_with_the_same_fits_of_scikit_learn():
    # which checks that both reach the same log-likelihoods
    (row,) = restart_rows(PROBLEMS[:1], starts=3, steps=3, turns=2)
    assert row[:2] == ["Old Faithful, 272 x 2", "2"]
    assert all(math.isfinite(float(cell.split()[0])) for cell in row[2:])


@pytest.fixture(scope="module")
def expected():
    return measure("scikit-learn", 40_000, 2)


@pytest.mark.parametrize("name", FITS)
def test_fits_of_many_data_reach_what_scikit_learn_reaches(name, expected):
    found = measure(name, 40_000, 2)
    assert found["seconds"] > 0
    assert found["more"] >= 0
    # a pass of online EM is worth more than a step
    assert found["log_likelihood"] >= expected["log_likelihood"] - 1e-9


@pytest.mark.slow
def test_accelerated_em_needs_fewer_evaluations():
    plain, squarem, anderson = evaluation_rows(starts=50, tolerance=1e-7)
    assert int(plain[1]) >= 1500
    assert int(squarem[1]) <= 150
    assert int(anderson[1]) <= 60
    assert all(float(row[3]) < 1e-5 for row in (plain, squarem, anderson))


def test_every_way_to_draw_is_measured():
    for guide in GUIDES:
        found = seconds_of_draws(fitted(guide, steps=2), count=20, turns=1)
        assert len(found) == 4
        assert all(seconds > 0.0 for times in found.values() for seconds in times)
