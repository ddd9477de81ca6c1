"""Signal and noise of gradients against closed forms and the laws in K."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import IWAE, ReverseKL, estimators
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.gradient_snr import GradientSNR, gradient_snr

SCALE = 0.5


def normal_model():
    pyro.sample("z", dist.Normal(1.0, SCALE))


def normal_guide():
    loc = pyro.param("loc", torch.tensor(1.0))
    log_scale = pyro.param("log_scale", torch.tensor(SCALE).log())
    pyro.sample("z", dist.Normal(loc, log_scale.exp()))


@pytest.mark.parametrize("loss", [ReverseKL(1, estimator=estimators.pathwise), Trace_ELBO()])
def test_variance_at_the_optimum(loss):
    """The gradient is (e/s, e^2 - 1) with e standard normal: variances 1/s^2 and 2.

    Standard errors of sample variances: var sqrt((kurtosis - 1)/n) with kurtosis 3 and 15.
    """
    found = gradient_snr(normal_model, normal_guide, loss, repeats=2000)
    variance = {name: float(sd**2) for name, sd in found.sd.items()}
    assert abs(variance["loc"] - 4.0) < 3 * 4.0 * math.sqrt(2 / 2000)
    assert abs(variance["log_scale"] - 2.0) < 3 * 2.0 * math.sqrt(14 / 2000)
    for name in ("loc", "log_scale"):
        assert abs(found.mean[name]) < 3 * found.mean_error[name]
    assert found.guide == ("loc", "log_scale")
    assert found.model == ()
    assert math.isnan(found.overall("model"))


def test_sticking_the_landing_has_no_noise_at_the_optimum():
    found = gradient_snr(
        normal_model, normal_guide, ReverseKL(1, estimator=estimators.doubly), repeats=20
    )
    assert max(float(sd) for sd in found.sd.values()) < 1e-12


def test_signal_away_from_the_optimum():
    """At a distance d the gradient of the mean is d/s^2 + e/s: its ratio is d/s."""
    pyro.param("loc", torch.tensor(2.5))
    found = gradient_snr(
        normal_model, normal_guide, ReverseKL(1, estimator=estimators.pathwise), repeats=1000
    )
    assert abs(found.snr["loc"] - 3.0) < 3 * found.snr_error["loc"]
    assert found.snr_error["loc"].item() == pytest.approx(math.sqrt(5.5 / 1000), rel=0.1)


DIMENSION = 2
X = torch.tensor([-1.0, 1.0])


def toy_model():
    mean = pyro.param("mean", torch.zeros(DIMENSION))
    z = pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=X)


def toy_guide():
    """Near the posterior N(x/2, 1/2), as in Rainforth et al. (2018)."""
    loc = pyro.param("loc", X / 2 + 0.5)
    pyro.sample("z", dist.Normal(loc, math.sqrt(2 / 3)).to_event(1))


PARTICLES = (4, 32)


def moments(estimator):
    """Moments of 400 gradients at each number of particles."""
    return [
        gradient_snr(toy_model, toy_guide, IWAE(K, estimator=estimator), repeats=400)
        for K in PARTICLES
    ]


def slope(few, many):
    """Of a quantity against K, both in logarithms."""
    return math.log(many / few) / math.log(PARTICLES[1] / PARTICLES[0])


def test_laws_of_the_signal_to_noise_ratio():
    """The guide's falls as K^-1/2, the model's grows as K^1/2, the guide's by DReG as well.

    100 000 gradients by code of our own gave slopes of -.52, .46 and .39 between these K; 400 have
    errors of .02 to .03. The signal of the first is that of the last, the same gradient with less
    noise: its own would be lost in it at K = 32.
    """
    pathwise, doubly = moments(estimators.pathwise), moments(estimators.doubly)
    falling = [
        d.mean["loc"].norm() / p.sd["loc"].norm() for p, d in zip(pathwise, doubly, strict=True)
    ]
    assert slope(*falling) == pytest.approx(-0.52, abs=0.1)
    assert slope(*(p.overall("model") for p in pathwise)) == pytest.approx(0.46, abs=0.1)
    assert slope(*(d.overall() for d in doubly)) == pytest.approx(0.39, abs=0.1)
    for p, d in zip(pathwise, doubly, strict=True):
        error = (p.mean_error["loc"] ** 2 + d.mean_error["loc"] ** 2).sqrt()
        assert ((p.mean["loc"] - d.mean["loc"]).abs() < 3.5 * error).all()


def test_nothing_is_changed():
    guide = AutoNormal(toy_model)
    guide()
    pyro.param("mean").unconstrained().grad = torch.ones(DIMENSION)
    store = pyro.get_param_store()
    before = {name: value.detach().clone() for name, value in store.items()}
    state = torch.get_rng_state()
    found = gradient_snr(toy_model, guide, ReverseKL(2), repeats=5)
    assert torch.equal(state, torch.get_rng_state())
    assert before.keys() == store.keys()
    assert all(torch.equal(before[name], value) for name, value in store.items())
    assert torch.equal(pyro.param("mean").unconstrained().grad, torch.ones(DIMENSION))
    assert guide.locs.z.grad is None
    assert set(found.guide) == {"AutoNormal.locs.z", "AutoNormal.scales.z"}
    assert found.model == ("mean",)


def test_parameters_of_a_first_run_do_not_stay():
    found = gradient_snr(toy_model, toy_guide, ReverseKL(2), repeats=3)
    assert found.guide == ("loc",)
    assert len(pyro.get_param_store()) == 0


def test_the_same_seed_gives_the_same_numbers():
    one, other = (gradient_snr(toy_model, toy_guide, IWAE(4), repeats=3, seed=s) for s in (1, 1))
    assert torch.equal(one.mean["loc"], other.mean["loc"])


def test_parameters_that_pyro_does_not_know():
    layer = torch.nn.Linear(1, 1)

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self):
            pyro.sample("z", dist.Normal(self.layer(torch.ones(1))[0], 0.5))

    found = gradient_snr(normal_model, Guide(), ReverseKL(2), repeats=3)
    assert set(found.guide) == {"layer.weight", "layer.bias"}
    assert found.sd["layer.bias"] > 0


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (ReverseKL, {}, "is not a loss"),
        (ReverseKL(), {"repeats": 1}, "repeats=1"),
    ],
)
def test_bad_input_is_named(loss, options, message):
    with pytest.raises(InvalidArgument, match=message):
        gradient_snr(normal_model, normal_guide, loss, **options)


def test_a_pair_without_parameters_is_refused():
    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(InvalidArgument, match="neither guide nor model"):
        gradient_snr(normal_model, guide, ReverseKL())


def test_an_unknown_group_is_refused():
    with pytest.raises(InvalidArgument, match="group='all'"):
        gradient_snr(normal_model, normal_guide, ReverseKL(), repeats=2).overall("all")


def test_it_prints_what_it_found():
    ones = {"loc": torch.ones(1)}
    found = GradientSNR(
        mean=ones, sd={"loc": 2 * ones["loc"]}, repeats=100, guide=("loc",), model=()
    )

    assert (
        str(found) == f"Signal-to-noise of 100 gradients: guide's parameters {found.overall():.3g}."
    )
