"""``diagnose`` on guides and chains whose faults are known."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal

from models import bimodal
from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.diagnosis import diagnose, second_opinion
from pyro_klmodes.errors import InvalidArgument, KLModesError
from pyro_klmodes.posteriors import Chains

DRAWS = 4000


def normal_model(y=None):
    """z ~ N(0, 1), x ~ N(z, 1), x = 1: the posterior is N(1/2, 1/2)."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))


LOG_EVIDENCE = -0.5 * math.log(4 * math.pi) - 0.25
SD = math.sqrt(0.5)


def normal_guide(mean, sd):
    def guide(y=None):
        pyro.sample("z", dist.Normal(mean, sd))

    return guide


def test_the_exact_posterior_is_reliable_although_it_has_no_tail():
    found = diagnose((normal_model, normal_guide(0.5, SD)), num_samples=DRAWS)

    assert found.verdict.word == "reliable"
    assert found.verdict.advice == ()
    assert found.weights.effective_draws == pytest.approx(DRAWS, rel=1e-4)
    assert found.evidence["ELBO"].value == pytest.approx(LOG_EVIDENCE, abs=1e-5)
    assert found.trusted.value == pytest.approx(LOG_EVIDENCE, abs=4 * found.trusted.error)


def test_a_wide_guide_has_good_weights_and_wrong_moments():
    """Twice too wide and a standard deviation off: bounded weights that know what is right."""
    found = diagnose((normal_model, normal_guide(0.5 + SD, 2 * SD)), num_samples=DRAWS)

    assert found.verdict.word == "reweight"
    assert any("psis" in step for step in found.verdict.advice)
    z = found.moments["z"]
    effective = found.weights.effective_draws
    assert float(z.corrected_mean) == pytest.approx(0.5, abs=4 * SD / effective**0.5)
    assert float(z.shift) == pytest.approx(-1.0, abs=4 * float(z.shift_error))
    assert float(z.sd_ratio) == pytest.approx(2.0, abs=4 * float(z.sd_ratio_error))
    assert found.error_bounds.reason == ""
    assert float(found.error_bounds.mean["z"]) > SD  # the true error


def test_a_narrow_guide_is_not_to_be_believed():
    """A third as wide: k = 1 - 1/9 by the law of a normal pair, more than draws can cope with."""
    found = diagnose((normal_model, normal_guide(0.5, SD / 3)), num_samples=DRAWS)

    spread = float(found.k_hat.spread)
    assert found.weights.k_hat == pytest.approx(8 / 9, abs=3 * spread)
    assert found.verdict.word in ("doubtful", "misses mass", "far off")
    assert found.stein.p_value < 0.01


def test_a_missed_mode_is_found_by_looking_elsewhere():
    """The left mode alone has perfect weights; .3 of the mass is six standard deviations away."""
    case = bimodal.problem()
    alone = normal_guide(-3.0, 1.0)
    found = diagnose((case.model, lambda *args: alone()), args=case.args, num_samples=DRAWS)

    assert found.weights.effective_draws > 0.5 * DRAWS
    assert found.verdict.word == "misses mass"
    assert "AutoMixture" in found.verdict.advice[0]
    assert len(found.coverage.masses) == 2
    assert float(found.coverage.masses.max()) > 0.99
    assert float(found.opinion.masses.max()) == pytest.approx(0.7, abs=0.05)
    left_out = 1 - math.exp(found.weights.log_evidence - found.trusted.value)
    assert left_out == pytest.approx(0.3, abs=0.05)


def test_an_opinion_is_made_once_and_passed_on():
    case = bimodal.problem()
    opinion = second_opinion(case.model, case.args, case.kwargs)

    found = diagnose(
        (case.model, lambda *args: normal_guide(-3.0, 1.0)()), args=case.args, opinion=opinion
    )

    assert found.opinion is opinion


def two_plates(scale):
    def model():
        with pyro.plate("data", 4, dim=-1), pyro.plate("features", 3, dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(3, 4), 1.0))

    def guide():
        with pyro.plate("data", 4, dim=-1), pyro.plate("features", 3, dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(3, 4), scale))

    return model, guide


def test_cells_and_parameters_keep_their_places():
    """One element is twice too wide; it is found where it is, in the shape of the site."""
    scale = torch.ones(3, 4)
    scale[1, 2] = 2.0

    found = diagnose(two_plates(scale), num_samples=DRAWS, num_starts=0)

    assert found.weights.cells == 12
    assert found.moments["z"].sd_ratio.shape == (3, 4)
    assert int(found.moments["z"].sd_ratio.argmax()) == 1 * 4 + 2
    others = found.moments["z"].sd_ratio.flatten()[torch.arange(12) != 6]
    torch.testing.assert_close(others, torch.ones(11).double(), atol=1e-6, rtol=0.0)
    assert found.verdict.word == "reweight"
    assert "z[1,2]" in found.verdict.sentence


def test_the_worst_site_is_named():
    def model():
        for name in ("a", "b"):
            pyro.sample(name, dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(0.0, 0.35))

    found = diagnose((model, guide), num_samples=DRAWS)

    assert found.marginal_k_hat["b"].worst > 0.7 > found.marginal_k_hat["a"].worst
    assert found.verdict.word in ("doubtful", "far off")
    assert any("'b'" in step for step in found.verdict.advice)


def test_parameters_of_the_model_are_the_fitted_ones():
    """The search elsewhere runs the model, whose own parameter is far from its initial value."""

    def model(y):
        shift = pyro.param("shift", torch.tensor(0.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z + shift, 0.1), obs=y)

    y = torch.tensor(5.0)
    result = fit(
        model,
        AutoNormal(model),
        ReverseKL(16),
        y,
        steps=600,
        optim=pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.995}),
        progress=False,
    )
    assert abs(float(result.params["shift"])) > 3.0

    found = diagnose(result)

    gap = found.trusted.value - found.weights.log_evidence
    assert abs(gap) < 4 * math.hypot(found.trusted.error, found.weights.log_evidence_error)
    assert found.settled is not None


def test_nothing_outside_is_touched():
    pyro.clear_param_store()
    pyro.param("kept", torch.tensor(1.0))
    torch.manual_seed(0)
    expected = torch.rand(2)

    torch.manual_seed(0)
    first = diagnose((normal_model, normal_guide(0.5, SD)))
    assert torch.equal(torch.rand(2), expected)
    assert set(pyro.get_param_store().keys()) == {"kept"}
    assert diagnose((normal_model, normal_guide(0.5, SD))).to_dict() == first.to_dict()


def test_it_prints_and_becomes_numbers():
    found = diagnose((normal_model, normal_guide(0.5, 0.5 * SD)))

    text = str(found)
    for expected in (found.verdict.word, "Pareto k-hat", "ELBO", "lower bound", "estimate", "z"):
        assert expected in text
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert numbers["weights"]["k_hat"] == pytest.approx(found.weights.k_hat)
    table = found.to_xarray()
    assert float(table["sd_ratio_z"]) == pytest.approx(float(found.moments["z"].sd_ratio))
    assert table.attrs["verdict"] == found.verdict.word


def test_plain_pyro_svi():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = SVI(
        normal_model,
        AutoNormal(normal_model),
        pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.99}),
        Trace_ELBO(num_particles=8, vectorize_particles=True),
    )
    for _ in range(400):
        svi.step()

    found = diagnose(svi, args=())

    assert found.verdict.word == "reliable"
    assert found.attributes["loss"] == "Trace_ELBO"


def test_plain_pyro_chains():
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(normal_model), num_samples=600, warmup_steps=100, disable_progbar=True)
    mcmc.run()

    found = diagnose(mcmc)

    assert found.chains.divergences == 0
    assert found.chains.r_hat["z"].shape == ()
    assert found.verdict.word == (
        "reliable"
        if found.chains.worst_r_hat <= 1.01 and found.chains.fewest_effective >= 400
        else "not converged"
    )
    assert "four" in found.notes[0]


@pytest.mark.parametrize(
    ("shift", "word"), [(0.0, "reliable"), (0.5, "not converged")], ids=["same", "apart"]
)
def test_chains_that_disagree_have_not_converged(shift, word):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 500, generator=generator)
    values[0] += shift

    found = diagnose(Chains({"z": values}))

    assert found.verdict.word == word
    assert "R-hat" in found.verdict.sentence


def test_a_divergence_is_never_reliable():
    values = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    diverging = torch.zeros(4, 500, dtype=torch.bool)
    diverging[2, 7] = True

    found = diagnose(Chains({"z": values}, statistics={"diverging": diverging}))

    assert found.verdict.word == "not converged"
    assert "1 transitions diverged" in found.verdict.sentence


def test_a_point_has_nothing_to_diagnose():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    found = diagnose(fit(model, AutoDelta(model), Trace_ELBO(), steps=5, progress=False))

    assert found.verdict.word == "unknown"
    assert "AutoNormal" in found.verdict.advice[0]


def minibatches(y, subsample=None):
    """Local latents, a batch of five at a time: the posteriors are N(y/2, 1/2)."""
    with pyro.plate(
        "data", 20, subsample_size=None if subsample is not None else 5, subsample=subsample
    ) as index:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])


def their_posterior(y, subsample=None):
    with pyro.plate(
        "data", 20, subsample_size=None if subsample is not None else 5, subsample=subsample
    ) as index:
        pyro.sample("z", dist.Normal(y[index] / 2, SD))


def test_all_data_are_seen_where_the_fit_saw_minibatches():
    y = torch.linspace(-2.0, 2.0, 20)

    found = diagnose((minibatches, their_posterior), args=(y,))

    exact = dist.Normal(0.0, 2**0.5).log_prob(y).sum()
    assert found.verdict.word == "reliable"
    assert found.weights.cells == 20
    assert found.weights.log_evidence == pytest.approx(float(exact), abs=1e-4)
    assert found.moments["z"].mean.shape == (20,)
    torch.testing.assert_close(
        found.moments["z"].mean, (y / 2).double(), atol=4.5 * SD / DRAWS**0.5, rtol=0.0
    )
    assert "minibatch" in found.notes[0] or "subsampled" in found.notes[0]


def test_a_minibatch_in_the_arguments_is_refused():
    y = torch.linspace(-2.0, 2.0, 20)
    with pytest.raises(InvalidArgument, match="full data"):
        diagnose((minibatches, their_posterior), args=(y, torch.arange(5)))


def test_weights_that_are_not_numbers_are_named():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("broken", torch.where(z > 0, z, torch.full_like(z, math.nan)))

    with pyro.validation_enabled(False), pytest.raises(KLModesError, match="broken"):
        diagnose((model, normal_guide(0.0, 1.0)))


def test_weights_that_are_all_zero_are_refused():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("impossible", torch.tensor(-math.inf))

    with pytest.raises(KLModesError, match=r"zero|impossible"):
        diagnose((model, normal_guide(0.0, 1.0)))


@pytest.mark.parametrize("num_samples", [1, 99, 4000.0, True])
def test_too_few_draws_are_refused(num_samples):
    with pytest.raises(InvalidArgument, match="num_samples"):
        diagnose((normal_model, normal_guide(0.5, SD)), num_samples=num_samples)


@pytest.mark.parametrize(
    "source", [None, "fit", (normal_model,), 3.0], ids=["None", "text", "model", "number"]
)
def test_what_is_no_inference_is_refused(source):
    with pytest.raises(InvalidArgument, match="no finished inference"):
        diagnose(source)


def test_arguments_that_are_no_tuple_are_refused():
    with pytest.raises(InvalidArgument, match="args must be a tuple"):
        diagnose((normal_model, normal_guide(0.5, SD)), args=torch.ones(3))


def test_other_data_than_the_guide_was_fitted_to_are_refused():
    def model(y):
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    result = fit(model, AutoNormal(model), ReverseKL(), torch.zeros(5), steps=2, progress=False)

    with pytest.raises(KLModesError, match=r"z|data"):
        diagnose(result, args=(torch.zeros(7),))
