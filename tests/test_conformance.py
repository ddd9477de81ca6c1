"""Every loss, objective and autoguide under the laws of the shipped conformance suite."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
)

from pyro_klmodes.testing import (
    GUIDE_LAWS,
    LOSS_LAWS,
    OBJECTIVE_LAWS,
    assert_integrates_to_one,
)
from pyro_klmodes.testing.guides import survives_a_deep_copy
from pyro_klmodes.testing.losses import gradient_is_its_own
from tests.registry import LOSSES, OBJECTIVES


def names(law):
    return law.__name__


@pytest.mark.parametrize("law", OBJECTIVE_LAWS, ids=names)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, law):
    law(OBJECTIVES[name]())


@pytest.mark.parametrize("law", LOSS_LAWS, ids=names)
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, law):
    law(LOSSES[name])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_gradient_of_its_own(name):
    """Each against those after it, so that every pair is compared once; the last one's turn is
    the first again.
    """
    later = list(LOSSES)[list(LOSSES).index(name) + 1 :] or list(LOSSES)[:1]
    gradient_is_its_own(LOSSES[name], {n: LOSSES[n] for n in later})


def real_prior():
    pyro.sample("a", dist.Normal(0.0, 2.0))


def mixed_prior():
    pyro.sample("a", dist.Normal(0.0, 1.5))
    pyro.sample("s", dist.Gamma(2.0, 1.0))


def simplex_prior():
    pyro.sample("p", dist.Dirichlet(torch.ones(3)))


def plated_prior():
    with pyro.plate("d", 2):
        pyro.sample("b", dist.Beta(1.5, 1.5))


GUIDES = {
    "normal": lambda m: AutoNormal(m, init_scale=0.4),
    "diagonal": lambda m: AutoDiagonalNormal(m, init_scale=0.4),
    "full": lambda m: AutoMultivariateNormal(m, init_scale=0.4),
    "low_rank": lambda m: AutoLowRankMultivariateNormal(m, init_scale=0.4, rank=1),
    "iaf": lambda m: AutoIAFNormal(m, hidden_dim=[8]),
    "messenger": lambda m: AutoNormalMessenger(m, init_scale=0.4),
}
MODELS = {"real": real_prior, "mixed": mixed_prior, "simplex": simplex_prior, "plate": plated_prior}


CASES = [
    (guide, model, law)
    for guide in GUIDES
    for model in MODELS
    for law in (*GUIDE_LAWS, assert_integrates_to_one)
    # An autoregressive flow needs two dimensions, and Pyro's cannot be copied once it has been run.
    if guide != "iaf" or (model != "real" and law is not survives_a_deep_copy)
]


#: every guide and every law on half of the models; the other half is a longer test
USUAL = {(g, m) for i, g in enumerate(GUIDES) for j, m in enumerate(MODELS) if (i + j) % 2 == 0}


@pytest.mark.parametrize(
    ("guide", "model", "law"),
    [
        pytest.param(
            *(g, m, law),
            id=f"{g}-{m}-{law.__name__}",
            marks=() if (g, m) in USUAL else pytest.mark.slow,
        )
        for g, m, law in CASES
    ],
)
def test_guide(guide, model, law):
    made = GUIDES[guide](MODELS[model])
    made()
    law(MODELS[model], made)
