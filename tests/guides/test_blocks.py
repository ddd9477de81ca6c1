"""Guides with joint factors: laws, structure, and what has no closed form."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides import AutoBlocks, AutoMeanField
from pyro_klmodes.guides.block_families import (
    JointNormal,
    JointStates,
    NormalGamma,
    NormalWishart,
)
from pyro_klmodes.guides.site_families import Gamma
from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
from pyro_klmodes.testing import GUIDE_LAWS
from pyro_klmodes.tracing import log_density
from tests.guides.test_conformance import shaken


def regression():
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(w.sum(-1), tau.rsqrt()), obs=torch.zeros(3))


def components():
    with pyro.plate("components", 2):
        matrix = pyro.sample("matrix", BartlettWishart(torch.tensor(4.0), torch.eye(2)))
        pyro.sample("mu", dist.MultivariateNormal(torch.zeros(2), precision_matrix=matrix))


def entries():
    with pyro.plate("components", 2):
        tau = pyro.sample("tau", dist.Gamma(torch.full((3,), 2.0), 1.0).to_event(1))
        pyro.sample("mu", dist.Normal(0.0, tau.rsqrt()).to_event(1))


def states():
    with pyro.plate("data", 3):
        on = pyro.sample("on", dist.Bernoulli(0.3))
        kind = pyro.sample("kind", dist.Categorical(torch.ones(3)))
        pyro.sample("y", dist.Normal(on + kind, 1.0), obs=torch.zeros(3))


def levels():
    top = pyro.sample("top", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("groups", 3):
        pyro.sample("z", dist.Normal(top.sum(-1), 1.0))


CASES = {
    "normal gamma": (regression, ("w", "tau"), NormalGamma),
    "normal gamma of entries": (entries, ("mu", "tau"), NormalGamma),
    "normal wishart": (components, ("mu", "matrix"), NormalWishart),
    "states": (states, ("kind", "on"), JointStates),
    "normals": (levels, ("z", "top"), JointNormal),
}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("law", GUIDE_LAWS, ids=lambda law: law.__name__)
@every_case
def test_laws(name, law):
    model, block, family = CASES[name]
    guide = shaken(AutoBlocks(model, [block]))
    assert isinstance(guide.blocks[0], family)
    law(model, guide)


@every_case
def test_each_site_is_drawn_once_in_its_plates(name):
    model, block, _ = CASES[name]
    guide = shaken(AutoBlocks(model, [block]))
    trace = pyro.poutine.trace(guide).get_trace()
    drawn = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and n in block}
    assert set(drawn) == set(block)
    prior = pyro.poutine.trace(model).get_trace()
    for site in block:
        assert drawn[site]["value"].shape == prior.nodes[site]["value"].shape
        frames = {f.name for f in prior.nodes[site]["cond_indep_stack"]}
        assert {f.name for f in drawn[site]["cond_indep_stack"]} == frames


def test_states_have_the_joint_table():
    guide = shaken(AutoBlocks(states, [("on", "kind")]), size=1.0)
    table = torch.zeros(2, 3, 3)
    for on in range(2):
        for kind in range(3):
            values = {"on": torch.full((1, 3), float(on)), "kind": torch.full((1, 3), kind)}
            trace = pyro.poutine.trace(
                pyro.poutine.condition(guide, {n: v[0] for n, v in values.items()})
            ).get_trace()
            trace.compute_log_prob()
            total = trace.nodes["on"]["log_prob"] + trace.nodes["kind"]["log_prob"]
            table[on, kind] = total.detach().exp()
    assert torch.allclose(table.sum((0, 1)), torch.ones(3))
    # the sites depend on each other
    product = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
    assert (table - product).abs().max() > 0.01


def test_a_normal_gamma_has_the_density_of_the_textbook():
    guide = shaken(AutoBlocks(regression, [("w", "tau")]))
    w, tau = torch.tensor([[0.3, -1.0]]), torch.tensor([0.7])
    q, of_tau = guide.parameters_of("w"), guide.parameters_of("tau")
    covariance = q["scale_tril"] @ q["scale_tril"].mT
    expected = dist.Gamma(of_tau["concentration"], of_tau["rate"]).log_prob(tau)
    expected = expected + dist.MultivariateNormal(q["loc"], covariance / tau).log_prob(w)
    assert torch.allclose(log_density(guide, {"w": w, "tau": tau}), expected)


def test_without_blocks_it_is_mean_field():
    one, other = AutoBlocks(regression, []), AutoMeanField(regression)
    for guide in (one, other):
        pyro.set_rng_seed(0)
        guide()
    values = {"w": torch.randn(4, 2), "tau": torch.rand(4)}
    assert torch.allclose(one.log_prob(values), other.log_prob(values))
    assert one.blocks == ()
    assert torch.equal(one.median()["tau"], other.median()["tau"])
    assert torch.equal(one.quantiles([0.3])["w"], other.quantiles([0.3])["w"])


def test_closed_forms():
    guide = AutoBlocks(regression, [("w", "tau")])
    guide()
    assert torch.equal(guide.median()["w"], guide.parameters_of("w")["loc"].detach())
    gamma = Gamma().median(guide.parameters_of("tau"), None)
    assert torch.equal(guide.median()["tau"], gamma)
    with pytest.raises(NotDefined, match="quantiles of sites in blocks"):
        guide.quantiles([0.5])
    with pytest.raises(NotDefined, match=r"'w' is in the block NormalGamma\('tau', 'w'\)"):
        guide.natural_parameters("w")
    pyro.clear_param_store()
    table = AutoBlocks(states, [("on", "kind")])
    table()
    with pytest.raises(NotDefined, match="median of site 'on' in JointStates"):
        table.median()
    levels_guide = AutoBlocks(levels, [("z", "top")])
    levels_guide()
    assert set(levels_guide.median()) == {"top", "z"}


def test_draws_have_the_covariance_of_the_block():
    guide = shaken(AutoBlocks(levels, [("z", "top")]), size=0.5)
    n = 40_000
    drawn = guide.sample(n)
    slope = guide.parameters_of("z")["slope"].detach()
    tril = guide.parameters_of("top")["scale_tril"].detach()
    expected = slope[1] @ (tril @ tril.mT)
    away = drawn["z"][:, 1] - drawn["z"][:, 1].mean()
    products = away[:, None] * (drawn["top"] - drawn["top"].mean(0))
    error = products.std(0) / n**0.5
    assert ((products.mean(0) - expected[0]).abs() < 4 * error).all()
