"""A fit that is interrupted and called again ends bitwise where one that was not does.

Interruptions here are errors in a callback; ``test_killed.py`` kills processes.
"""

import copy
import math
import os
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from pyro_klmodes import IWAE, AverageIterates, ForwardKL, ReverseKL, StopWhenConverged, fit
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.guides import AutoMixture
from pyro_klmodes.inference import AggressiveInference, Checkpoint, Evaluate, by_index

X = torch.linspace(-2, 3, 13, dtype=torch.float64)


class Interrupted(Exception):
    """What stands for a power cut."""


def model(x=X, subsample=None):
    mean = pyro.param("mean", lambda: torch.zeros(()))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def guide(x=X, subsample=None):
    slope = pyro.param("slope", lambda: 0.1 * torch.randn(()))
    sd = pyro.param("sd", lambda: torch.ones(()), constraint=dist.constraints.interval(0.1, 3.0))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        pyro.sample("z", dist.Normal(slope * x[index], sd))


def global_model(x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    sd = pyro.sample("sd", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sd), obs=x)


class Net(nn.Module):
    """A guide whose weights Pyro does not know, with dropout and running averages."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 1)
        )

    def forward(self, x=X, subsample=None):
        loc = self.net(x[:, None]).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.7))


def loader(size=4, **kwargs):
    return DataLoader(TensorDataset(X), batch_size=size, shuffle=True, **kwargs)


def adam(lr=0.05):
    return pyro.optim.Adam({"lr": lr})


def decaying():
    return pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.8}
    )


def stepwise():
    return pyro.optim.MultiStepLR(
        {
            "optimizer": torch.optim.SGD,
            "optim_args": {"lr": 0.02, "momentum": 0.9},
            "milestones": [1, 3],
        }
    )


def by_function():
    return pyro.optim.LambdaLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "lr_lambda": lambda n: 0.9**n}
    )


def plateau():
    return pyro.optim.ReduceLROnPlateau(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "patience": 0, "factor": 0.5}
    )


#: how to make a fit anew; every one is built twice
CASES = {
    "steps": lambda: {"steps": 12},
    "plain optimizer of many": lambda: {"steps": 12, "optim": pyro.optim.ClippedAdam({"lr": 0.1})},
    "epochs": lambda: {"batches": loader(), "epochs": 3},
    "steps within epochs": lambda: {"batches": loader(), "steps": 11},
    "a loader with its own generator": lambda: {
        "batches": loader(generator=torch.Generator().manual_seed(4)),
        "steps": 11,
    },
    "indices": lambda: {
        "args": (X,),
        "batches": by_index(BatchSampler(RandomSampler(X), 4, drop_last=False)),
        "steps": 11,
    },
    "groups": lambda: {
        "batches": loader(),
        "epochs": 3,
        "optim": {"s": decaying(), "mean": pyro.optim.Adagrad({"lr": 0.1})},
        "clip_norm": 1.0,
    },
    "milestones": lambda: {"batches": loader(), "epochs": 4, "optim": stepwise()},
    "function": lambda: {"steps": 12, "optim": by_function()},
    "plateau": lambda: {"batches": loader(), "epochs": 4, "optim": plateau()},
    "autoguide": lambda: {"model": global_model, "guide": AutoNormal(global_model), "steps": 12},
    "Pyro's loss and autoguide": lambda: {
        "model": global_model,
        "guide": AutoLowRankMultivariateNormal(global_model, rank=1),
        "loss": Trace_ELBO(num_particles=3, vectorize_particles=True),
        "steps": 12,
    },
    "Pyro's loss": lambda: {"loss": TraceMeanField_ELBO(), "batches": loader(), "epochs": 3},
    "two losses in one": lambda: {
        "loss": ReweightedWakeSleep(num_particles=3),
        "steps": 12,
    },
    "mixture": lambda: {
        "model": global_model,
        "guide": AutoMixture(global_model, num_components=2),
        "loss": ForwardKL(8),
        "steps": 12,
    },
    "networks": lambda: {"guide": Net(), "loss": IWAE(3), "batches": loader(5), "epochs": 4},
    "networks and Pyro's loss": lambda: {
        "guide": Net(),
        "loss": Trace_ELBO(),
        "batches": loader(5),
        "epochs": 4,
    },
    "inner steps": lambda: {
        "batches": loader(),
        "epochs": 4,
        "inner": AggressiveInference(
            mutual_information=lambda model, guide: -abs(pyro.param("slope").item() - 0.4),
            most=6,
            every=2,
        ),
    },
    "inner steps and Pyro's loss": lambda: {
        "loss": Trace_ELBO(),
        "batches": loader(),
        "steps": 9,
        "inner": AggressiveInference(mutual_information=lambda m, g: 1.0, most=3, every=2),
    },
}


def run(case, path=None, *, stop_at=None, every=None, progress=False, callbacks=(), **changes):
    """A fit, its random start the same where it begins, that may be interrupted after a step."""
    torch.manual_seed(1 if path is None or not path.exists() else 2)
    told = {"model": model, "guide": guide, "loss": ReverseKL(1), "args": (), "optim": adam()}
    told |= case() | changes
    args = [told.pop(name) for name in ("model", "guide", "loss")] + list(told.pop("args"))

    def interrupt(info):
        if info.step == stop_at:
            raise Interrupted

    checkpoint = None if path is None else Checkpoint(path, every=every)
    return fit(
        *args, **told, checkpoint=checkpoint, progress=progress, callbacks=[*callbacks, interrupt]
    )


def everything(result):
    found = {"losses": result.losses, **result.params}
    for function in (result.model, result.guide.unbound):
        if isinstance(function, nn.Module):
            found |= dict(function.named_buffers())
    return found


def assert_same(result, reference):
    one, other = everything(result), everything(reference)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=0, atol=0, equal_nan=True), name


#: the rest is run by `make test-slow`
QUICK = {
    *("steps", "epochs", "steps within epochs", "groups", "function", "Pyro's loss and autoguide"),
    *("networks", "inner steps"),
}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_interrupted_fits_end_where_others_do(name, tmp_path):
    """Two interruptions, each some steps after the last checkpoint."""
    case, path = CASES[name], tmp_path / "fit.ckpt"
    reference = run(case)
    assert reference.steps >= 9
    before = None
    for stop_at in (4, 8):
        with pytest.raises(Interrupted):
            run(case, path, stop_at=stop_at, every=1 if "epochs" in case() else 3)
        assert len(pyro.get_param_store()) == 0
        before = path.stat().st_mtime_ns if path.exists() else before
    assert before is not None
    result = run(case, path, every=1)
    assert_same(result, reference)
    assert result.epochs == reference.epochs
    assert sorted(os.listdir(tmp_path)) == ["fit.ckpt"]


@pytest.mark.parametrize("name", ["steps", "networks"])
def test_a_checkpoint_changes_nothing(name, tmp_path):
    assert_same(run(CASES[name], tmp_path / "fit.ckpt", every=1), run(CASES[name]))


@pytest.mark.parametrize("name", ["epochs", "Pyro's loss"])
def test_a_finished_fit_returns_at_once_or_goes_on(name, tmp_path):
    case, path = CASES[name], tmp_path / "fit.ckpt"
    more = {"epochs": 5} if "epochs" in case() else {"steps": 20}
    first = run(case, path)
    written = path.read_bytes()
    steps = []
    again = run(case, path, callbacks=[steps.append])
    assert not steps
    assert path.read_bytes() == written
    assert_same(again, first)
    assert again.seconds > Checkpoint(path).read()["seconds"] > 0
    longer = run(case, path, callbacks=[steps.append], **more)
    assert steps[0].step == first.steps
    assert_same(longer, run(case, **more))


def callbacks():
    return [
        AverageIterates(start=5),
        AverageIterates(replace=False),
        StopWhenConverged(min_steps=0, every=2, window=20),
        Evaluate(X, num_particles=3),
    ]


def test_callbacks_go_on_too(tmp_path):
    path, case = tmp_path / "fit.ckpt", CASES["epochs"]
    told = callbacks()
    reference = run(case, callbacks=told)
    for stop_at in (2, 9):
        with pytest.raises(Interrupted):
            run(case, path, stop_at=stop_at, callbacks=callbacks())
    resumed = callbacks()
    assert_same(run(case, path, callbacks=resumed), reference)
    assert repr([c.state_dict() for c in resumed]) == repr([c.state_dict() for c in told])
    at_once = callbacks()
    assert_same(run(case, path, callbacks=at_once), reference)
    assert at_once[3].records == told[3].records


class StopAt:
    def __init__(self, step):
        self.step = step

    def __call__(self, info):
        return info.step == self.step


def test_a_fit_that_was_ended_stays_ended_with_that_callback(tmp_path):
    path, case = tmp_path / "fit.ckpt", CASES["epochs"]
    first = run(case, path, callbacks=[StopAt(5)])
    assert first.steps == 6
    assert_same(run(case, path, callbacks=[StopAt(5)], epochs=9), first)
    assert_same(run(case, path), run(case))


def test_backing_off_is_remembered(tmp_path):
    """The step after the interruption is bad and goes back to before the one before it."""
    path = tmp_path / "fit.ckpt"
    steps = []

    def failing(x=X):
        pyro.factor("broken", torch.tensor(math.nan if len(steps) == 6 else 0.0))
        model(x)

    def case():
        return {"model": failing, "steps": 12, "on_nonfinite": "backoff"}

    with pyro.validation_enabled(False):
        reference = run(case, callbacks=[steps.append])
        assert reference.losses.isnan().nonzero().tolist() == [[6]]
        steps.clear()
        with pytest.raises(Interrupted):
            run(case, path, stop_at=6, every=6, callbacks=[steps.append])
        del steps[6:]
        assert_same(run(case, path, callbacks=[steps.append]), reference)


def test_parameters_that_come_late_are_kept(tmp_path):
    """A branch of the model is reached in some steps only; its parameter starts at random."""
    steps, path = [], tmp_path / "fit.ckpt"

    def branching(x=X):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            noise = 1.0
            if len(steps) % 3 == 2:
                start = torch.rand(()) + 0.5
                noise = pyro.param("noise", start, constraint=dist.constraints.softplus_positive)
            pyro.sample("x", dist.Normal(z, noise), obs=x)

    def case():
        return {"model": branching, "steps": 12}

    reference = run(case, callbacks=[steps.append])
    assert "noise" in reference.params
    for stop_at in (4, 7):
        steps[:] = [None] * (stop_at - stop_at % 4 if path.exists() else 0)
        with pytest.raises(Interrupted):
            run(case, path, stop_at=stop_at, every=4, callbacks=[steps.append])
    steps[:] = [None] * 4
    assert_same(run(case, path, callbacks=[steps.append]), reference)


class Counting:
    """Batches that are others in every epoch, by a memory of their own."""

    def __init__(self):
        self.count = 0

    def __iter__(self):
        self.count += 1
        return iter([X[: 3 + self.count], X[5:]])

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_batches_with_a_memory_are_asked_for_it(tmp_path):
    path = tmp_path / "fit.ckpt"

    def case():
        return {"batches": Counting(), "epochs": 5}

    reference = run(case)
    with pytest.raises(Interrupted):
        run(case, path, stop_at=7)
    assert_same(run(case, path), reference)


def test_an_interrupt_by_hand_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "fit.ckpt"

    def by_hand(info):
        if info.step == 7:
            raise KeyboardInterrupt

    assert run(CASES["steps"], path, every=5, callbacks=[by_hand]).interrupted
    assert_same(run(CASES["steps"], path), run(CASES["steps"]))


def other_model(x=X, subsample=None):
    model(x, subsample)


def wider(x=X, subsample=None):
    slope = pyro.param("slope", lambda: torch.zeros(2))
    sd = pyro.param("sd", lambda: torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x), subsample=subsample) as index:
        pyro.sample("z", dist.Normal(slope.sum() * x[index], sd))


wider.__qualname__ = guide.__qualname__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": other_model}, "model was model and is other_model"),
        ({"guide": Net()}, "guide was guide and is Net"),
        ({"loss": ReverseKL(2)}, "num_particles was 1 and is 2"),
        ({"loss": IWAE(1)}, "loss was ReverseKL and is IWAE"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"optim": adam(0.1)}, r"optim was Adam \(lr=0.05\) and is Adam \(lr=0.1\)"),
        ({"clip_norm": 2.0}, "clip_norm was None and is 2.0"),
        ({"on_nonfinite": "skip"}, "on_nonfinite was raise and is skip"),
        ({"batches": [X[:4]]}, "batches_per_epoch was 4 and is 1"),
        ({"epochs": None, "steps": 20}, "counted_in was epochs and is steps"),
        (
            {"guide": wider},
            r"parameter 'slope' was \(\) torch.float64 .* and is \(2,\) .*parameter 'sd' was .*"
            r"Interval.* and is .*GreaterThan",
        ),
        ({"callbacks": [AverageIterates()]}, r"states of \[\], this fit has \['AverageIterates'\]"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(changes, message, tmp_path):
    path = tmp_path / "fit.ckpt"
    run(CASES["epochs"], path)
    written = path.read_bytes()
    with pytest.raises(InvalidArgument, match=message) as caught:
        run(CASES["epochs"], path, **changes)
    assert "callbacks" in changes or f"checkpoint '{path}'" in str(caught.value)
    assert path.read_bytes() == written
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "is truncated or damaged"),
        (lambda data: data[: len(data) // 2], "is truncated or damaged"),
        (lambda data: data[:40], "is truncated or damaged"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "is truncated or damaged"),
        (lambda data: data[:5], "its beginning is lost"),
        (lambda data: b"", "not a checkpoint of this package"),
        (lambda data: pickle.dumps({"step": 1}), "not a checkpoint of this package"),
    ],
)
def test_a_damaged_file_is_refused(damage, message, tmp_path):
    path = tmp_path / "fit.ckpt"
    run(CASES["epochs"], path)
    path.write_bytes(damage(path.read_bytes()))
    written = path.read_bytes()
    with pytest.raises(InvalidArgument, match=message) as caught:
        run(CASES["epochs"], path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == written
    checkpoint = Checkpoint(path, resume=False)
    fit(model, guide, ReverseKL(1), steps=3, checkpoint=checkpoint, progress=False)
    assert Checkpoint(path).read()["losses"].shape == (3,)


class Harmful:
    ran = False

    def __reduce__(self):
        return (setattr, (Harmful, "ran", True))


def test_reading_runs_no_code(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "fit.ckpt")
    monkeypatch.setattr("pyro_klmodes.inference.checkpoint._check_plain", lambda *args: None)
    checkpoint.write({"losses": Harmful()})
    with pytest.raises(InvalidArgument, match="holds more than numbers, strings and tensors"):
        checkpoint.read()
    assert not Harmful.ran


def test_a_file_of_other_versions_is_a_warning(tmp_path, monkeypatch):
    path = tmp_path / "fit.ckpt"
    versions = "pyro_klmodes.inference.training.versions"
    with monkeypatch.context() as patched:
        patched.setattr(versions, lambda: {"torch": "1.0"})
        run(CASES["steps"], path)
    with pytest.warns(KLModesWarning, match="other versions: torch was 1.0 and is"):
        assert run(CASES["steps"], path, steps=15).steps == 15


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "fit.ckpt"
    run(CASES["steps"], path)
    written = path.read_bytes()

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        run(CASES["steps"], path, steps=15)
    assert path.read_bytes() == written
    assert os.listdir(tmp_path) == ["fit.ckpt"]


def test_a_state_that_needs_code_is_refused_at_writing(tmp_path):
    class Careless:
        def __call__(self, info):
            pass

        def state_dict(self):
            return {"when": [1, Interrupted()]}

        def load_state_dict(self, state):
            pass

    with pytest.raises(
        InvalidArgument, match=r"type Interrupted at \['callbacks'\]\[0\]\['state'\]"
    ):
        run(CASES["steps"], tmp_path / "fit.ckpt", callbacks=[Careless()])
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link, path = tmp_path / "link.ckpt", tmp_path / "there" / "fit.ckpt"
    link.symlink_to(path)
    run(CASES["steps"], link)
    assert link.is_symlink()
    assert path.is_file()
    assert_same(run(CASES["steps"], path), run(CASES["steps"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Checkpoint(folder), "a checkpoint is a file in a folder that exists"),
        (lambda folder: Checkpoint(folder / "none" / "fit.ckpt"), "a folder that exists"),
        (lambda folder: Checkpoint(7), "path=7"),
        (lambda folder: Checkpoint(folder / "fit.ckpt", every=0), "every=0"),
        (lambda folder: Checkpoint(folder / "fit.ckpt", every=True), "every=True"),
        (
            lambda folder: fit(model, guide, ReverseKL(), checkpoint="fit.ckpt", progress=False),
            r"checkpoint='fit.ckpt' is none; pass Checkpoint\(path\)",
        ),
    ],
)
def test_bad_arguments_are_named(make, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        make(tmp_path)


def test_how_often_is_counted_in_what_the_fit_counts():
    with_default, often = Checkpoint("fit.ckpt"), Checkpoint("fit.ckpt", every=3)
    assert [n for n in range(1, 301) if with_default.due(n, in_epochs=False)] == [100, 200, 300]
    assert with_default.due(1, in_epochs=True)
    assert [n for n in range(1, 8) if often.due(n, in_epochs=True)] == [3, 6]
    assert copy.copy(often).every == 3
