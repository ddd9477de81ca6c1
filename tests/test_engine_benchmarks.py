"""All contestants of the engine's grid take the same step, and stored ratios are compared."""

import math
from itertools import product

import pyro
import pytest
import torch
from click.testing import CliRunner
from torch.func import grad_and_value

from benchmarks.engine import entrants, ours
from benchmarks.engine.__main__ import main
from benchmarks.engine.agreement import LIMIT, Agreement
from benchmarks.engine.agreement import main as agreement
from benchmarks.engine.cell import AMORTISED, FULL_RANK, MEAN_FIELD, Cell
from benchmarks.engine.client import workers
from benchmarks.engine.compare import main as compare
from benchmarks.engine.compare import regressions, unmeasured
from benchmarks.engine.contestants import hand
from benchmarks.engine.contestants.in_pyro import loss_for, models_for
from benchmarks.engine.end_to_end import planned
from benchmarks.engine.grid import AUTOENCODER, OBJECTIVES, SEQUENTIAL, SMALL, grid, quick
from benchmarks.engine.measure import measure
from benchmarks.engine.problems.by_hand import FLAT
from benchmarks.engine.problems.hand_guides import written_for
from benchmarks.engine.problems.in_pyro import MODELS, arguments, pair
from benchmarks.engine.store import OtherSettings, add, load
from benchmarks.engine.tables import report
from benchmarks.engine.worker import Workshop

K = 3

CELLS = [Cell(m, g, o, K) for m, g, o in product(SMALL, (MEAN_FIELD, FULL_RANK), OBJECTIVES)]
CELLS += [Cell(AUTOENCODER, AMORTISED, objective, K) for objective in OBJECTIVES]
CELLS += [Cell(model, MEAN_FIELD, "ELBO", K) for model in SEQUENTIAL]

# Pyro's wake phase has a wrong gradient in loc at constrained sites (the Jacobian of the transform
# keeps its graph), and one weight for a whole batch: these cells are compared with ours alone.
EXACT_WAKE = ("mixture potential", "logistic regression")
IN_PYRO = [c for c in CELLS if c.objective != "forward KL" or c.model in EXACT_WAKE]


def _parameters(guide, cell):
    """In the order of the vectors that are written by hand, as lists of tensors to concatenate."""
    if cell.guide == AMORTISED:
        networks = guide.__self__
        return [[p] for net in (networks.decoder, networks.encoder) for p in net.parameters()]
    named = dict(guide.named_parameters())
    if cell.guide == FULL_RANK:
        return [[named[f"{name}_unconstrained"]] for name in ("scale", "scale_tril")]
    kinds = ("locs.", "scales.")
    return [[p for name, p in named.items() if name.startswith(kind)] for kind in kinds]


def _ours_or_pyros(cell, models, loss):
    """Gradients at random parameters, and the same by hand with the same noise."""
    data = arguments(cell.model)
    written = written_for(cell, data)
    model, guide = pair(cell, models)
    loss.loss_and_grads(model, guide, *data)  # sets the guide up, and finds out its plates
    groups = _parameters(guide, cell)
    if cell.guide == FULL_RANK:
        groups = [[guide.loc], *groups]
    for p in (p for group in groups for p in group):
        p.grad = None
        if cell.guide != AMORTISED:
            p.data += 0.1 * torch.randn_like(p)
    values = tuple(
        torch.cat([p.detach().reshape(-1) for p in group]).reshape(start.shape)
        for group, start in zip(groups, written.start(), strict=True)
    )

    pyro.set_rng_seed(1)
    value = loss.loss_and_grads(model, guide, *data)
    gradient = torch.cat([p.grad.reshape(-1) for group in groups for p in group])

    pyro.set_rng_seed(1)
    if cell.guide == MEAN_FIELD:  # its sites draw one after the other
        noise = torch.cat([torch.randn(K, size) for size in FLAT[cell.model].sizes], -1)
    else:
        noise = torch.randn(K, *written.noise)
    by_hand, expected = grad_and_value(hand.LOSSES[cell.objective](written))(values, noise, *data)
    return value, gradient, expected, torch.cat([g.reshape(-1) for g in by_hand])


def _assert_equal(cell, found):
    value, gradient, expected_value, expected = found
    if cell.objective != "forward KL":  # whose values differ by what is constant in the guide
        assert math.isclose(value, expected_value, rel_tol=1e-11)
    assert expected.norm() > 0
    assert (gradient - expected).norm() <= 1e-11 * expected.norm()


@pytest.mark.parametrize("cell", IN_PYRO, ids=lambda cell: cell.label)
def test_the_step_by_hand_is_pyros(cell):
    _assert_equal(cell, _ours_or_pyros(cell, models_for(cell), loss_for(cell)))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.label)
def test_the_step_by_hand_is_that_of_our_losses_on_the_plain_model(cell):
    _assert_equal(cell, _ours_or_pyros(cell, MODELS, ours.LOSSES[cell.objective](K)))


def test_steps_by_hand_move_parameters_as_pyros_adam_does():
    cell = Cell("mixture potential", MEAN_FIELD, "ELBO", K)  # one site: both draw the same noise
    model, guide = pair(cell, MODELS)
    ours_block = ours.block(model, guide, ours.LOSSES["ELBO"](K), arguments(cell.model), "eager")
    with torch.compiler.set_stance("force_eager"):
        by_hand = hand.build(cell).block
        pyro.set_rng_seed(2)
        first, last = by_hand(1), by_hand(29)
    pyro.set_rng_seed(2)
    assert math.isclose(ours_block(1), first, rel_tol=1e-12)
    assert math.isclose(ours_block(29), last, rel_tol=1e-6)  # Adam's epsilon is in another place
    assert abs(last - first) > 0.01


def test_an_unknown_tier_is_refused():
    with pytest.raises(ValueError, match="tier='steam' is not one of eager, graph"):
        ours.block(lambda: None, lambda: None, ours.LOSSES["ELBO"](K), (), "steam")


def test_the_grid_has_what_it_promises():
    cells = list(grid())
    assert len(set(cells)) == len(cells) == 5 * 2 * 8 + 8 + 4
    assert {cell.particles for cell in cells} == {1, 16, 64}
    assert {cell.model for cell in cells} == {*SMALL, AUTOENCODER, *SEQUENTIAL}
    assert set(quick()) < set(cells)


class InThisProcess:
    """Stands for the worker processes."""

    def __init__(self):
        self.workshop = Workshop()

    def ask(self, _name, **request):
        return self.workshop.answer(request)

    def drop(self):
        self.workshop.answer({"do": "drop"})


def test_contestants_are_timed_in_turns_and_failures_are_told():
    cell = Cell("mixture potential", MEAN_FIELD, "ELBO", 2)
    names = ["Pyro", "eager", "steam"]
    result = measure(cell, names, InThisProcess(), rounds=3, seconds=0.01)
    assert result["step"].keys() == result["first"].keys() == {"Pyro", "eager"}
    assert result["ratios"].keys() == {"Pyro / eager"}
    median, low, high = result["ratios"]["Pyro / eager"]
    assert 0.05 < low <= median <= high < 20
    assert "steam" in result["failed"]["steam"]


def test_a_worker_process_answers_and_is_replaced_when_it_ends():
    request = {"do": "build", "name": "steam", "cell": CELLS[0].as_dict(), "seconds": 0.01}
    with workers(warm=False) as group:
        assert "steam" in group.ask("steam", **request)["failed"]
        (worker,) = group.running.values()
        worker.process.kill()
        assert "the worker process ended with -9" in group.ask("steam", **request)["failed"]
        assert not group.running


def test_numpyro_takes_the_same_step_where_it_is_installed():
    result = CliRunner().invoke(agreement, ["--case", "mixture potential | full rank | IWAE"])
    assert result.exit_code == 0, result.output
    if entrants.missing("NumPyro"):
        assert result.output.startswith("Without NumPyro")
    else:
        assert result.output.count("standard errors") == 2


def test_a_mean_that_is_off_is_told():
    off = Agreement("loss", by_hand=1.0, numpyro=2.0, error=0.1)
    assert math.isclose(off.score, 10.0)
    assert off.score > LIMIT


def test_an_unknown_cell_or_contestant_is_refused():
    for arguments_, message in (
        (["--model", "no such model"], "no cell is called like that"),
        (["--only", "steam"], "steam cannot run here"),
        (["--quick", "--update"], "a smoke run is not stored"),
    ):
        result = CliRunner().invoke(main, arguments_)
        assert result.exit_code == 2
        assert message in result.output


HEAD = {"versions": {"torch": "1"}, "processor": "p", "settings": {"rounds": 3}}


def _result(**ratios):
    names = ("Pyro", "NumPyro", "by hand", "inductor")
    return {
        "step": dict(zip(names, (4000.0, 20.0, 50.0, 40.0), strict=True)),
        "first": dict(zip(names, (0.0, 3.0, 4.0, 5.0), strict=True)),
        "ratios": {"Pyro / inductor": [100.0, 99.0, 101.0], "Pyro / NumPyro": [200.0] * 3} | ratios,
        "failed": {"aot": "NoCompiler: none"},
    }


LABEL = Cell("eight schools", MEAN_FIELD, "ELBO", 16).label


def test_ratios_that_fell_are_regressions():
    old = {"cells": {LABEL: _result(**{"by hand / inductor": [1.3, 1.2, 1.4]}), "gone": _result()}}
    now = {"Pyro / inductor": [79.0, 78.0, 80.0], "Pyro / NumPyro": [1.0] * 3}
    (found,) = regressions(old, {"cells": {LABEL: _result(**now)}})
    assert (found.cell, found.ratio, found.apart) == (LABEL, "Pyro / inductor", True)
    assert math.isclose(found.slower, 100 / 79 - 1)
    assert unmeasured(old, {"cells": {LABEL: _result()}}) == [f"{LABEL}: by hand / inductor"]
    assert not regressions(old, {"cells": {LABEL: _result(**{"Pyro / inductor": [84.0] * 3})}})


def test_the_comparison_prints_regressions(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    add(old, HEAD, "cells", LABEL, _result())
    add(new, HEAD | {"processor": "q"}, "cells", LABEL, _result(**{"Pyro / inductor": [50.0] * 3}))
    told = CliRunner().invoke(compare, [str(new), str(old)])
    assert told.exit_code == 0
    assert "| eight schools, mean field, ELBO, K = 16 | Pyro / inductor | 100 | 50 |" in told.output
    assert "processor differ: p then, q now" in told.output
    assert CliRunner().invoke(compare, [str(new), str(old), "--strict"]).exit_code == 1
    assert CliRunner().invoke(compare, [str(old), str(old), "--strict"]).exit_code == 0
    nothing = CliRunner().invoke(compare, [str(new), str(tmp_path / "none.json")])
    assert "There is no none.json" in nothing.output


def test_a_file_holds_results_of_one_kind(tmp_path):
    path = tmp_path / "new" / "file.json"
    add(path, HEAD, "cells", "a", {"step": 1})
    add(path, HEAD, "cells", "b", {"step": 2})
    add(path, HEAD, "cells", "a", {"step": 3})
    assert load(path)["cells"] == {"a": {"step": 3}, "b": {"step": 2}}
    with pytest.raises(OtherSettings, match="measured with other versions"):
        add(path, HEAD | {"versions": {"torch": "2"}}, "cells", "a", {})


def test_tables_show_steps_ratios_plans_and_failures():
    whole = {LABEL: {"Pyro": {"steps": 10_000, "seconds": 41.0, "planned": 40.0}}}
    results = HEAD | {
        "cells": {LABEL: _result(**{"NumPyro / inductor": [0.5] * 3})},
        "whole": whole,
    }
    text = report(results)
    row = "| eight schools | mean field | ELBO | K = 16 |"
    assert f"{row} 4000 | 20 | 50 | 40 |" in text
    assert f"{row} 100 (99–101) | 0.5 (0.5–0.5) | – |" in text
    assert "| eight schools | K = 16 | 100,000 | 400 | 5 | 9 | 9 |" in text
    assert "| eight schools | K = 16 | Pyro | 10,000 | 41 | 40 |" in text
    assert "at least 40 times in 1 of 1 cells" in text
    assert "at least as fast in 0 of 1 cells" in text
    assert "- eight schools, mean field, ELBO, K = 16: aot: NoCompiler: none" in text
    (plan,) = planned(results["cells"], [1000])
    assert plan.seconds == {"Pyro": 4.0, "NumPyro": 3.02, "by hand": 4.05, "inductor": 5.04}
