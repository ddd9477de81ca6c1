"""What a fit does about a loss or a gradient that is not a number: raise, skip, or back off."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, fit
from pyro_klmodes.errors import NonFiniteLoss

FROM_STEP = 5


@pytest.fixture(autouse=True)
def without_validation():
    """As in production; with it Pyro's factor complains before any loss is computed."""
    with pyro.validation_enabled(False):
        yield


class Failing:
    """A model whose factor is wrong in some steps; a step is a run with gradients."""

    def __init__(self, bad_steps, how="value"):
        self.bad_steps = set(bad_steps)
        self.how = how
        self.step = 0
        self.seen = []

    def __call__(self):
        scale = pyro.param("scale", torch.tensor(1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        wrong = self.step in self.bad_steps
        if self.how == "value":
            pyro.factor("broken", torch.full_like(z, math.nan if wrong else 0.0))
        elif wrong:  # a finite value with an infinite slope
            pyro.factor("broken", (scale - scale.detach()).sqrt() + 0 * z)
        pyro.sample("x", dist.Normal(scale * z, 1.0), obs=torch.tensor(0.7))

    def next_step(self, info):
        self.seen.append(info)
        self.step = info.step + 1


def guide():
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.2)), 0.8))


def run(failing, loss=None, **kwargs):
    return fit(
        failing,
        guide,
        loss or IWAE(4),
        steps=10,
        optim=pyro.optim.Adam({"lr": 0.1}),
        callbacks=[failing.next_step],
        progress=False,
        **kwargs,
    )


hows = pytest.mark.parametrize("how", ["value", "gradient"])
MESSAGES = {
    "value": "step 5: .* model site 'broken' is nan",
    "gradient": "step 5: the gradient of parameter 'scale' is not finite",
}


@hows
@pytest.mark.parametrize("loss", [IWAE(4), ReverseKL(2), ForwardKL(4)])
def test_raising_keeps_the_result_up_to_there(loss, how):
    with pytest.raises(NonFiniteLoss, match=MESSAGES[how]) as caught:
        run(Failing([FROM_STEP], how), loss)
    partial = caught.value.result
    reference = fit(
        Failing([]),
        guide,
        loss,
        steps=FROM_STEP,
        optim=pyro.optim.Adam({"lr": 0.1}),
        progress=False,
    )
    assert partial.steps == FROM_STEP
    torch.testing.assert_close(partial.losses, reference.losses)
    for name, value in reference.params.items():
        assert torch.equal(partial.params[name], value)
        assert value.isfinite()
    with partial.scope():
        assert pyro.param("loc").item() == reference.params["loc"].item()
    drawn = partial.sample(400)["z"].mean()
    assert abs(drawn - reference.params["loc"]) < 4 * 0.8 / 20
    assert len(pyro.get_param_store()) == 0


@hows
def test_a_skipped_step_moves_nothing(how):
    positions = []
    failing = Failing([FROM_STEP, FROM_STEP + 1], how)

    def watch(info):
        failing.next_step(info)
        positions.append({n: p.item() for n, p in pyro.get_param_store().items()})

    result = fit(
        failing,
        guide,
        IWAE(4),
        steps=10,
        optim=pyro.optim.Adam({"lr": 0.1}),
        callbacks=[watch],
        progress=False,
        on_nonfinite="skip",
    )
    assert result.losses.isnan().nonzero().flatten().tolist() == [5, 6]
    assert positions[4] == positions[5] == positions[6]
    assert positions[7] != positions[6]
    assert all(v.isfinite() for v in result.params.values())


@hows
def test_backing_off_returns_to_before_the_last_step_and_slows_down(how):
    positions = []
    failing = Failing([FROM_STEP], how)
    optim = pyro.optim.Adam({"lr": 0.1})

    def watch(info):
        failing.next_step(info)
        positions.append({n: p.item() for n, p in pyro.get_param_store().items()})

    result = fit(
        failing,
        guide,
        IWAE(4),
        steps=10,
        optim=optim,
        callbacks=[watch],
        progress=False,
        on_nonfinite="backoff",
    )
    assert result.losses.isnan().nonzero().flatten().tolist() == [5]
    assert positions[5] == positions[3]
    rates = {g["lr"] for o in optim.optim_objs.values() for g in o.param_groups}
    assert rates == {0.05}
    assert all(v.isfinite() for v in result.params.values())


@pytest.mark.parametrize("what", ["skip", "backoff"])
def test_a_loss_that_never_recovers_is_an_error(what):
    failing = Failing(range(1, 1000))
    with pytest.raises(NonFiniteLoss, match=r"step 51 \(51 times in a row\): .*'broken'") as caught:
        fit(
            failing,
            guide,
            IWAE(4),
            steps=200,
            callbacks=[failing.next_step],
            progress=False,
            on_nonfinite=what,
        )
    assert caught.value.result.steps == 51
    assert caught.value.result.losses[1:].isnan().all()


def test_losses_of_pyro_are_watched_too():
    class Broken(Trace_ELBO):
        def loss_and_grads(self, *args, **kwargs):
            super().loss_and_grads(*args, **kwargs)
            return math.inf

    with pytest.raises(NonFiniteLoss, match="step 0: the loss is inf") as caught:
        fit(Failing([]), guide, Broken(), steps=3, progress=False)
    assert caught.value.result.steps == 0
    assert caught.value.result.params["loc"].item() == pytest.approx(0.2)


def test_a_pair_that_is_wrong_from_the_start_fails_in_the_check():
    with pytest.raises(NonFiniteLoss, match="'x'"):
        fit(
            lambda: pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(math.nan)),
            lambda: None,
            IWAE(2),
            steps=3,
            progress=False,
        )
