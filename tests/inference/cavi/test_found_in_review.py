"""Fits by coordinate ascent that were wrong without a word: gates, impossible values, masks."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.cavi import CAVI
from pyro_klmodes.inference.cavi.comparisons import agree
from pyro_klmodes.tracing.node_terms import NodeTerm

COUNTS = torch.tensor([2.0, 0.0, 3.0, 1.0, 2.0, 4.0])


@pytest.mark.parametrize("gates", [1, 4])
def test_a_term_that_is_bent_behind_a_gate_is_not_conjugate(gates):
    def model(counts):
        gate = torch.ones(())
        for g in range(gates):
            gate = gate * pyro.sample(f"gate_{g}", dist.Bernoulli(0.5))
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(counts)):
            pyro.sample("counts", dist.Poisson((gate * weight).exp()), obs=counts)

    report = CAVI(model).check(COUNTS)
    assert not report["weight"].conjugate
    assert all(report[f"gate_{g}"].conjugate for g in range(gates))


def test_every_state_of_a_latent_is_looked_behind():
    def model(counts):
        z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
        a, b = (pyro.sample(name, dist.Normal(1.0, 1.0)) for name in "ab")
        rate = (z == 0) * 2.0 + (z == 1) * a.exp() + (z == 2) * (1 + b.square())
        with pyro.plate("data", len(counts)):
            pyro.sample("counts", dist.Poisson(rate), obs=counts)

    report = CAVI(model).check(COUNTS)
    assert [report[name].conjugate for name in "zab"] == [True, False, False]


def test_an_impossible_value_does_not_hide_that_others_differ():
    value = torch.tensor([-torch.inf, -1.0, -2.0])
    other = torch.tensor([-torch.inf, -1.0, -2.5])
    assert agree([NodeTerm("x", value, {})], [NodeTerm("x", value.clone(), {})], {})
    assert not agree([NodeTerm("x", value, {})], [NodeTerm("x", other, {})], {})


def test_a_flat_prior_by_a_mask_is_refused():
    def model(counts):
        with poutine.mask(mask=False):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(counts)):
            pyro.sample("counts", dist.Normal(loc, 1.0), obs=counts)

    with pytest.raises(UnsupportedStructure, match="'loc' is masked where other sites depend"):
        CAVI(model).fit(COUNTS)
