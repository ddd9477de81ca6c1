"""Mistakes at the front doors are named in words, before anything is run."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference import Checkpoint, Evaluate, by_index, held_out_bound

X = torch.linspace(-1, 1, 6)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.7))


def loader(*more):
    return DataLoader(TensorDataset(X, *more), batch_size=3)


def run(*args, model=model, guide=guide, loss=None, **kwargs):
    loss = ReverseKL(1) if loss is None else loss
    return fit(model, guide, loss, *args, progress=False, **{"steps": 1, **kwargs})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(loader()), "DataLoader was given as a positional .* pass it as batches="),
        (lambda: run(by_index([[0]])), "ByIndex was given as a positional .* pass it as batches="),
        (lambda: held_out_bound(model, guide, loader()), "DataLoader was given as a positional"),
        (lambda: run(X, step=2), "the model takes .* pass steps= instead of step="),
        (lambda: run(X, num_steps=2), "pass steps= instead of num_steps="),
        (lambda: run(X, num_epochs=2), "pass epochs= instead of num_epochs="),
        (lambda: run(X, y=2), "the model takes .* 1 positional argument and keywords .'y'.: got"),
        (lambda: run(), "cannot be called with 0 positional arguments: missing"),
        (lambda: run(batches=loader(X)), "2 positional arguments: .* tuples and lists are spread"),
        (lambda: run(batches=[{"y": X}]), "keywords .'y'.: .* dicts become keywords"),
        (lambda: run(X, batches=by_index([[0]])), "Indices are given as subsample="),
        (lambda: run(X, guide=lambda: None), "the guide takes .* 1 positional argument"),
        (lambda: held_out_bound(model, guide, batches=loader(X)), "tuples and lists are spread"),
        (lambda: run(X, guide=AutoNormal), "guide is the class AutoNormal; make an object of it"),
        (lambda: run(X, model=ReverseKL(1)), "model is an object of type ReverseKL"),
        (lambda: run(X, model=None), "model is None"),
        (
            lambda: run(ReverseKL(1), loss=X),
            r"loss=an object of type Tensor .* order is fit\(model",
        ),
        (lambda: run(X, loss=ReverseKL), "loss=the class ReverseKL is not a loss. Pass an inst"),
        (lambda: run(X, optim=torch.optim.Adam), "optim=the class Adam is not an optimizer of"),
        (lambda: run(optim=X), "optim=an object of type Tensor is not an optimizer"),
        (
            lambda: run(X, callbacks=Evaluate(X)),
            "callbacks is an object of type Evaluate; pass a l",
        ),
        (lambda: run(X, callbacks=[Evaluate]), "callbacks.0. is the class Evaluate; a callback is"),
        (lambda: run(X, callbacks=[print, None]), "callbacks.1. is None; a callback is a function"),
    ],
)
def test_a_mistake_is_named(make, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        make()
    assert "tensor(" not in str(caught.value)
    assert len(pyro.get_param_store()) == 0


def test_a_checkpoint_is_no_callback(tmp_path):
    with pytest.raises(InvalidArgument, match="is a Checkpoint, .* pass it as checkpoint="):
        run(X, callbacks=[Checkpoint(tmp_path / "file")])
    assert not list(tmp_path.iterdir())


class Net(nn.Module):
    """A guide whose arguments are those of ``forward``."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, 0.7))


def giving(function):
    """A wrapper that passes on more than it is given, and is said to be what it wraps."""

    def call():
        return function(X)

    call.__wrapped__ = function
    return call


def given():
    return model(X)


@pytest.mark.parametrize(
    ("model", "guide", "args"),
    [
        (model, Net(), (X,)),
        (poutine.scale(model, scale=2.0), poutine.scale(guide, scale=2.0), (X,)),
        (giving(model), giving(guide), ()),
        (given, AutoNormal(given), ()),
    ],
    ids=["module", "handler", "wrapper", "autoguide"],
)
def test_what_can_be_called_is_not_refused(model, guide, args):
    assert run(*args, model=model, guide=guide).steps == 1


def test_a_module_is_told_by_its_forward():
    with pytest.raises(InvalidArgument, match=r"the guide takes \(x\)"):
        run(X, X, model=lambda x, y: model(x), guide=Net())


def test_a_result_is_printed_without_addresses():
    assert repr(run(X, steps=2, seed=5)) == "FitResult(ReverseKL, steps=2, seed=5)"
    told = run(batches=loader(), steps=None, epochs=2)
    assert repr(told) == "FitResult(ReverseKL, steps=4, epochs=2, seed=0)"
