"""Averaging reduces the error of the last iterate; stopping waits for stationarity and exactness.

The model is conjugate: mu ~ N(0, 1), y ~ N(mu, 1), y = 2, so that the posterior is N(1, 1/2).
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_klmodes import ReverseKL, estimators, fit
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference.averaging import AverageIterates
from pyro_klmodes.inference.fit import StepInfo
from pyro_klmodes.inference.iterate_log import IterateLog
from pyro_klmodes.inference.stopping import StopWhenConverged


def model():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=torch.tensor(2.0))


def guide():
    loc = pyro.param("loc", torch.tensor(0.0))
    log_scale = pyro.param("log_scale", torch.tensor(0.0))
    pyro.sample("mu", dist.Normal(loc, log_scale.exp()))


def run(callbacks, *, lr, steps, seed=0, particles=1):
    return fit(
        model,
        guide,
        ReverseKL(particles, estimator=estimators.pathwise),
        steps=steps,
        optim=pyro.optim.Adam({"lr": lr}),
        seed=seed,
        callbacks=callbacks,
        progress=False,
    )


def squared_error(params):
    return float((params["loc"] - 1) ** 2 + (params["log_scale"] - math.log(0.5) / 2) ** 2)


def fake_steps(callback, values, losses=None):
    """Tell a callback of parameters and losses that no fit made; the step it stops at, or None."""
    losses = torch.randn(len(values)) if losses is None else losses
    for step, value in enumerate(values):
        told = StepInfo(step, float(losses[step]), lambda value=value: {"p": value.reshape(1)})
        if callback(told):
            return step
    return None


def test_callbacks_see_the_parameters_of_the_step():
    seen = []
    result = run(
        [lambda info: seen.append({n: p.item() for n, p in info.parameters().items()})],
        lr=0.1,
        steps=5,
    )
    assert [list(s) for s in seen] == [["loc", "log_scale"]] * 5
    assert seen[-1]["loc"] == float(result.params["loc"])
    assert seen[0] != seen[1]


def test_callbacks_from_a_generator_are_told_of_every_step():
    seen = []
    run((c for c in [lambda info: seen.append(info.step)]), lr=0.1, steps=3)
    assert seen == [0, 1, 2]


def test_averaging_reduces_the_error():
    """Mean squared errors over four seeds at a constant learning rate."""
    last, averaged = 0.0, 0.0
    for seed in range(4):
        averaging = AverageIterates(start=100, replace=False)
        last += squared_error(run([averaging], lr=0.1, steps=500, seed=seed).params)
        averaged += squared_error(averaging.average)
    assert last / averaged >= 2.0
    assert squared_error({"loc": torch.tensor(0.0), "log_scale": torch.tensor(0.0)}) > averaged


def test_the_average_replaces_the_last_iterate():
    averaging = AverageIterates(start=20)
    result = run([averaging], lr=0.1, steps=50)
    assert averaging.count == 30
    assert averaging.words == "averaged 30 iterates from step 20 on"
    for name in ("loc", "log_scale"):
        assert torch.equal(result.params[name], averaging.average[name])
    kept = AverageIterates(start=20, replace=False)
    other = run([kept], lr=0.1, steps=50)
    assert torch.equal(kept.average["loc"], averaging.average["loc"])
    assert not torch.equal(other.params["loc"], result.params["loc"])


def test_averaging_waits_for_stationarity():
    averaging = AverageIterates()
    run([averaging], lr=0.1, steps=800)
    assert averaging.since >= 200
    assert averaging.count == 800 - averaging.since
    assert squared_error(averaging.average) < 0.02 * squared_error(
        {"loc": torch.tensor(0.0), "log_scale": torch.tensor(0.0)}
    )


def test_nothing_is_averaged_on_the_way():
    averaging = AverageIterates()
    with pytest.warns(KLModesWarning, match="AverageIterates replaced nothing, .* not stationary"):
        result = run([averaging], lr=1e-4, steps=500)
    assert averaging.count == 0
    assert averaging.rhat > 1.1
    assert f"R-hat of the iterates is {averaging.rhat:.3g}, at most 1.1" in averaging.words
    assert float(result.params["loc"]) < 0.051  # 500 steps of Adam


def test_whoever_replaces_nothing_is_told_of_nothing():
    averaging = AverageIterates(replace=False)
    run([averaging], lr=1e-4, steps=50)
    assert (averaging.count, averaging.rhat) == (0, math.inf)


def test_a_fit_that_ends_before_there_is_an_average_says_so():
    averaging = AverageIterates(start=20)
    with pytest.warns(KLModesWarning, match="replaced nothing, .* ended before step 22; start"):
        result = run([averaging, lambda info: info.step == 20], lr=0.1, steps=50)
    assert (result.steps, averaging.count) == (21, 1)


def test_a_fit_that_ends_as_soon_as_it_is_stationary_says_so():
    averaging = AverageIterates()
    with pytest.warns(
        KLModesWarning, match=r"were stationary only at step \d+, when the fit ended"
    ):
        run([averaging, lambda info: averaging.since is not None], lr=0.1, steps=2000)
    assert averaging.count == 0


@pytest.mark.parametrize(
    ("averaging", "fewest", "message"),
    [
        # 0.95 * 300 is the first longest window of at least 200 steps at a look.
        (
            AverageIterates(),
            302,
            r"window=200 and every=100 it takes 302 steps .* has 301\. .*=150",
        ),
        (
            AverageIterates(start=20),
            22,
            r"AverageIterates\(start=20\) would .* has 21 steps. .*=10",
        ),
    ],
)
def test_a_fit_that_is_too_short_to_replace_anything_is_refused(averaging, fewest, message):
    begun = []
    with pytest.raises(InvalidArgument, match=message):
        run([averaging, begun.append], lr=0.5, steps=fewest - 1)
    assert not begun
    averaging.check_length(fewest)
    AverageIterates(replace=False).check_length(1)


def test_a_mean_of_one_pass_is_the_mean():
    values = torch.randn(300)
    averaging = AverageIterates(start=100)
    fake_steps(averaging, values)
    assert averaging.average["p"].item() == pytest.approx(values[100:].mean().item())
    fake_steps(averaging, values)  # another fit
    assert averaging.count == 200


def test_stopping_is_later_for_a_slower_learning_rate():
    steps = []
    for lr in (0.2, 0.02):
        stop = StopWhenConverged(tolerance=0.05, min_steps=300)
        result = run([stop], lr=lr, steps=4000, particles=4)
        assert stop.converged
        assert stop.mcse <= 0.05
        assert stop.ess >= 50
        assert stop.rhat <= 1.1
        assert stop.words.startswith("stationary since step")
        mean = stop._log.since(stop.stationary_since)[:, 0].mean().item()
        assert abs(mean - 1) < 4 * 0.05  # the start is at a distance of 1
        steps.append(result.steps)
    assert 300 <= steps[0] < steps[1] < 4000


def test_never_before_min_steps():
    """Independent iterates meet every criterion at once."""
    assert fake_steps(StopWhenConverged(min_steps=700), torch.randn(2000) * 0.1) == 699
    assert fake_steps(StopWhenConverged(min_steps=0), torch.randn(2000) * 0.1) < 400


def test_a_drifting_parameter_does_not_stop_it():
    drift = torch.linspace(0, 30, 3000) + 0.5 * torch.randn(3000)
    stop = StopWhenConverged(tolerance=10.0)
    assert fake_steps(stop, drift) is None
    assert not stop.converged
    assert stop.words.startswith("not stationary")


def test_a_drifting_loss_does_not_stop_it():
    still = 0.1 * torch.randn(2000)
    loss = torch.linspace(20, 0, 2000) + 0.1 * torch.randn(2000)
    stop = StopWhenConverged()
    assert fake_steps(stop, still, loss) is None
    assert stop.rhat > 1.1
    assert fake_steps(stop, still) is not None


def test_a_mean_that_is_not_exact_yet_does_not_stop_it():
    """Standard deviation 1 and tolerance .02 take 2500 independent iterates."""
    stop = StopWhenConverged(tolerance=0.02)
    assert fake_steps(stop, torch.randn(1000)) is None
    assert stop.stationary_since is not None
    assert stop.words.endswith("not small enough yet")
    assert 0.02 < stop.mcse < 0.05


def test_an_infinite_loss_is_no_iterate():
    losses = torch.randn(600)
    losses[::3] = math.nan
    assert fake_steps(StopWhenConverged(min_steps=0), torch.randn(600) * 0.1, losses) is not None


def test_the_log_thins_itself_and_forgets_nothing_of_the_span():
    log = IterateLog()
    for step in range(5000):
        log.add(step, {"p": torch.full((2000,), float(step))}, 0.0)
    rows = log.since(0)
    assert 500 <= len(rows) <= 1001
    assert rows.shape[1] == 501
    assert rows[0, 0] == 0
    assert rows[-1, 0] > 4980
    assert (rows[:, 0].diff() == 8).all()


def test_both_work_with_pyros_loss_and_an_autoguide():
    autoguide = pyro.infer.autoguide.AutoNormal(model)
    averaging, stop = AverageIterates(), StopWhenConverged(tolerance=0.3, min_steps=300)
    result = fit(
        model,
        autoguide,
        Trace_ELBO(),
        steps=3000,
        optim=pyro.optim.Adam({"lr": 0.2}),
        callbacks=[averaging, stop],
        progress=False,
    )
    assert stop.converged
    assert result.steps < 3000
    assert averaging.count > 0
    assert result.guide.median()["mu"].item() == pytest.approx(1.0, abs=0.2)
    assert result.params["AutoNormal.locs.mu"].item() == result.guide.median()["mu"].item()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StopWhenConverged(every=0), "every=0"),
        (lambda: StopWhenConverged(min_steps=-1), "min_steps=-1"),
        (lambda: StopWhenConverged(window=5), "window=5"),
        (lambda: StopWhenConverged(max_rhat=1.0), "max_rhat=1.0"),
        (lambda: StopWhenConverged(tolerance=0.0), "tolerance=0.0"),
        (lambda: AverageIterates(start=-1), "start=-1"),
        (lambda: AverageIterates(max_rhat=0.5), "max_rhat=0.5"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()
