"""Online EM and batches: where they end, what a step is, and what they refuse."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

from models import gaussian_mixture, hidden_markov
from models import hidden_markov_exact as exact
from pyro_klmodes.errors import DegenerateFit, InvalidArgument, UnsupportedStructure
from pyro_klmodes.inference import by_index
from pyro_klmodes.inference.em import EM, MonteCarlo, StepSizes, Variational
from pyro_klmodes.inference.em.parameters import parameters_of

RATIO = 5  # how much further off than the tolerance a start has to be


def clusters(number=2000, spread=1.0):
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]])
    which = torch.randint(3, (number,), generator=generator)
    return spread * centres[which] + torch.randn(number, 2, generator=generator)


def at_data(x):
    """A start with means at three data, and unit scales."""
    return {
        "locs": x[None, :3].clone(),
        "scales": torch.ones(1, 3, 2),
        "weights": torch.full((1, 3), 1 / 3),
    }


OPTIONS = {"components": 3, "kind": "diagonal"}


def test_several_passes_reach_the_maximum():
    """Independent batches of B data and weight g cost N p g / (4 B) nats in the end.

    For p = 14 parameters that is 2.0 nats after 12 passes. Shuffled passes, in which every datum
    has its turn, are far less noisy: 0.03 to 0.11 nats for six seeds.
    """
    x = clusters(spread=1.6)
    best = EM(gaussian_mixture.model, starts=at_data(x)).fit(x, **OPTIONS, tolerance=1e-9)
    loader = DataLoader(TensorDataset(x), batch_size=200, shuffle=True)

    result = EM(gaussian_mixture.model, starts=at_data(x), online=StepSizes()).fit(
        batches=loader, epochs=12, **OPTIONS
    )

    tolerance = 0.5
    assert 0 <= best.log_likelihood - result.log_likelihood < tolerance
    assert best.log_likelihood + best.losses[0] > RATIO * tolerance
    direct = gaussian_mixture.log_likelihood(gaussian_mixture.mixture(result.params), x)
    assert result.log_likelihood == pytest.approx(float(direct), rel=1e-10)
    # one pass of online EM is worth more than one step of EM
    once = EM(gaussian_mixture.model, starts=at_data(x), online=StepSizes()).fit(
        batches=loader, epochs=1, **OPTIONS
    )
    assert once.log_likelihood > -float(best.losses[1]) + 10


def test_a_burn_in_of_one_pass_is_a_step_of_em():
    """The statistics of all batches are averaged at the start; then comes the first M-step."""
    x = clusters(300)
    whole = EM(gaussian_mixture.model, starts=at_data(x)).fit(x, **OPTIONS, steps=2)

    online = EM(gaussian_mixture.model, starts=at_data(x), online=StepSizes(burn_in=4)).fit(
        batches=list(x.split(75)), epochs=1, **OPTIONS
    )

    assert online.log_likelihood == pytest.approx(-float(whole.losses[1]), rel=1e-12)
    assert float(whole.losses[0] - whole.losses[1]) > 1


def test_a_step_moves_the_statistics_by_its_weight():
    """Of a Poisson's rate: the mean of all data, each batch with the weight of its step size."""
    batches = [torch.tensor([2.0, 4.0]), torch.tensor([6.0, 0.0]), torch.tensor([9.0, 7.0])]

    def model(x):
        rate = pyro.param("rate", torch.tensor(1.0), constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    sizes = StepSizes(power=0.7, delay=2.0)
    expected = batches[0].mean()
    for number, batch in enumerate(batches[1:], 1):
        gain = (number + 2.0) ** -0.7
        assert sizes(number) == pytest.approx(gain)
        expected = (1 - gain) * expected + gain * batch.mean()

    result = EM(model, online=sizes).fit(batches=batches, epochs=1)

    assert float(result.params["rate"]) == pytest.approx(float(expected), abs=1e-12)


def indexed(x, subsample=None):
    """A mixture that takes its minibatch by a plate."""
    weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
    locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x[index])


def test_indices_are_worth_the_same_as_the_data():
    x = clusters(200)[:, 0]
    index = torch.randperm(len(x)).split(40)

    by_plate = EM(indexed, online=StepSizes()).fit(x, batches=by_index(index), epochs=3)
    by_data = EM(indexed, online=StepSizes()).fit(batches=[x[i] for i in index], epochs=3)

    torch.testing.assert_close(by_plate.params, by_data.params, rtol=1e-10, atol=0)
    torch.testing.assert_close(by_plate.losses, by_data.losses, rtol=1e-10, atol=0)
    assert by_plate.args[0] is x
    best = EM(indexed).fit(x)
    assert best.log_likelihood - by_plate.log_likelihood < 1.0
    assert best.log_likelihood + best.losses[0] > RATIO


def test_exact_steps_do_not_take_minibatches_of_a_plate():
    x = clusters(40)[:, 0]
    with pytest.raises(
        UnsupportedStructure, match=r"plate 'data'.*5 of 40|subsampled plate 'data'"
    ):
        EM(indexed).fit(x, batches=by_index(torch.arange(40).split(5)), steps=3)


def test_series_come_in_batches():
    x, _ = hidden_markov.simulate_discrete(60, 6, seed=4)
    lengths = torch.randint(1, 7, (60,))
    starts = exact.random_discrete(2, 3, starts=1, seed=1)._asdict()
    batches = [{"x": x[i], "lengths": lengths[i]} for i in torch.arange(60).split(20)]

    whole = EM(hidden_markov.discrete_model, starts=starts).fit(x, lengths=lengths, steps=12)
    parts = EM(hidden_markov.discrete_model, starts=starts).fit(batches=batches, steps=12)
    online = EM(hidden_markov.discrete_model, starts=starts, online=StepSizes()).fit(
        batches=batches, epochs=4
    )

    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-12, atol=0)
    assert whole.losses[0] + online.log_likelihood > 5
    # 12 M-steps each, and the statistics of online EM are younger
    assert abs(online.log_likelihood - whole.log_likelihood) < 1.5


def test_starts_go_through_the_batches_together():
    x = clusters(200)
    first = parameters_of(gaussian_mixture.model, (x,), OPTIONS, ()).initial()
    starts = {n: v.expand(3, *v.shape).clone() for n, v in first.items()}
    starts["locs"] += torch.randn(3, 3, 2)
    batches = list(x.split(50))

    def fit(given):
        em = EM(gaussian_mixture.model, starts=given, online=StepSizes())
        return em.fit(batches=batches, epochs=2, **OPTIONS)

    together = fit(starts)
    for i in range(3):
        alone = fit({n: v[i : i + 1] for n, v in starts.items()})
        assert alone.log_likelihood == pytest.approx(
            float(together.restarts.log_likelihood[i]), rel=1e-10
        )
    assert together.restarts.log_likelihood.std() > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"power": 0.5}, "power=0.5 must be above 0.5"),
        ({"power": 1.1}, "power=1.1"),
        ({"power": math.nan}, "power=nan"),
        ({"delay": 0.5}, "delay=0.5 must be at least 1"),
        ({"delay": math.inf}, "delay=inf"),
        ({"burn_in": 0}, "burn_in"),
        ({"burn_in": 1.5}, "burn_in"),
    ],
)
def test_step_sizes_are_checked(options, words):
    with pytest.raises(InvalidArgument, match=words):
        StepSizes(**options)


def with_prior(x):
    locs = pyro.sample("locs", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def computed(x):
    locs = pyro.param("root", torch.tensor([1.0, 2.0])) ** 3
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def continuous(x):
    scale = pyro.param("scale", torch.tensor(1.0), constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, scale), obs=x)


@pytest.mark.parametrize("online", [None, StepSizes()])
@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (with_prior, {"points": ["locs"]}, "site 'locs' is in no plate"),
        (computed, {}, "parameter 'root' has no closed-form update"),
        (continuous, {"e_step": MonteCarlo()}, "needs all data at once"),
        (continuous, {"e_step": Variational(AutoNormal(continuous))}, "needs all data at once"),
    ],
)
def test_what_batches_cannot_do_is_refused(model, options, words, online):
    with pytest.raises(UnsupportedStructure, match=words):
        EM(model, online=online, **options).fit(batches=list(clusters(20)[:, 0].split(10)))


def test_online_em_needs_batches():
    with pytest.raises(InvalidArgument, match="pass batches="):
        EM(indexed, online=StepSizes()).fit(clusters(20)[:, 0])


def test_a_component_that_empties_ends_a_start():
    x = clusters(100)[:, 0]
    starts = {"locs": torch.tensor([[0.0, 1e4], [-1.0, 1.0]])}
    em = EM(indexed, starts=starts, online=StepSizes())

    result = em.fit(batches=list(x.split(25)), epochs=2)

    assert list(result.restarts.faults) == [0]
    assert result.restarts.log_likelihood.isfinite().tolist() == [False, True]
    with pytest.raises(DegenerateFit, match=r"'locs'\[1\] has no weight"):
        EM(indexed, starts={"locs": starts["locs"][:1]}, online=StepSizes()).fit(
            batches=list(x.split(25))
        )
