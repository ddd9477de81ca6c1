"""Everything that a fit does around its steps is the same whether these are compiled or not."""

import copy
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import optim, poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, fit
from pyro_klmodes.errors import KLModesWarning, NonFiniteLoss
from pyro_klmodes.inference import (
    AggressiveInference,
    AverageIterates,
    Checkpoint,
    StopWhenConverged,
)

Y = torch.linspace(-1.0, 1.5, 5, dtype=torch.float64)


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    sd = pyro.sample("sd", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, sd), obs=y)


def guide(y):
    for name, family in (("mu", dist.Normal), ("sd", dist.LogNormal)):
        loc = pyro.param(f"{name}.loc", torch.tensor(0.1))
        scale = pyro.param(f"{name}.scale", torch.tensor(0.4), constraint=constraints.positive)
        pyro.sample(name, family(loc, scale))


def local(y):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def encoder(y):
    slope = pyro.param("slope", torch.tensor(0.1))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, 0.7))


def both(*args, run=fit, **options):
    """Fits with eager code and with the graph."""
    options = {"steps": 30, "progress": False, **options}
    found = []
    for engine in ("eager", "graph"):
        now = {
            name: x() if name in ("make_optim", "make_callbacks") else x
            for name, x in options.items()
        }
        now = {name.removeprefix("make_"): x for name, x in now.items()}
        found.append(run(*args, **now, engine=engine))
    return found


def assert_close(eager, graph, steps=None):
    torch.testing.assert_close(graph.losses, eager.losses, rtol=1e-10, atol=1e-12, equal_nan=True)
    for name, value in eager.params.items():
        torch.testing.assert_close(graph.params[name], value, rtol=1e-10, atol=1e-12)
    used = graph.explanation.used
    assert used.get("graph", 0) >= (graph.steps - 2 if steps is None else steps), used


OPTIMIZERS = {
    "adam": lambda: optim.Adam({"lr": 0.05}),
    "adam_with_decay": lambda: optim.Adam({"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.1}),
    "amsgrad": lambda: optim.Adam({"lr": 0.05, "amsgrad": True}),
    "adamw": lambda: optim.AdamW({"lr": 0.05}),
    "clipped_adam": lambda: optim.ClippedAdam({"lr": 0.05, "clip_norm": 2.0, "lrd": 0.97}),
    "centered": lambda: optim.ClippedAdam({"lr": 0.05, "centered_variance": True}),
    "sgd": lambda: optim.SGD({"lr": 0.001, "momentum": 0.9}),
    "adagrad_rmsprop": lambda: optim.AdagradRMSProp({"eta": 0.1}),
    "adam_clipped_by_pyro": lambda: optim.Adam({"lr": 0.05}, {"clip_norm": 1.0}),
    "rates_by_name": lambda: optim.Adam(lambda name: {"lr": 0.1 if "loc" in name else 0.01}),
    "by_prefix": lambda: {"mu": optim.Adam({"lr": 0.1}), "sd": optim.SGD({"lr": 0.001})},
    "exponential": lambda: optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.9}
    ),
    "by_function": lambda: optim.LambdaLR(
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": 0.05},
            "lr_lambda": lambda step: 1.0 / (1.0 + step),
        }
    ),
    "plateau": lambda: optim.ReduceLROnPlateau(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.2}, "patience": 1}
    ),
}


def some(names, quick):
    """All of them; the others are marked as slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", some(OPTIMIZERS, {"clipped_adam", "sgd"}))
def test_optimizers_and_schedules(name):
    eager, graph = both(model, guide, ReverseKL(3), Y, make_optim=OPTIMIZERS[name])
    assert_close(eager, graph)


@pytest.mark.parametrize("name", some(["exponential", "by_function", "plateau"], {"plateau"}))
def test_schedules_by_epoch(name):
    loader = [Y, Y + 1.0, Y - 1.0]
    options = {"batches": loader, "steps": None, "epochs": 6}
    eager, graph = both(local, encoder, ReverseKL(3), make_optim=OPTIMIZERS[name], **options)
    assert_close(eager, graph)
    assert graph.epochs == 6


@pytest.mark.slow
def test_largest_norm_of_the_gradient():
    eager, graph = both(model, guide, ReverseKL(3), Y, clip_norm=0.5)
    assert_close(eager, graph)


@pytest.mark.slow
def test_loader_that_shuffles():
    data = TensorDataset(torch.linspace(-1.0, 2.0, 11, dtype=torch.float64))
    loader = DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    assert_close(*both(local, encoder, IWAE(3), batches=loader, steps=None, epochs=5))


# --- callbacks


@pytest.mark.slow
def test_callbacks_see_every_step():
    seen = {}

    def run(*args, engine, **options):
        notes = seen.setdefault(engine, [])

        def look(info):
            notes.append((info.step, info.loss, info.parameters()["mu.loc"].item()))

        return fit(*args, engine=engine, callbacks=[look], **options)

    eager, graph = both(model, guide, ReverseKL(3), Y, run=run)
    assert_close(eager, graph)
    assert [step for step, _, _ in seen["graph"]] == list(range(30))
    assert torch.tensor(seen["graph"]).allclose(torch.tensor(seen["eager"]), rtol=1e-10)


@pytest.mark.slow
def test_averages_of_the_iterates():
    eager, graph = both(
        model, guide, ReverseKL(3), Y, make_callbacks=lambda: [AverageIterates(start=10)]
    )
    assert_close(eager, graph)


@pytest.mark.slow
def test_early_stopping_at_the_same_step():
    options = {"min_steps": 60, "every": 10, "window": 40, "tolerance": 2.0, "min_ess": 2.0}

    def stop():
        return [StopWhenConverged(max_rhat=2.0, **options)]

    eager, graph = both(model, guide, ReverseKL(3), Y, steps=300, make_callbacks=stop)
    assert eager.steps == graph.steps < 300
    assert_close(eager, graph)


@pytest.mark.slow
def test_inner_steps_for_the_guide():
    def shared(y):
        rate = pyro.param("rate", torch.tensor(0.3))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(rate, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def run(*args, **options):
        inner = AggressiveInference(mutual_information=lambda m, g: 1.0, most=5, check_every=5)
        return fit(*args, inner=inner, **options)

    assert_close(*both(shared, encoder, ReverseKL(3), Y, steps=10, run=run))


# --- what goes wrong


def guide_of_mu(y):
    pyro.sample("mu", dist.Normal(pyro.param("mu.loc", torch.tensor(0.1)), 0.5))


def falling(y):
    """A loss that falls with the rate, down to where it is not a number."""
    rate = pyro.param("rate", torch.tensor(0.3))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("broken", -rate.sqrt() - 3.0 * rate)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def caught(*args, **options):
    """The errors of eager code and of the graph, without validation, as in production."""
    errors = []
    for engine in ("eager", "graph"):
        with pyro.validation_enabled(False), pytest.raises(NonFiniteLoss) as info:
            fit(*args, steps=60, progress=False, engine=engine, **options)
        errors.append(info.value)
    return errors


def test_error_about_a_loss_that_is_not_a_number_is_that_of_eager_code():
    eager, graph = caught(falling, guide_of_mu, ReverseKL(3), Y)
    assert str(eager) == str(graph)
    assert "'broken'" in str(graph)
    assert eager.result.steps == graph.result.steps > 5
    assert_close(eager.result, graph.result)


@pytest.mark.parametrize("how", some(["skip", "backoff"], {"skip"}))
def test_steps_that_are_not_numbers_are_skipped_alike(how):
    options = {"on_nonfinite": how, "optim": optim.SGD({"lr": 0.01}), "steps": 40}
    with pyro.validation_enabled(False):
        eager, graph = both(falling, guide_of_mu, ReverseKL(3), Y, **options)
    assert bool(eager.losses.isnan().any())
    assert_close(eager, graph, steps=5)


@pytest.mark.slow
def test_values_that_are_not_allowed_raise_the_error_of_eager_code():
    def shares(y):
        share = pyro.param("share", torch.tensor(0.8))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("pull", 3.0 * share + 0.0 * mu)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(share), obs=torch.ones_like(y))

    messages = []
    for engine in ("eager", "graph"):
        with pytest.raises(ValueError, match="probs") as info:
            fit(
                shares,
                guide_of_mu,
                ReverseKL(3),
                Y,
                steps=60,
                progress=False,
                engine=engine,
                optim=optim.Adam({"lr": 0.05}),
            )
        messages.append(str(info.value))
    assert messages[0] == messages[1]


@pytest.mark.slow
def test_infinite_gradients_are_not_clipped_into_numbers():
    def steep(y):
        at = pyro.param("at", torch.tensor(0.1))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("steep", (at - at.detach() + y.sum()).sqrt() + 0.0 * mu)

    batches = [torch.ones(1), torch.ones(1), torch.ones(1), torch.zeros(1)]
    options = {"batches": batches, "optim": optim.ClippedAdam({"lr": 0.02})}
    eager, graph = caught(steep, guide_of_mu, ReverseKL(3), **options)
    assert str(eager) == str(graph)
    assert "step 3, epoch 0: the gradient of parameter 'at' is not finite" in str(graph)


def losing_rank(y):
    """The matrix has no Cholesky factor once its parameter is beyond one."""
    r = pyro.param("r", torch.tensor(0.8))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    root = torch.linalg.cholesky(torch.eye(2) + r * torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    pyro.factor("pull", 5.0 * r + 0.1 * root.sum() + 0.0 * mu)


def test_matrices_without_a_decomposition_raise_the_error_of_eager_code():
    messages = []
    for engine in ("eager", "graph"):
        with pytest.raises(torch.linalg.LinAlgError) as info:
            fit(
                losing_rank,
                guide_of_mu,
                ReverseKL(3),
                Y,
                steps=60,
                progress=False,
                engine=engine,
                optim=optim.SGD({"lr": 0.01}),
            )
        messages.append(str(info.value))
    assert messages[0] == messages[1]


def test_index_beyond_the_end_raises_the_error_of_eager_code():
    table = torch.zeros(3)

    def lookup(index):
        with pyro.plate("data", len(index)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=table[index])

    def shifted(index):
        with pyro.plate("data", len(index)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    batches = [torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([2, 3])]
    for engine in ("eager", "graph"):
        with pytest.raises(IndexError, match="out of (bounds|range)"):
            fit(
                lookup,
                shifted,
                ReverseKL(3),
                batches=batches,
                steps=9,
                progress=False,
                engine=engine,
            )


@pytest.mark.slow
def test_interruption_leaves_whole_steps():
    def interrupt(info):
        if info.step == 12:
            raise KeyboardInterrupt

    eager, graph = both(model, guide, ReverseKL(3), Y, callbacks=[interrupt])
    assert eager.interrupted
    assert graph.interrupted
    assert graph.steps == 13
    assert_close(eager, graph)


# --- going on


@pytest.mark.parametrize(
    "adam", [optim.Adam, pytest.param(optim.ClippedAdam, marks=pytest.mark.slow)]
)
def test_resumed_fit_is_bitwise_that_of_one_go(tmp_path, adam):
    args = {"lr": 0.05, **({"lrd": 0.99} if adam is optim.ClippedAdam else {})}

    def run(steps, checkpoint=None):
        return fit(
            model,
            guide,
            ReverseKL(3),
            Y,
            steps=steps,
            optim=adam(args),
            progress=False,
            engine="graph",
            checkpoint=checkpoint,
        )

    run(9, Checkpoint(tmp_path / "fit.pt", every=1000))
    resumed = run(20, Checkpoint(tmp_path / "fit.pt", every=1000))
    once = run(20)
    assert resumed.explanation.used["graph"] == 11
    assert torch.equal(resumed.losses, once.losses)
    assert all(torch.equal(resumed.params[name], once.params[name]) for name in once.params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exponential", "plateau"])
def test_resumed_fit_with_a_schedule(tmp_path, name):
    def run(steps, checkpoint=None):
        return fit(
            model,
            guide,
            ReverseKL(3),
            Y,
            steps=steps,
            optim=OPTIMIZERS[name](),
            progress=False,
            engine="graph",
            checkpoint=checkpoint,
        )

    run(9, Checkpoint(tmp_path / "fit.pt", every=1000))
    resumed, once = run(20, Checkpoint(tmp_path / "fit.pt", every=1000)), run(20)
    assert torch.equal(resumed.losses, once.losses)


@pytest.mark.slow
def test_resumed_fit_that_had_to_give_up_stays_eager(tmp_path):
    def run(steps, engine, checkpoint=None):
        count = [0]

        def counting(y):
            count[0] += 1
            model(y)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fit(
                counting,
                guide,
                ReverseKL(3),
                Y,
                steps=steps,
                progress=False,
                engine=engine,
                checkpoint=checkpoint,
            )
        return result, [str(w.message) for w in caught if "engine=" in str(w.message)], count

    path = tmp_path / "fit.pt"
    run(5, "graph", Checkpoint(path, every=1000))
    resumed, told, count = run(12, "graph", Checkpoint(path, every=1000))
    assert "'count' around counting" in told[0]
    assert resumed.explanation.used == {"eager": 7}
    once, _, _ = run(12, "eager")
    assert torch.equal(resumed.losses, once.losses)
    run(5, "eager", Checkpoint(tmp_path / "other.pt", every=1000))
    _, _, alone = run(12, "eager", Checkpoint(tmp_path / "other.pt", every=1000))
    assert count == alone  # nobody has run the model more often than eager code does


@pytest.mark.slow
def test_two_fits_in_one_process_are_bitwise_the_same():
    runs = [
        fit(model, guide, IWAE(3), Y, steps=20, progress=False, engine="graph") for _ in range(2)
    ]
    assert torch.equal(runs[0].losses, runs[1].losses)


@pytest.mark.slow
def test_data_replaced_in_place_between_two_fits():
    data = Y.clone()

    def reading():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=data)

    def run(engine):
        return fit(
            reading, AutoNormal(reading), ReverseKL(3), steps=12, progress=False, engine=engine
        )

    assert_close(run("eager"), run("graph"))
    data.copy_(Y + 3.0)
    assert_close(run("eager"), run("graph"))


@pytest.mark.slow
def test_random_states_are_where_eager_code_leaves_them():
    class Look:
        def __call__(self, info):
            return False

        def finish(self):
            self.state = torch.get_rng_state()

    looks = [Look(), Look()]
    for look, engine in zip(looks, ("eager", "graph"), strict=True):
        options = {"steps": 20, "progress": False, "engine": engine}
        fit(model, guide, ReverseKL(3), Y, callbacks=[look], **options)
    assert torch.equal(looks[0].state, looks[1].state)


# --- other losses, handlers around a fit


@pytest.mark.parametrize("loss", [Trace_ELBO()])
def test_losses_of_pyro_stay_eager(loss):
    with pytest.warns(KLModesWarning, match="Trace_ELBO is not one of this package's losses"):
        result = fit(model, guide, loss, Y, steps=5, progress=False, engine="graph")
    assert set(result.explanation.used) == {"eager"}


def test_handlers_around_a_fit_are_not_lost():
    with poutine.scale(scale=0.5), pytest.warns(KLModesWarning, match="handler of Pyro, ScaleM"):
        scaled = fit(model, guide, ReverseKL(3), Y, steps=8, progress=False, engine="graph")
    with poutine.scale(scale=0.5):
        eager = fit(model, guide, ReverseKL(3), Y, steps=8, progress=False, engine="eager")
    assert torch.equal(scaled.losses, eager.losses)


def test_argument_that_shares_memory_with_a_parameter():
    net = torch.nn.Linear(1, 5, dtype=torch.float64)

    def tied(x):
        pyro.module("net", net)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("fit", -((net(torch.ones(1)) - mu[..., None] - x) ** 2).sum(-1))

    def run(engine):
        with torch.no_grad():
            net.weight.fill_(0.3), net.bias.fill_(0.1)
        return fit(
            tied,
            guide_of_mu,
            ReverseKL(3),
            net.bias.detach(),
            steps=8,
            progress=False,
            engine=engine,
        )

    eager = run("eager")
    with pytest.warns(KLModesWarning, match="a step changes tensor 1 of the arguments"):
        graph = run("graph")
    assert torch.equal(eager.losses, graph.losses)


@pytest.mark.slow
def test_deep_copies_of_a_fitted_loss_and_guide_are_unharmed():
    loss = ForwardKL(4)
    result = fit(model, guide, loss, Y, steps=12, progress=False, engine="graph")
    assert copy.deepcopy(loss).step == loss.step == 12
    assert result.draws(4).log_w.shape == (4,)
