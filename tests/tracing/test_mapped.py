"""A model that does not broadcast is mapped over the particles: exactly what single runs give."""

import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, check, draws, estimators
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.survey import survey

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
COUNTY = torch.tensor([0, 0, 1, 2])
DESIGN = torch.tensor(
    [[1.0, 0.5, 2.0], [0.3, -1.0, 0.0], [0.0, 1.5, 1.0], [1.0, 1.0, -1.0]]
).double()
MASK = torch.tensor([True, False, True, True])
SERIES = torch.tensor([0.2, 1.5, -0.3, 2.2, 1.9])


def counties():
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    sd = pyro.sample("sd", dist.HalfNormal(1.0))
    with pyro.plate("counties", 3):
        a = pyro.sample("a", dist.Normal(mu, sd))
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=X)


def regression():
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    loc = pyro.deterministic("loc", DESIGN @ w)
    pyro.factor("shrink", -(w @ w))
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(loc, pyro.param("noise", torch.tensor(0.8))), obs=X)


def masked():
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4), poutine.mask(mask=MASK):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=X)
    with pyro.plate("more", 4):
        pyro.sample("y", dist.Normal(a[COUNTY], 1.0).mask(a[COUNTY] > 0), obs=X)


def partly_observed():
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=X, obs_mask=MASK)


def scaled():
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4), poutine.scale(scale=torch.tensor([1.0, 2.0, 0.5, 1.0])):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=X)
    with pyro.plate("more", 4), poutine.scale(scale=3.0):
        pyro.sample("y", dist.Normal(a[COUNTY], 1.0), obs=X)


def minibatches():
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4, subsample_size=2) as rows:
        pyro.sample("x", dist.Normal(a[COUNTY[rows]], 1.0), obs=X[rows])


def nested():
    with pyro.plate("columns", 2, dim=-1), pyro.plate("rows", 3, dim=-2):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("two", 2, dim=-1), pyro.plate("data", 4, dim=-2):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=X.unsqueeze(1) * torch.ones(2))


def mixture():
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu[z], 1.0), obs=X)


def chain():
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    z = torch.tensor(0)
    for t in pyro.markov(range(5)):
        z = pyro.sample(f"z{t}", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
        pyro.sample(f"x{t}", dist.Normal(mu[z], 1.0), obs=SERIES[t])


def bayesian_layer():
    class Layer(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = pyro.nn.PyroModule[torch.nn.Linear](3, 1)
            prior = dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2)
            self.linear.weight = pyro.nn.PyroSample(prior)
            self.linear.bias = pyro.nn.PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

        def forward(self):
            loc = self.linear(DESIGN).squeeze(-1)
            with pyro.plate("data", 4):
                pyro.sample("x", dist.Normal(loc, 1.0), obs=X)

    return Layer()


MODELS = [
    counties,
    regression,
    masked,
    partly_observed,
    scaled,
    minibatches,
    nested,
    mixture,
    chain,
]


def guide_for(model, kind=AutoNormal):
    return kind(poutine.block(model, hide=["z", *(f"z{t}" for t in range(5))]), init_scale=0.7)


def laid_out(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return survey(pair)


def single(pair, layout, found, k, **options):
    """A run of its own at the values of particle k."""
    at = {n: found.values[n][k] for n in found.sources}
    alone = replace(layout, sharing="none")
    return sample(pair, alone, 1, linear=True, fixed={**at, **found.indices}, **options)


JOINT = [(m, AutoMultivariateNormal) for m in (counties, masked, mixture)]


@pytest.mark.parametrize(
    ("model", "kind"), [*((m, AutoNormal) for m in [*MODELS, bayesian_layer]), *JOINT]
)
def test_weights_are_those_of_single_runs(model, kind):
    model = model() if model is bayesian_layer else model
    pair = Pair(model, guide_for(model, kind))
    layout = laid_out(pair)
    assert layout.sharing == "map"
    many = sample(pair, layout, 6, linear=True)
    for k in range(6):
        one = single(pair, layout, many, k)
        torch.testing.assert_close(many.log_p[k : k + 1], one.log_p, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(many.log_q[k : k + 1], one.log_q, rtol=1e-12, atol=1e-12)
        assert (many.scale, many.plates) == (one.scale, one.plates)
    assert many.log_p.unique().numel() > 1


@pytest.mark.parametrize("model", [counties, masked, mixture, partly_observed])
def test_densities_by_site_are_those_of_single_runs(model):
    pair = Pair(model, guide_for(model))
    layout = laid_out(pair)
    many = sample(pair, layout, 3, linear=True, by_site=True)
    for k in range(3):
        one = single(pair, layout, many, k, by_site=True)
        assert set(one.sites) == set(many.sites)
        for name, site in one.sites.items():
            torch.testing.assert_close(many.sites[name].log_p[k : k + 1], site.log_p)
            torch.testing.assert_close(many.sites[name].log_q[k : k + 1], site.log_q)
            assert many.sites[name].elements == site.elements


def one_site_guide():
    loc = pyro.param("loc", torch.tensor([0.2, -0.3, 0.5]))
    scale = pyro.param("scale", torch.tensor([0.7, 0.4, 1.1]), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def gradients(pair, layout, cut):
    """Of a sum over particles with weights, along every way that the cut leaves."""
    pyro.set_rng_seed(3)
    found = sample(pair, layout, 4, cut, linear=True)
    params = [*pyro.get_param_store()._params.values()]
    weights = torch.tensor([0.3, -1.0, 2.0, 0.5])
    total = (weights * (found.log_p - 2.0 * found.log_q)).sum()
    at = torch.autograd.grad(total, params, retain_graph=True, allow_unused=True)
    leaves = [leaf for _, leaf in found.leaves]
    at_leaves = torch.autograd.grad(total, leaves) if leaves else ()
    drawn = [torch.autograd.grad(z.sum(), params, allow_unused=True) for z, _ in found.leaves]
    score = found.score if found.score is None else found.score.detach()
    return found.log_w, score, at, [x.reshape(-1) for x in at_leaves], drawn


@pytest.mark.parametrize("cut", list(Cut))
def test_gradients_of_all_cuts_are_those_of_a_loop(cut):
    """Both draw the same numbers: a run of so few takes them from the generator one by one."""
    pair = Pair(regression, one_site_guide)
    layout = laid_out(pair)
    ours = gradients(pair, layout, cut)
    theirs = gradients(pair, replace(layout, sharing="none"), cut)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(ours[2], theirs[2])
    assert any(g is not None and g.abs().max() > 0.1 for g in ours[2])
    if cut in (Cut.LEAVES, Cut.MODEL):  # one leaf for all particles, or one for each
        torch.testing.assert_close(torch.cat(ours[3]), torch.cat(theirs[3]))
    else:
        assert ours[3] == theirs[3] == []


@pytest.mark.parametrize(
    "loss_of",
    [
        ReverseKL,
        IWAE,
        ForwardKL,
        lambda k, **o: IWAE(k, num_outer=2, **o),
        lambda k, **o: ReverseKL(k, estimator=estimators.score, **o),
        lambda k, **o: IWAE(k, estimator=estimators.doubly, **o),
        lambda k, **o: IWAE(k, estimator=estimators.gdreg, **o),
        lambda k, **o: ReverseKL(k, beta=0.5, **o),
    ],
)
def test_losses_and_their_gradients_are_those_of_a_loop(loss_of):
    found = []
    for vectorise in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        loss = loss_of(2, vectorize_particles=vectorise)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = loss.loss_and_grads(regression, one_site_guide)
        found.append((value, {n: p.grad for n, p in pyro.get_param_store()._params.items()}))
    torch.testing.assert_close(*found)


def test_a_discrete_latent_of_the_guide_is_a_value_like_others():
    def model():
        a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("x", dist.Normal(a[z], 1.0), obs=X)

    def guide():
        one_site = pyro.param("loc", torch.zeros(3))
        pyro.sample("a", dist.Normal(one_site, 1.0).to_event(1))
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Categorical(torch.ones(4, 3)))

    pair = Pair(model, guide)
    assert laid_out(pair).sharing == "map"
    d = draws(model, guide, num_particles=50)
    picked = d.values["a"].gather(1, d.values["z"])
    exact = (
        dist.Normal(0.0, 1.0).log_prob(d.values["a"]).sum(1)
        + dist.Categorical(torch.tensor([0.2, 0.3, 0.5])).log_prob(d.values["z"]).sum(1)
        + dist.Normal(picked, 1.0).log_prob(X).sum(1)
    )
    torch.testing.assert_close(d.log_p, exact)
    IWAE(4).loss_and_grads(model, guide)
    assert pyro.get_param_store()._params["loc"].grad.abs().max() > 0.0


def test_all_particles_see_the_same_minibatch():
    d = ReverseKL(5).draws(minibatches, guide_for(minibatches))
    rows = d.indices["data"]
    assert len(rows) == 2
    data = dist.Normal(d.values["a"][:, COUNTY[rows]], 1.0).log_prob(X[rows]).sum(1)
    torch.testing.assert_close(
        d.log_p, dist.Normal(0.0, 1.0).log_prob(d.values["a"]).sum(1) + 2.0 * data
    )


def test_the_model_is_called_once_for_all_particles():
    calls = []

    def model():
        calls.append(1)
        counties()

    guide = guide_for(model)
    loss = IWAE(50)
    loss.loss(model, guide)
    calls.clear()
    loss.loss(model, guide)
    assert len(calls) == 1


def test_terms_that_are_the_same_for_all_particles_have_no_particle_dimension():
    def model():
        counties()
        with pyro.plate("more", 4):
            pyro.sample("constant", dist.Normal(0.0, 1.0), obs=X)

    d = draws(model, guide_for(model), num_particles=5)
    shapes = {t.name: tuple(t.log_prob.shape) for where, t in d.terms if where == "model"}
    assert shapes["constant"] == (4,)
    assert shapes["x"] == (5, 4)
    assert shapes["mu"] == (5, 1)


def test_check_says_that_the_model_is_mapped(capsys):
    report = check(counties, guide_for(counties), loss=IWAE(4))
    assert (report.sharing, report.vectorised) == ("map", False)
    report.print()
    assert "mapped over its draws" in " ".join(capsys.readouterr().out.split())
