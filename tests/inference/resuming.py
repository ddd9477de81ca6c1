"""A fit with all that a checkpoint must hold, as a script: ``resuming.py epochs folder=kill ...``.

Each argument is a process that fits with its checkpoint in that folder, and says when it ends by
SIGKILL: ``never``; ``step:17`` by its own hand after that step; ``write:2:1000`` within the second
checkpoint that it writes, after 1000 bytes; ``after:0.3`` by its parent after so many seconds.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import AverageIterates, ReverseKL, fit
from pyro_klmodes.inference import Checkpoint, Evaluate


class Decoder(nn.Module):
    """Registered with Pyro by its model."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, z):
        return self.net(z.reshape(-1, 2)).reshape(*z.shape[:-1], 5)


decoder = Decoder()


def begin(folder):
    """Weights that are the same in every process that begins, and others in those that resume."""
    torch.manual_seed(2 if (Path(folder) / "fit.ckpt").exists() else 1)
    for module in decoder.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return Guide()


def model(x):
    pyro.module("decoder", decoder)
    noise = pyro.param("noise", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x)


class Guide(nn.Module):
    """Not registered with Pyro; with dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x):
        out = self.net(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(out[:, :2], out[:, 2:].clamp(-4, 2).exp()).to_event(1))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_within(write, number, size):
    """A ``write`` of checkpoints that is ended in the middle."""
    calls = 0

    def failing(self, state):
        nonlocal calls
        calls += 1
        if calls == number:
            opened = Path.open

            def patched(path, *args, **kwargs):
                return Killing(opened(path, *args, **kwargs), size)

            Path.open = patched
        return write(self, state)

    return failing


class Killing:
    """A file that lets so many bytes through."""

    def __init__(self, file, size):
        self.file = file
        self.left = size

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        data = bytes(data)
        self.file.write(data[: self.left])
        self.left -= len(data)
        if self.left <= 0:
            self.file.flush()
            kill()

    def flush(self):
        self.file.flush()

    def fileno(self):
        return self.file.fileno()


def run(folder, epochs, when="never", every=1):
    kind, *numbers = when.split(":")
    if kind == "write":
        Checkpoint.write = killed_within(Checkpoint.write, *map(int, numbers))

    def end(info):
        if kind == "step" and info.step == int(numbers[0]):
            kill()

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(22, 5, generator=generator)
    evaluate, average = Evaluate(x[:6], num_particles=5), AverageIterates(start=8)
    result = fit(
        model,
        begin(folder),
        ReverseKL(2),
        batches=DataLoader(TensorDataset(x), batch_size=5, shuffle=True),
        epochs=epochs,
        optim=pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.9}
        ),
        clip_norm=20.0,
        callbacks=[evaluate, average, end],
        checkpoint=Checkpoint(Path(folder) / "fit.ckpt", every=every),
        progress=False,
        seed=5,
    )
    bounds = torch.tensor([record.bound for record in evaluate.records])
    buffers = {f"buffer {n}": b for n, b in decoder.named_buffers()}
    return {"losses": result.losses, "bounds": bounds, **result.params, **buffers}


def fork(folder, epochs, when):
    """Run it in a process of its own; the exit code."""
    child = os.fork()
    if child == 0:
        torch.save(run(folder, epochs, when), Path(folder) / "found.pt")
        os._exit(0)
    if when.startswith("after:"):
        time.sleep(float(when.removeprefix("after:")))
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1)])  # torch imports more at the first one; once for all children
    for argument in sys.argv[2:]:
        where, _, moment = argument.rpartition("=")
        print(fork(where, int(sys.argv[1]), moment))
