"""Groups of parameters, clipping by the norm of all of them, and schedules.

The loss is linear in the parameters, so that plain gradient descent moves each by exactly learning
rate times slope: a guide N(loc, 1), no prior, and a factor that is linear in the draw.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference import StopWhenConverged
from pyro_klmodes.inference.fused import Fused

SGD = torch.optim.SGD
SLOPES = {"a": 3.0, "b": 4.0}


def model():
    z = {}
    for name, slope in SLOPES.items():
        with pyro.poutine.mask(mask=False):
            z[name] = pyro.sample(name, dist.Normal(0.0, 1.0))
        pyro.factor(f"pull {name}", slope * z[name])


def guide():
    for name in SLOPES:
        loc = pyro.param(f"{name}.loc", torch.tensor(0.0))
        pyro.sample(name, dist.Normal(loc, 1.0))


def run(optim, steps=1, model=model, guide=guide, **kwargs):
    return fit(
        model,
        guide,
        ReverseKL(1),
        optim=optim,
        progress=False,
        **({"steps": steps} if "epochs" not in kwargs else {}),
        **kwargs,
    )


def sgd(lr=1.0):
    return pyro.optim.SGD({"lr": lr})


def places(result):
    return {name.removesuffix(".loc"): p.item() for name, p in result.params.items()}


def test_a_result_says_by_what_it_was_made():
    assert run(sgd(0.5)).optimizer == "SGD (lr=0.5)"
    groups = run({"a": sgd(1.0), "b": sgd(0.1)}, clip_norm=2.5).optimizer
    assert groups == "a: SGD (lr=1); b: SGD (lr=0.1), norm of gradients clipped at 2.5"


def test_a_result_says_where_learning_rates_ended():
    falling = pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.5})
    by = "ClippedAdam (lr=0.1, lrd=0.5), learning rate 0.025 at the end"
    assert run(falling, steps=2).optimizer == by
    schedule = {"optimizer": SGD, "optim_args": {"lr": 1.0}, "gamma": 0.5}
    told = run(pyro.optim.ExponentialLR(schedule), steps=3).optimizer
    assert told.endswith("(gamma=0.5), learning rate 0.125 at the end")


def test_every_group_has_its_own_rate():
    result = run({"a": sgd(1.0), "b": sgd(0.1)})
    assert places(result) == pytest.approx({"a": 3.0, "b": 0.4})


def test_clipping_keeps_the_direction_of_all_parameters_together():
    """The gradient (3, 4) of norm 5 becomes one of norm 2; a longer limit changes nothing."""
    assert places(run(sgd(), clip_norm=2.0)) == pytest.approx({"a": 1.2, "b": 1.6}, rel=1e-5)
    groups = {"a": sgd(), "b": sgd()}
    assert places(run(groups, clip_norm=2.0)) == pytest.approx({"a": 1.2, "b": 1.6}, rel=1e-5)
    assert places(run(sgd(), clip_norm=5.1)) == pytest.approx({"a": 3.0, "b": 4.0})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x).squeeze(-1)


def test_modules_are_groups_by_their_names():
    encoder, encoder2 = Net(), Net()
    before = [p.detach().clone() for p in (*encoder.parameters(), *encoder2.parameters())]
    x = torch.ones(2)

    def pull():
        pyro.module("encoder2", encoder2)
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("pull", z + encoder2(x))

    def encode():
        pyro.module("encoder", encoder)
        pyro.sample("z", dist.Normal(encoder(x), 1.0))

    with pytest.raises(InvalidArgument, match=r"'encoder2.linear.weight' begins with each of \['e"):
        run({"encoder": sgd(), "encoder2": sgd()}, model=pull, guide=encode)
    run({"encoder.": sgd(0.0), "encoder2": sgd(0.5)}, model=pull, guide=encode)
    after = [*encoder.parameters(), *encoder2.parameters()]
    assert [torch.equal(p, q) for p, q in zip(before, after, strict=True)] == [True] * 2 + [
        False
    ] * 2
    torch.testing.assert_close(after[3], before[3] + 0.5)


def test_modules_that_pyro_does_not_know_are_trained_under_their_own_names():
    """Also where model and guide have parameters of the same name."""

    class Model(Net):
        def forward(self):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("pull", z + super().forward(torch.ones(2)))

    class Guide(Net):
        def forward(self):
            pyro.sample("z", dist.Normal(super().forward(torch.ones(2)), 1.0))

    result = run({"linear": sgd(0.5), "guide.": sgd(0.5)}, model=Model(), guide=Guide(), steps=2)
    assert set(result.params) == {
        *("linear.weight", "linear.bias", "guide.linear.weight", "guide.linear.bias"),
    }
    start = {n: p.detach() for n, p in result.model.named_parameters()}
    assert torch.equal(result.params["linear.bias"], start["linear.bias"])
    gained = run({"": sgd(0.5)}, model=result.model, guide=result.guide, steps=1)
    torch.testing.assert_close(gained.params["linear.bias"], result.params["linear.bias"] + 0.5)


def test_a_group_without_parameters_is_a_warning():
    with pytest.warns(KLModesWarning, match=r"optim: no parameter's name begins with 'c'"):
        run({"a": sgd(), "b": sgd(), "c": sgd()})


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"a": sgd()}, r"parameter 'b.loc' begins with none of \['a'\]"),
        ({"": sgd(), "a": sgd()}, "parameter 'a.loc' begins with each of"),
        ({}, "optim is empty"),
        (torch.optim.SGD, "is not an optimizer of pyro.optim"),
        ({"a": 0.1}, "optim=0.1 is not an optimizer"),
        ({1: sgd()}, "by beginning of the parameters' names"),
    ],
)
def test_bad_optimizers_are_refused_before_training(optim, message):
    steps = []
    with pytest.raises(InvalidArgument, match=message):
        run(optim, callbacks=[steps.append])
    assert not steps


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.inf, math.nan, "1"])
def test_bad_norms_are_refused(clip_norm):
    with pytest.raises(InvalidArgument, match="clip_norm="):
        run(sgd(), clip_norm=clip_norm)


def halving():
    return pyro.optim.ExponentialLR({"optimizer": SGD, "optim_args": {"lr": 1.0}, "gamma": 0.5})


def by_function():
    return pyro.optim.LambdaLR(
        {"optimizer": SGD, "optim_args": {"lr": 1.0}, "lr_lambda": lambda count: 0.5**count}
    )


@pytest.mark.parametrize("schedule", [halving, by_function])
def test_schedules_go_by_steps_or_epochs(schedule):
    """Three steps at 1, 1/2, 1/4; three epochs of two steps at the same rates."""
    assert places(run(schedule(), steps=3))["a"] == pytest.approx(3 * 1.75)
    batches = [torch.ones(2), torch.ones(2)]
    result = run(
        schedule(), model=lambda x: model(), guide=lambda x: guide(), batches=batches, epochs=3
    )
    assert places(result)["a"] == pytest.approx(2 * 3 * 1.75)


def test_schedules_of_groups_are_their_own():
    result = run({"a": halving(), "b": sgd(0.1)}, steps=3)
    assert places(result) == pytest.approx({"a": 3 * 1.75, "b": 3 * 0.4})


def test_a_plateau_is_seen_in_the_loss():
    """With noise of its own only, a loss that stays lowers the rate after its patience."""
    optim = pyro.optim.ReduceLROnPlateau(
        {"optimizer": SGD, "optim_args": {"lr": 0.0}, "factor": 0.5, "patience": 0}
    )
    run(optim, steps=40)
    rates = {s.optimizer.param_groups[0]["lr"] for s in optim.optim_objs.values()}
    assert rates == {0.0}
    assert {s.last_epoch for s in optim.optim_objs.values()} == {40}
    assert all(s.best < math.inf for s in optim.optim_objs.values())


def test_backing_off_halves_the_rates_of_schedules_too():
    steps = []

    def failing():
        model()
        pyro.factor("broken", torch.tensor(math.nan if len(steps) == 2 else 0.0))

    with pyro.validation_enabled(False):
        result = run(
            by_function(), steps=4, model=failing, on_nonfinite="backoff", callbacks=[steps.append]
        )
    assert result.losses.isnan().tolist() == [False, False, True, False]
    # steps at 1 and 1/2, of which the second is taken back, then one at half of 1/8
    assert places(result)["a"] == pytest.approx(3 * (1 + 0.5 / 8))


def test_rules_for_stopping_see_groups_as_one():
    stop = StopWhenConverged(min_steps=0, every=50, window=20, tolerance=10.0)
    run({"a": sgd(0.0), "b": sgd(0.0)}, steps=100, callbacks=[stop])
    assert stop._log.since(0).shape == (100, 3)


class Slopes(nn.Module):
    """Parameters that get a gradient in some steps only: every third step leaves ``b`` out."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([0.3, -0.2])), nn.Parameter(torch.tensor(0.1))
        self.calls = 0

    def guide(self):
        pyro.module("slopes", self)
        self.calls += 1
        loc = self.a.sum() if self.calls % 3 == 0 else self.a.prod() + self.b
        pyro.sample("z", dist.Normal(loc, 0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pyro.optim.Adam({"lr": 0.05, "betas": (0.8, 0.9)}),
        lambda: pyro.optim.SGD({"lr": 0.05, "momentum": 0.9}),
        lambda: pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.9}),
        lambda: pyro.optim.Adam(lambda name: {"lr": 0.1 if name.endswith("a") else 0.01}),
        lambda: pyro.optim.Adam({"lr": 0.05}, {"clip_norm": 0.1}),
    ],
    ids=["Adam", "momentum", "ClippedAdam", "rates by name", "clipped"],
)
def test_many_parameters_in_one_call_move_as_they_do_one_by_one(make):
    """Bitwise what the Pyro optimizer does with a torch optimizer for each."""

    def target():
        pyro.sample("z", dist.Normal(2.0, 1.0))

    def moved(move):
        slopes, optim = Slopes(), make()
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        with pyro.validation_enabled(is_validate=True):
            for _ in range(12):
                ReverseKL(4).loss_and_grads(target, slopes.guide)
                params = [p for p in slopes.parameters() if p.grad is not None]
                move(optim, params)
                for p in params:
                    p.grad = None
        states = [optim.optim_objs[p].state_dict()["state"] for p in slopes.parameters()]
        return [p.detach() for p in slopes.parameters()], states

    fused = {}

    def together(optim, params):
        fused.setdefault(optim, Fused(optim))(params)

    ours, our_states = moved(together)
    theirs, their_states = moved(lambda optim, params: optim(params))
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
    assert str(our_states) == str(their_states)


def test_rates_that_a_callback_changes_are_those_of_the_next_step():
    optim = pyro.optim.SGD({"lr": 1.0})

    def change(info):
        if info.step == 5:
            for each in optim.optim_objs.values():
                each.param_groups[0]["lr"] = 0.1

    result = run(optim, steps=10, callbacks=[change])
    assert float(result.params["a.loc"]) == pytest.approx(SLOPES["a"] * (6 * 1.0 + 4 * 0.1))


def test_adamw_is_an_optimizer_too():
    result = run(pyro.optim.AdamW({"lr": 0.1, "weight_decay": 0.0}), steps=5)
    assert float(result.params["a.loc"]) == pytest.approx(0.5)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_parameter_with_two_names_moves_once(engine):
    class Shared(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.0))
            self.same = self.loc

        def forward(self):
            for name in SLOPES:
                pyro.sample(name, dist.Normal(self.loc, 1.0))

    shared = Shared()
    run(sgd(), steps=3, guide=shared, engine=engine)
    assert shared.loc.item() == pytest.approx(3 * (3.0 + 4.0))
