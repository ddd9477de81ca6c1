"""Minibatches of every kind reach model and guide; what is wrong with them is said before training.

The model is a standard normal per datum seen with unit noise, so that the guide ``N(slope x, sd)``
contains the posterior ``N(x / 2, 1 / 2)``; ReverseKL of it is exact at any K there.
"""

import math
from collections import namedtuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    random_split,
)

from pyro_klmodes import ReverseKL, estimators, fit
from pyro_klmodes.errors import InvalidArgument, KLModesWarning, NonFiniteLoss
from pyro_klmodes.inference import by_index
from pyro_klmodes.inference.batches import runs_other_code

X = torch.linspace(-3, 3, 22, dtype=torch.float64)
calls: list = []


@pytest.fixture(autouse=True)
def forget_calls():
    calls.clear()


def model(x, size=None):
    calls.append((x, size))
    with pyro.plate("data", size or len(x), subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x, size=None):
    slope = pyro.param("slope", lambda: torch.zeros(()))
    sd = pyro.param("sd", lambda: torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("data", size or len(x), subsample_size=len(x)):
        pyro.sample("z", dist.Normal(slope * x, sd))


def indexed_model(x, subsample=None):
    with pyro.plate("data", len(x), subsample=subsample) as index:
        calls.append(index)
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def indexed_guide(x, subsample=None):
    slope = pyro.param("slope", lambda: torch.zeros(()))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        pyro.sample("z", dist.Normal(slope * x[index], 0.7))


def run(batches, *args, model=model, guide=guide, lr=0.05, **kwargs):
    kwargs = {"progress": False, "optim": pyro.optim.Adam({"lr": lr}), **kwargs}
    return fit(model, guide, ReverseKL(1), *args, batches=batches, **kwargs)


def loader(x=X, size=5, **kwargs):
    return DataLoader(TensorDataset(x), batch_size=size, **kwargs)


def batches_of_steps():
    """The batches that the model saw in training: a survey looks at the first one several times."""
    seen = [x for x, _ in calls]
    return seen[-5:]


def test_a_loader_is_learned_from():
    """Starts of 0 and 1 are 0.5 and 0.29 away; the tolerances are at least five times smaller."""
    result = fit(
        model,
        guide,
        ReverseKL(1, estimator=estimators.doubly),
        batches=loader(shuffle=True),
        epochs=25,
        optim=pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.06}, "gamma": 0.95}
        ),
        progress=False,
    )
    assert result.steps == 25 * 5
    assert result.epochs == 25
    assert result.params["slope"].item() == pytest.approx(0.5, abs=0.02)
    assert result.params["sd"].item() == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_every_batch_of_an_epoch_is_seen_once_and_shuffled_by_the_seed():
    result = run(loader(shuffle=True), epochs=1, seed=3)
    seen = torch.cat(batches_of_steps())
    assert torch.equal(seen.sort().values, X)
    assert not torch.equal(seen, X)
    calls.clear()
    again = run(loader(shuffle=True), epochs=1, seed=3)
    assert torch.equal(torch.cat(batches_of_steps()), seen)
    assert torch.equal(again.losses, result.losses)


Pair = namedtuple("Pair", ["x", "size"])


@pytest.mark.parametrize(
    ("batches", "args"),
    [
        ([X[:4], X[4:9]], ()),
        ([(X[:4],), [X[4:9]]], ()),
        ([(X[:4], 22), (X[4:9], 22)], ()),
        ([X[:4], X[4:9]], (22,)),
        ([{"x": X[:4], "size": 22}, {"x": X[4:9], "size": 22}], ()),
        ((Pair(X[:4], 22), Pair(X[4:9], 22)), ()),
    ],
    ids=["tensor", "sequence", "tuple", "tensor and argument", "dict", "namedtuple"],
)
def test_batches_become_arguments(batches, args):
    result = run(batches, *args, epochs=2)
    seen = calls[-4:]
    for (x, size), start, stop in zip(seen, (0, 4, 0, 4), (4, 9, 4, 9), strict=True):
        assert torch.equal(x, X[start:stop])
        assert size in (None, 22)
    assert result.steps == 4
    assert {size for _, size in calls} == {22 if args or len(batches[0]) == 2 else None}


def test_keywords_go_with_every_batch():
    run([X[:4]], epochs=1, size=22)
    assert {size for _, size in calls} == {22}


@pytest.mark.parametrize(
    "sampler",
    [
        BatchSampler(SequentialSampler(X), 8, drop_last=False),
        [[*range(8)], torch.arange(8, 16), list(range(16, 22))],
    ],
)
def test_indices_are_given_as_a_subsample(sampler):
    result = run(by_index(sampler), X, model=indexed_model, guide=indexed_guide, epochs=2)
    assert [c.tolist() for c in calls[-3:]] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 22)),
    ]
    assert result.steps == 6
    assert result.kwargs == {}  # neither model nor guide insists on indices
    assert result.draws(3).log_w.shape == (3, 22)


def test_indices_are_kept_where_they_are_insisted_on():
    def insisting(x, rows):
        indexed_model(x, rows)

    def its_guide(x, rows):
        indexed_guide(x, rows)

    sampler = by_index([[1, 3], [0, 2, 4]], name="rows")
    result = run(sampler, X, model=insisting, guide=its_guide, epochs=1)
    assert result.kwargs["rows"].tolist() == [1, 3]
    assert result.draws(3).log_w.shape == (3, 2)


def stacked(items):
    return torch.stack([x for (x,) in items])


class Noisy(Dataset):
    """Its items are not what its tensors hold."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + torch.randn(())


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (loader(), X),
        (loader(shuffle=True, drop_last=True), X),
        (DataLoader(Subset(TensorDataset(X), [4, 2, 7]), batch_size=2), X[[4, 2, 7]]),
        (DataLoader(Noisy(), batch_size=5), None),
        (DataLoader(TensorDataset(X), batch_size=5, collate_fn=stacked), None),
        ([X[:4], X[4:]], X[:4]),
    ],
    ids=["tensors", "dropping", "subset", "augmented", "collated", "list"],
)
def test_the_result_knows_all_data_or_the_first_batch(batches, expected):
    result = run(batches, epochs=1)
    if expected is None:
        assert len(result.args[0]) == 5
    else:
        assert torch.equal(result.args[0], expected)
    assert result.sample(2)["z"].shape == (2, len(result.args[0]))


def test_draws_after_a_fit_on_a_split_are_for_all_of_it():
    part, _ = random_split(TensorDataset(X), [12, 10])
    result = run(DataLoader(part, batch_size=5), epochs=1)
    assert torch.equal(result.args[0], X[part.indices])
    assert result.log_weights(3).shape == (3, 12)


def test_callbacks_are_told_of_epochs():
    class Watch:
        def __init__(self):
            self.steps, self.epochs = [], []

        def before_fit(self, model, guide, parameters):
            self.parameters = parameters

        def __call__(self, info):
            self.steps.append((info.step, info.epoch))

        def after_epoch(self, info):
            self.epochs.append((info.step, info.epoch, sorted(self.parameters())))

    watch = Watch()
    run([X[:4], X[4:]], epochs=2, callbacks=[watch])
    assert watch.steps == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert watch.epochs == [(1, 0, ["sd", "slope"]), (3, 1, ["sd", "slope"])]


def test_a_callback_can_stop_after_an_epoch():
    class Stop:
        def __call__(self, info):
            pass

        def after_epoch(self, info):
            return info.epoch == 1

    assert run([X[:4], X[4:]], epochs=5, callbacks=[Stop()]).steps == 4


def test_steps_go_round_and_end_within_an_epoch():
    result = run([X[:4], X[4:9], X[9:]], steps=7)
    assert result.steps == 7
    assert result.epochs == 2


def test_a_thousand_steps_without_being_told():
    seen = []
    # the model counts its calls, which no graph could
    stop = [lambda info: seen.append(info) or info.step == 3]
    run([X[:4]], callbacks=stop, engine="eager")
    assert len(seen) == 4
    assert seen[-1].epoch == 3


def test_no_epochs_without_batches():
    seen = []
    result = fit(model, guide, ReverseKL(1), X, steps=2, callbacks=[seen.append], progress=False)
    assert [info.epoch for info in seen] == [None, None]
    assert result.epochs is None


@pytest.mark.parametrize("first", [0, 1])
def test_a_batch_of_one_works(first):
    batches = [X[:6], X[6:7]] if first else [X[6:7], X[:6]]
    result = fit(model, guide, ReverseKL(3), batches=batches, epochs=3, progress=False)
    assert result.losses.isfinite().all()
    assert result.steps == 6


def test_generators_are_gone_through_once():
    assert run((X[i : i + 2] for i in range(0, 22, 2)), epochs=1).steps == 11
    assert run((X[:4] for _ in iter(int, 1)), steps=7).steps == 7


def test_a_generator_that_ends_early_says_so():
    with pytest.warns(KLModesWarning, match="ended after 3 of steps=10"):
        result = run((X[:4] for _ in range(3)), steps=10)
    assert result.steps == 3


def test_the_progress_bar_shows_epochs_and_changes_nothing(capsys):
    shown = run(loader(shuffle=True), epochs=2, progress=True)
    assert "epoch 2 of 2" in capsys.readouterr().out
    assert torch.equal(shown.losses, run(loader(shuffle=True), epochs=2).losses)
    run(iter([X, X]), steps=2, progress=True)
    assert "epoch 1, " in capsys.readouterr().out


class Once:
    """Can be iterated over once and does not say so."""

    def __init__(self):
        self.batches = iter([X[:4], X[4:]])

    def __iter__(self):
        return self.batches


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([X[:4], X[:0]], "batch 1 is empty"),
        ([(X[:4],), (X[:0],)], "batch 1 is empty"),
        ([{"x": X[:4]}, {}], "batch 1 is empty"),
        ([(), ()], "batch 0 is empty"),
        ([], "batches is empty"),
        (loader(X[:3], drop_last=True), "batches is empty. A DataLoader with drop_last"),
        (DataLoader(TensorDataset(X), batch_sampler=[[1, 2], []]), "batch 1 of batch_sampler is e"),
        ([X[:4], 3.0], "batch 1 is of type float"),
        ([X[:4], "abc"], "batch 1 is of type str"),
        ([{1: X[:4]}], "key 1, which is no keyword"),
        ([[0, 1, 2]], r"integers. If they are indices, say so: batches=by_index\(sampler\)"),
        (BatchSampler(SequentialSampler(X), 4, drop_last=False), "BatchSampler yields indices"),
        (RandomSampler(X), "RandomSampler yields indices"),
        (by_index(SequentialSampler(X)), "single index 0. Wrap the sampler"),
        (by_index([[0, 1], []]), "batch 1 is empty"),
        (by_index([[0, -1]]), "none of them negative"),
        (by_index([[0.5, 1.0]]), "a list of indices"),
        (by_index([torch.zeros(2, 2, dtype=torch.long)]), "one-dimensional"),
        (by_index(["ab"]), "a list of indices"),
        (TensorDataset(X), "TensorDataset is a data set; pass DataLoader"),
        (X, "not of type Tensor; pass DataLoader"),
        ({"x": X}, "not of type dict"),
        (7, "not of type int"),
        ((x for x in [X[:4]]), "only once, but epochs=2"),
        (by_index(iter([[0, 1]])), "only once, but epochs=2"),
    ],
)
def test_what_is_no_batch_is_refused_before_training(batches, message):
    steps = []
    with pytest.raises(InvalidArgument, match=message):
        run(batches, epochs=2, callbacks=[steps.append])
    assert not steps


def test_a_batch_that_turns_out_empty_is_named():
    class Later:
        def __iter__(self):
            return iter([X[:4], X[:0]])

    with pytest.raises(InvalidArgument, match="batch 1 of epoch 0 is empty"):
        run(Later(), epochs=2)


def test_batches_that_are_used_up_are_noticed():
    with pytest.raises(InvalidArgument, match="epoch 1 has no batches: they can be iterated over"):
        run(Once(), epochs=2)


def test_a_key_that_is_also_an_argument_is_refused():
    with pytest.raises(InvalidArgument, match="batch 0 of epoch 0 holds 'size', which fit was al"):
        run([{"x": X[:4], "size": 22}], epochs=1, size=22)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"steps": 5, "epochs": 2}, "steps=5 and epochs=2 exclude each other"),
        ({"epochs": -1}, "epochs=-1 must be a non-negative integer"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"epochs": True}, "epochs=True"),
        ({"epochs": 2, "batches": None}, "epochs=2 counts passes over batches, and there are none"),
    ],
)
def test_steps_and_epochs_are_checked(kwargs, message):
    kwargs = {"batches": [X[:4]], **kwargs}
    with pytest.raises(InvalidArgument, match=message):
        run(kwargs.pop("batches"), **kwargs)


def test_no_epochs_leave_the_guide_at_its_start():
    result = run([X[:4]], epochs=0)
    assert result.steps == 0
    assert result.params["slope"].item() == 0.0


def test_not_a_number_in_a_batch_is_located():
    bad = X[4:9].clone()
    bad[2] = math.nan
    words = "step 3, epoch 1: .* site 'z' is nan .* argument 0 has 1 of 5 entries that are not fin"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLoss, match=words) as caught:
        run(Turning(bad), epochs=3)
    assert caught.value.result.steps == 3
    assert caught.value.result.epochs == 1


class Turning:
    """Its second batch is bad from the second epoch on."""

    def __init__(self, bad):
        self.bad = bad
        self.epochs = 0

    def __iter__(self):
        self.epochs += 1
        return iter([X[:4], self.bad if self.epochs > 1 else X[4:9]])


@pytest.mark.parametrize(("sampler", "name"), [(3, "subsample"), ([[1]], 3), ([[1]], "a b")])
def test_by_index_checks_what_it_is_given(sampler, name):
    with pytest.raises(InvalidArgument, match="sampler=3|name="):
        by_index(sampler, name=name)


class Custom(TensorDataset):
    """A data set with code of its own."""


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (None, False),
        ([torch.ones(2)], False),
        (by_index([[0, 1]]), False),
        (DataLoader(TensorDataset(torch.ones(4)), batch_size=2, shuffle=True), False),
        (DataLoader(Custom(torch.ones(4)), batch_size=2), True),
        (DataLoader(TensorDataset(torch.ones(4)), batch_size=2, collate_fn=list), True),
        (by_index(x for x in [[0, 1]]), True),
        (iter([torch.ones(2)]), True),
    ],
)
def test_batches_that_run_code_of_the_user(batches, expected):
    assert runs_other_code(batches) == expected
