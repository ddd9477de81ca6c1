"""SBC and VSBC of guides whose error is known, on models with closed-form posteriors."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from scipy import stats

from models import conjugate_normal
from pyro_klmodes import ReverseKL
from pyro_klmodes.calibration import sbc, vsbc
from pyro_klmodes.calibration.warm_start import Start
from pyro_klmodes.errors import InvalidArgument, KLModesWarning, UnsupportedStructure

SD = math.sqrt(0.5)


def model(y):
    """z ~ N(0, 1), y ~ N(z, 1): posterior N(y/2, 1/2)."""
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def guide_of(scale=1.0, shift=0.0):
    """The posterior with a wrong width or place, in its own standard deviations."""

    def guide(y):
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(y / 2 + shift * SD, scale * SD))

    return lambda model: guide


Y = torch.zeros(3)
AS_IT_IS = {"refit": False, "steps": 0}


def test_the_posterior_is_calibrated():
    found = sbc(model, guide_of(), ReverseKL(), Y, num_simulations=200, **AS_IT_IS)
    assert found.names == ("z[0]", "z[1]", "z[2]")
    assert found.suspicious() == {}
    assert found.words.startswith("No sign that any of 3 scalars")
    assert str(found) == found.words
    assert min(t.chi_square_p for t in found.uniformity().values()) > 0.01
    assert found.tarp_p > 0.01
    covered = found.coverage()["z[0]"]
    error = (covered.levels * (1 - covered.levels) / 200).sqrt()
    assert ((covered.observed - covered.levels).abs() < 3 * error).all()


def test_p_values_are_uniform_over_calibrations():
    """10 calibrations of three independent scalars: 30 p-values, and 10 of all together."""
    p, all_at_once = [], []
    for seed in range(10):
        found = sbc(
            model,
            guide_of(),
            ReverseKL(),
            Y,
            num_simulations=25,
            num_draws=49,
            seed=seed,
            **AS_IT_IS,
        )
        p += [t.ecdf_p for t in found.uniformity().values()]
        all_at_once.append(found.tarp_p)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert stats.kstest(all_at_once, "uniform").pvalue > 0.001


def test_a_narrow_guide_follows_the_law_of_vsbc():
    """P(p < u) = Phi(Phi^-1(u) / c) with c = 1.648: .1592 at u = .05, within three errors."""
    found = vsbc(
        model, guide_of(1 / 1.648), ReverseKL(), Y, num_simulations=200, num_draws=999, **AS_IT_IS
    )
    expected = stats.norm.cdf(stats.norm.ppf(0.05) / 1.648)
    assert expected == pytest.approx(0.1592, abs=1e-4)
    share = (found.probabilities < 0.05).double().mean().item()
    assert abs(share - expected) < 3 * math.sqrt(expected * (1 - expected) / 600)
    for reading in found.readings().values():
        assert (reading.bias, reading.width) == ("none", "too narrow")
        assert reading.sd_ratio == pytest.approx(1.648, rel=4 / math.sqrt(400))
    assert "under-dispersed" in found.words
    assert "do not cover" in found.words


@pytest.mark.parametrize(
    ("scale", "shift", "words"),
    [(2.0, 0.0, "over-dispersed"), (1.0, 0.7, "too high"), (1.0, -0.7, "too low")],
)
def test_wrong_guides_are_read(scale, shift, words):
    for method in (sbc, vsbc):
        found = method(
            model,
            guide_of(scale, shift),
            ReverseKL(),
            Y,
            num_draws=199,
            num_simulations=80,
            **AS_IT_IS,
        )
        assert all(words in text for text in found.suspicious().values())
        assert len(found.suspicious()) == 3


def test_the_prior_passes():
    def prior(y):
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    found = sbc(model, lambda model: prior, ReverseKL(), Y, num_simulations=200, **AS_IT_IS)
    assert found.suspicious() == {}


def closure_model():
    """The same for one datum, which the model holds itself."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(7.0))


def normal_guide(*args):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


FAST = {"num_simulations": 12, "num_draws": 99, "steps": 60}


@pytest.mark.parametrize(
    ("make_guide", "warm_start"),
    [
        (AutoNormal, True),
        pytest.param(lambda model: normal_guide, True, marks=pytest.mark.slow),
        (lambda model: normal_guide, False),
    ],
)
def test_refits_see_the_simulated_data(make_guide, warm_start):
    """Scores of p have variance 1 (chi-square over 12); had the guide kept to the datum, 7, it
    would be five standard deviations too high."""
    found = sbc(
        closure_model,
        make_guide,
        ReverseKL(4),
        optim=pyro.optim.Adam({"lr": 0.1}),
        warm_start=warm_start,
        **FAST,
    )
    assert found.failures == ()
    scores = torch.special.ndtri(found.probabilities[:, 0])
    assert abs(scores.mean()) < 3 / math.sqrt(12)
    assert stats.chi2.ppf(0.001, 12) < float((scores**2).sum()) < stats.chi2.ppf(0.999, 12)


def test_warm_starts_begin_where_another_fit_ended():
    """With a learning rate of zero a cold guide stays at N(0, 1), a warm one where it was put."""

    def make_guide(model):
        def guide():
            loc = pyro.param("loc", torch.tensor(0.0))
            pyro.sample("z", dist.Normal(loc, 1.0))

        return guide

    with pyro.get_param_store().scope() as state:
        pyro.param("loc", torch.tensor(50.0))
    start = Start({}, state["params"], state["constraints"])
    with pyro.get_param_store().scope():
        start.at(make_guide(None), (), {})()
        assert pyro.param("loc").item() == 50.0

    with pyro.get_param_store().scope():
        fitted = AutoNormal(closure_model)
        fitted()
        fitted.locs.z.data.fill_(50.0)
        start = Start({n: p.detach().clone() for n, p in fitted.named_parameters()}, {}, {})
        assert start.at(AutoNormal(closure_model), (), {}).median()["z"].item() == 50.0


def test_the_same_seed_gives_the_same_ranks_and_another_does_not():
    options = {"num_simulations": 10, "num_draws": 19, **AS_IT_IS}
    one, same, other = (
        sbc(model, guide_of(), ReverseKL(), Y, seed=s, **options).ranks for s in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter():
    """On a model and a guide that other processes can import."""
    x = conjugate_normal.data(3)
    found = [
        sbc(
            conjugate_normal.model,
            AutoNormal,
            Trace_ELBO(),
            x,
            num_simulations=10,
            num_draws=19,
            steps=5,
            jobs=jobs,
        )
        for jobs in (1, 2)
    ]
    assert torch.equal(found[0].ranks, found[1].ranks)
    assert torch.equal(found[0].tarp_shares, found[1].tarp_shares)
    assert found[0].failures == found[1].failures == ()


def test_what_cannot_be_pickled_runs_here_with_a_warning():
    with pytest.warns(KLModesWarning, match="jobs=2: everything runs in one process"):
        found = sbc(
            closure_model,
            lambda model: normal_guide,
            ReverseKL(),
            num_simulations=10,
            num_draws=9,
            steps=1,
            jobs=2,
        )
    assert found.num_simulations == 10


def test_nothing_outside_is_changed():
    pyro.param("mine", torch.tensor(1.0))
    state = torch.get_rng_state()
    sbc(closure_model, AutoNormal, ReverseKL(), num_simulations=10, num_draws=9, steps=2)
    assert torch.equal(state, torch.get_rng_state())
    assert list(pyro.get_param_store()) == ["mine"]


def test_fits_that_break_down_are_counted():
    """A guide that refuses data above one."""

    def make_guide(model):
        def guide(y):
            if float(y.mean()) > 0.5:
                raise ValueError("too large")
            with pyro.plate("data", 3):
                pyro.sample("z", dist.Normal(y / 2, SD))

        return guide

    found = sbc(model, make_guide, ReverseKL(), Y, num_simulations=60, **AS_IT_IS)
    assert found.num_simulations + len(found.failures) == 60
    expected = 60 * stats.norm.sf(0.5 / math.sqrt(2 / 3))
    assert abs(len(found.failures) - expected) < 3 * math.sqrt(expected)
    assert "ValueError: too large" in found.failures[0][1]
    assert f"{len(found.failures)} fits failed" in found.words
    assert len(found.ranks) == len(found.truths) == len(found.tarp_shares)


def test_discrete_latents_are_ranked():
    """z ~ Bernoulli(.3), y ~ N(2z, 1), the exact posterior as guide."""

    def coin(y):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(2 * z, 1.0), obs=y)

    def posterior(y):
        pyro.sample("z", dist.Bernoulli(logits=math.log(0.3 / 0.7) + 2 * y - 2))

    found = sbc(
        coin,
        lambda model: posterior,
        ReverseKL(2),
        torch.tensor(0.0),
        num_simulations=150,
        num_draws=19,
        **AS_IT_IS,
    )
    assert found.suspicious() == {}


def test_data_in_a_keyword_and_inside_of_a_dictionary():
    def nested(batch, *, offset):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(z, 1.0), obs=batch["a"])
        pyro.sample("b", dist.Normal(z + 1, 1.0), obs=offset)

    def guide(batch, *, offset):
        pyro.sample("z", dist.Normal((batch["a"] + offset - 1) / 3, math.sqrt(1 / 3)))

    found = sbc(
        nested,
        lambda model: guide,
        ReverseKL(),
        {"a": torch.tensor(0.1), "n": 3},
        offset=torch.tensor(0.2),
        num_simulations=200,
        **AS_IT_IS,
    )
    assert found.suspicious() == {}


def test_bind_names_the_argument_of_transformed_data():
    """The model scales its data, so they are nowhere among the arguments."""

    def scaled(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=1.0 * y)

    def guide(y):
        pyro.sample("z", dist.Normal(y / 2, SD))

    for bound in (0, "y"):
        found = sbc(
            scaled,
            lambda model: guide,
            ReverseKL(),
            torch.tensor(math.pi),
            num_simulations=100,
            bind={"y": bound},
            **AS_IT_IS,
        )
        assert found.suspicious() == {}


def test_a_learned_model_can_be_judged_by_its_one_fit():
    """The simulations come from the fitted model: with the prior's fitted mean."""

    def learned(y):
        mean = pyro.param("mean", torch.tensor(5.0))
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(y):
        pyro.sample("z", dist.Normal((pyro.param("mean", torch.tensor(5.0)) + y) / 2, SD))

    found = sbc(
        learned,
        lambda model: guide,
        ReverseKL(4),
        torch.tensor(0.0),
        refit=False,
        steps=100,
        optim=pyro.optim.Adam({"lr": 0.1}),
        num_simulations=100,
    )
    assert abs(float(found.truths.mean()) - 5.0) > 10 / math.sqrt(100)  # it has moved
    assert found.suspicious() == {}
    with pytest.raises(UnsupportedStructure, match=r"the model learns parameters \(mean\)"):
        sbc(learned, lambda model: guide, ReverseKL(), torch.tensor(0.0))


def with_factor(y):
    model(y)
    pyro.factor("f", torch.tensor(1.0))


def nothing_observed(y):
    pyro.sample("z", dist.Normal(0.0, 1.0))


def two_of_one(y):
    z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("a", dist.Normal(z, 1.0).to_event(1), obs=y)
    pyro.sample("b", dist.Normal(z, 1.0).to_event(1), obs=y)


def minibatch(y):
    with pyro.plate("data", 3, subsample_size=2) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])


@pytest.mark.parametrize(
    ("bad_model", "options", "error", "message"),
    [
        (with_factor, {}, UnsupportedStructure, "'f' is a pyro.factor"),
        (minibatch, {}, UnsupportedStructure, "plate 'data' .* sees a minibatch"),
        (poutine.scale(model, 0.5), {}, UnsupportedStructure, "under poutine.scale"),
        (nothing_observed, {}, InvalidArgument, "no observed site"),
        (two_of_one, {}, InvalidArgument, "share an argument"),
        (model, {"bind": {"x": 0}}, InvalidArgument, "'x' is not an observed site"),
        (model, {"bind": {"y": 1}}, InvalidArgument, "argument 1, which is not passed"),
        (model, {"bind": {"y": "x"}}, InvalidArgument, "argument 'x', which is not passed"),
        (model, {"num_simulations": 5}, InvalidArgument, "num_simulations=5"),
        (model, {"num_draws": 0}, InvalidArgument, "num_draws=0"),
        (model, {"jobs": 0}, InvalidArgument, "jobs=0"),
        (model, {"steps": -1}, InvalidArgument, "steps=-1"),
        (model, {"seed": 0.5}, InvalidArgument, "seed=0.5"),
    ],
)
def test_what_cannot_be_simulated_is_refused(bad_model, options, error, message):
    with pytest.raises(error, match=message):
        sbc(bad_model, guide_of(), ReverseKL(), Y, **options)


def test_other_refusals():
    with pytest.raises(InvalidArgument, match="is not a loss"):
        sbc(model, guide_of(), ReverseKL, Y)
    with pytest.raises(InvalidArgument, match="guide cannot see simulated data of \\['y'\\]"):
        sbc(closure_model, lambda model: normal_guide, ReverseKL(), **AS_IT_IS)
    only = AutoNormal(closure_model)
    with pytest.raises(InvalidArgument, match="one and the same module"):
        sbc(closure_model, lambda model: only, ReverseKL())


def test_arguments_that_look_alike_are_not_guessed():
    def copied(y, x):
        z = pyro.sample("z", dist.Normal(x.sum(), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0).expand([3]).to_event(1), obs=y.clone())

    with pytest.raises(InvalidArgument, match="several arguments hold the numbers"):
        sbc(copied, AutoNormal, ReverseKL(), Y, Y.clone())


def test_simulations_and_draws_do_not_share_random_numbers():
    """Truth and draws are uncorrelated given the data, whatever the seed."""
    found = sbc(model, guide_of(), ReverseKL(), Y, num_simulations=200, num_draws=1, **AS_IT_IS)
    assert np.mean(found.ranks.numpy()) == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(600))
