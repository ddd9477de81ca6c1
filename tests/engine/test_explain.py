"""What a fit says about how its steps were run."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.engine.explanation import Explanation
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.losses import ScoreClimbing


def model():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=torch.tensor(0.5))


def run(engine, loss=None, steps=5):
    return fit(
        model, AutoNormal(model), loss or ReverseKL(2), steps=steps, progress=False, engine=engine
    )


def test_eager():
    text = run("eager").explain()
    assert text == "engine='eager': steps 5 by eager.\nEvery step runs model and guide."


def test_graph():
    result = run("graph")
    assert result.explain().startswith(
        "engine='graph': steps 1 by eager, 4 by graph.\nengine='graph' was asked for.\nThe step has"
    )
    before, after = result.explanation.operations
    assert 0 < after < before
    assert result.explanation.peak_bytes > 0
    assert "their results take up " in result.explain()
    assert all(seconds > 0.0 for seconds in result.explanation.seconds.values())


def test_short_fits_are_not_compiled_by_themselves():
    assert "5 steps are too few to pay for a compilation." in run("auto").explain()


def test_losses_whose_steps_differ_say_so():
    loss = ScoreClimbing(4)
    with pytest.warns(KLModesWarning, match="engine='graph': ScoreClimbing: .*chains") as caught:
        result = run("graph", loss)
    assert len(caught) == 1
    assert "Not compiled: ScoreClimbing: " in result.explain()
    assert result.explanation.used == {"eager": 5}


def test_other_engines_are_refused():
    with pytest.raises(InvalidArgument, match=r"engine='jit' must be one of \['auto', 'eager'"):
        run("jit")


def test_nothing_done_yet():
    assert str(Explanation("auto")) == "engine='auto': steps none yet."


def test_a_cause_is_told():
    explanation = Explanation("auto", {"eager": 3}, cause="the moon is full")
    with explanation.timed("looking"):
        pass
    assert str(explanation).splitlines() == [
        "engine='auto': steps 3 by eager.",
        "Not compiled: the moon is full.",
        "Getting ready: looking 0.0 s.",
    ]
