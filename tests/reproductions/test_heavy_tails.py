"""The tail law of Student-t guides: on tails of nu_p degrees of freedom k = 1 - nu_p / nu_q.

Far out the weights of a t with nu_q degrees on a t with nu_p < nu_q grow like
``|z|^(nu_q - nu_p)`` while the guide's tail falls like ``|z|^(-nu_q)``, so that they have a Pareto
tail of shape ``(nu_q - nu_p) / nu_q``, in any dimension for multivariate t. With tails at least
as heavy as the target's the weights are bounded.

Over seeds k-hat has a standard deviation of at most 0.05 at a million draws.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import init_to_feasible

from pyro_klmodes import draws
from pyro_klmodes.guides import AutoMultivariateStudentT, AutoStudentT
from pyro_klmodes.weights import pareto_khat

DRAWS = 1_000_000
PAIRS = [(2.0, 1.0), (4.0, 2.0), (4.0, 1.0)]  # guide's degrees, target's


def univariate(degrees):
    def model():
        pyro.sample("z", dist.StudentT(degrees, 0.0, 1.0))

    return model


def bivariate(degrees):
    def model():
        pyro.sample("z", dist.MultivariateStudentT(degrees, torch.zeros(2), torch.eye(2)))

    return model


CASES = {
    "univariate": (univariate, AutoStudentT),
    "multivariate": (bivariate, AutoMultivariateStudentT),
}


def khat(case, guide_degrees, target_degrees):
    target, family = CASES[case]
    model = target(target_degrees)
    guide = family(model, df=guide_degrees, init_loc_fn=init_to_feasible)
    return float(pareto_khat(draws(model, guide, num_particles=DRAWS).log_w))


@pytest.mark.parametrize(("guide_degrees", "target_degrees"), PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_lighter_tails_than_the_target_s(case, guide_degrees, target_degrees):
    expected = 1 - target_degrees / guide_degrees
    assert abs(khat(case, guide_degrees, target_degrees) - expected) < 0.1


@pytest.mark.parametrize("case", CASES)
def test_heavier_tails_bound_the_weights(case):
    assert khat(case, 2.0, 4.0) < 0
