"""A flow's parameters are Pyro's, wherever it is copied to."""

import copy
import pickle
import subprocess
import sys
from typing import ClassVar

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule

from tests.guides.flow.flows import ARCHITECTURES, BASES, TAILS, flow, shaken


class OneVector(PyroModule):
    """The smallest guide: one site for the whole vector."""

    def __init__(self, family):
        super().__init__()
        self.family = family

    def forward(self):
        density = self.family.density()
        with pyro.plate("particles", 16):
            return pyro.sample("u", _Drawn(density, torch.Size([16])))


class _Drawn(pyro.distributions.TorchDistribution):
    arg_constraints: ClassVar = {}
    has_rsample = True

    def __init__(self, density, shape):
        self.density = density
        super().__init__(shape, density.loc.shape, validate_args=False)

    def rsample(self, sample_shape=()):
        return self.density.rsample(torch.Size(sample_shape) + self.batch_shape)

    def log_prob(self, value):
        return self.density.log_prob(value)


def wide():
    """Independent normals of sd 10 around (20, 20), 16 particles."""
    with pyro.plate("particles", 16):
        pyro.sample("u", pyro.distributions.Normal(20.0, 10.0).expand([2]).to_event(1))


def params_of(guide):
    """The unconstrained tensors behind the param sites of a run, by site."""
    trace = poutine.trace(guide).get_trace()
    sites = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "param"}
    return {n: value.unconstrained() for n, value in sites.items()}


def same(tensors, others):
    return {id(t) for t in tensors} == {id(t) for t in others}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_parameter_is_a_param_site(architecture, base):
    guide = OneVector(flow(2, architecture=architecture, base=base, tails=TAILS["pareto tails"]))
    sites = params_of(guide)
    assert same(sites.values(), guide.parameters())
    assert set(pyro.get_param_store().keys()) == set(sites)


def test_a_fit_moves_every_parameter_and_finds_a_target_of_sd_10():
    family = flow(2, loc=0.0, architecture=ARCHITECTURES["spline, fast sampling"])
    guide = OneVector(family)
    before = [p.detach().clone() for p in family.parameters()]

    def divergence():
        """KL(q, target), from 20,000 draws."""
        with torch.no_grad():
            density = family.density()
            u = density.rsample(torch.Size([20_000]))
            target = torch.distributions.Normal(20.0, 10.0).log_prob(u).sum(-1)
            return (density.log_prob(u) - target).mean()

    start = divergence()
    optimizer = pyro.optim.ClippedAdam({"lr": 0.2, "lrd": 0.97})
    svi = SVI(wide, guide, optimizer, Trace_ELBO())
    for _ in range(120):
        svi.step()
    assert start > 5 * 0.1
    assert divergence() < 0.1
    for (name, now), then in zip(family.named_parameters(), before, strict=True):
        assert (now - then).abs().max() > 1e-4, name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_copies_are_the_same_density(copied, architecture):
    family = shaken(flow(2, architecture=architecture, base=BASES["mixture"]))
    family.density().log_prob(family.density().rsample(torch.Size([3])))
    u = torch.randn(4, 2)
    torch.testing.assert_close(
        copied(family).density().log_prob(u), family.density().log_prob(u), rtol=0, atol=0
    )


def test_state_is_carried_over():
    trained = shaken(flow(2, tails=TAILS["pareto tails"], base=BASES["student"]))
    other = flow(2, tails=TAILS["pareto tails"], base=BASES["student"])
    other.load_state_dict(trained.state_dict())
    u = torch.randn(4, 2)
    torch.testing.assert_close(other.density().log_prob(u), trained.density().log_prob(u))


def test_a_conversion_to_another_type():
    family = shaken(flow(2, tails=TAILS["pareto tails"], base=BASES["student"])).float()
    assert family.density().rsample(torch.Size([3])).dtype is torch.float32
    assert family.density().log_prob(torch.zeros(2, dtype=torch.float32)).dtype is torch.float32


def test_the_store_has_the_last_word():
    """A second guide of the same name is the one in the store, and so is what is trained."""
    first, second = OneVector(flow(2)), OneVector(flow(2))
    first()
    shaken(first)
    assert same(params_of(second).values(), first.parameters())
    assert same(second.parameters(), first.parameters())
    trace = poutine.trace(second).get_trace()
    log_prob = trace.nodes["u"]["fn"].log_prob(torch.zeros(16, 2))
    torch.testing.assert_close(log_prob, first.family.density().log_prob(torch.zeros(16, 2)))


def test_parameters_of_the_module_alone():
    with pyro.settings.context(module_local_params=True):
        guide = OneVector(flow(2))
        assert same(params_of(guide).values(), guide.parameters())
    assert not list(pyro.get_param_store().keys())


def test_importing_flows_leaves_the_validation_of_distributions_on():
    """In a process of its own, where zuko has not been imported before."""
    program = (
        "import torch, pyro.distributions as dist\n"
        "import pyro_klmodes.guides.flow, sys\n"
        "assert 'zuko' in sys.modules\n"
        "try:\n"
        "    dist.Normal(torch.zeros(1), -torch.ones(1))\n"
        "except ValueError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "refused"
