"""``klmodes train`` from the command line to the files it leaves."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch

from pyro_klmodes.__main__ import main
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.named_choices import known_losses
from pyro_klmodes.training import load_task
from pyro_klmodes.training.command import named_loss

# z_i ~ N(0, 1), x_i ~ N(z_i, 1): x_i ~ N(0, 2), and the encoder's best is slope 1/2, sd sqrt(1/2).
TASK_FILE = """
import os
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

steps = 0


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.constant_(self.linear.bias, 2.0)  # far off
        self.raw_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.linear(x[:, None])[:, 0], 0.01 + self.raw_scale.exp()


def model(x):
    global steps
    steps += 1
    if str(steps) == os.environ.get("TEST_INTERRUPT_AT"):
        raise KeyboardInterrupt
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def made(**changed):
    generator = torch.Generator().manual_seed(0)
    x = 2**0.5 * torch.randn(120, generator=generator)
    encoder = Encoder()

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encoder(x)))

    kept = dict(
        name="one normal each",
        model=model,
        guide=guide,
        train=TensorDataset(x[:80]),
        test=TensorDataset(x[80:]),
        batch_size=20,
        learning_rate=0.05,
        epochs=2,
        exact=lambda x: dist.Normal(0.0, 2**0.5).log_prob(x),
    )
    return SimpleNamespace(**{**kept, **changed})


def training():
    return made()


def pictures_training():
    def reconstructions(x):
        return x.sigmoid()[:, None, None].expand(-1, 3, 2), torch.ones(len(x), 3, 2)

    return made(samples=lambda number: torch.rand(number, 3, 2), reconstructions=reconstructions)


class Batches(IterableDataset):
    def __iter__(self):
        for _ in range(3):
            yield (torch.randn(20),)


def fresh_training():
    return made(train=Batches())


def counts(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z), obs=x)


class ByIndex:
    def model(self, x, subsample=None):
        with pyro.plate("data", len(x), subsample=subsample) as index:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def __init__(self):
        self.encoder = Encoder()

    def guide(self, x, subsample=None):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample=subsample) as index:
            pyro.sample("z", dist.Normal(*self.encoder(x[index])))


def index_training():
    pair = ByIndex()
    return made(model=pair.model, guide=pair.guide)


def index_fresh_training():
    pair = ByIndex()
    return made(model=pair.model, guide=pair.guide, train=Batches())


def shared(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def shared_training():
    return made(model=shared, guide=lambda x: pyro.sample("mu", dist.Normal(0.0, 1.0)))


def binary_training():
    return made(model=counts)


def dimly(x):
    raise ValueError("the\\nlamp is off")


def dim_training():
    return made(model=dimly)


def partial_training():
    return SimpleNamespace(name="partial", model=model)


def broken_training():
    raise KeyError("no data")


def empty_training():
    return made(test=TensorDataset(torch.zeros(0)))


def list_training():
    return made(train=[1.0, 2.0])


def endless_training():
    return made(test=Batches())


def backwards_training():
    return made(learning_rate=-0.1)


def never_training():
    return made(epochs=0)
"""


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(TASK_FILE, encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command; return exit code, stdout, stderr and the output folder."""

    def run_with(*arguments, out="out"):
        folder = tmp_path / out
        code = main(["train", *map(str, arguments), "--out", str(folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, folder

    return run_with


def rows(folder, name):
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_from_a_task_to_tables_figures_and_a_summary(run, task_file):
    code, out, err, folder = run(task_file, "--loss", "iwae", "--epochs", 20, "--lr", 0.1)

    assert (code, err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt",
        "held_out.csv",
        "learning.png",
        "losses.csv",
        "summary.json",
    }
    losses, looks, found = rows(folder, "losses"), rows(folder, "held_out"), summary(folder)
    assert [int(row["step"]) for row in losses] == list(range(1, 81))
    assert [int(row["epoch"]) for row in losses] == [e for e in range(1, 21) for _ in range(4)]
    assert [int(row["step"]) for row in looks] == list(range(4, 81, 4))
    # Exact: the held-out data under N(0, 2).
    x = load_task(str(task_file)).test[:][0]
    exact = float((-0.25 * x**2).mean()) - 0.5 * math.log(4 * math.pi)
    assert found["exact_log_evidence"] == pytest.approx(exact, abs=1e-6)
    assert found["held_out_bound"] == pytest.approx(exact, abs=0.005)
    assert exact - float(looks[0]["bound"]) > 5 * 0.005
    assert found["num_particles"] == 8
    assert (found["epochs"], found["steps"], found["batch_size"]) == (20, 80, 20)
    assert f"{found['held_out_bound']:.4f}" in out
    assert str(folder) in out
    assert found["command"].startswith(f"klmodes train {task_file} --loss iwae --epochs 20")


def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(run, task_file):
    _, _, _, whole = run(task_file, "--epochs", 4, "--seed", 3, out="whole")
    run(task_file, "--epochs", 1, "--seed", 3)
    code, _, _, folder = run(task_file, "--epochs", 4, "--seed", 3, "--resume")

    assert code == 0
    for name in ("losses", "held_out"):
        assert rows(folder, name) == rows(whole, name)
    for number in ("held_out_bound", "last_loss", "epochs"):
        assert summary(folder)[number] == summary(whole)[number]
    other = run(task_file, "--epochs", 4, "--seed", 4, out="other")[3]
    assert rows(other, "losses") != rows(whole, "losses")


@pytest.mark.parametrize("calls", ["25", "60"])  # of the model: in the first epoch, and after it
def test_an_interrupt_keeps_what_was_done_and_says_how_to_go_on(run, task_file, monkeypatch, calls):
    monkeypatch.setenv("TEST_INTERRUPT_AT", calls)
    code, _, err, folder = run(task_file, "--epochs", 5)

    assert code == 130
    assert err == "klmodes: interrupted; go on with the same command and --resume\n"
    done = summary(folder)
    assert done["interrupted"]
    assert 0 < done["steps"] < 20
    assert done["held_out_bound"] is None
    assert len(rows(folder, "losses")) == done["steps"]
    assert bool(rows(folder, "held_out")) == (calls == "60")

    monkeypatch.delenv("TEST_INTERRUPT_AT")
    code, _, err, _ = run(task_file, "--epochs", 5, "--resume")
    _, _, _, whole = run(task_file, "--epochs", 5, out="whole")
    assert (code, err) == (0, "")
    assert rows(folder, "losses") == rows(whole, "losses")


def test_pictures_are_drawn_of_tasks_that_have_them(run, task_file):
    code, _, _, folder = run(f"{task_file}:pictures_training", "--epochs", 1)

    assert code == 0
    for name in ("samples.png", "reconstructions.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n")


def test_data_that_are_always_new_come_in_batches_of_their_own(run, task_file):
    code, _, err, folder = run(f"{task_file}:fresh_training")

    assert (code, err) == (0, "")
    assert [row["step"] for row in rows(folder, "losses")] == [str(i) for i in range(1, 7)]
    assert summary(folder)["epochs"] == 2


@pytest.mark.parametrize("name", ["forward_kl", "renyi_0.5"])
def test_a_loss_is_named_with_its_particles(run, task_file, name):
    code, out, err, folder = run(task_file, "--loss", name, "--epochs", 1, "--particles", 30)

    assert (code, err) == (0, "")
    assert all(math.isfinite(float(row["loss"])) for row in rows(folder, "losses"))
    assert summary(folder)["num_particles"] == 30
    assert f"{name}, 30 particles" in out


def test_every_loss_that_has_a_name_takes_a_number_of_particles():
    for name in (*known_losses(), "renyi_0.5"):
        assert named_loss(name, 30).num_particles == 30
        assert named_loss(name, None).num_particles > 1


def test_a_loss_that_remembers_data_is_given_their_indices(run, task_file):
    spec = f"{task_file}:index_training"
    arguments = (spec, "--loss", "score_climbing", "--particles", 30, "--lr", 0.1)
    code, out, err, folder = run(*arguments, "--epochs", 20)

    assert (code, err) == (0, "")
    assert "epoch 20/20  loss (all data) " in out
    assert len(rows(folder, "losses")) == 80
    found, looks = summary(folder), rows(folder, "held_out")
    assert found["held_out_bound"] == pytest.approx(found["exact_log_evidence"], abs=0.005)
    assert found["exact_log_evidence"] - float(looks[0]["bound"]) > 5 * 0.005
    run(*arguments, "--epochs", 1, out="parts")
    _, _, _, parts = run(*arguments, "--epochs", 20, "--resume", out="parts")
    assert rows(parts, "losses") == rows(folder, "losses")


def test_fewer_epochs_than_there_have_been_are_said_to_be(run, task_file):
    run(task_file, "--epochs", 3)
    code, out, err, folder = run(task_file, "--epochs", 1, "--resume")

    assert (code, err) == (0, "")
    assert "--epochs 1: the training in the folder has 3 epochs already; nothing was added" in out
    assert summary(folder)["epochs"] == 3
    assert "--epochs 3" in summary(folder)["command"]


def test_lines_say_what_their_numbers_are_of(run, task_file):
    _, out, _, _ = run(task_file, "--epochs", 1)
    assert re.search(r"epoch 1/1  loss \(per batch\) .*  held-out bound \(per datum\) -", out)


def test_data_that_share_a_latent_are_refused_before_training(run, task_file):
    with pytest.warns(KLModesWarning, match="latent 'mu' is outside of plate 'data'"):
        code, out, err, folder = run(f"{task_file}:shared_training")

    assert (code, out) == (2, "")
    assert "latent 'mu' is outside of plate 'data', so that all data share it" in err
    assert not list(folder.iterdir())


def test_the_help_has_the_numbers_of_particles_that_are_used(capsys):
    main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    few, many = re.search(r"default: 8 for (.*), 128 for the (others)\]", text).groups()
    losses = {name: make().num_particles for name, make in known_losses().items()}
    assert few.split(", ") == [name for name, number in losses.items() if number == 8]
    assert set(losses.values()) | {named_loss("renyi_0.5", None).num_particles} == {8, 128}
    assert many == "others"


def test_a_folder_with_a_training_in_it_is_left_alone(run, task_file):
    run(task_file)
    before = {p.name: p.read_bytes() for p in (task_file.parent / "out").iterdir()}

    code, out, err, folder = run(task_file)

    assert (code, out) == (2, "")
    assert "already holds a training; go on with it by --resume" in err
    for changed in (["--loss", "iwae"], ["--lr", 0.1]):
        code, _, err, _ = run(task_file, "--resume", "--epochs", 3, *changed)
        assert code == 2
        assert "cannot --resume from" in err
        assert "it is of another fit" in err
        assert "choose another folder by --out" in err
        assert "Checkpoint(" not in err
        assert err.count("\n") == 1
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module"], "there is no module 'no_such_module'"),
        (["no/such/file.py"], "there is no file no/such/file.py"),
        (["models.vae:trainig"], "did you mean training?"),
        (["{file}:model"], "is made by a function called 'training'"),
        (["{file}:broken_training"], "calling broken_training() failed: KeyError: 'no data'"),
        (["{file}:partial_training"], "without guide, train, test, batch_size"),
        (["{file}:empty_training"], "test has no data"),
        (["{file}:list_training"], "train is a list; make a torch.utils.data.TensorDataset"),
        (["{file}:endless_training"], "test has to stay the same"),
        (["{file}:backwards_training"], "learning_rate is -0.1"),
        (["{file}:never_training"], "epochs is 0"),
        (["{file}:fresh_training", "--batch-size", "5"], "come in batches already"),
        (["{file}", "--loss", "reverse_lk"], "did you mean reverse_kl?"),
        (["{file}", "--loss", "forward_kl", "--particles", "1"], "--particles 1: num_particles"),
        (["{file}", "--loss", "score_climbing"], "the model of 'one normal each' takes no argu"),
        (
            ["{file}:index_fresh_training", "--loss", "score_climbing"],
            "the data of 'one normal each' are a Batches",
        ),
        (["{file}", "--particles", "0"], "0 is not in the range x>=1"),
        (["{file}", "--epochs", "0"], "0 is not in the range x>=1"),
        (["{file}", "--batch-size", "0"], "0 is not in the range x>=1"),
        (["{file}", "--lr", "0"], "0.0 is not in the range x>0"),
        (["{file}", "--lr", "fast"], "'fast' is not a valid float"),
        (["{file}", "--speed", "9"], "--speed"),
        ([], "MODEL"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_on_stderr(run, task_file, arguments, message):
    code, out, err, folder = run(*(a.format(file=task_file) for a in arguments))

    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("klmodes: ")
    assert err.count("\n") == 1
    assert not folder.exists()


def test_data_that_the_likelihood_cannot_have_are_the_users_mistake(run, task_file):
    code, out, err, _ = run(f"{task_file}:binary_training")

    assert (code, out) == (2, "")
    assert "model site 'x' (Bernoulli)" in err
    assert err.count("\n") == 1


def test_an_error_of_the_users_model_is_one_line(run, task_file):
    code, out, err, _ = run(f"{task_file}:dim_training")

    assert (code, out) == (1, "")
    assert err == "klmodes: training failed: ValueError: the lamp is off\n"


def test_an_output_folder_that_cannot_be_written_is_found_before_training(run, task_file):
    (task_file.parent / "file").write_text("not a folder", encoding="utf-8")
    code, out, err, _ = run(task_file, out="file/out")

    assert (code, out) == (2, "")
    assert "cannot write to the output folder" in err
    assert err.count("\n") == 1


def test_help_is_not_an_error(capsys):
    assert main(["train", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out


def test_networks_start_alike_for_a_seed_and_leave_generators_alone():
    before = torch.get_rng_state()
    first, second, other = (load_task("models.linear_vae", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [t.model.__self__.decoder.linear.weight for t in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_data_are_shuffled_and_test_data_are_not():
    task = load_task("models.linear_vae")
    (x,) = task.train[:]
    seen = torch.cat([part for (part,) in task.train_batches(None)])
    assert not torch.equal(seen, x)
    np.testing.assert_allclose(seen.sum(0).numpy(), x.sum(0).numpy(), rtol=1e-4)
    assert torch.equal(torch.cat([part for (part,) in task.test_batches()]), task.test[:][0])


def test_a_name_that_is_no_factory_is_an_argument_error():
    with pytest.raises(InvalidArgument, match="not by 'problem'"):
        load_task("models.linear_vae:problem")
