"""The generalised doubly reparameterised gradient: the mean of the score, exactly or by chi-square.

One latent with two particles is integrated by quadrature: a plate holds the nodes, one per cell,
and parameters are given per cell, so that the gradient lists the estimate at every node.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_klmodes import CUBO, IWAE, ForwardKL, Renyi, ReverseKL, estimators
from pyro_klmodes.testing import assert_same_mean, gradient_samples

DOUBLY, GDREG = estimators.doubly, estimators.gdreg
X = torch.tensor(1.7, dtype=torch.float64)


def rule(size=60):
    """Gauss-Hermite nodes ``(2, G)`` and weights ``(G,)`` for two standard normals."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(size)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1)
    return torch.from_numpy(grid), torch.from_numpy(np.outer(weights, weights).ravel())


NODES, WEIGHTS = rule()
SIZE = NODES.shape[1]


class NormalAtNodes(dist.Normal):
    """A normal whose noise is the quadrature rule's."""

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        particles = shape[0] if len(shape) == 2 else 1
        return self.loc + self.scale * NODES[torch.arange(particles) % 2].reshape(shape)


class AtNodes:
    """q = N(m, 0.8^2), prior of location a and log-scale b, likelihood N(z, e^c)."""

    def __init__(self, prior=dist.Normal):
        def leaf(value):
            return torch.full((SIZE,), value, requires_grad=True)

        self.m, self.a, self.b, self.c = leaf(0.9), leaf(0.4), leaf(0.0), leaf(0.0)

        def model():
            with pyro.plate("nodes", SIZE):
                z = pyro.sample("z", prior(self.a, self.b.exp()))
                pyro.sample("x", dist.Normal(z, self.c.exp()), obs=X)

        def guide():
            with pyro.plate("nodes", SIZE):
                pyro.sample("z", NormalAtNodes(self.m, 0.8))

        self.both = model, guide


def at_nodes(loss, prior=dist.Normal):
    """Gradients at every node, with respect to m, a, b and c, ``(4, G)``."""
    pair = AtNodes(prior)
    loss.loss_and_grads(*pair.both)
    return torch.stack([p.grad for p in (pair.m, pair.a, pair.b, pair.c)])


def moments(per_node):
    mean = per_node @ WEIGHTS
    return mean, (per_node**2) @ WEIGHTS - mean**2


def test_two_particles_by_quadrature():
    """Prior mean and log-scale of a normal (Bauer and Mnih, 2021), computed apart."""
    mean, variance = moments(at_nodes(IWAE(2, estimator=GDREG)))
    score_mean, score_variance = moments(at_nodes(IWAE(2, estimator=DOUBLY)))
    expected = torch.tensor([0.589208923983, -0.100492335])
    torch.testing.assert_close(-mean[1:3], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(mean, score_mean, rtol=0, atol=1e-10)
    assert float(variance[1] / score_variance[1]) == pytest.approx(0.60, abs=0.01)
    assert variance[2] < 0.3 * score_variance[2]
    # guide and likelihood follow what they follow anyway
    torch.testing.assert_close(variance[[0, 3]], score_variance[[0, 3]])


def test_draw_by_draw_it_is_the_formula():
    """``wbar d log p(x|z) - wbar^2 d lw``, times one for the mean and eps for the log-scale."""
    z = 0.9 + 0.8 * NODES
    log_w = (
        dist.Normal(0.4, 1.0).log_prob(z)
        + dist.Normal(z, 1.0).log_prob(X)
        - dist.Normal(0.9, 0.8).log_prob(z)
    )
    weight = log_w.softmax(0)
    slope = -(z - 0.4) + (X - z) + (z - 0.9) / 0.8**2
    path = weight * (X - z) - weight**2 * slope
    found = at_nodes(IWAE(2, estimator=GDREG))
    torch.testing.assert_close(-found[1], path.sum(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(-found[2], (path * (z - 0.4)).sum(0), rtol=0, atol=1e-10)


LOSSES = {
    "reverse_kl": lambda **kw: ReverseKL(2, **kw),
    "renyi": lambda **kw: Renyi(0.5, 2, **kw),
    "cubo": lambda **kw: CUBO(2, 2, **kw),
    "forward_kl": lambda **kw: ForwardKL(2, **kw),
    "iwae at a price": lambda **kw: IWAE(2, beta=2.5, **kw),
    "reverse_kl at a price": lambda **kw: ReverseKL(2, beta=0.3, **kw),
    "free bits": lambda **kw: ReverseKL(2, free_bits=50.0, **kw),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_mean_of_the_score(name):
    mean, _ = moments(at_nodes(LOSSES[name](estimator=GDREG)))
    expected, _ = moments(at_nodes(LOSSES[name](estimator=DOUBLY)))
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-8)


def test_a_rate_that_is_free_gives_the_prior_nothing():
    found = at_nodes(ReverseKL(2, free_bits=50.0, estimator=GDREG))
    torch.testing.assert_close(found[1:3], torch.zeros(2, SIZE), rtol=0, atol=1e-9)


def start(**values):
    for name, value in values.items():
        pyro.param(name, torch.as_tensor(value))


def column(name):
    """Where a scalar parameter is in the gradients."""
    names = [n for n, _ in sorted(pyro.get_param_store().named_parameters())]
    sizes = [pyro.param(n).numel() for n in names]
    return sum(sizes[: names.index(name)])


def compare(loss, model, guide, *args, repetitions=60, lower=()):
    """The mean of doubly, and less variance in some parameters."""

    ReverseKL().loss(model, guide, *args)  # which makes all parameters

    def samples(estimator, seed):
        return gradient_samples(
            loss(estimator=estimator), model, guide, args, repetitions=repetitions, seed=seed
        )

    mine, theirs = samples(GDREG, 1), samples(DOUBLY, 2)
    assert_same_mean(mine, theirs)
    for name in lower:
        at = column(name)
        assert mine[:, at].var() < 0.8 * theirs[:, at].var(), name


Y = torch.tensor([0.5, -1.0, 2.5], dtype=torch.float64)


def hierarchy(batch=3):
    top = pyro.sample("top", dist.Normal(pyro.param("a"), pyro.param("b").exp()))
    with pyro.plate("data", 3, subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(pyro.param("w") * top, pyro.param("c").exp()))
        pyro.sample("y", dist.Normal(z, 0.7), obs=Y[rows])


def hierarchy_guide(batch=3):
    top = pyro.sample("top", dist.Normal(pyro.param("m"), 0.6))
    with pyro.plate("data", 3, subsample_size=batch) as rows:
        pyro.sample("z", dist.Normal(0.5 * Y[rows] + 0.3 * top, pyro.param("s").exp()))


def hierarchy_start():
    start(a=0.4, b=-0.2, w=0.8, c=-0.1, m=0.5, s=-0.3)


def test_a_hierarchical_prior_site_by_site():
    hierarchy_start()
    compare(lambda **kw: IWAE(5, 40, **kw), hierarchy, hierarchy_guide, lower=("c",))


def test_particles_with_a_run_of_their_own():
    hierarchy_start()
    compare(lambda **kw: IWAE(2, vectorize_particles=False, **kw), hierarchy, hierarchy_guide)


def test_sites_that_are_scaled_inside_of_the_weights_keep_their_score():
    """Global latents and a minibatch of local ones."""
    hierarchy_start()
    mine, theirs = (
        gradient_samples(
            ReverseKL(3, estimator=e), hierarchy, hierarchy_guide, (2,), repetitions=3, seed=1
        )
        for e in (GDREG, DOUBLY)
    )
    torch.testing.assert_close(mine, theirs)


def test_local_minibatches_with_a_mask():
    start(a=0.4, b=-0.2, m=0.5, s=-0.3)
    keep = torch.tensor([True, False, True])

    def model():
        with pyro.plate("data", 3, subsample_size=2) as rows:
            with pyro.poutine.mask(mask=keep[rows]):
                z = pyro.sample("z", dist.Normal(pyro.param("a"), pyro.param("b").exp()))
            # the likelihood looks at masked latents, too
            pyro.sample("y", dist.Normal(z, 0.7), obs=Y[rows])

    def guide():
        with pyro.plate("data", 3, subsample_size=2) as rows, pyro.poutine.mask(mask=keep[rows]):
            pyro.sample("z", dist.Normal(pyro.param("m") * Y[rows], pyro.param("s").exp()))

    compare(lambda **kw: IWAE(4, 30, **kw), model, guide)


@pytest.mark.parametrize("kind", ["flow", "multivariate"])
def test_priors_of_vectors(kind):
    torch.manual_seed(0)
    flow = transforms.affine_autoregressive(2, hidden_dims=[4])
    start(a=[0.4, -0.2], factor=[[0.8, 0.0], [0.3, 0.6]], m=[0.5, 0.1], s=[-0.3, 0.0])

    def model():
        if kind == "flow":
            pyro.module("flow", flow)
            base = dist.Normal(pyro.param("a"), 1.0).to_event(1)
            prior = dist.TransformedDistribution(base, [flow])
        else:
            prior = dist.MultivariateNormal(pyro.param("a"), scale_tril=pyro.param("factor").tril())
        z = pyro.sample("z", prior)
        pyro.sample("y", dist.Normal(z.sum(-1), 0.7), obs=X)

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("m"), pyro.param("s").exp()).to_event(1))

    lower = ("a",) if kind == "multivariate" else ()  # less is usual, and not a law
    compare(lambda **kw: IWAE(4, 40, **kw), model, guide, repetitions=90, lower=lower)


def test_auxiliary_draws_of_one_site_each():
    """Pyro's AutoNormal draws the logarithm of a positive latent."""
    start(a=0.4, b=-0.2)

    def model():
        z = pyro.sample("z", dist.LogNormal(pyro.param("a"), pyro.param("b").exp()))
        u = pyro.sample("u", dist.Exponential(pyro.param("a").exp()))
        pyro.sample("y", dist.Normal(z + u, 0.7), obs=X)

    guide = AutoNormal(model, init_scale=0.5)
    guide()
    compare(lambda **kw: IWAE(4, 40, **kw), model, guide, lower=("b",))


def test_what_has_no_path_keeps_its_score_draw_by_draw():
    start(a=1.4, b=0.2)

    def model():
        z = pyro.sample("z", dist.Gamma(pyro.param("a"), pyro.param("b").exp()))
        pyro.sample("y", dist.Normal(z, 0.7), obs=X)

    def guide():
        pyro.sample("z", dist.LogNormal(pyro.param("m", torch.tensor(0.2)), 0.5))

    def normal():
        z = pyro.sample("z", dist.Normal(pyro.param("a"), pyro.param("b").exp()))
        v = pyro.sample("v", dist.Normal(pyro.param("a"), 1.0))
        pyro.sample("y", dist.Normal(z + v, 0.7), obs=X)

    joint = AutoMultivariateNormal(normal)
    joint()
    for pair in ((model, guide), (normal, joint)):
        mine, theirs = (
            gradient_samples(IWAE(4, estimator=e), *pair, repetitions=3, seed=1)
            for e in (GDREG, DOUBLY)
        )
        torch.testing.assert_close(mine, theirs)


def test_the_value_is_that_of_the_loss():
    hierarchy_start()
    values = []
    for estimator in (GDREG, DOUBLY):
        pyro.set_rng_seed(0)
        values.append(IWAE(4, estimator=estimator).loss_and_grads(hierarchy, hierarchy_guide))
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert math.isfinite(values[0])
