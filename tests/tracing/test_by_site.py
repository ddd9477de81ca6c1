"""Prior and guide latent by latent: what adds up to the log-weights."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal, AutoStructured

from pyro_klmodes import draws, guides
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.posteriors import as_posterior
from pyro_klmodes.tracing.full_data import FullData

Y = torch.tensor([1.0, 2.0, 4.0])


def model():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(mu, s))
        pyro.sample("y", dist.Normal(z, 1.0), obs=Y)


@pytest.mark.parametrize("vectorize", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize(
    ("guide_class", "names"),
    [
        (AutoNormal, ["mu", "s", "z"]),
        (AutoDelta, ["mu", "s", "z"]),
        (AutoMultivariateNormal, ["mu, s, z"]),
        (AutoStructured, ["mu, s, z"]),
        (guides.AutoMeanField, ["mu", "s", "z"]),
        (guides.AutoFullRank, ["mu", "s", "z"]),
    ],
)
def test_sites_add_up_to_prior_and_guide(guide_class, names, vectorize):
    guide = guide_class(model)
    guide()
    found = draws(model, guide, num_particles=4, vectorize_particles=vectorize, by_site=True)
    assert list(found.sites) == names
    values = {n: found.values[n].reshape(4, -1) for n in ("mu", "s", "z")}
    expected = {
        "mu": dist.Normal(0.0, 1.0).log_prob(values["mu"]),
        "s": dist.LogNormal(0.0, 1.0).log_prob(values["s"]),
        "z": dist.Normal(values["mu"], values["s"]).log_prob(values["z"]),
    }
    for name, site in found.sites.items():
        log_p = sum(expected[n].sum(-1) for n in name.split(", "))
        torch.testing.assert_close(site.log_p, log_p)
        assert site.plain
    torch.testing.assert_close(sum(s.log_q for s in found.sites.values()), found.log_q)
    torch.testing.assert_close(
        found.log_likelihood, dist.Normal(values["z"], 1.0).log_prob(Y).sum(-1)
    )
    assert found.sites[names[-1]].elements == (3.0 if names[-1] == "z" else 1.0)


def test_they_are_there_only_if_asked_for():
    with pytest.raises(InvalidArgument, match="by_site=True"):
        _ = draws(model, AutoNormal(model)).log_prior


def mixture(x, *, given):
    """A mixture prior of z, its component summed out; x looks at the component too if given."""
    c = pyro.sample(
        "c", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"}
    )
    z = pyro.sample("z", dist.Normal(torch.tensor([-1.0, 2.0])[c], 1.0))
    pyro.sample("x", dist.Normal(z + (c if given else 0.0), 1.0), obs=x)


def normal_guide(*_args, **_kwargs):
    pyro.sample("z", dist.Normal(0.5, 1.5))


def test_a_prior_with_an_enumerated_site_of_its_own():
    found = draws(
        mixture, normal_guide, (torch.tensor(1.0),), {"given": False}, num_particles=5, by_site=True
    )
    z = found.values["z"]
    parts = dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).log_prob(z.unsqueeze(-1))
    prior = torch.logsumexp(parts + torch.tensor([0.3, 0.7]).log(), -1)
    torch.testing.assert_close(found.sites["z"].log_p, prior)
    torch.testing.assert_close(found.log_likelihood, dist.Normal(z, 1.0).log_prob(torch.ones(())))


def test_a_prior_that_is_summed_over_together_with_data_is_refused():
    arguments = (torch.tensor(1.0),), {"given": True}
    assert draws(mixture, normal_guide, *arguments, num_particles=2).log_w.isfinite().all()
    with pytest.raises(UnsupportedStructure, match="'z' has no prior of its own"):
        draws(mixture, normal_guide, *arguments, num_particles=2, by_site=True)


def test_enumerated_sites_of_the_likelihood_belong_to_it():
    def noisy():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(z + c, 1.0), obs=Y)

    found = draws(noisy, normal_guide, num_particles=5, by_site=True)
    z = found.values["z"]
    assert list(found.sites) == ["z"]
    torch.testing.assert_close(found.log_prior, dist.Normal(0.0, 1.0).log_prob(z))
    outcomes = dist.Normal(z + torch.tensor([0.0, 1.0])[:, None, None], 1.0).log_prob(Y[:, None])
    weights = torch.tensor([0.7, 0.3]).log()[:, None, None]
    likelihood = torch.logsumexp(outcomes + weights, 0).sum(0)
    torch.testing.assert_close(found.log_likelihood, likelihood)


def test_auxiliary_draws_whose_latents_come_later_are_one_entry():
    def with_auxiliary():
        a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(a, 1.0))

    def prior():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    found = draws(prior, with_auxiliary, num_particles=3, by_site=True)
    assert list(found.sites) == ["z"]
    assert torch.equal(found.sites["z"].log_q, found.log_q)


def test_a_branch_that_draws_a_site_in_some_runs_only():
    def branching():
        if pyro.sample("b", dist.Bernoulli(0.5)) > 0:
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = draws(branching, branching, num_particles=20, vectorize_particles=False, by_site=True)
    assert list(found.sites) == ["all latent sites"]
    assert torch.equal(found.log_prior, found.log_p)


def test_cells_of_weight_zero_stay_out_of_the_graph():
    p = torch.tensor([0.1, 0.2], requires_grad=True)

    def impossible():
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(p, 1.0))
            pyro.factor("wall", torch.tensor([0.0, -torch.inf]) + 0.0 * z)

    def guide():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    from pyro_klmodes.tracing.runs import Pair
    from pyro_klmodes.tracing.sampling import sample
    from pyro_klmodes.tracing.survey import survey

    pair = Pair(impossible, guide)
    found = sample(pair, survey(pair), 3, by_site=True)
    found.sites["z"].log_p.sum().backward()
    assert p.grad[0] != 0.0
    assert p.grad[1] == 0.0


def test_the_full_data_of_minibatches_with_a_mask():
    keep = torch.tensor([True, False, True])

    def batches():
        with pyro.plate("data", 3, subsample_size=2) as rows, pyro.poutine.mask(mask=keep[rows]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=Y[rows])

    def guide():
        with pyro.plate("data", 3, subsample_size=2) as rows, pyro.poutine.mask(mask=keep[rows]):
            pyro.sample("z", dist.Normal(Y[rows] / 2, 1.0))

    posterior = as_posterior((batches, guide))
    found = FullData.of(posterior.pair).draws(4, by_site=True)
    assert found.log_p.shape == (4, 3)
    assert found.sites["z"].elements == 2.0
    assert (found.sites["z"].log_p[:, 1] == 0.0).all()
    one_batch = draws(batches, guide, num_particles=4, by_site=True).sites["z"]
    seen = float(keep[draws(batches, guide).indices["data"]].sum())
    assert one_batch.elements in (1.5, 3.0)
    assert seen in (1.0, 2.0)
