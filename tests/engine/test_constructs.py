"""Each construct is compiled right, or run by Pyro with the cause named; none silently wrong."""

import re
import warnings

import pyro
import pytest
import torch

from pyro_klmodes import fit
from tests.engine.constructs import changes, handlers, likelihoods, networks, python, structure

CONSTRUCTS = [
    construct
    for module in (structure, likelihoods, handlers, networks, python, changes)
    for construct in module.constructs.all
]
#: a norm that is never reached; with it the optimizer is outside of the graph
NEVER = 1e30


def run(construct, **options):
    """A fit, and the warnings that the engine gave."""
    torch.set_default_dtype(construct.dtype)
    pyro.clear_param_store()
    torch.manual_seed(0)
    case = construct.make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(
            case.model,
            case.guide,
            case.loss(),
            *case.args,
            steps=case.steps,
            progress=False,
            **{**case.options, **options},
        )
    return result, [str(w.message) for w in caught if "engine=" in str(w.message)]


def assert_close(result, eager, dtype):
    tolerance = (
        {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 1e-5}
    )
    torch.testing.assert_close(result.losses, eager.losses, **tolerance)
    assert result.params.keys() == eager.params.keys()
    for name, value in eager.params.items():
        torch.testing.assert_close(result.params[name], value, **tolerance)


def assert_same(result, eager, dtype=None):
    assert torch.equal(result.losses, eager.losses)
    assert all(torch.equal(result.params[name], value) for name, value in eager.params.items())


#: one or two of each kind, for a quick look
QUICK = {
    "batches_by_index",
    "enumerated_mixture_indexed_by_its_component",
    "group_effects_by_index",
    "network_with_dropout",
    "attribute_changed_by_a_callback",
    "layer_frozen_by_a_callback",
    "mask_that_selects_others_in_every_batch",
}


def parameters():
    """Steps of optimizers for all that are run by eager code, and some others."""
    for construct in CONSTRUCTS:
        at_once = construct.cause is not None and not construct.later
        marks = () if at_once or repr(construct) in QUICK else pytest.mark.slow
        yield pytest.param(construct, {}, marks=marks, id=repr(construct))
        name = f"{construct!r}-gradient"
        yield pytest.param(construct, {"clip_norm": NEVER}, marks=pytest.mark.slow, id=name)


@pytest.mark.parametrize(("construct", "options"), list(parameters()))
def test_construct(construct, options):
    eager, told = run(construct, engine="eager")
    assert not told
    result, told = run(construct, engine="graph", **options)
    used = result.explanation.used
    if construct.cause is None:
        assert not told
        assert used["graph"] >= result.steps - 2, used
        assert_close(result, eager, construct.dtype)
        return
    (text,) = told
    assert re.search(construct.cause, text), text
    assert set(used) == ({"eager", "graph"} if construct.later else {"eager"})
    (assert_close if construct.later else assert_same)(result, eager, construct.dtype)
    assert "Not compiled: " in result.explain()


def test_there_are_many():
    assert len(CONSTRUCTS) >= 100
    assert {repr(construct) for construct in CONSTRUCTS} >= QUICK
