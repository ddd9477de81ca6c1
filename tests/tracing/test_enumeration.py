"""Enumerated sites of the model are summed out of every weight, as by hand."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, draws
from pyro_klmodes.errors import UnsupportedStructure

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
P = torch.tensor([0.3, 0.7], dtype=torch.float64)
LOCS = torch.tensor([-2.0, 2.0], dtype=torch.float64)
PARALLEL = {"enumerate": "parallel"}

layouts = pytest.mark.parametrize("vectorise", [True, False])
counts = pytest.mark.parametrize("particles", [1, 4])


def normal(loc, x, sd=1.0):
    return dist.Normal(loc, sd).log_prob(x)


def local_model(size=None, n=4):
    with pyro.plate("data", n, subsample_size=size) as index:
        c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(LOCS[c] + z, 1.0), obs=X[index])


def local_guide(size=None, n=4):
    with pyro.plate("data", n, subsample_size=size):
        pyro.sample("z", dist.Normal(torch.full((), 0.5), 0.8))


@layouts
@counts
@pytest.mark.parametrize(("size", "n"), [(None, 4), (2, 4), (1, 4), (None, 1)])
def test_a_local_mixture_is_summed_in_every_cell(vectorise, particles, size, n):
    d = draws(
        local_model,
        local_guide,
        (size, n),
        num_particles=particles,
        vectorize_particles=vectorise,
    )
    x, z = X[:n] if size is None else X[d.indices["data"]], d.values["z"]
    mixture = torch.logsumexp(P.log() + normal(LOCS + z[..., None], x[..., None]), -1)
    expected = mixture + normal(0.0, z) - normal(0.5, z, 0.8)
    assert d.plates == ("data",)
    assert d.scale == n / len(x)
    torch.testing.assert_close(d.log_w, expected)


@layouts
@counts
@pytest.mark.parametrize("n", [4, 1])
def test_a_global_mixture_is_summed_over_all_data(vectorise, particles, n):
    def model():
        c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(LOCS[c] + z, 1.0), obs=X[:n])

    def guide():
        local_guide(n=n)

    d = draws(model, guide, num_particles=particles, vectorize_particles=vectorise)
    z = d.values["z"]
    likelihood = normal(LOCS + z[..., None], X[:n, None]).sum(-2)
    expected = torch.logsumexp(P.log() + likelihood, -1)
    expected = expected + (normal(0.0, z) - normal(0.5, z, 0.8)).sum(-1)
    assert d.plates == ()
    torch.testing.assert_close(d.log_w, expected)


@layouts
@counts
def test_a_global_and_a_local_mixture_are_nested_sums(vectorise, particles):
    offsets = torch.tensor([0.0, 1.0, -1.0])
    weights = torch.tensor([0.2, 0.5, 0.3])

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        g = pyro.sample("g", dist.Categorical(weights), infer=PARALLEL)
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
            pyro.sample("x", dist.Normal(mu + offsets[g] + LOCS[c], 1.0), obs=X)

    def guide():
        pyro.sample("mu", dist.Normal(0.5, 0.8))

    d = draws(model, guide, num_particles=particles, vectorize_particles=vectorise)
    mu = d.values["mu"]
    locs = mu[:, None, None, None] + offsets[:, None, None] + LOCS  # (K, g, 1, c)
    per_datum = torch.logsumexp(P.log() + normal(locs, X[:, None]), -1)  # (K, g, n)
    expected = torch.logsumexp(weights.log() + per_datum.sum(-1), -1)
    torch.testing.assert_close(d.log_w, expected + normal(0.0, mu) - normal(0.5, mu, 0.8))


def chain(steps):
    transition = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        c = 0
        for t in pyro.markov(range(steps)):
            c = pyro.sample(f"c{t}", dist.Categorical(transition[c]), infer=PARALLEL)
            pyro.sample(f"x{t}", dist.Normal(LOCS[c] + z, 1.0), obs=X[t % 4])

    def log_likelihood(z):
        """The forward algorithm, from state 0."""
        alpha = torch.tensor([0.0, -math.inf])
        for t in range(steps):
            predicted = torch.logsumexp(alpha[:, None] + transition.log(), 0)
            alpha = predicted + normal(LOCS + z, X[t % 4])
        return torch.logsumexp(alpha, 0)

    return model, log_likelihood


@layouts
@counts
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_markov_chain_is_the_forward_algorithm(vectorise, particles, steps):
    model, log_likelihood = chain(steps)

    def guide():
        pyro.sample("z", dist.Normal(0.5, 0.8))

    d = draws(model, guide, num_particles=particles, vectorize_particles=vectorise)
    z = d.values["z"]
    exact = torch.stack([log_likelihood(v) for v in z])
    torch.testing.assert_close(d.log_w, exact + normal(0.0, z) - normal(0.5, z, 0.8))


@layouts
@pytest.mark.parametrize("lengths", [(2, 2), (2, 1)])
def test_a_chain_per_series_keeps_the_granularity_of_the_series(vectorise, lengths):
    transition = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    present = torch.tensor(lengths) > torch.arange(2)[:, None]  # (time, series)

    def model():
        with pyro.plate("series", 2):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            c = 0
            for t in pyro.markov(range(2)):
                with poutine.mask(mask=present[t]):
                    c = pyro.sample(f"c{t}", dist.Categorical(transition[c]), infer=PARALLEL)
                    pyro.sample(f"x{t}", dist.Normal(LOCS[c] + z, 1.0), obs=X[2 * t : 2 * t + 2])

    def guide():
        with pyro.plate("series", 2):
            pyro.sample("z", dist.Normal(torch.full((), 0.5), 0.8))

    d = draws(model, guide, num_particles=3, vectorize_particles=vectorise)
    z = d.values["z"]
    first = transition[0].log() + normal(LOCS + z[..., None], X[:2, None])  # (K, series, c)
    second = normal(LOCS + z[..., None], X[2:, None])
    paths = first[..., :, None] + transition.log() + second[..., None, :]
    long, short = torch.logsumexp(paths.flatten(-2), -1), torch.logsumexp(first, -1)
    exact = torch.where(present[1], long, short) + normal(0.0, z) - normal(0.5, z, 0.8)
    assert d.plates == ("series",)
    torch.testing.assert_close(d.log_w, exact)


KEEP = torch.tensor([True, False, True, True])


def by_messenger(size=None, n=4):
    with poutine.mask(mask=KEEP):
        local_model(size, n)


def by_distribution():
    with pyro.plate("data", 4):
        c = pyro.sample("c", dist.Categorical(P).expand([4]).mask(KEEP), infer=PARALLEL)
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).mask(KEEP))
        pyro.sample("x", dist.Normal(LOCS[c] + z, 1.0).mask(KEEP), obs=X)


@layouts
@pytest.mark.parametrize("model", [by_messenger, by_distribution])
def test_masks_and_common_scales_act_on_sums_too(vectorise, model):
    """What is masked gives zero, and not the logarithm of the number of states."""

    d = draws(
        poutine.scale(model, scale=0.5),
        poutine.scale(poutine.mask(local_guide, mask=KEEP), scale=0.5),
        num_particles=3,
        vectorize_particles=vectorise,
    )
    z = d.values["z"]
    mixture = torch.logsumexp(P.log() + normal(LOCS + z[..., None], X[:, None]), -1)
    expected = mixture + normal(0.0, z) - normal(0.5, z, 0.8)
    assert d.scale == 0.5
    torch.testing.assert_close(d.log_w, torch.where(KEEP, expected, torch.zeros(())))


@layouts
def test_a_model_of_enumerated_sites_only_has_an_exact_weight(vectorise):
    def model():
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
            pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=X)

    def guide():
        """Nothing to draw."""

    d = draws(model, guide, num_particles=2, vectorize_particles=vectorise)
    exact = torch.logsumexp(P.log() + normal(LOCS, X[:, None]), -1)
    torch.testing.assert_close(d.log_w, exact.expand(2, 4))


@layouts
def test_a_mark_on_a_site_that_the_guide_samples_is_ignored(vectorise):
    def guide():
        with pyro.plate("data", 4):
            pyro.sample("c", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("z", dist.Normal(torch.full((), 0.5), 0.8))

    d = draws(local_model, guide, num_particles=3, vectorize_particles=vectorise)
    z, c = d.values["z"], d.values["c"]
    expected = P[c].log() + normal(LOCS[c] + z, X) + normal(0.0, z)
    torch.testing.assert_close(d.log_w, expected - math.log(0.5) - normal(0.5, z, 0.8))


def test_gradients_reach_the_parameters_inside_of_a_sum():
    def model():
        weights = pyro.param("weights", torch.tensor([0.5, 0.5]), dist.constraints.simplex)
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(weights), infer=PARALLEL)
            pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=X)

    def guide():
        """Nothing to draw."""

    IWAE(3).loss_and_grads(model, guide)
    found = pyro.get_param_store()._params["weights"].grad.clone()
    free = pyro.get_param_store()._params["weights"].detach().requires_grad_()
    weights = torch.distributions.transform_to(dist.constraints.simplex)(free)
    log_evidence = torch.logsumexp(weights.log() + normal(LOCS, X[:, None]), -1).sum()
    (exact,) = torch.autograd.grad(-log_evidence, free)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("loss", [ReverseKL(2), IWAE(2), ForwardKL(2)])
def test_enumeration_in_the_guide_is_refused(loss):
    def guide():
        with pyro.plate("data", 4):
            pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(UnsupportedStructure, match="guide site 'c' is marked for enumeration"):
        loss.loss(local_model, guide)


@pytest.mark.parametrize("loss", [ReverseKL(2), IWAE(2)])
def test_a_minibatch_inside_of_a_sum_is_refused_without_further_noise(loss):
    def model():
        c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
        with pyro.plate("data", 4, subsample_size=2) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(LOCS[c] + z, 1.0), obs=X[index])

    def guide():
        with pyro.plate("data", 4, subsample_size=2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnsupportedStructure, match=r"plate 'data' .*'x'"):
            loss.loss(model, guide)


def test_scales_that_differ_inside_of_a_sum_are_refused():
    def model():
        with pyro.plate("data", 4):
            c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL)
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=X)

    with pytest.raises(UnsupportedStructure, match=r"'c' \(scale 1\) and 'x' \(scale 0\.5\)"):
        IWAE(2).loss(model, lambda: None)


def test_sequential_enumeration_is_refused_with_the_way_out():
    def model():
        c = pyro.sample("c", dist.Categorical(P), infer={"enumerate": "sequential"})
        pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=X[0])

    with pytest.raises(ValueError, match=r"'c' is latent.*'enumerate': 'parallel'"):
        IWAE(2).loss(model, lambda: None)


def test_marks_that_appear_later_are_noticed():
    """A loss that has seen the model with ``c`` in the guide, or observed, must look again."""

    def model(c):
        c = pyro.sample("c", dist.Categorical(P), infer=PARALLEL, obs=c)
        pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=X[0])

    def guide(c):
        """Nothing to draw."""

    loss = IWAE(2)
    joint = P.log() + normal(LOCS, X[0])
    assert loss.loss(model, guide, torch.tensor(1)) == pytest.approx(-float(joint[1]))
    assert loss.loss(model, guide, None) == pytest.approx(-float(torch.logsumexp(joint, 0)))
    assert loss.loss(model, guide, torch.tensor(0)) == pytest.approx(-float(joint[0]))
