"""What cannot be mapped over particles: a loop, a warning that says why, and the same results."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes import IWAE, draws
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.survey import survey

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
COUNTY = torch.tensor([0, 0, 1, 2])


def guide():
    pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def prior():
    return pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def observe(loc, sd=1.0):
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(loc, sd), obs=X)


def branching():
    a = prior()
    observe(a[COUNTY] if a[0] > 0 else -a[COUNTY])


def to_python():
    observe(prior().sum().item() * torch.ones(4))


def to_numpy():
    observe(torch.as_tensor(prior().detach().numpy())[COUNTY])


def ordered():
    a = prior()
    with pyro.plate("data", 4):
        cutpoints = torch.tensor([-1.0, 1.0])
        pyro.sample("y", dist.OrderedLogistic(a[COUNTY], cutpoints), obs=torch.tensor([0, 1, 2, 1]))


def own_scale():
    a = prior()
    with poutine.scale(scale=a[COUNTY] ** 2):
        observe(a[COUNTY])


def own_number_as_scale():
    a = prior()
    with poutine.scale(scale=a[0] ** 2):
        observe(a[COUNTY])


def own_noise():
    a = prior()
    observe(a[COUNTY] + 0.1 * torch.randn(4))


NORM = torch.nn.BatchNorm1d(1).double()


def normalised():
    observe(NORM(prior()[COUNTY].unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (branching, "data-dependent control flow"),
        (to_python, "item"),
        (to_numpy, "RuntimeError"),
        (ordered, "OrderedLogistic|RuntimeError"),
        (own_scale, "scale of site 'x' depends on a latent value"),
        (own_number_as_scale, "item"),
        (own_noise, "random numbers of its own"),
        (normalised, "RuntimeError"),
    ],
)
def test_the_warning_says_why(model, why):
    with pytest.warns(KLModesWarning, match="one after the other") as caught:
        layout = survey(Pair(model, guide))
    assert layout.sharing == "none"
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "torch.func.vmap" in message
    assert any(word in message for word in why.split("|"))


def test_a_branch_is_followed_particle_by_particle():
    with pytest.warns(KLModesWarning, match="one after the other"):
        d = draws(branching, guide, num_particles=8)
    a = d.values["a"]
    sign = torch.where(a[:, :1] > 0, 1.0, -1.0)
    exact = dist.Normal(0.0, 1.0).log_prob(a).sum(1)
    exact = exact + dist.Normal(sign * a[:, COUNTY], 1.0).log_prob(X).sum(1)
    torch.testing.assert_close(d.log_p, exact)
    assert len(sign.unique()) == 2


def test_a_model_that_begins_to_branch_is_run_in_a_loop_from_then_on():
    def model(branch):
        a = prior()
        observe(-a[COUNTY] if branch and a[0] > 0 else a[COUNTY])

    def its_guide(branch):
        guide()

    loss = IWAE(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss.draws(model, its_guide, False)
    with pytest.warns(KLModesWarning, match="one after the other"):
        d = loss.draws(model, its_guide, True)
    a = d.values["a"]
    loc = torch.where(a[:, :1] > 0, -a[:, COUNTY], a[:, COUNTY])
    data = dist.Normal(loc, 1.0).log_prob(X).sum(1)
    torch.testing.assert_close(d.log_p, data + dist.Normal(0.0, 1.0).log_prob(a).sum(1))


def test_an_error_of_the_model_is_the_model_s_own():
    def model(x):
        a = prior()
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=x + 0)

    def its_guide(x):
        guide()

    loss = IWAE(5)
    loss.draws(model, its_guide, X)
    with pytest.raises(TypeError, match="unsupported operand"):
        loss.draws(model, its_guide, None)


def test_a_value_outside_of_the_support_is_an_error_that_names_the_site():
    """The map checks nothing by itself; 0.5 * exp(0.5) is the density of no exponential at -1."""

    def model():
        a = prior()
        pyro.sample("rate", dist.Exponential(0.5))
        observe(a[COUNTY])

    def wide():
        guide()
        pyro.sample("rate", dist.Normal(pyro.param("loc", torch.tensor(100.0)), 1.0))

    loss = IWAE(5)
    loss.draws(model, wide)
    pyro.get_param_store()["loc"] = torch.tensor(-100.0)
    with pytest.raises(InvalidArgument, match="model site 'rate' .*Exponential.*outside"):
        loss.draws(model, wide)


def test_a_parameter_that_is_not_allowed_is_an_error():
    def model():
        a = prior()
        observe(a[COUNTY], pyro.param("sd", torch.tensor(1.0)))

    loss = IWAE(5)
    loss.draws(model, guide)
    pyro.get_param_store()["sd"] = torch.tensor(-1.0)
    with pytest.raises(ValueError, match="scale"):
        loss.draws(model, guide)
