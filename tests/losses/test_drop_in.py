"""Every loss stands where Pyro's own stand: SVI, torch loops, any kind of guide, copied, reused."""

import copy
import math
import pickle
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.infer import SVI, Predictive
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGuideList,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
)
from pyro.nn import PyroModule, PyroParam, PyroSample

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    estimators,
)
from pyro_klmodes.losses import ScoreClimbing
from pyro_klmodes.objectives import f_functions

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)

LOSSES = {
    "ReverseKL": lambda: ReverseKL(4),
    "ForwardKL": lambda: ForwardKL(8),
    "ForwardKL psis": lambda: ForwardKL(30, weights="psis"),
    "ForwardKL tempered": lambda: ForwardKL(8, weights="tempered"),
    "ForwardKL defensive": lambda: ForwardKL(8, defensive=0.2),
    "ScoreClimbing": lambda: ScoreClimbing(4),
    "ScoreClimbing independence": lambda: ScoreClimbing(4, "independence"),
    "IWAE": lambda: IWAE(4, num_outer=2),
    "IWAE doubly": lambda: IWAE(4, estimator=estimators.doubly),
    "Renyi": lambda: Renyi(0.5, 4),
    "CUBO": lambda: CUBO(2, 8),
    "FDivergence": lambda: FDivergence(f_functions.alpha_divergence(0.5), 8),
    "TailAdaptive": lambda: TailAdaptive(8),
    "Thermodynamic": lambda: Thermodynamic(3, 8),
    "Thermodynamic right": lambda: Thermodynamic(3, 8, bound="right"),
}
losses = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def model(x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    sd = pyro.sample("sd", dist.Gamma(3.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sd), obs=x)


def guide(x=X):
    loc = pyro.param("loc", torch.tensor(0.2))
    sd = pyro.param("q_sd", torch.tensor(0.9), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, sd))
    pyro.sample("sd", dist.LogNormal(pyro.param("log_sd", torch.tensor(0.1)), 0.4))


def unconstrained():
    return dict(pyro.get_param_store()._params)


@losses
def test_svi_steps_with_floats_and_moves_every_parameter(make):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=make())
    value = svi.step(X)
    assert type(value) is float
    assert type(svi.evaluate_loss(X)) is float
    assert math.isfinite(value)
    assert pyro.param("loc").item() != 0.2
    assert pyro.param("q_sd").item() != pytest.approx(0.9, abs=1e-12)
    assert pyro.param("log_sd").item() != 0.1


@losses
def test_the_three_entry_points_agree(make):
    loss = make()
    pyro.set_rng_seed(5)
    value = loss.loss_and_grads(model, guide, X)
    gradients = {n: p.grad.clone() for n, p in unconstrained().items()}
    for p in unconstrained().values():
        p.grad = None
    loss.reset()
    pyro.set_rng_seed(5)
    tensor = loss.differentiable_loss(model, guide, X)
    assert tensor.shape == ()
    tensor.backward()
    assert tensor.item() == value
    for name, p in unconstrained().items():
        torch.testing.assert_close(p.grad, gradients[name])
    loss.reset()
    pyro.set_rng_seed(5)
    assert loss.loss(model, guide, X) == pytest.approx(value, rel=1e-12)


@losses
def test_nothing_is_left_in_the_graph_or_in_the_parameters_by_loss_alone(make):
    guide(X)
    with torch.no_grad():
        make().loss(model, guide, X)
    make().loss(model, guide, X)
    assert all(p.grad is None for p in unconstrained().values())


class TorchModel(PyroModule):
    def forward(self, x=X):
        model(x)


@losses
@pytest.mark.parametrize("local", [True, False])
def test_as_a_module_it_is_trained_by_a_torch_optimizer(make, local):
    with pyro.settings.context(module_local_params=local):
        torch_model = TorchModel()
        module = make()(torch_model, AutoNormal(torch_model))
        module(X)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        before = [p.detach().clone() for p in module.parameters()]
        for _ in range(2):
            optimizer.zero_grad()
            module(X).backward()
            optimizer.step()
        after = list(module.parameters())
    assert len(after) == 4
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (len(pyro.get_param_store()) == 0) == local


@losses
def test_plain_torch_parameters_get_gradients(make):
    """No ``pyro.param`` in sight: Pyro's RenyiELBO would leave their gradients empty."""
    loc = torch.nn.Parameter(torch.tensor(0.2))

    def plain():
        pyro.sample("mu", dist.Normal(loc, 0.7))
        pyro.sample("sd", dist.LogNormal(0.1, 0.4))

    make().loss_and_grads(lambda: model(X), plain)
    assert loc.grad is not None
    assert loc.grad != 0.0


@losses
def test_a_pair_without_parameters_is_evaluated(make):
    def fixed():
        pyro.sample("mu", dist.Normal(0.2, 0.7))
        pyro.sample("sd", dist.LogNormal(0.1, 0.4))

    assert math.isfinite(make().loss_and_grads(lambda: model(X), fixed))
    assert not make().differentiable_loss(lambda: model(X), fixed).requires_grad


@losses
def test_only_the_model_has_parameters(make):
    def learned():
        scale = pyro.param("scale", torch.tensor(1.5))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(scale * z, 1.0), obs=X)

    def fixed():
        pyro.sample("z", dist.Normal(0.2, 0.7))

    make().loss_and_grads(learned, fixed)
    assert unconstrained()["scale"].grad != 0.0


@losses
def test_a_model_without_latents_is_its_own_likelihood(make):
    def observed():
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=X)

    loss = make()
    value = loss.loss(observed, lambda: None)
    log_p = float(dist.Normal(0.0, 1.0).log_prob(X).sum())
    assert value == pytest.approx(loss.objective.shift * log_p, abs=1e-12)


def listed(bare):
    guides = AutoGuideList(bare)
    guides.append(AutoNormal(poutine.block(bare, expose=["mu"])))
    guides.append(AutoDiagonalNormal(poutine.block(bare, expose=["sd"])))
    return guides


def easy(bare):
    @easy_guide(bare)
    def grouped(self, x=X):
        group = self.group(match="mu|sd")
        loc = pyro.param("group_loc", lambda: torch.zeros(group.event_shape))
        group.sample("group", dist.Normal(loc, 0.5).to_event(1))

    return grouped


ANY_GUIDE = {
    "AutoNormal": AutoNormal,
    "Multivariate": AutoMultivariateNormal,
    "IAF": partial(AutoIAFNormal, hidden_dim=[6]),
    "Messenger": AutoNormalMessenger,
    "List": listed,
    "Easy": easy,
}


@pytest.mark.parametrize(
    ("make", "guide_of"),
    [
        # every loss with half of the guides, every guide with half of the losses
        pytest.param(
            make,
            guide_of,
            id=f"{guide}-{loss}",
            marks=() if (i + j) % 2 == 0 else pytest.mark.slow,
        )
        for i, (guide, guide_of) in enumerate(ANY_GUIDE.items())
        for j, (loss, make) in enumerate(LOSSES.items())
    ],
)
def test_any_guide_with_a_density_trains(make, guide_of):
    fresh = guide_of(model)
    svi = SVI(model, fresh, pyro.optim.Adam({"lr": 0.05}), loss=make())
    first = svi.step(X)
    before = {n: p.detach().clone() for n, p in unconstrained().items()}
    svi.step(X)
    assert math.isfinite(first)
    assert any(not torch.equal(before[n], p) for n, p in unconstrained().items())


@losses
def test_wrapped_pairs_are_what_they_wrap(make):
    pyro.set_rng_seed(3)
    bare = make().loss(model, guide, X)
    pyro.set_rng_seed(3)
    scaled = make().loss(poutine.scale(model, scale=0.5), poutine.scale(guide, scale=0.5), X)
    assert scaled == pytest.approx(0.5 * bare, rel=1e-10)


@losses
def test_a_conditioned_model_needs_no_guide_for_what_it_observes(make):
    observed = poutine.condition(model, {"mu": torch.tensor(0.4)})
    value = make().loss_and_grads(observed, poutine.block(guide, hide=["mu"]), X)
    assert math.isfinite(value)
    assert unconstrained()["log_sd"].grad != 0.0


@losses
def test_copies_and_pickles_compute_the_same(make):
    loss = make()
    loss.loss(model, guide, X)
    values = []
    for same in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), make()):
        pyro.set_rng_seed(9)
        values.append(same.loss(model, guide, X))
    assert len(set(values)) == 1


@losses
def test_one_loss_serves_models_of_different_depth(make):
    def deep(x=X):
        with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(2, 3))

    def deep_guide(x=X):
        with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.4)), 0.8))

    shared = make()
    for pair in ((model, guide), (deep, deep_guide), (model, guide), (deep, deep_guide)):
        pyro.set_rng_seed(9)
        value = shared.loss(*pair, X)
        pyro.set_rng_seed(9)
        assert value == make().loss(*pair, X)


@losses
@pytest.mark.parametrize("explicit", [True, False])
def test_plates_may_get_deeper_between_calls(make, explicit):
    """Whether the new plate collides with that of the particles, or lies left of it."""

    def growing(depth):
        with pyro.plate("inner", 3, dim=-1 if explicit else None):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            if depth == 1:
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(3))
            else:
                with pyro.plate("outer", 2, dim=-2 if explicit else None):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(2, 3))

    def inner(depth):
        with pyro.plate("inner", 3, dim=-1 if explicit else None):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.4)), 0.8))

    shared = make()
    for depth in (1, 2, 1, 2):
        pyro.set_rng_seed(9)
        value = shared.loss(growing, inner, depth)
        pyro.set_rng_seed(9)
        assert value == make().loss(growing, inner, depth)


def test_arguments_are_passed_on_and_not_changed():
    kwargs = {"x": X, "more": [1, 2]}

    def with_kwargs(x, more):
        assert more == [1, 2]
        model(x)

    def guide_with_kwargs(x, more):
        guide(x)

    copies = dict(kwargs)
    for make in LOSSES.values():
        make().loss_and_grads(with_kwargs, guide_with_kwargs, **kwargs)
    assert kwargs.keys() == copies.keys()
    assert kwargs["x"] is copies["x"]
    assert kwargs["more"] is copies["more"]


def test_a_loss_forgets_a_pair_that_is_gone():
    loss = IWAE(4)

    def once():
        def short_lived(x=X):
            guide(x)

        loss.loss(model, short_lived, X)

    once()
    assert len(loss._layouts._by_owner) == 0


def test_a_frozen_parameter_stays_where_it_is():
    def half_frozen(x=X):
        with poutine.block(hide_types=["param"]):
            loc = pyro.param("frozen", torch.tensor(0.2)).detach()
        pyro.sample("mu", dist.Normal(loc, 0.8))
        pyro.sample("sd", dist.LogNormal(pyro.param("log_sd", torch.tensor(0.1)), 0.4))

    svi = SVI(model, half_frozen, pyro.optim.Adam({"lr": 0.05}), loss=ForwardKL(8))
    svi.step(X)
    assert pyro.param("frozen").item() == 0.2
    assert pyro.param("log_sd").item() != 0.1


class Regression(PyroModule):
    """Weights with priors inside of a module, and a learned noise."""

    def __init__(self):
        super().__init__()
        self.weight = PyroSample(dist.Normal(torch.zeros(2), 1.0).to_event(1))
        self.noise = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, x, y=None):
        mean = (x * self.weight).sum(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, self.noise), obs=y)


@losses
def test_pyro_modules_with_priors_train_and_predict(make):
    x = torch.randn(6, 2)
    y = x.sum(-1)
    regression = Regression()
    auto = AutoDiagonalNormal(regression)
    svi = SVI(regression, auto, pyro.optim.Adam({"lr": 0.02}), loss=make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            svi.step(x, y)
    assert regression.noise.item() != pytest.approx(0.5, abs=1e-6)
    predicted = Predictive(regression, guide=auto, num_samples=5)(x)
    assert predicted["y"].shape == (5, 6)
