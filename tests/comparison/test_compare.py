"""``compare`` end to end: our fit, plain Pyro SVI, a pair and NUTS; the answers in closed form."""

import math
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.comparison import compare
from pyro_klmodes.entries import Fitted
from pyro_klmodes.entries.entry import USABLE
from pyro_klmodes.entries.recipe import Recipe
from pyro_klmodes.errors import InvalidArgument, NotDefined

# mu ~ N(0, 2^2), y_i ~ N(mu, 1): precision of the posterior 1/4 + n.
Y = torch.tensor([0.3, 1.9, 0.8, 1.4, 0.6], dtype=torch.float64)
POSTERIOR_SD = (0.25 + len(Y)) ** -0.5
POSTERIOR_MEAN = float(Y.sum()) * POSTERIOR_SD**2
COVARIANCE = torch.eye(len(Y), dtype=torch.float64) + 4.0
LOG_EVIDENCE = float(
    torch.distributions.MultivariateNormal(torch.zeros_like(Y), COVARIANCE).log_prob(Y)
)
# Leave-one-out: y_i given the others is normal with these moments, in closed form.
REST_VARIANCE = 1 / (0.25 + len(Y) - 1)
EXACT_LOO = sum(
    float(dist.Normal((Y.sum() - y) * REST_VARIANCE, math.sqrt(1 + REST_VARIANCE)).log_prob(y))
    for y in Y
)
NARROW = 0.3  # of the posterior's spread: the weights have k = 1 - 0.3^2
REFERENCE = {"mu": (POSTERIOR_MEAN, POSTERIOR_SD)}


def model(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 2.0))
    pyro.deterministic("twice", 2 * mu)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def exact(y):
    pyro.sample("mu", dist.Normal(torch.tensor(POSTERIOR_MEAN), POSTERIOR_SD))


def narrow(y):
    pyro.sample("mu", dist.Normal(torch.tensor(POSTERIOR_MEAN), NARROW * POSTERIOR_SD))


def learned(y):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


@pytest.fixture(scope="module")
def found():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.set_default_dtype(torch.float64)
    ours = fit(model, exact, ReverseKL(num_particles=4), Y, steps=25, seed=0, progress=False)
    svi = SVI(model, learned, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=4))
    for _ in range(300):
        svi.step(Y)
    chains = MCMC(NUTS(model), num_samples=300, warmup_steps=100, disable_progbar=True)
    chains.run(Y)
    return compare(
        {"nuts": chains, "ours": ours, "svi": svi, "narrow": (model, narrow), "nonsense": 3},
        reference=REFERENCE,
        log_evidence=LOG_EVIDENCE,
        args=(Y,),
        num_samples=2000,
    )


def test_all_kinds_of_inference_meet_in_the_order_given(found):
    assert found.table().index.tolist() == ["nuts", "ours", "svi", "narrow", "nonsense"]
    assert found.table()["guide"].tolist() == ["NUTS", "exact", "learned", "narrow", ""]
    assert found.table()["loss"].tolist() == ["", "ReverseKL", "Trace_ELBO", "", ""]
    verdicts = found.table()["verdict"]
    assert verdicts[["ours", "nonsense"]].tolist() == ["reliable", "failed"]
    assert verdicts["svi"] in USABLE
    assert verdicts["narrow"] not in USABLE


def test_what_failed_has_a_message_and_the_others_go_on(found):
    (failure,) = found.failures

    assert failure.label == "nonsense"
    assert "type int is no finished inference" in failure.message


def test_distances_from_the_reference_are_those_of_the_law(found):
    table = found.parameters().loc["mu"]

    # Standard errors with S draws: 1/sqrt(S) of a z-shift, 1/sqrt(2 S) of a ratio.
    for label, ratio, count in (("ours", 1.0, 2000), ("narrow", NARROW, 2000)):
        row = table.loc[label]
        assert row["z_shift"] == pytest.approx(0.0, abs=4 * ratio / math.sqrt(count))
        assert row["sd_ratio"] == pytest.approx(ratio, abs=4 * ratio / math.sqrt(2 * count))
        assert row["reference_mean"] == POSTERIOR_MEAN
    twice = found.parameters().loc["twice"]
    np.testing.assert_allclose(twice["mean"], 2 * table["mean"])
    assert twice["reference_mean"].isna().all()


def test_weighted_moments_are_there_where_weights_can_be_believed(found):
    table = found.parameters().loc["mu"]

    # The weights of the exact guide are constant, so nothing is corrected.
    assert table.loc["ours", "corrected_mean"] == pytest.approx(table.loc["ours", "mean"], rel=0.02)
    assert table.loc[["narrow", "nuts"], "corrected_mean"].isna().all()


def test_evidence_of_an_exact_guide_has_no_error(found):
    row = found.table().loc["ours"]

    assert row["log_evidence"] == pytest.approx(LOG_EVIDENCE, abs=1e-6)
    assert row["elbo"] == pytest.approx(LOG_EVIDENCE, abs=1e-6)
    assert row["effective_draws"] == pytest.approx(2000, rel=1e-6)


def test_leave_one_out_of_guide_and_chains_is_the_exact_one(found):
    table = found.table()

    # With 2000 independent draws the standard error of the five terms is about 0.01; the effective
    # number of draws of the chain is a tenth of that.
    assert table.loc["ours", "elpd_loo"] == pytest.approx(EXACT_LOO, abs=0.05)
    assert table.loc["nuts", "elpd_loo"] == pytest.approx(EXACT_LOO, abs=0.15)


def test_costs_are_steps_times_particles_where_they_are_known(found):
    table = found.table()

    assert table.loc["ours", "gradient_evaluations"] == 25 * 4
    assert table.loc["ours", "seconds"] > 0
    assert (
        table.loc[["nuts", "svi", "narrow"], ["gradient_evaluations", "seconds"]]
        .isna()
        .all(axis=None)
    )
    assert found.fits[1].training.shape == (25,)


def test_steps_particles_and_optimizer_are_told_where_they_are_known(found):
    how = {fit.label: fit.recipe for fit in found.fits}

    assert how["ours"] == Recipe(25, 4, "Adam (lr=0.01)")
    assert how["ours"].words == "25 steps of 4 particles by Adam (lr=0.01)"
    assert (how["svi"].steps, how["svi"].particles) == (None, 4)
    assert how["svi"].words == "steps of 4 particles by Adam (lr=0.05)"
    assert (how["nuts"], how["narrow"]) == (None, None)
    assert found.table().loc["ours", ["steps", "particles"]].tolist() == [25, 4]
    assert "fit 2: 25 steps of 4 particles by Adam (lr=0.01)" in str(found)


def test_moments_are_those_of_the_draws_that_are_kept(found):
    for entry in found.fits:
        draws = entry.data.posterior["mu"].values
        assert float(entry.moments["mu"].mean) == pytest.approx(draws.mean())
        assert float(entry.moments["mu"].sd) == pytest.approx(draws.std(ddof=1))


def test_the_fit_named_as_reference_is_the_reference():
    fits = {"good": (model, exact), "narrow": (model, narrow)}
    found = compare(fits, reference="good", args=(Y,), num_samples=500)

    table = found.parameters()
    assert table.loc[("mu", "good"), "z_shift"] == 0.0
    assert table.loc[("mu", "good"), "sd_ratio"] == 1.0
    good, bad = (found.fits[n].moments["mu"] for n in (0, 1))
    assert table.loc[("mu", "narrow"), "sd_ratio"] == float(bad.sd / good.sd)
    assert found.reference.origin == "the fit good"


def test_an_object_with_reference_and_evidence_will_do():
    known = SimpleNamespace(reference=REFERENCE, log_evidence=LOG_EVIDENCE, how="closed form")

    found = compare({"good": (model, exact)}, reference=known, args=(Y,), num_samples=500)

    assert found.reference.log_evidence == LOG_EVIDENCE
    assert found.reference.origin == "closed form"
    assert found.conclusion.headline == "The fit can be believed."


def test_models_with_other_sites_are_compared_on_what_they_share():
    def other(y):
        pyro.sample("extra", dist.Normal(0.0, 1.0))
        model(y)

    def other_guide(y):
        pyro.sample("extra", dist.Normal(0.0, 1.0))
        exact(y)

    found = compare(
        {"one": (model, exact), "two": (other, other_guide)}, args=(Y,), num_samples=500
    )

    assert list(found.common_sites) == ["mu", "twice"]
    assert found.left_out == {"extra": ["two"]}


def test_the_search_for_modes_is_made_once_per_model(monkeypatch):
    searches = []

    def search(*args, **kwargs):
        searches.append(args)

    monkeypatch.setattr("pyro_klmodes.diagnosis.elsewhere.opinion_on", search)
    fits = {"one": (model, exact), "two": (model, narrow), "three": (model, exact)}

    found = compare(fits, args=(Y,), num_samples=500)

    assert [type(outcome) for outcome in found.outcomes] == [Fitted] * 3
    assert len(searches) == 1


@pytest.mark.parametrize(
    ("fits", "options", "message"),
    [
        ({}, {}, "there are no fits"),
        ([(model, exact)], {}, "pass a dictionary from label to fit"),
        ({"": (model, exact)}, {}, "the label ''"),
        ({"a": (model, exact)}, {"reference": "b"}, "'b' is not the label of a fit.* a"),
        ({"a": (model, exact)}, {"reference": 3.0}, "of type float"),
        ({"a": (model, exact)}, {"reference": {"mu": 3.0}}, r"site 'mu' must be a pair"),
        ({"a": (model, exact)}, {"reference": {"mu": (0.0, -1.0)}}, "'mu'.*negative"),
        ({"a": (model, exact)}, {"reference": {"nu": (0.0, 1.0)}}, "'nu', which no fit has"),
        ({"a": (model, exact)}, {"reference": {"mu": ([0.0], [1.0])}}, r"shape \(1,\).*shape \(\)"),
        ({"a": 3, "b": (model, exact)}, {"reference": "a"}, "the reference, fit 'a', failed"),
        ({"a": (model, exact)}, {"log_evidence": math.nan}, "log_evidence=nan"),
        ({"a": (model, exact)}, {"num_samples": 10}, "num_samples=10 must be at least 100"),
    ],
)
def test_mistakes_are_told(fits, options, message):
    with pytest.raises(InvalidArgument, match=message):
        compare(fits, args=(Y,), **({"num_samples": 200} | options))


def test_a_figure_without_content_says_why(found):
    with pytest.raises(NotDefined, match="fewer than two modes"):
        found.plot_modes()


def test_a_notebook_shows_the_tables(found):
    html = found._repr_html_()

    assert found.conclusion.headline in html
    assert html.count("<table>") == 2
    assert "<script" not in html
