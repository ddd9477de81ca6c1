"""The same fit always gets the same engine, from the same step on."""

import pytest

from pyro_klmodes.engine.backends.costs import compile_seconds, step_seconds
from pyro_klmodes.engine.choose import check_choice, make_plan, worth_lifting
from pyro_klmodes.errors import InvalidArgument


def test_short_fits_and_those_of_unknown_length_are_not_lifted():
    assert [worth_lifting(n) for n in (None, 0, 499, 500, 10**6)] == [False] * 3 + [True] * 2


def test_longer_fits_get_what_takes_longer_to_make():
    order = ["graph", "inductor", "aot"]
    tiers = [make_plan(10**n, 300, compiler=True).tier for n in range(3, 9)]
    assert tiers == sorted(tiers, key=order.index)
    assert set(tiers) == set(order)


def test_a_compiled_tier_is_chosen_only_if_it_saves_more_than_it_costs():
    for steps in (3_000, 30_000, 300_000):
        plan = make_plan(steps, 300, compiler=True)
        total = {
            tier: compile_seconds(tier, 300) + steps * step_seconds(tier, 300)
            for tier in ("graph", plan.tier)
        }
        assert total[plan.tier] <= total["graph"]


def test_the_graph_is_interpreted_for_as_long_as_compiling_should_take():
    plan = make_plan(10**6, 300, compiler=True)
    waiting = plan.since * step_seconds("graph", 300)
    assert waiting == pytest.approx(compile_seconds(plan.tier, 300), rel=1e-2)


def test_without_a_compiler_there_is_the_graph():
    plan = make_plan(10**8, 300, compiler=False)
    assert (plan.tier, plan.since) == ("graph", 0)
    assert "compiler" in plan.reason


@pytest.mark.parametrize("engine", ["jit", None, 3, "Auto"])
def test_unknown_engines_are_refused(engine):
    with pytest.raises(InvalidArgument, match=r"must be one of \['auto', 'eager', 'graph'"):
        check_choice(engine)
