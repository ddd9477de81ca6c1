"""Chains stand at particle 0, at the values of every guide, and are kept by index."""

import copy
import io
import math
import pickle
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.infer import SVI
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
)

from pyro_klmodes import fit, log_density
from pyro_klmodes.errors import (
    InvalidArgument,
    KLModesWarning,
    NoDensity,
    NonFiniteLoss,
    UnsupportedStructure,
)
from pyro_klmodes.guides import AutoFullRank, AutoMeanField
from pyro_klmodes.losses import ScoreClimbing

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)

# -- every guide -----------------------------------------------------------------------------------


def model(x=X):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    sd = pyro.sample("sd", dist.Gamma(3.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sd), obs=x)


def by_hand(x=X):
    loc = pyro.param("loc", torch.tensor(0.2))
    mu = pyro.sample("mu", dist.Normal(loc, 0.9))
    # the scale follows the mean: a state is replaced before what depends on it is drawn
    pyro.sample("sd", dist.LogNormal(0.3 * mu, pyro.param("log_sd", torch.tensor(0.4))))


def listed(bare):
    guides = AutoGuideList(bare)
    guides.append(AutoNormal(poutine.block(bare, expose=["mu"])))
    guides.append(AutoDiagonalNormal(poutine.block(bare, expose=["sd"])))
    return guides


def easy(bare):
    @easy_guide(bare)
    def grouped(self, x=X):
        group = self.group(match="mu|sd")
        loc = pyro.param("group_loc", lambda: torch.zeros(group.event_shape))
        group.sample("group", dist.Normal(loc, 0.5).to_event(1))

    return grouped


GUIDES = {
    "by hand": lambda bare: by_hand,
    "AutoNormal": AutoNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoIAFNormal": partial(AutoIAFNormal, hidden_dim=[6]),
    "AutoNormalMessenger": AutoNormalMessenger,
    "AutoGuideList": listed,
    "EasyGuide": easy,
    "AutoMeanField": AutoMeanField,
    "AutoFullRank": AutoFullRank,
}


def stepped(loss, of_model, guide, *args, steps=3, lr=0.05):
    svi = SVI(of_model, guide, pyro.optim.SGD({"lr": lr}), loss)
    for _ in range(steps):
        svi.step(*args)
    return loss


def states(loss):
    return loss.state_dict()["chains"]["values"]


@pytest.mark.parametrize("vectorise", [True, False])
@pytest.mark.parametrize("name", GUIDES)
def test_particle_0_is_the_state_and_all_is_evaluated_there(name, vectorise):
    guide = GUIDES[name](model)
    loss = stepped(ScoreClimbing(4, vectorize_particles=vectorise), model, guide, X)
    d = loss.draws(model, guide, X)
    for source, state in states(loss).items():
        assert torch.equal(d.values[source][0], state)
        assert (d.values[source][1:] != state).all()
    # Point masses follow the auxiliary draw, and densities are those of the state.
    mu, sd = d.values["mu"], d.values["sd"]
    assert torch.equal(loss.draws(model, guide, X).values["sd"][0], sd[0])
    log_p = dist.Normal(0.0, 2.0).log_prob(mu) + dist.Gamma(3.0, 3.0).log_prob(sd)
    log_p = log_p + dist.Normal(mu[:, None], sd[:, None]).log_prob(X).sum(-1)
    log_q = torch.stack([log_density(guide, {"mu": mu[k], "sd": sd[k]}, X) for k in range(4)])
    # an autoguide's point masses carry the Jacobian; both add up to the weight
    torch.testing.assert_close(d.log_w, log_p - log_q)


# -- by index --------------------------------------------------------------------------------------

SIZE = 6
DATA = torch.linspace(-2.0, 3.0, SIZE, dtype=torch.float64)


def local_model(index=None, data=DATA, batch=None):
    with pyro.plate("data", SIZE, subsample=index, subsample_size=batch) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=data[i])


def local_guide(index=None, data=DATA, batch=None):
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", SIZE, subsample=index, subsample_size=batch) as i:
        pyro.sample("z", dist.Normal(slope * data[i], 0.8))


@pytest.mark.parametrize("vectorise", [True, False])
def test_every_datum_has_a_chain_of_its_own(vectorise):
    loss = ScoreClimbing(3, vectorize_particles=vectorise)
    assert loss.ages.shape == (0,)
    assert math.isnan(loss.renewal)

    loss.loss_and_grads(local_model, local_guide, torch.tensor([4, 1]))
    assert (loss.ages >= 0).tolist() == [False, True, False, False, True, False]
    one = states(loss)["z"]
    assert ((one != 0) == (loss.ages >= 0)).all()

    # Data that have a state find it, whatever their place in the minibatch; others begin.
    later = torch.tensor([0, 4, 2, 1])
    d = loss.draws(local_model, local_guide, later)
    assert torch.equal(d.values["z"][0, [1, 3]], one[[4, 1]])
    assert (d.values["z"][0, [0, 2]] != 0).all()
    assert torch.equal(states(loss)["z"], one)

    loss.loss_and_grads(local_model, local_guide, torch.tensor([3]))
    other = states(loss)["z"]
    assert torch.equal(other[[4, 1]], one[[4, 1]])
    assert other[3] != 0
    assert (loss.ages >= 0).tolist() == [False, True, False, True, True, False]


def test_ages_and_renewal():
    """A guide far from the posterior on its light side never leaves a good state."""

    def narrow(index=None):
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("z", dist.Normal(pyro.param("far", torch.tensor(30.0)), 0.1))

    loss = stepped(ScoreClimbing(4), local_model, local_guide, torch.arange(4), steps=2)
    ages = loss.ages
    assert ages.shape == (SIZE,)
    assert set(ages[:4].tolist()) <= {0, 1}
    assert ages[4:].tolist() == [-1, -1]
    assert loss.renewal == pytest.approx((ages[:4] == 0).double().mean().item())
    for _ in range(3):
        loss.loss_and_grads(local_model, narrow, torch.arange(4))
    assert loss.renewal == 0.0
    assert torch.equal(loss.ages[:4], ages[:4] + 3)


def test_minibatches_that_pyro_draws():
    loss = ScoreClimbing(3)
    for _ in range(30):
        loss.loss_and_grads(local_model, local_guide, batch=2)
    assert (loss.ages >= 0).all()
    assert loss.ages.max() > 0
    d = loss.draws(local_model, local_guide, batch=2)
    assert torch.equal(d.values["z"][0], states(loss)["z"][d.indices["data"]])


def test_a_permutation_of_all_data_is_no_change_of_the_data():
    loss = ScoreClimbing(3)
    for _ in range(4):
        loss.loss_and_grads(local_model, local_guide, torch.randperm(SIZE))
    d = loss.draws(local_model, local_guide)
    assert torch.equal(d.values["z"][0], states(loss)["z"])


def test_two_plates_one_of_them_a_minibatch():
    data = torch.arange(12.0).reshape(4, 3) / 6

    def rows_model(index):
        with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 4, dim=-2, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=data[index])

    def rows_guide(index):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 4, dim=-2, subsample=index):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    loss = ScoreClimbing(3)
    for index in ([0, 2], [2, 3]):
        loss.loss_and_grads(rows_model, rows_guide, torch.tensor(index))
    assert (loss.ages >= 0).all(-1).tolist() == [True, False, True, True]
    assert loss.ages.shape == (4, 3)
    d = loss.draws(rows_model, rows_guide, torch.tensor([3, 0]))
    assert torch.equal(d.values["z"][0], states(loss)["z"][[3, 0]])


def test_a_discrete_state_keeps_its_type():
    def discrete(index):
        with pyro.plate("data", SIZE, subsample=index):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("x", dist.Normal(z.double(), 1.0), obs=DATA[index])

    def guide(index):
        logits = pyro.param("logits", torch.zeros(3))
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("z", dist.Categorical(logits=logits))

    loss = stepped(ScoreClimbing(3), discrete, guide, torch.tensor([5, 0]))
    assert states(loss)["z"].dtype == torch.long
    assert loss.draws(discrete, guide, torch.tensor([0])).values["z"].dtype == torch.long


# -- other data ------------------------------------------------------------------------------------


def batch_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).mask(x < 9), obs=x)


def batch_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))


@pytest.mark.parametrize("vectorise", [True, False])
def test_batches_passed_as_arguments_are_found_out(vectorise):
    loss = ScoreClimbing(3, vectorize_particles=vectorise)
    loss.loss_and_grads(batch_model, batch_guide, DATA[:3])
    loss.loss_and_grads(batch_model, batch_guide, DATA[:3].clone())
    before = states(loss)["z"]
    with pytest.raises(
        InvalidArgument,
        match=r"3 of 3 elements of plate 'data' .*pyro\.plate\('data', N, subsample=index\)",
    ):
        loss.loss_and_grads(batch_model, batch_guide, DATA[3:])
    with pytest.raises(InvalidArgument, match="1 of 3 elements"):
        loss.loss_and_grads(batch_model, batch_guide, DATA[:3] + torch.tensor([0.0, 1e-6, 0.0]))
    with pytest.raises(InvalidArgument, match="plate 'data' has 2 elements where .* of 3.*index"):
        loss.loss_and_grads(batch_model, batch_guide, DATA[:2])
    assert torch.equal(states(loss)["z"], before)
    assert loss.step == 2
    loss.reset()
    loss.loss_and_grads(batch_model, batch_guide, DATA[3:])


def test_what_is_masked_out_may_change():
    x = torch.tensor([0.3, 9.0, 1.0])
    loss = ScoreClimbing(3)
    loss.loss_and_grads(batch_model, batch_guide, x)
    loss.loss_and_grads(batch_model, batch_guide, torch.tensor([0.3, 99.0, 1.0]))
    with pytest.raises(InvalidArgument, match="1 of 3 elements"):
        loss.loss_and_grads(batch_model, batch_guide, torch.tensor([0.3, 0.2, 1.0]))


def test_the_data_of_a_joint_chain_may_not_change_either():
    loss = stepped(ScoreClimbing(3), model, by_hand, X)
    with pytest.raises(InvalidArgument, match="the data are not those of the step before"):
        loss.loss_and_grads(model, by_hand, X + 1)


def test_a_joint_chain_sees_the_same_data_in_another_order():
    def indexed(index):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[index])

    def guide(index):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    loss = ScoreClimbing(3)
    for _ in range(3):
        loss.loss_and_grads(indexed, guide, torch.randperm(SIZE))


def test_data_found_out_where_sites_are_summed_out():
    def summed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)

    loss = stepped(ScoreClimbing(3), summed, batch_guide, DATA[:3])
    with pytest.raises(InvalidArgument, match="3 of 3 elements of plate 'data'"):
        loss.loss_and_grads(summed, batch_guide, DATA[3:])


def test_other_data_under_an_index_are_a_warning():
    loss = stepped(ScoreClimbing(3), local_model, local_guide, torch.tensor([1, 2]))
    noisy = (local_model, local_guide, torch.tensor([2, 3]), DATA + 0.1)
    with pytest.warns(KLModesWarning, match="1 elements of the minibatch in plate.*'data'"):
        loss.loss_and_grads(*noisy)
    loss.loss_and_grads(local_model, local_guide, torch.tensor([2, 3]))  # once is enough


def test_evaluation_elsewhere_does_without_chains_and_leaves_them_alone():
    loss = stepped(ScoreClimbing(3), batch_model, batch_guide, DATA[:3])
    before = loss.state_dict()
    state = before["chains"]["values"]["z"]
    assert torch.equal(loss.draws(batch_model, batch_guide, DATA[:3]).values["z"][0], state)
    for held_out in (DATA[3:], DATA[:2]):
        d = loss.draws(batch_model, batch_guide, held_out)
        assert d.log_w.shape == (3, len(held_out))
        assert not torch.isin(d.values["z"], state).any()
        assert math.isfinite(loss.loss(batch_model, batch_guide, held_out))
    after = loss.state_dict()
    assert after["step"] == before["step"]
    assert torch.equal(after["chains"]["values"]["z"], state)
    assert torch.equal(after["chains"]["moved"], before["chains"]["moved"])


@pytest.mark.parametrize("index", [DATA[:2], torch.tensor([0, SIZE]), torch.tensor([-1, 0])])
def test_a_subsample_that_is_no_index_is_refused(index):
    def given(index):
        with pyro.plate("data", SIZE, subsample=index):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))

    def guide(index):
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    with pytest.raises(InvalidArgument, match=r"'data': subsample= must hold the indices"):
        ScoreClimbing(3).loss_and_grads(given, guide, index)


def test_another_pair_is_refused_until_reset():
    loss = stepped(ScoreClimbing(3), model, by_hand, X)
    with pytest.raises(InvalidArgument, match=r"chains are about \['mu', 'sd'\].*\['z'\].*reset"):
        loss.loss_and_grads(batch_model, batch_guide, DATA)
    loss.reset()
    assert loss.step == 0
    loss.loss_and_grads(batch_model, batch_guide, DATA)


# -- what has no chain -----------------------------------------------------------------------------


def test_latents_inside_and_outside_of_a_minibatch():
    def partial_model(index):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", SIZE, subsample=index):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[index])

    def partial_guide(index):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))
        local_guide(index)

    loss = ScoreClimbing(3)
    with pytest.raises(UnsupportedStructure, match="plate 'data' is subsampled and holds some of"):
        loss.loss_and_grads(partial_model, partial_guide, torch.tensor([0, 1]))
    loss.loss_and_grads(partial_model, partial_guide, torch.arange(SIZE))  # one joint chain
    assert loss.ages.shape == ()


def test_minibatches_of_the_data_of_a_global_latent():
    def global_model(index):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=DATA[index])

    def global_guide(index):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    with pytest.raises(UnsupportedStructure, match="plate 'data' does not enclose latent"):
        ScoreClimbing(3).loss_and_grads(global_model, global_guide, torch.tensor([0, 1]))


def test_randomness_beside_the_latents():
    def auxiliary(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(u, pyro.param("sd", torch.tensor(0.5))))

    with pytest.raises(UnsupportedStructure, match="guide site 'u' is random beyond the latents"):
        ScoreClimbing(3).loss_and_grads(batch_model, auxiliary, DATA)


def test_a_guide_without_density():
    with pytest.raises(NoDensity, match="ScoreClimbing.*AutoDelta"):
        ScoreClimbing(3).loss_and_grads(model, AutoDelta(model), X)


def test_a_scale_on_a_guide_site():
    def tempered(x):
        with poutine.scale(scale=0.5):
            batch_guide(x)

    with pytest.raises(UnsupportedStructure, match="guide site 'z' has a poutine.scale"):
        ScoreClimbing(3).loss_and_grads(batch_model, tempered, DATA)
    both = ScoreClimbing(3)
    both.loss_and_grads(poutine.scale(batch_model, scale=0.5), tempered, DATA)
    assert both.draws(poutine.scale(batch_model, scale=0.5), tempered, DATA).scale == 0.5


def test_a_plate_made_elsewhere():
    plate = pyro.plate("data", SIZE, subsample_size=2)

    def outer_model():
        with plate:
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def outer_guide():
        with plate:
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    with pytest.raises(UnsupportedStructure, match="plate 'data' was made outside"):
        ScoreClimbing(3).loss_and_grads(outer_model, outer_guide)


def test_what_is_no_number_moves_nothing():
    loss = stepped(ScoreClimbing(3), local_model, local_guide, torch.arange(2))
    before = loss.state_dict()
    with torch.no_grad():
        pyro.param("slope").fill_(math.nan)
    with pytest.raises((NonFiniteLoss, InvalidArgument, ValueError)):
        loss.loss_and_grads(local_model, local_guide, torch.arange(2))
    assert torch.equal(loss.state_dict()["chains"]["values"]["z"], before["chains"]["values"]["z"])
    assert loss.step == before["step"]


def test_a_pair_without_latents_has_a_chain_of_nothing():
    def observed():
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0), obs=X[0])

    loss = ScoreClimbing(3)
    for _ in range(2):
        loss.loss_and_grads(observed, lambda: None)
    assert loss.ages.shape == ()


# -- going on --------------------------------------------------------------------------------------


def run_on(svi, steps):
    return [svi.step(torch.randperm(SIZE)[:3]) for _ in range(steps)]


def everything(loss):
    return states(loss)["z"], loss.ages, pyro.param("slope").detach().clone()


@pytest.mark.parametrize("kernel", ["cis", "independence"])
def test_resuming_in_the_middle_is_going_on(kernel):
    def svi_with(loss):
        return SVI(local_model, local_guide, pyro.optim.SGD({"lr": 0.01}), loss)

    loss = ScoreClimbing(3, kernel)
    svi = svi_with(loss)
    run_on(svi, 7)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    copies = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
    random_state = pyro.util.get_rng_state()
    slope = pyro.param("slope").detach().clone()
    losses = run_on(svi, 7)
    expected = everything(loss)

    file.seek(0)
    fresh = ScoreClimbing(3, kernel)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for resumed in (fresh, *copies):
        pyro.clear_param_store()
        pyro.param("slope", slope.clone())
        pyro.util.set_rng_state(random_state)
        assert run_on(svi_with(resumed), 7) == losses
        for found, wanted in zip(everything(resumed), expected, strict=True):
            assert torch.equal(found, wanted)
        assert resumed.renewal == loss.renewal
        assert resumed.step == 14


def test_a_saved_state_does_not_change_with_the_chains():
    loss = stepped(ScoreClimbing(3), batch_model, batch_guide, DATA)
    saved = loss.state_dict()
    before = copy.deepcopy(saved)
    other = ScoreClimbing(3)
    other.load_state_dict(saved)
    for one in (loss, other):
        stepped(one, batch_model, batch_guide, DATA, steps=5)
    assert torch.equal(saved["chains"]["values"]["z"], before["chains"]["values"]["z"])
    assert torch.equal(saved["chains"]["moved"], before["chains"]["moved"])


def test_resumed_chains_know_their_data():
    loss = stepped(ScoreClimbing(3), batch_model, batch_guide, DATA)
    resumed = ScoreClimbing(3)
    resumed.load_state_dict(loss.state_dict())
    with pytest.raises(InvalidArgument, match="elements of plate 'data'"):
        resumed.loss_and_grads(batch_model, batch_guide, DATA + 1)


def test_a_state_before_the_first_step():
    fresh = ScoreClimbing(3)
    other = stepped(ScoreClimbing(3), batch_model, batch_guide, DATA)
    other.load_state_dict(fresh.state_dict())
    assert other.step == 0
    assert other.ages.shape == (0,)


def test_two_fits_with_one_loss_are_the_same():
    loss = ScoreClimbing(4)
    first, second = (
        fit(model, by_hand, loss, X, steps=20, seed=3, progress=progress)
        for progress in (False, True)  # a bar looks at the weights, and changes nothing
    )
    assert torch.equal(first.losses, second.losses)
    assert torch.equal(first.params["loc"], second.params["loc"])
    fresh = fit(model, by_hand, ScoreClimbing(4), X, steps=20, seed=3, progress=False)
    assert torch.equal(first.losses, fresh.losses)
