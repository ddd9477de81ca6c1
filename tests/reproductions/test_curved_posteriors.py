"""Where a mean field breaks: Neal's funnel and a banana, and which guides mend it.

k-hat is that of the importance weights of 20,000 draws after a fit by reverse KL. The funnel is a
Gaussian hierarchy, which the structured guide contains; an autoregressive flow bends by its first
coordinate, which is what both targets do.
"""

from functools import partial

import pyro
import pytest
from pyro.infer.autoguide import init_to_feasible

from models import banana, funnel
from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.guides import Affine, AutoFlow, AutoHierarchical, AutoMeanField, Autoregressive
from pyro_klmodes.weights import effective_sample_size, pareto_khat

DRAWS = 20_000


def weights_of(model, guide, steps, rate):
    """k-hat and the effective share of the draws."""
    pyro.clear_param_store()
    optim = pyro.optim.ClippedAdam({"lr": rate, "lrd": 0.02 ** (1 / steps)})
    result = fit(model, guide(model), ReverseKL(32), steps=steps, optim=optim, progress=False)
    log_w = result.log_weights(DRAWS).reshape(-1)
    return float(pareto_khat(log_w)), float(effective_sample_size(log_w)) / DRAWS


mean_field = partial(AutoMeanField, init_loc_fn=init_to_feasible)
structured = partial(AutoHierarchical, init_loc_fn=init_to_feasible)
flow = partial(AutoFlow, architecture=Autoregressive(Affine()), init_loc_fn=init_to_feasible)


def test_a_structured_guide_contains_the_funnel():
    plain, share = weights_of(funnel.model, mean_field, 1000, 0.03)
    assert plain > 0.7
    assert share < 0.02
    mended, share = weights_of(funnel.model, structured, 1000, 0.03)
    assert mended < 0.7
    assert share > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("model", [funnel.model, banana.model], ids=["funnel", "banana"])
def test_a_flow_bends(model):
    plain, share = weights_of(model, mean_field, 1000, 0.03)
    assert plain > 0.7
    assert share < 0.05
    mended, share = weights_of(model, flow, 3000, 0.02)
    assert mended < 0.7
    assert share > 0.9
