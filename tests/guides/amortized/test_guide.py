"""The amortised guide: exact posteriors, minibatches, new data, particles, copies."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal, init_to_mean, init_to_value
from torch import nn

import pyro_klmodes as kl
from pyro_klmodes import estimators
from pyro_klmodes.guides import AutoFullRank, AutoMeanField
from pyro_klmodes.guides.amortized import (
    MLP,
    AutoAmortized,
    DiagonalNormal,
    FullNormal,
    NormalMixture,
    StudentT,
)
from tests.guides.amortized.cases import (
    LINEAR,
    MEAN,
    SD,
    Counting,
    exact,
    exact_chain,
    log_evidence,
    normal_normal,
    shaken,
)

X = torch.linspace(-3.0, 3.0, 20, dtype=torch.float64)
IDX = torch.tensor([7, 2, 19])
FAMILIES = [DiagonalNormal(), FullNormal(), StudentT(5.0), NormalMixture(2)]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)


def with_globals(x, size=None):
    """Local latents on three supports, and two global ones."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(x), size) as i:
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("rate", dist.Gamma(2.0, 2.0).expand([2]).to_event(1))
        pyro.sample("w", dist.Dirichlet(torch.ones(3)))
        mean = torch.stack([z, z * share[..., 0]], -1)
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x[i])


PAIRS = torch.stack([X, X.cos()], -1)


# -- exact -----------------------------------------------------------------------------------------


def test_at_the_posterior_every_weight_is_the_evidence_of_its_datum():
    found = kl.draws(normal_normal, exact(X), (X,), num_particles=6)
    assert found.log_w.shape == (6, 20)
    torch.testing.assert_close(found.log_w.detach(), log_evidence(X).expand(6, 20))


def test_coupled_sites_of_a_datum_can_have_any_joint_normal():
    from tests.guides.amortized.cases import chain

    guide, evidence = exact_chain(X)
    found = kl.draws(chain, guide, (X,), num_particles=6)
    torch.testing.assert_close(found.log_w.detach(), evidence.expand(6, 20))


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((X,), id="all", marks=pytest.mark.slow),
        pytest.param((X, 5), id="minibatches"),
    ],
)
def test_training_leads_to_the_exact_posteriors(batch):
    """Sticking the landing: the gradient has no variance at the posterior, so it is reached."""
    guide = AutoAmortized(normal_normal, encoder=LINEAR, init_loc_fn=init_to_mean)
    tolerance = 1e-3
    start = guide.local_distributions(X)["z"].base_dist.base_dist
    assert float((start.mean.squeeze(-1) - MEAN * X).detach().abs().max()) > 5 * tolerance
    assert float((start.stddev - SD).detach().abs().min()) > 5 * tolerance
    kl.fit(
        normal_normal,
        guide,
        kl.ReverseKL(4, estimator=estimators.doubly),
        *batch,
        steps=600,
        optim=pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.985}),
        progress=False,
    )
    end = guide.local_distributions(X)["z"].base_dist.base_dist
    torch.testing.assert_close(end.mean.squeeze(-1), MEAN * X, atol=tolerance, rtol=0)
    assert float((end.stddev - SD).detach().abs().max()) < tolerance


def test_locals_and_globals_that_are_independent_are_both_exact():
    """The mean of the second coordinate is global and is seen by no local latent."""

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = torch.stack([z, mu.expand(z.shape)], -1)
            pyro.sample("x", dist.Normal(mean, torch.tensor([0.5, 1.0])).to_event(1), obs=x)

    guide = AutoAmortized(model, encoder=LINEAR)
    guide(PAIRS)
    local = exact(X).heads[0].linear
    precision = 1.0 + len(X)
    with torch.no_grad():
        linear = guide.heads[0].linear
        linear.weight.copy_(torch.cat([local.weight, torch.zeros(2, 1)], -1))
        linear.bias.copy_(local.bias)
        guide.global_guide.family.loc = torch.tensor([PAIRS[:, 1].sum() / precision])
        guide.global_guide.family.scale.sd = torch.tensor([precision**-0.5])
    pyro.clear_param_store()
    found = kl.draws(model, guide, (PAIRS,), num_particles=4).log_w.detach()
    covariance = torch.eye(20) + torch.ones(20, 20)
    other = dist.MultivariateNormal(torch.zeros(20), covariance).log_prob(PAIRS[:, 1])
    torch.testing.assert_close(found, (log_evidence(X).sum() + other).expand(4))


# -- the start -------------------------------------------------------------------------------------


def test_all_data_start_at_the_initial_value_with_the_initial_scale():
    values = {"z": torch.full((20,), 1.5)}
    guide = AutoAmortized(normal_normal, init_loc_fn=init_to_value(values=values), init_scale=0.2)
    start = guide.local_distributions(X)["z"]
    other = dist.Normal(torch.tensor(1.5), 0.2).expand([20])
    value = torch.randn(20)
    torch.testing.assert_close(start.log_prob(value), other.log_prob(value))


def test_the_start_is_the_average_of_initial_values_in_unconstrained_space():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    values = {"rate": torch.linspace(0.5, 4.0, 20)}
    guide = AutoAmortized(model, init_loc_fn=init_to_value(values=values))
    middle = values["rate"].log().mean().exp()
    torch.testing.assert_close(guide.median(X)["rate"], middle.expand(20))


# -- sites, shapes, densities ----------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("coupled", [False, True])
def test_density_of_own_draws_is_that_of_the_trace(family, coupled):
    guide = shaken(AutoAmortized(with_globals, family=family, coupled=coupled), PAIRS)
    trace = poutine.trace(guide).get_trace(PAIRS)
    names = ["scale", "share", "z", "rate", "w"]
    drawn = [n for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"]
    assert drawn == names
    values = {n: trace.nodes[n]["value"].detach() for n in names}
    assert {n: tuple(v.shape) for n, v in values.items()} == {
        "scale": (),
        "share": (3,),
        "z": (20,),
        "rate": (20, 2),
        "w": (20, 3),
    }
    torch.testing.assert_close(guide.log_prob(values, PAIRS), trace.log_prob_sum())


@every_family
@pytest.mark.parametrize("coupled", [False, True])
def test_elements_of_the_plate_are_independent(family, coupled):
    """The density of a datum's latents does not change with those of others."""
    guide = shaken(AutoAmortized(with_globals, family=family, coupled=coupled), PAIRS)
    values = guide.sample(2, PAIRS)

    def by_datum(values):
        given = poutine.condition(guide, values)
        trace = poutine.trace(given).get_trace(PAIRS)
        trace.compute_log_prob()
        return sum(trace.nodes[n]["log_prob"] for n in ("z", "rate", "w"))

    first, second = ({n: v[k] for n, v in values.items()} for k in range(2))
    local = ("z", "rate", "w")
    mixed = {n: torch.cat([first[n][:7], second[n][7:]]) for n in local}
    expected = torch.cat([by_datum(first)[:7], by_datum(second)[7:]])
    torch.testing.assert_close(by_datum({**first, **mixed}), expected)


@every_family
def test_trains_with_losses_of_ours_and_of_pyro(family):
    losses = [
        kl.ReverseKL(4),
        kl.IWAE(4),
        kl.ForwardKL(4),
        Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1),
        Trace_ELBO(2),
        RenyiELBO(0.0, 3, vectorize_particles=True, max_plate_nesting=1),
    ]
    for loss in losses:
        pyro.clear_param_store()
        guide = AutoAmortized(normal_normal, family=family, encoder=MLP(hidden=(4,)))
        svi = SVI(normal_normal, guide, pyro.optim.Adam({"lr": 0.01}), loss=loss)
        assert math.isfinite(svi.step(X))
        before = {n: p.detach().clone() for n, p in guide.named_parameters()}
        assert all(math.isfinite(svi.step(X)) for _ in range(2))
        moved = {n for n, p in guide.named_parameters() if not torch.equal(p, before[n])}
        assert moved == set(before)


def test_importance_weights_are_of_every_datum_also_in_minibatches():
    guide = AutoAmortized(normal_normal)
    assert kl.check(normal_normal, guide, X, 5, loss=kl.IWAE(4)).granularity == ("data",)
    guide = AutoAmortized(with_globals)
    assert math.isfinite(kl.IWAE(4).loss_and_grads(with_globals, guide, PAIRS, 5))


def test_the_densities_cover_the_prior_and_integrate_to_one():
    """By importance sampling from the prior, for a site of one positive coordinate."""

    def model(x):
        with pyro.plate("data", 1):
            pyro.sample("rate", dist.LogNormal(0.0, 2.0))

    guide = AutoAmortized(model, data="x", encoder=LINEAR)
    shaken(guide, torch.ones(1))
    from pyro_klmodes.testing import assert_integrates_to_one

    x = torch.ones(1)
    assert_integrates_to_one(lambda: model(x), lambda: guide(x))


# -- particles -------------------------------------------------------------------------------------


def test_the_encoder_runs_once_for_all_particles():
    encoder = Counting()
    guide = AutoAmortized(normal_normal, encoder=encoder)
    loss = kl.ReverseKL(16)
    loss.loss_and_grads(normal_normal, guide, X)
    encoder.rows.clear()
    loss.loss_and_grads(normal_normal, guide, X)
    assert encoder.rows == [20]
    encoder.rows.clear()
    Trace_ELBO(16, vectorize_particles=True, max_plate_nesting=1).loss(normal_normal, guide, X)
    assert encoder.rows == [20]


@pytest.mark.parametrize("coupled", [False, True])
def test_first_called_inside_of_a_particle_plate(coupled):
    guide = AutoAmortized(with_globals, coupled=coupled, family=FullNormal())
    with pyro.plate("particles", 5, dim=-2):
        drawn = guide(PAIRS)
    shapes = {n: tuple(v.shape) for n, v in drawn.items()}
    assert shapes["z"] == (5, 20)
    assert shapes["rate"] == (5, 20, 2)
    assert shapes["w"] == (5, 20, 3)
    assert tuple(guide(PAIRS)["z"].shape) == (20,)


# -- minibatches and new data ----------------------------------------------------------------------


def rows_by_model(x, idx):
    """Data of the minibatch's size, given to a plate of another one."""
    with pyro.plate("data", 20, subsample=idx):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def test_full_data_are_indexed_by_the_minibatch_and_partial_ones_taken_as_they_are():
    guide = exact(X)
    whole = {"z": torch.randn(3), "data": IDX}
    expected = dist.Normal(MEAN * X[IDX], SD).log_prob(whole["z"]).sum()
    torch.testing.assert_close(guide.log_prob(whole, X, idx=IDX), expected)
    other = AutoAmortized(rows_by_model, encoder=LINEAR)
    other(X[IDX], IDX)
    other.load_state_dict(guide.state_dict())
    torch.testing.assert_close(other.log_prob(whole, X[IDX], IDX), expected)


def test_a_permutation_of_all_data_is_a_minibatch_too():
    guide = exact(X)
    order = torch.arange(19, -1, -1)
    values = {"z": torch.randn(20)}
    expected = dist.Normal(MEAN * X.flip(0), SD).log_prob(values["z"]).sum()
    torch.testing.assert_close(guide.log_prob(values, X, idx=order), expected)


@pytest.mark.parametrize("first", [(X,), (X, 5), (X[:3],)], ids=["all", "minibatch", "few"])
def test_data_of_another_size_are_encoded_like_the_first(first):
    guide = shaken(AutoAmortized(with_globals), *[_pairs(a) for a in first])
    new = PAIRS[:7]
    assert tuple(guide(new)["z"].shape) == (7,)
    assert tuple(guide(new, 4)["rate"].shape) == (4, 2)
    assert tuple(guide(PAIRS)["z"].shape) == (20,)
    torch.testing.assert_close(guide.median(new)["z"], guide.median(PAIRS)["z"][:7])
    torch.testing.assert_close(guide.median(new)["scale"], guide.median(PAIRS)["scale"])
    assert math.isfinite(kl.ReverseKL(4).loss(with_globals, guide, new))


def _pairs(x):
    return torch.stack([x, x.cos()], -1) if isinstance(x, torch.Tensor) else x


def test_samples_carry_the_indices_of_their_minibatch():
    guide = exact(X)
    found = guide.sample(6, X, 5)
    assert found["z"].shape == (6, 5)
    assert found["data"].shape == (5,)
    expected = dist.Normal(MEAN * X[found["data"]], SD).log_prob(found["z"]).sum(-1)
    torch.testing.assert_close(guide.log_prob(found, X, 5), expected)


# -- medians, quantiles ----------------------------------------------------------------------------


def test_medians_and_quantiles_are_of_all_rows_passed():
    guide = exact(X)
    torch.testing.assert_close(guide.median(X, 5)["z"], MEAN * X)
    found = guide.quantiles([0.1, 0.9], X)["z"]
    expected = dist.Normal(MEAN * X, SD).icdf(torch.tensor([[0.1], [0.9]]))
    torch.testing.assert_close(found, expected)


def test_quantiles_of_globals_come_from_their_guide():
    model = poutine.block(with_globals, hide=["w", "share"])
    guide = AutoAmortized(model, data="x", global_guide=AutoMeanField)
    found = guide.quantiles([0.25, 0.75], PAIRS)
    assert {n: tuple(v.shape) for n, v in found.items()} == {
        "scale": (2,),
        "z": (2, 20),
        "rate": (2, 20, 2),
    }


def test_a_simplex_has_no_quantiles_and_coupled_sites_none_of_their_own():
    guide = AutoAmortized(with_globals)
    with pytest.raises(kl.errors.NotDefined, match="'w'"):
        guide.quantiles([0.5], PAIRS)
    guide = AutoAmortized(normal_normal, coupled=True)
    with pytest.raises(kl.errors.NotDefined, match="coupled=True"):
        guide.median(X)
    with pytest.raises(kl.errors.NotDefined, match="AutoAmortized"):
        guide.get_posterior(X)


# -- globals ---------------------------------------------------------------------------------------


def pyro_guide(model):
    return AutoNormal(model)


def by_hand(model):
    def guide(x, size=None):
        loc = pyro.param("loc", torch.zeros(()))
        pyro.sample("scale", dist.LogNormal(loc, 1.0))
        pyro.sample("share", dist.Dirichlet(torch.ones(3)))

    return guide


@pytest.mark.parametrize("make", [None, AutoFullRank, AutoMeanField, pyro_guide, by_hand])
def test_globals_are_left_to_another_guide(make):
    guide = AutoAmortized(with_globals, global_guide=make)
    svi = SVI(with_globals, guide, pyro.optim.Adam({"lr": 0.01}), loss=kl.ReverseKL(4))
    assert all(math.isfinite(svi.step(PAIRS, 5)) for _ in range(3))
    assert math.isfinite(svi.step(PAIRS[:9], 5))
    names = list(pyro.get_param_store())
    assert any(name.startswith("AutoAmortized.encoder") for name in names)
    assert any("loc" in name for name in names)


def test_locals_and_globals_share_the_plates_they_are_both_in():
    def model(x, size=None):
        groups = pyro.plate("groups", 3, dim=-2)
        with groups:
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with groups, pyro.plate("data", x.shape[-1], size, dim=-1) as i:
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, i])

    x = torch.randn(3, 20)
    guide = AutoAmortized(model, plate=("groups", "data"))
    trace = poutine.trace(guide).get_trace(x, 5)
    assert {n: tuple(trace.nodes[n]["value"].shape) for n in ("mu", "z")} == {
        "mu": (3, 1),
        "z": (3, 5),
    }
    assert math.isfinite(kl.ReverseKL(4).loss_and_grads(model, guide, x, 5))


# -- plates ----------------------------------------------------------------------------------------


def test_elements_of_further_plates_have_parameters_of_their_own():
    """Four times for each datum, in a plate left of the data's, each with a head."""

    def model(x):
        times, data = pyro.plate("times", 4, dim=-2), pyro.plate("data", x.shape[-1], dim=-1)
        with data:
            pyro.sample("level", dist.Normal(0.0, 1.0))
        with times, data:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = torch.randn(4, 20)
    guide = AutoAmortized(model, plate="data", encoder=LINEAR)
    assert {n: tuple(v.shape) for n, v in guide(x).items()} == {"level": (20,), "z": (4, 20)}
    with torch.no_grad():
        head = guide.heads[1]
        weight = torch.zeros(4, 2, 4)
        weight[:, 0] = MEAN * torch.eye(4)  # each time sees itself
        head.linear.weight.copy_(weight.reshape(8, 4))
        head.linear.bias.copy_(exact(X).heads[0].linear.bias.repeat(4))
    torch.testing.assert_close(guide.median(x)["z"], MEAN * x)
    assert tuple(guide(x[:, :6])["z"].shape) == (4, 6)


def test_a_datum_may_have_plates_of_its_own_inside():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    encoder = Counting(size=4)
    guide = AutoAmortized(model, encoder=encoder)
    assert tuple(guide(torch.randn(20, 4))["z"].shape) == (20, 1)
    assert encoder.rows == [20, 20]
    assert math.isfinite(kl.ReverseKL(4).loss_and_grads(model, guide, torch.randn(20, 4)))


def test_coupled_sites_see_those_whose_plates_they_share():
    def model(x):
        times, data = pyro.plate("times", 4, dim=-2), pyro.plate("data", x.shape[-1], dim=-1)
        with times, data:
            pyro.sample("a", dist.Normal(0.0, 1.0))
        with data:
            pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with times, data:
            c = pyro.sample("c", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(c, 0.5), obs=x)

    x = torch.randn(4, 20)
    guide = AutoAmortized(model, plate="data", coupled=True)
    guide = shaken(guide, x)
    assert {n: s.before for n, s in guide.sites.items()} == {
        "a": {},
        "b": {},
        "c": {"a": 1, "b": 2},
    }
    drawn = guide.sample(3, x)
    assert drawn["c"].shape == (3, 4, 20)
    assert guide.log_prob(drawn, x).shape == (3,)


# -- parameters, copies, types ---------------------------------------------------------------------


def test_parameters_are_found_by_pyro_under_their_names():
    guide = AutoAmortized(normal_normal, encoder=MLP(hidden=(4,)))
    trace = poutine.trace(guide).get_trace(X)
    found = {n for n, s in trace.nodes.items() if s["type"] == "param"}
    assert found == {
        "AutoAmortized.encoder$$$1.weight",
        "AutoAmortized.encoder$$$1.bias",
        "AutoAmortized.heads$$$0.linear.weight",
        "AutoAmortized.heads$$$0.linear.bias",
    }
    assert found <= set(pyro.get_param_store())


def test_a_module_of_the_users_is_trained_with_the_guide():
    encoder = nn.Sequential(nn.LazyLinear(6), nn.Tanh()).double()
    guide = AutoAmortized(normal_normal, encoder=encoder)
    kl.fit(normal_normal, guide, kl.ReverseKL(4), X, steps=1, progress=False)
    before = encoder[0].weight.detach().clone()
    kl.fit(normal_normal, guide, kl.ReverseKL(4), X, steps=3, progress=False)
    assert not torch.equal(encoder[0].weight, before)


def test_local_parameters_of_modules_work_too():
    with pyro.settings.context(module_local_params=True):
        guide = AutoAmortized(with_globals)
        loss = kl.ReverseKL(4)
        loss.loss_and_grads(with_globals, guide, PAIRS)
        assert all(p.grad is not None for p in guide.parameters())
    assert not list(pyro.get_param_store())


@every_family
def test_copies_have_the_same_density(family):
    guide = shaken(AutoAmortized(with_globals, family=family), PAIRS)
    values = guide.sample(3, PAIRS)
    expected = guide.log_prob(values, PAIRS)
    torch.testing.assert_close(copy.deepcopy(guide).log_prob(values, PAIRS), expected)
    other = AutoAmortized(with_globals, family=family)
    other(PAIRS)
    other.load_state_dict(guide.state_dict())
    pyro.clear_param_store()
    torch.testing.assert_close(other.log_prob(values, PAIRS), expected)
    restored = pickle.loads(pickle.dumps(guide))
    torch.testing.assert_close(restored.log_prob(values, PAIRS), expected)


def test_a_copy_trains_on_its_own():
    guide = AutoAmortized(with_globals)
    guide(PAIRS)
    pyro.clear_param_store()
    twin = copy.deepcopy(guide)
    kl.fit(with_globals, twin, kl.ReverseKL(4), PAIRS, steps=2, progress=False)
    weights = guide.heads[0].linear.weight, twin.heads[0].linear.weight
    assert not torch.equal(*weights)


def test_an_unpickled_guide_takes_new_data():
    guide = pickle.loads(pickle.dumps(shaken(AutoAmortized(with_globals), PAIRS)))
    assert tuple(guide(PAIRS[:7])["z"].shape) == (7,)
    found = guide.sample(3, PAIRS[:7])
    assert guide.log_prob(found, PAIRS[:7]).shape == (3,)


def test_a_guide_that_has_not_been_called_can_be_copied():
    guide = copy.deepcopy(AutoAmortized(with_globals, global_guide=pyro_guide))
    assert tuple(guide(PAIRS)["z"].shape) == (20,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_those_of_the_latents(dtype):
    torch.set_default_dtype(dtype)
    guide = AutoAmortized(normal_normal)
    x = X.to(dtype)
    assert guide(x)["z"].dtype == dtype
    assert {p.dtype for p in guide.parameters()} == {dtype}
    assert math.isfinite(kl.ReverseKL(4).loss_and_grads(normal_normal, guide, x))


def test_in_a_list_of_guides_and_in_predictive():
    guide = AutoGuideList(with_globals)
    local = poutine.block(with_globals, hide=["scale", "share"])
    guide.append(AutoAmortized(local, data="x"))
    guide.append(AutoFullRank(poutine.block(with_globals, expose=["scale", "share"])))
    assert math.isfinite(kl.ReverseKL(4).loss_and_grads(with_globals, guide, PAIRS))
    trace = poutine.trace(guide).get_trace(PAIRS)
    assert {"z", "rate", "w", "scale", "share"} <= set(trace.nodes)
    alone = AutoAmortized(with_globals)
    alone(PAIRS)
    found = Predictive(with_globals, guide=alone, num_samples=6, parallel=True)(PAIRS)
    assert found["z"].shape == (6, 20)


def test_with_globals_in_a_list_of_guides():
    guide = AutoGuideList(with_globals)
    guide.append(AutoAmortized(poutine.block(with_globals, hide=["share"]), data=0))
    guide.append(AutoFullRank(poutine.block(with_globals, expose=["share"])))
    assert math.isfinite(kl.ReverseKL(4).loss_and_grads(with_globals, guide, PAIRS))


def test_two_fits_in_one_process_are_the_same():
    def losses():
        pyro.set_rng_seed(1)
        guide = AutoAmortized(normal_normal)
        return kl.fit(normal_normal, guide, kl.IWAE(4), X, 5, steps=4, progress=False).losses

    assert torch.equal(losses(), losses())
