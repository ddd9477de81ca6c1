"""What linear response says where it is not defined, and what to do."""

import dataclasses
import io

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.ops.indexing import Vindex
from pyro.optim import Adam
from rich.console import Console

from models import conjugate_normal
from pyro_klmodes import ForwardKL, ReverseKL
from pyro_klmodes.errors import (
    InvalidArgument,
    NonFiniteLoss,
    NotDefined,
    UnsupportedStructure,
)
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Normal, NormalMixture
from pyro_klmodes.inference import by_index, fit
from pyro_klmodes.inference.cavi import CAVI
from pyro_klmodes.inference.linear_response import linear_response
from pyro_klmodes.inference.linear_response.layout import layouts
from pyro_klmodes.inference.linear_response.site import white
from pyro_klmodes.inference.linear_response.solving import Limits, solve
from pyro_klmodes.inference.linear_response.target import target_of


def hierarchical():
    case = conjugate_normal.hierarchical_problem()
    return case, CAVI(case.model).fit(*case.args)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sites": ["mu", "nu"]}, "'nu', which is no latent of the model; it has 'mu', 'z'"),
        ({"sites": "mu"}, "sites='mu' must be names of sites, such as"),
        ({"sites": []}, "must be names of sites"),
        ({"tolerance": 0.0}, "tolerance=0.0 must be a positive number"),
        ({"tolerance": True}, "tolerance=True must be"),
    ],
)
def test_arguments(arguments, words):
    _, found = hierarchical()
    with pytest.raises(InvalidArgument, match=words):
        linear_response(found, **arguments)


def test_something_else_than_a_fit():
    with pytest.raises(InvalidArgument, match="fit is an object of type CAVI; it must be the"):
        linear_response(CAVI(conjugate_normal.hierarchical_model))


def test_a_fit_that_has_not_converged():
    case = conjugate_normal.hierarchical_problem()
    found = CAVI(case.model).fit(*case.args, steps=2)
    with pytest.raises(InvalidArgument, match=r"not converged: .* mean of site 'mu' by .*longer"):
        linear_response(found)
    loose = linear_response(found, tolerance=10.0)
    assert loose.distance > 0.05
    # of a quadratic, a Newton step goes all the way
    off = (loose.mean["mu"] - case.reference["mu"].mean).abs() / case.reference["mu"].sd
    assert float(off) == pytest.approx(loose.distance)
    assert linear_response(CAVI(case.model).fit(*case.args)).distance < 1e-6


def test_a_fit_of_another_divergence():
    def model():
        pyro.sample("x", dist.Gamma(2.0, 1.0))

    guide = AutoMeanField(model)
    found = fit(
        model,
        guide,
        ForwardKL(num_particles=64),
        optim=Adam({"lr": 0.05}),
        steps=300,
        progress=False,
    )
    with pytest.raises(InvalidArgument, match=r"fitted with ForwardKL; linear response is for Rev"):
        linear_response(found, tolerance=1e-3)


def test_a_guide_that_is_not_mean_field():
    from pyro.infer.autoguide import AutoMultivariateNormal

    case = conjugate_normal.hierarchical_problem()
    guide = AutoMultivariateNormal(case.model)
    found = fit(
        case.model,
        guide,
        ReverseKL(),
        *case.args,
        optim=Adam({"lr": 0.01}),
        steps=1,
        progress=False,
    )
    with pytest.raises(InvalidArgument, match="the guide is an object of type AutoMultivariateN"):
        linear_response(found)


def test_families_without_closed_forms():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("p", dist.Dirichlet(torch.ones(3)))

    guide = AutoMeanField(model, families={"p": Normal()})
    found = CAVI(model, guide).fit()
    with pytest.raises(NotDefined, match=r"site 'p' has the family Normal\(\), .*sites=\[...\]"):
        linear_response(found)
    assert float(linear_response(found, sites=["x"]).sd["x"]) == pytest.approx(1.0)
    guide = AutoMeanField(model, families={"x": NormalMixture(2)})
    found = fit(model, guide, ReverseKL(), optim=Adam({"lr": 0.01}), steps=1, progress=False)
    with pytest.raises(NotDefined, match="site 'x' has the family NormalMixture"):
        linear_response(found)


def mixture(x):
    with pyro.plate("components", 2):
        m = pyro.sample("m", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(2)))
        pyro.sample("x", dist.Normal(Vindex(m)[..., z], 1.0), obs=x)


def with_equal_components(x):
    guide = AutoMeanField(mixture)
    with torch.no_grad():
        guide(x)
        guide.loc.m = torch.zeros(2)
        guide.logits.z = torch.zeros(len(x), 2)
    return guide


def test_a_saddle_between_the_labels_of_a_mixture():
    x = torch.tensor([-2.0, -2.5, -1.5, 2.0, 2.5, 1.5])
    found = CAVI(mixture, with_equal_components(x)).fit(x)
    assert found.converged
    with pytest.raises(
        NotDefined, match="at a saddle .*Mixtures have such points where components"
    ):
        linear_response(found)
    apart = CAVI(mixture).fit(x, seed=1)
    assert float(linear_response(apart).mean["m"].diff().abs()) > 3


def test_a_flat_direction():
    """Two sites of which only the difference has a density: proper to no one."""

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.factor("difference", 0.5 * (a.square() + b.square() - (a - b).square()))

    found = CAVI(model).fit()
    assert found.converged
    with pytest.raises(NotDefined, match=r"the ELBO is flat in a direction .*rotations"):
        linear_response(found)


def test_not_concave_and_not_converged():
    x = torch.tensor([-2.0, -2.5, -1.5, 2.0, 2.5, 3.5])
    found = CAVI(mixture, with_equal_components(x)).fit(x, steps=0)
    with pytest.raises(InvalidArgument, match="has not converged"):
        linear_response(found)


def test_minibatches():
    x = conjugate_normal.hierarchical_data()
    model = conjugate_normal.hierarchical_model
    found = CAVI(model).fit(x, 10, steps=2)
    with pytest.raises(UnsupportedStructure, match=r"plate 'data' sees a minibatch.*replace\(fit"):
        linear_response(found)
    whole = CAVI(model, found.guide.to_train()).fit(x)
    assert float(linear_response(whole).sd["mu"]) == pytest.approx(11**-0.5, rel=1e-9)
    # arguments for all data make a fit on minibatches one that can be looked at
    again = dataclasses.replace(found, args=(x,))
    assert float(linear_response(again, tolerance=100).sd["mu"]) == pytest.approx(11**-0.5)


def test_fits_on_batches_with_all_data_at_hand():
    def model(x, subsample=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample=subsample) as index:
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[..., index])

    x = conjugate_normal.hierarchical_data()
    batches = by_index([list(range(10)), list(range(10, 20))])
    found = CAVI(model).fit(x, batches=batches, epochs=40)
    assert float(linear_response(found, tolerance=1.0).sd["mu"]) == pytest.approx(11**-0.5)


def test_too_many_parameters():
    _, found = hierarchical()
    with found.scope():
        target = target_of(found)
    parts = {
        n: white(target.latents[n], target.families[n], target.params[n], target.masks[n])
        for n in target.params
    }
    small = Limits(numbers=10, columns=5)
    with pytest.raises(UnsupportedStructure, match=r"42 parameters.*have 21: .*sites=\['mu'\]"):
        solve(target.expectation.elbo, parts, ["mu", "z"], small)
    assert [layout.plate for layout in layouts(parts)] == ["data", None]
    way = solve(target.expectation.elbo, parts, ["mu"], small).way
    assert float(way.factors("mu").variance()) == pytest.approx(1 / 11, rel=1e-10)


def test_covariances_that_are_too_large():
    x = conjugate_normal.hierarchical_data(6000)
    response = linear_response(CAVI(conjugate_normal.hierarchical_model).fit(x))
    with pytest.raises(InvalidArgument, match=r"6,001 entries has 36,012,001 numbers \(0.3 GB\)"):
        _ = response.covariance
    assert response.covariance_of("mu").shape == (1, 1)
    with pytest.raises(InvalidArgument, match="no site 'nu' in this linear response; it has 'mu'"):
        response.covariance_of("nu")


def test_the_table_and_the_numbers():
    _, found = hierarchical()
    response = linear_response(found)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(response)
    text = console.export_text()
    for words in ("mean-field sd", "linear response sd", "mu", "0.218", "0.302", "1.38", "20"):
        assert words in text
    numbers = response.to_dict()
    assert numbers["sites"]["mu"]["sd"] == pytest.approx(11**-0.5)
    assert len(numbers["sites"]["z"]["ratio"]) == 20
    assert numbers["exact"] is True
    assert repr(response).startswith("LinearResponse(sites=['mu', 'z'], distance=")
    one = linear_response(found, sites=["z"])
    assert list(one.sd) == ["z"]
    assert torch.equal(one.sd["z"], response.sd["z"])


def test_derivatives_that_are_not_there():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    found = CAVI(model).fit()
    with found.scope():
        target = target_of(found)
    parts = {"x": white(target.latents["x"], target.families["x"], target.params["x"], None)}

    def kink(params):
        away = params["x"]["loc"] - params["x"]["loc"].detach()
        return -away.square().pow(0.75) + params["x"]["scale"].log()

    def once(params):
        loc = params["x"]["loc"].reshape(1, 1) - 1
        distance = torch.cdist(loc, torch.zeros(1, 1), p=3.0).sum()
        return params["x"]["scale"].log() - distance

    with pytest.raises(NonFiniteLoss, match="parameters of site 'x' are not finite"):
        solve(kink, parts, ["x"], Limits())
    with pytest.raises(UnsupportedStructure, match="needs second derivatives .*cdist"):
        solve(once, parts, ["x"], Limits())


def test_parameters_of_the_model_are_held_fixed():
    def model(y):
        noise = pyro.param("noise", lambda: torch.tensor(0.5), constraint=constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, noise), obs=y)

    y = torch.tensor([1.0, 2.0])
    guide = AutoMeanField(model)
    found = fit(
        model,
        guide,
        ReverseKL(num_particles=16),
        y,
        optim=Adam({"lr": 0.01}),
        steps=100,
        progress=False,
    )
    noise = float(found.params["noise"])
    assert abs(noise - 0.5) > 0.1
    response = linear_response(found, tolerance=10.0)
    assert float(response.sd["mu"]) == pytest.approx((1 + 2 / noise**2) ** -0.5, rel=1e-9)
