"""The guide is trained ahead of the model, by its own parameters only, while information grows.

The gradients of the first model are constant, so that plain gradient descent counts the steps that
each parameter has taken.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import ReverseKL, estimators, fit
from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss
from pyro_klmodes.inference import AggressiveInference


def model():
    with pyro.poutine.mask(mask=False):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pull = pyro.param("of model", torch.tensor(0.0)) + 3.0 * pyro.param("shared", torch.tensor(0.0))
    pyro.factor("pull", 2.0 * z + pull)


def guide():
    loc = pyro.param("of guide", torch.tensor(0.0)) + pyro.param("shared", torch.tensor(0.0))
    pyro.sample("z", dist.Normal(loc, 1.0))


def rising():
    values = iter(range(1000))
    return lambda model, guide: float(next(values))


def run(inner, steps, **kwargs):
    told = {"optim": pyro.optim.SGD({"lr": 1.0}), "progress": False, **kwargs}
    return fit(model, guide, ReverseKL(1), steps=steps, inner=inner, **told)


def test_only_the_guides_own_parameters_are_trained_ahead():
    """Three inner steps of gradient 2 before each of four steps; the shared one is the model's."""
    inner = AggressiveInference(mutual_information=rising(), most=3, every=3, check_every=2)
    result = run(inner, 4)
    assert result.params["of guide"].item() == 4 * 3 * 2.0
    assert result.params["of model"].item() == 4
    assert result.params["shared"].item() == 4 * 5.0
    assert inner.inner_steps == 12
    assert inner.history == [0.0, 1.0]
    assert result.steps == 4
    assert len(result.losses) == 4


def test_it_ends_when_information_no_longer_rises():
    """Looks after steps 2 and 4, of which the second sees no gain: two more steps for all."""
    inner = AggressiveInference(
        mutual_information=lambda model, guide: torch.tensor(0.7), most=3, every=3, check_every=2
    )
    result = run(inner, 6)
    assert not inner.active
    assert inner.history == pytest.approx([0.7, 0.7])
    assert result.params["of guide"].item() == 4 * 3 * 2.0 + 2 * 2.0
    assert result.params["of model"].item() == 6
    assert inner.inner_steps == 12
    again = run(inner, 6)
    assert again.params["of guide"].item() == result.params["of guide"].item()


@pytest.mark.parametrize(
    ("losses", "taken"),
    [
        ([5, 5, 4, 4, 3, 3, 2, 2], 8),  # improves up to the most
        ([5, 5, 4, 4, 4, 4, 0, 0], 6),
        ([5, 5, 6, 6, 0, 0, 0, 0], 4),
        ([5, 1, 4, 1, 0, 3, 0, 0], 8),
        ([5, 5, math.nan, 4, math.nan, math.nan, 0, 0], 6),  # nothing but skipped steps
    ],
)
def test_inner_steps_go_on_while_the_mean_loss_falls(losses, taken):
    inner = AggressiveInference(mutual_information=rising(), most=8, every=2)
    told = iter(losses)
    inner.catch_up(lambda: float(next(told)))
    assert inner.inner_steps == taken


def test_parameters_are_found_in_modules_too():
    """Those of a decoder that both call are the model's."""
    torch.manual_seed(0)
    decoder, encoder = nn.Linear(1, 1), nn.Linear(1, 1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def forward(self, x):
            loc = self.encoder(x) * self.decoder.weight.detach()
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    start = decoder.weight.detach().clone(), encoder.weight.detach().clone()
    optim = {
        "decoder": pyro.optim.SGD({"lr": 0.0}),
        "encoder": pyro.optim.SGD({"lr": 0.01}),
    }
    inner = AggressiveInference(mutual_information=rising(), most=2, every=2)
    loader = DataLoader(TensorDataset(torch.randn(8, 1)), batch_size=4, shuffle=True)
    fit(
        *(Model(), Guide(), ReverseKL(1)),
        batches=loader,
        epochs=2,
        inner=inner,
        optim=optim,
        progress=False,
    )
    assert torch.equal(decoder.weight, start[0])
    assert not torch.equal(encoder.weight, start[1])
    assert inner.inner_steps == 4 * 2
    assert inner.history == [0.0, 1.0]  # at the ends of the epochs


def linear_model(x):
    w = pyro.param("w", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(w * z, 0.5), obs=x)


def linear_guide(x):
    slope = pyro.param("slope", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.3))


def test_the_guide_lags_less():
    """Of the posterior mean w x / (w^2 + 1/4), whose slope the guide has to learn from 0.

    At the start it is 1 off.
    """
    x = 2 * torch.randn(200)
    lags = {}
    for name in ("ordinary", "aggressive"):
        inner = AggressiveInference(mutual_information=rising(), most=50, every=5)
        result = fit(
            linear_model,
            linear_guide,
            ReverseKL(1, estimator=estimators.pathwise),
            batches=DataLoader(TensorDataset(x), batch_size=50, shuffle=True),
            epochs=2,
            optim=pyro.optim.Adam({"lr": 0.02}),
            inner=inner if name == "aggressive" else None,
            progress=False,
        )
        w, slope = result.params["w"].item(), result.params["slope"].item()
        lags[name] = abs(slope - w / (w**2 + 0.25))
    assert lags["ordinary"] > 0.6
    assert lags["aggressive"] < 0.1


def test_information_is_asked_for_without_disturbing_anything():
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    training = []

    def dropping():
        pyro.module("net", net)
        pyro.sample("z", dist.Normal(net(torch.ones(1)).squeeze(), 1.0))

    def noisy(model, guide):
        guide()
        training.append(net[1].training)
        return len(training)

    losses = []
    for information in (noisy, rising()):
        net.load_state_dict({"0.weight": torch.ones(1, 1), "0.bias": torch.zeros(1)})
        inner = AggressiveInference(mutual_information=information, most=1, every=1, check_every=1)
        result = fit(model, dropping, ReverseKL(1), steps=3, inner=inner, progress=False)
        losses.append(result.losses)
    assert training == [False] * 3
    assert net[1].training
    assert torch.equal(*losses)


def test_a_bad_inner_step_says_where_it_was():
    def broken():
        pyro.factor("broken", guarded())
        model()

    inner = AggressiveInference(mutual_information=rising(), most=5, every=5)
    words = "inner step before step 0: .*'broken' is nan"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLoss, match=words) as caught:
        fit(
            *(broken, guide, ReverseKL(1)),
            steps=3,
            inner=inner,
            optim=pyro.optim.SGD({"lr": 1.0}),
            progress=False,
        )
    assert caught.value.result.params["of guide"].item() == 6.0


def guarded():
    """NaN once the guide has gone three steps."""
    store = pyro.get_param_store()
    gone = "of guide" in store and store["of guide"].item() > 5.0
    return torch.tensor(math.nan if gone else 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_information_must_be_a_number(value):
    inner = AggressiveInference(mutual_information=lambda m, g: value, check_every=1, most=1)
    with pytest.raises(InvalidArgument, match=f"mutual_information is {value} at look 0"):
        run(inner, 2)


def test_a_guide_without_parameters_of_its_own_is_refused():
    def bare():
        pyro.sample("z", dist.Normal(pyro.param("shared", torch.tensor(0.0)), 1.0))

    inner = AggressiveInference(mutual_information=rising())
    with pytest.raises(InvalidArgument, match="inner: the guide has no parameters"):
        fit(model, bare, ReverseKL(1), steps=1, inner=inner, progress=False)


class Remembering(list):
    """Batches with a state."""

    def state_dict(self):
        return {}


@pytest.mark.parametrize(
    ("inner", "batches", "message"),
    [
        ("aggressive", [torch.ones(2)], "inner='aggressive' is no AggressiveInference"),
        (None, iter([torch.ones(2)]), "inner steps take minibatches of their own, and batches can"),
        (None, Remembering([torch.ones(2)]), "a state of its own has one iterator only"),
        (
            None,
            DataLoader(TensorDataset(torch.ones(2)), num_workers=1, persistent_workers=True),
            "persistent_workers",
        ),
    ],
)
def test_what_cannot_be_gone_through_twice_is_refused(inner, batches, message):
    inner = inner or AggressiveInference(mutual_information=rising())
    with pytest.raises(InvalidArgument, match=message):
        fit(model, guide, ReverseKL(1), batches=batches, epochs=1, inner=inner, progress=False)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"most": 0}, "most=0"),
        ({"every": 0}, "every=0"),
        ({"check_every": True}, "check_every=True"),
        ({"mutual_information": 3.0}, "mutual_information=3.0 must be a function"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        AggressiveInference(**{"mutual_information": rising(), **kwargs})
