"""``to_arviz``: what is in which group, for fits, plain Pyro objects and chains."""

import matplotlib as mpl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal

from models import conjugate_normal, eight_schools, mixture_small
from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.conversion import GROUPS, from_pyro_mcmc, to_arviz
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference_data import dataset, group_names
from pyro_klmodes.inference_data.versions import az
from pyro_klmodes.posteriors import Chains


def of_pair(problem, **options):
    return to_arviz(
        (problem.model, problem.exact_guide), args=problem.args, kwargs=problem.kwargs, **options
    )


def test_all_groups_of_a_hierarchical_model():
    problem = conjugate_normal.hierarchical_problem()
    data = of_pair(problem, num_samples=500)

    assert set(group_names(data)) == set(GROUPS) - {"constant_data"}
    posterior = dataset(data, "posterior")
    assert posterior["mu"].dims == ("chain", "draw")
    assert posterior["z"].dims == ("chain", "draw", "data")
    statistics = dataset(data, "sample_stats")
    weight = (statistics["log_p"] - statistics["log_q"]).values
    np.testing.assert_allclose(weight, problem.log_evidence)
    np.testing.assert_allclose(statistics["log_weight"].values, weight)
    likelihood = dataset(data, "log_likelihood")["x"]
    z = torch.as_tensor(posterior["z"].values)
    np.testing.assert_allclose(
        likelihood.values, dist.Normal(z, 1.0).log_prob(problem.args[0]).numpy()
    )
    np.testing.assert_array_equal(dataset(data, "observed_data")["x"].values, problem.args[0])


def test_the_posterior_is_that_of_the_fit_with_the_same_seed():
    problem = conjugate_normal.hierarchical_problem()
    guide = AutoNormal(problem.model)
    loss = ReverseKL(num_particles=4)
    result = fit(problem.model, guide, loss, *problem.args, steps=20, seed=3, progress=False)
    data = to_arviz(result, num_samples=50, seed=7)
    drawn = result.draws(50, seed=7)
    posterior = dataset(data, "posterior")
    for site in ("mu", "z"):
        np.testing.assert_array_equal(posterior[site].values[0], drawn.values[site].numpy())
    for where in (data.attrs, posterior.attrs):
        assert (where["loss"], where["guide"], where["seed"]) == ("ReverseKL", "AutoNormal", 3)
        assert (where["draw_seed"], where["num_samples"]) == (7, 50)
        assert where["inference_library"] == "pyro-ppl"
        assert '"torch"' in where["versions"]


def test_the_posterior_does_not_depend_on_the_other_groups():
    problem = conjugate_normal.hierarchical_problem()
    everything = of_pair(problem, num_samples=30)
    alone = of_pair(problem, num_samples=30, groups=["posterior"])
    assert group_names(alone) == ("posterior",)
    for site in ("mu", "z"):
        np.testing.assert_array_equal(
            dataset(alone, "posterior")[site].values, dataset(everything, "posterior")[site].values
        )


def test_predictions_have_the_moments_of_the_closed_form():
    count = 8000
    problem = conjugate_normal.hierarchical_problem()
    data = of_pair(problem, num_samples=count, groups=["posterior_predictive", "prior_predictive"])
    local = problem.reference["z"]
    for group, mean, sd in (
        ("posterior_predictive", local.mean.numpy(), np.sqrt(local.sd.numpy() ** 2 + 1)),
        ("prior_predictive", 0.0, np.sqrt(3.0)),
    ):
        drawn = dataset(data, group)["x"].values[0]
        error = sd / np.sqrt(count)
        assert (np.abs(drawn.mean(0) - mean) < 4 * error).all()
        assert (np.abs(drawn.std(0, ddof=1) - sd) < 4 * error / np.sqrt(2)).all()


@pytest.mark.parametrize("make", [conjugate_normal.problem, conjugate_normal.hierarchical_problem])
def test_minibatches_give_the_shapes_and_weights_of_the_full_data(make):
    problem = make(7)
    data = of_pair(problem, num_samples=40)
    assert dict(dataset(data, "posterior")["z"].sizes) == {"chain": 1, "draw": 40, "data": 20}
    assert dataset(data, "posterior_predictive")["x"].shape == (1, 40, 20)
    weight = dataset(data, "sample_stats")["log_weight"].values
    np.testing.assert_allclose(weight, problem.log_evidence)
    z = torch.as_tensor(dataset(data, "posterior")["z"].values)
    likelihood = dist.Normal(z, 1.0).log_prob(problem.args[0]).numpy()
    np.testing.assert_allclose(dataset(data, "log_likelihood")["x"].values, likelihood)
    np.testing.assert_array_equal(dataset(data, "observed_data")["x"].values, problem.args[0])


def test_a_guide_fitted_on_minibatches():
    problem = conjugate_normal.hierarchical_problem(7)
    guide, loss = AutoNormal(problem.model), ReverseKL(num_particles=2)
    result = fit(
        problem.model, guide, loss, *problem.args, **problem.kwargs, steps=5, progress=False
    )
    data = to_arviz(result, num_samples=30)
    assert dataset(data, "posterior")["z"].shape == (1, 30, 20)


def test_enumerated_sites_are_drawn_and_have_probabilities():
    problem = mixture_small.problem(3)
    data = of_pair(problem, num_samples=4000)
    (x,) = problem.args
    exact = mixture_small.assignment_probabilities(x).numpy()

    table = dataset(data, "constant_data")["assignment_probabilities"]
    assert table.dims == ("data", "assignment_state")
    drawn = dataset(data, "posterior")["assignment"]
    assert drawn.dims == ("chain", "draw", "data")
    error = np.sqrt(exact[:, 1] * exact[:, 0] / 4000)
    assert (np.abs(drawn.values[0].mean(0) - exact[:, 1]) < 4 * error).all()
    # their spread over draws is smaller than that of zeros and ones
    assert (np.abs(table.values[:, 1] - exact[:, 1]) < 4 * error).all()
    mu = torch.as_tensor(dataset(data, "posterior")["mu"].values)
    normal = dist.Normal(mu[..., None, :], 1.0).log_prob(x[:, None])
    by_hand = torch.logsumexp(torch.tensor(mixture_small.WEIGHTS).log() + normal, -1)
    np.testing.assert_allclose(dataset(data, "log_likelihood")["x"].values, by_hand.numpy())


def partly(y, mask, offset):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu + offset, 1.0), obs=y, obs_mask=mask)


def test_what_was_not_observed_is_imputed_and_is_no_datum():
    y = torch.tensor([0.5, 0.0, -1.0])
    mask = torch.tensor([True, False, True])
    guide = AutoNormal(partly)
    args = (y, mask, torch.ones(3))
    data = to_arviz((partly, guide), args=args, num_samples=30)
    likelihood = dataset(data, "log_likelihood")["y"]
    assert likelihood.dims == ("chain", "draw", "y_datum")
    assert likelihood.coords["y_datum"].values.tolist() == [0, 2]
    imputed = dataset(data, "posterior")["y"].values
    np.testing.assert_array_equal(imputed[..., [0, 2]], np.broadcast_to([0.5, -1.0], (1, 30, 2)))
    np.testing.assert_array_equal(dataset(data, "observed_data")["y"].values, [0.5, np.nan, -1.0])
    assert dataset(data, "posterior_predictive")["y"].values.std(1).min() > 0
    assert set(dataset(data, "constant_data").data_vars) == {"mask", "offset"}


def test_svi_of_plain_pyro():
    x = conjugate_normal.hierarchical_data()
    guide = AutoNormal(conjugate_normal.hierarchical_model)
    svi = SVI(
        conjugate_normal.hierarchical_model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()
    )
    svi.step(x)
    data = to_arviz(svi, args=(x,), num_samples=20)
    assert data.attrs["loss"] == "Trace_ELBO"
    assert dataset(data, "posterior")["z"].shape == (1, 20, 20)


def unmarked_mixture(y):
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.4, 0.6])))
        pyro.sample("y", dist.Normal(mu[c], 1.0), obs=y)


def test_chains_of_nuts_with_a_discrete_site_that_it_sums_out():
    y = torch.tensor([-1.0, 0.2, 1.4])
    mcmc = MCMC(
        NUTS(unmarked_mixture, max_plate_nesting=1),
        num_samples=12,
        warmup_steps=8,
        disable_progbar=True,
    )
    mcmc.run(y)
    data = from_pyro_mcmc(mcmc)
    mu = torch.as_tensor(dataset(data, "posterior")["mu"].values)
    np.testing.assert_array_equal(mu.numpy(), mcmc.get_samples(group_by_chain=True)["mu"])
    normal = dist.Normal(mu[..., None, :], 1.0).log_prob(y[:, None])
    mixture = torch.logsumexp(torch.tensor([0.4, 0.6]).log() + normal, -1)
    np.testing.assert_allclose(dataset(data, "log_likelihood")["y"].values, mixture.numpy())
    prior = dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).log_prob(mu).sum(-1)
    statistics = dataset(data, "sample_stats")
    np.testing.assert_allclose(statistics["lp"].values, (prior + mixture.sum(-1)).numpy())
    assert statistics["diverging"].dtype == bool
    assert dataset(data, "posterior")["c"].shape == (1, 12, 3)
    with pytest.raises(InvalidArgument, match="pass a pyro.infer.MCMC"):
        from_pyro_mcmc(unmarked_mixture)


def nuts_of_eight_schools():
    values = {
        name: torch.as_tensor(draws, dtype=torch.float64)
        for name, draws in eight_schools.nuts_draws().items()
        if name != "theta"
    }
    return Chains(values, eight_schools.non_centred_model, eight_schools.data())


def test_chains_stay_chains_and_agree_with_what_arviz_ships():
    data = to_arviz(nuts_of_eight_schools(), coords={"schools": list("ABCDEFGH")})
    shipped = az.load_arviz_data("non_centered_eight")
    for ours, theirs in (
        (dataset(data, "posterior")["theta"], dataset(shipped, "posterior")["theta"]),
        (dataset(data, "log_likelihood")["y"], dataset(shipped, "log_likelihood")["obs"]),
    ):
        assert ours.shape == (4, 500, 8)
        np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-6, atol=1e-6)
    # theirs is of the unconstrained log tau, up to constants
    lp = dataset(data, "sample_stats")["lp"] + np.log(dataset(data, "posterior")["tau"])
    gap = (lp - dataset(shipped, "sample_stats")["lp"]).values
    assert gap.std() < 1e-6


def test_arviz_takes_the_result(monkeypatch):
    mpl.use("Agg")
    problem = eight_schools.non_centred_problem()
    guide = AutoNormal(problem.model)
    data = to_arviz((problem.model, guide), args=problem.args, num_samples=200)
    table = az.summary(data, var_names=["mu", "theta"], kind="stats")
    assert list(table.index)[:2] == ["mu", "theta[0]"]
    assert len(table) == 9
    for plot in (az.plot_forest, az.plot_pair):
        assert plot(data, var_names=["mu", "tau"]) is not None
    mpl.pyplot.close("all")


def test_a_guide_that_is_a_point_has_draws_and_a_note_in_place_of_weights():
    x = conjugate_normal.hierarchical_data()
    guide = AutoDelta(conjugate_normal.hierarchical_model)
    with pytest.warns(KLModesWarning, match="'mu' fixed at a point"):
        data = to_arviz((conjugate_normal.hierarchical_model, guide), args=(x,), num_samples=30)
    assert "sample_stats" not in group_names(data)
    assert "fixed at a point" in data.attrs["log_weights"]
    assert "khat" not in data.attrs
    assert dataset(data, "log_likelihood")["x"].shape == (1, 30, 20)


def test_k_hat_of_every_cell():
    problem = conjugate_normal.problem()
    pyro.param("slope", torch.tensor(0.5))
    pyro.param("scale", torch.tensor(0.6))
    pair = (problem.model, problem.guide)
    data = to_arviz(pair, args=problem.args, num_samples=1000)
    khat = dataset(data, "constant_data")["khat"]
    assert khat.dims == ("data",)
    assert data.attrs["khat"] == float(khat.max())


def test_one_draw():
    data = of_pair(conjugate_normal.hierarchical_problem(), num_samples=1)
    assert dataset(data, "posterior")["z"].shape == (1, 1, 20)
