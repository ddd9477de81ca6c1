"""``fit`` finds the posterior, tells its callbacks, and hands back a guide that lasts."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    Predictive,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoNormal

from models import conjugate_normal
from pyro_klmodes import CUBO, IWAE, ForwardKL, ReverseKL, TailAdaptive, estimators, fit
from pyro_klmodes.errors import InvalidArgument

X = torch.tensor([1.5, 2.5, 2.0, 3.0], dtype=torch.float64)
# mu ~ N(0, 1), four data with unit noise
MEAN, SD = float(X.sum()) / 5, math.sqrt(1 / 5)


def model(x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide(x=X):
    loc = pyro.param("loc", lambda: torch.zeros(()))
    sd = pyro.param("sd", lambda: torch.ones(()), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, sd))


def adam(rate=0.05):
    return pyro.optim.Adam({"lr": rate})


def quick(loss, steps=3, **kwargs):
    return fit(model, guide, loss, X, steps=steps, optim=adam(), progress=False, **kwargs)


@pytest.mark.parametrize(
    "loss",
    [
        ReverseKL(8),
        ForwardKL(16),
        # siblings: an autoguide of test_nested.py by IWAE, the exact optimum of CUBO in
        # test_alpha_dial.py
        pytest.param(IWAE(4, estimator=estimators.doubly), marks=pytest.mark.slow),
        pytest.param(CUBO(2, 32, estimator=estimators.doubly), marks=pytest.mark.slow),
        TailAdaptive(16),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_conjugate_posterior_is_found(loss):
    """From a wide start, 1.8 and 1.55 away, to within 0.1: at least five times closer."""

    def wide(x=X):
        pyro.param("sd", lambda: torch.full((), 2.0), constraint=dist.constraints.positive)
        guide(x)

    result = fit(
        model,
        wide,
        loss,
        X,
        steps=700,
        optim=pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.998}),
        progress=False,
    )
    assert abs(0.0 - MEAN) > 5 * 0.1
    assert abs(2.0 - SD) > 5 * 0.1
    assert result.params["loc"].item() == pytest.approx(MEAN, abs=0.1)
    assert result.params["sd"].item() == pytest.approx(SD, abs=0.1)
    assert result.steps == 700
    assert result.losses.shape == (700,)
    assert not result.interrupted
    assert result.seconds > 0
    assert set(result.versions) == {"python", "torch", "pyro-ppl", "pyro-klmodes"}


def test_local_latents_are_found_on_minibatches():
    """Start slope 0 is 0.5 away from the posterior's; the tolerance is 0.05."""
    case = conjugate_normal.problem(subsample_size=5)
    result = fit(
        case.model,
        case.guide,
        ForwardKL(16),
        *case.args,
        **case.kwargs,
        steps=400,
        optim=pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}),
        progress=False,
    )
    assert result.params["slope"].item() == pytest.approx(0.5, abs=0.05)
    assert result.params["scale"].item() == pytest.approx(math.sqrt(0.5), abs=0.05)


def test_the_default_optimizer_and_loss_arguments_do():
    result = fit(model, guide, ReverseKL(), X, steps=2, progress=False)
    assert result.params["loc"].item() != 0.0
    assert result.kwargs == {}
    assert result.args[0] is X


def test_zero_steps_leave_the_guide_at_its_start():
    result = quick(IWAE(4), steps=0)
    assert result.steps == 0
    assert result.losses.dtype == torch.float64
    assert result.params["loc"].item() == 0.0
    assert result.sample(3)["mu"].shape == (3,)


def test_callbacks_are_told_every_step_and_can_stop():
    told = []

    def watch(info):
        told.append(info)

    def stop(info):
        return info.step == 4

    result = quick(IWAE(4), steps=50, callbacks=[stop, watch])
    assert result.steps == 5
    assert not result.interrupted
    assert [info.step for info in told] == list(range(5))
    assert [info.loss for info in told] == result.losses.tolist()


def test_an_interrupt_gives_what_there_is():
    def interrupt(info):
        if info.step == 2:
            raise KeyboardInterrupt

    result = quick(IWAE(4), steps=50, callbacks=[interrupt])
    assert result.interrupted
    assert result.steps == 3
    assert result.params["loc"].item() != 0.0
    torch.testing.assert_close(result.losses, quick(IWAE(4), steps=3).losses)
    with result.scope():
        assert pyro.param("loc").item() == result.params["loc"].item()


def test_an_error_in_a_callback_is_its_own_and_leaves_no_trace():
    def failing(info):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        quick(IWAE(4), callbacks=[failing])
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(num_particles=8, vectorize_particles=True),
        TraceGraph_ELBO(),
        TraceMeanField_ELBO(),
        RenyiELBO(alpha=0.5, num_particles=4),
        ReweightedWakeSleep(num_particles=8, model_has_params=False),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_pyro_are_accepted(loss):
    """They move towards the posterior; wake-sleep returns two numbers and is added up."""
    result = quick(loss, steps=60)
    assert result.losses.isfinite().all()
    assert abs(result.params["loc"].item() - MEAN) < 0.6 * MEAN
    assert result.log_weights(10).shape == (10,)


def test_the_fitted_guide_outlives_the_param_store():
    result = quick(ForwardKL(8), steps=50)
    loc, sd = result.params["loc"], result.params["sd"]
    pyro.clear_param_store()
    drawn = torch.stack([draw(result.guide) for _ in range(2000)])
    assert len(pyro.get_param_store()) == 0
    assert abs(drawn.mean() - loc) < 4 * sd / math.sqrt(2000)
    assert abs(drawn.std() - sd) < 4 * sd / math.sqrt(4000)


def draw(fitted):
    return pyro.poutine.trace(fitted).get_trace(X).nodes["mu"]["value"].detach()


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_works_with_the_fitted_guide(parallel):
    def generative(x=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def own_guide(x=None):
        guide(x)

    result = fit(generative, own_guide, IWAE(4), X, steps=50, optim=adam(), progress=False)
    pyro.clear_param_store()
    predictive = Predictive(generative, guide=result.guide, num_samples=400, parallel=parallel)
    x = predictive()["x"]
    assert x.shape == (400, 4)
    spread = math.sqrt(1 + result.params["sd"].item() ** 2)
    assert abs(x[:, 0].mean() - result.params["loc"]) < 4 * spread / 20


def test_an_autoguide_keeps_its_methods():
    auto = AutoNormal(model)
    result = fit(model, auto, ReverseKL(4), X, steps=50, optim=adam(), progress=False)
    pyro.clear_param_store()
    median = result.guide.median(X)["mu"]
    assert median.item() == result.params["AutoNormal.locs.mu"].item()
    low, high = result.guide.quantiles([0.1, 0.9], X)["mu"]
    assert low < median < high


def test_two_autoguides_of_one_class_do_not_share_parameters():
    first, second = AutoNormal(model), AutoNormal(model)
    a = fit(model, first, ReverseKL(4), X, steps=40, optim=adam(), progress=False)
    kept = a.guide.median(X)["mu"].item()
    fit(model, second, ReverseKL(4), X, steps=5, optim=adam(), progress=False)
    assert a.guide.median(X)["mu"].item() == kept
    assert a.params["AutoNormal.locs.mu"].item() == kept


def test_the_parameters_of_a_result_are_a_snapshot():
    """Training a module on moves the module, but not the numbers of the earlier result."""
    auto = AutoNormal(model)
    first = fit(model, auto, ReverseKL(4), X, steps=5, optim=adam(), progress=False)
    before = {name: value.clone() for name, value in first.params.items()}
    second = fit(model, auto, ReverseKL(4), X, steps=5, optim=adam(), progress=False)
    for name, value in first.params.items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, second.params[name])


def test_parameters_that_are_local_to_their_modules_are_found():
    with pyro.settings.context(module_local_params=True):
        auto = AutoNormal(model)
        result = fit(model, auto, ReverseKL(4), X, steps=30, optim=adam(), progress=False)
        assert set(result.params) == {"locs.mu", "scales.mu"}
        assert result.params["locs.mu"].item() == auto.median(X)["mu"].item()
        assert result.params["scales.mu"].item() == auto.scales.mu.item()
        assert abs(result.params["locs.mu"].item() - MEAN) < 0.6 * MEAN


class Encoder(torch.nn.Module):
    """A guide whose weights Pyro has not been told of."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, x):
        return pyro.sample("mu", dist.Normal(self.linear(x).squeeze(-1), 0.5))


def test_plain_modules_are_trained_and_recorded():
    encoder = Encoder()
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    result = fit(model, encoder, ForwardKL(8), X, steps=5, optim=adam(), progress=False)
    assert set(result.params) == {"linear.weight", "linear.bias"}
    for name, value in result.params.items():
        assert not torch.equal(value, before[name])
        assert torch.equal(value, encoder.get_parameter(name))
        assert encoder.get_parameter(name).grad is None


def test_draws_samples_and_weights_of_a_result_agree():
    result = quick(IWAE(4), steps=20)
    d = result.draws(50, seed=3)
    torch.testing.assert_close(result.log_weights(50, seed=3), d.log_w)
    torch.testing.assert_close(result.sample(50, seed=3)["mu"], d.values["mu"])
    z = d.values["mu"]
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z[:, None], 1.0).log_prob(X).sum(-1)
    log_q = dist.Normal(result.params["loc"], result.params["sd"]).log_prob(z)
    torch.testing.assert_close(d.log_w, log_p - log_q)


def test_a_fitted_guide_can_be_copied_and_pickled():
    result = quick(IWAE(4), steps=5)
    values = []
    for fitted in (result.guide, copy.deepcopy(result.guide)):
        pyro.set_rng_seed(1)
        values.append(draw(fitted))
    assert torch.equal(*values)
    state = pickle.loads(pickle.dumps(result.guide.state))
    assert torch.equal(state["params"]["loc"], result.params["loc"])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("steps", -1),
        ("steps", 2.0),
        ("steps", True),
        ("steps", "10"),
        ("seed", 1.5),
        ("seed", None),
        ("seed", True),
        ("on_nonfinite", "ignore"),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(InvalidArgument, match=f"{argument}="):
        fit(model, guide, IWAE(4), X, progress=False, **{"steps": 1, argument: value})


@pytest.mark.parametrize("loss", [IWAE, "IWAE", None, lambda *a: 0.0])
def test_a_loss_is_an_instance(loss):
    with pytest.raises(InvalidArgument, match="loss=.* is not a loss. Pass an instance"):
        fit(model, guide, loss, X, steps=1, progress=False)
