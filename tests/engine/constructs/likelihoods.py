"""Distributions: matrices, mixtures, counts, circles; guides whose draws depend on parameters."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch.distributions import constraints

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, estimators
from tests.engine.constructs.case import Case, Constructs

constructs = Constructs()


def counts():
    return torch.tensor([0.0, 3.0, 1.0, 0.0, 2.0])


def positive(name, value=1.0):
    return pyro.param(name, torch.as_tensor(value), constraint=constraints.positive)


@constructs.compiled
def correlation_matrix_and_multivariate_normal():
    def model(y):
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(2, 1.5))
        with pyro.plate("data", len(y)):
            root = torch.diag_embed(scale) @ corr
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), scale_tril=root), obs=y)

    return Case(model, AutoNormal(model), (torch.linspace(-1.0, 1.0, 8).reshape(4, 2),))


@constructs.compiled
def gaussian_process_by_cholesky():
    def model(x, y):
        length = pyro.sample("length", dist.LogNormal(0.0, 0.5))
        apart = (x[:, None] - x) / length[..., None, None]
        kernel = torch.exp(-0.5 * apart**2) + 0.1 * torch.eye(len(x))
        root = torch.linalg.cholesky(kernel)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), scale_tril=root), obs=y)

    x = torch.linspace(0.0, 2.0, 4)
    return Case(model, AutoNormal(model), (x, x.sin()))


def counted(likelihood):
    def model(y):
        rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", likelihood(rate, share), obs=y)

    return Case(model, AutoDiagonalNormal(model), (counts(),))


@constructs.compiled
def zero_inflated_counts():
    return counted(lambda rate, share: dist.ZeroInflatedPoisson(rate, gate=share))


@constructs.compiled
def negative_binomial_counts():
    return counted(lambda rate, share: dist.NegativeBinomial(rate, probs=share))


@constructs.compiled
def von_mises_likelihood():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.VonMises(loc, 2.0), obs=y)

    return Case(model, AutoNormal(model), (torch.linspace(-2.0, 2.0, 5),))


@constructs.compiled
def ordered_logistic_likelihood():
    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        cuts = torch.tensor([-1.0, 1.0])
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.OrderedLogistic(slope * x, cuts), obs=y)

    return Case(model, AutoNormal(model), (torch.linspace(-1, 1, 4), torch.tensor([0, 1, 1, 2])))


@constructs.compiled
def mixture_of_the_same_family():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        share = dist.Categorical(torch.tensor([0.4, 0.6]))
        with pyro.plate("data", len(y)):
            parts = dist.Normal(loc[..., None, :], 0.5)
            pyro.sample("y", dist.MixtureSameFamily(share, parts), obs=y)

    return Case(model, AutoNormal(model), (torch.linspace(-1.0, 1.0, 4),))


@constructs.compiled
def gaussian_hidden_markov_model():
    def model(y):
        pull = pyro.sample("pull", dist.Normal(0.5, 0.2))
        noise = dist.MultivariateNormal(torch.zeros(1), torch.eye(1))
        matrix = pull[..., None, None, None].expand(*pull.shape, len(y), 1, 1)
        chain = dist.GaussianHMM(noise, matrix, noise, torch.eye(1), noise, duration=len(y))
        pyro.sample("y", chain, obs=y)

    loss = partial(ReverseKL, 2)
    return Case(model, AutoNormal(model), (torch.linspace(-1.0, 1.0, 3)[:, None],), loss=loss)


@constructs.compiled
def gamma_and_beta_guides():
    def model(y):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        share = pyro.sample("share", dist.Beta(2.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson(rate * share), obs=y)

    def guide(y):
        pyro.sample("rate", dist.Gamma(positive("shape", 1.5), positive("rate_of")))
        pyro.sample("share", dist.Beta(positive("a", 2.0), positive("b", 2.0)))

    return Case(model, guide, (counts(),))


@constructs.compiled
def dirichlet_and_exponential_guides():
    def model(y):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        rate = pyro.sample("rate", dist.Exponential(1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson(rate * (1.0 + share[..., :1])), obs=y)

    def guide(y):
        pyro.sample("share", dist.Dirichlet(positive("concentration", torch.ones(3))))
        pyro.sample("rate", dist.Exponential(positive("rate_of")))

    return Case(model, guide, (counts(),))


@constructs.compiled
def discrete_guide_with_scores():
    def model(y):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(2.0 * z - 1.0, 1.0), obs=y)

    def guide(y):
        logit = pyro.param("logit", torch.tensor(0.2))
        pyro.sample("z", dist.Bernoulli(logits=logit))

    loss = partial(ReverseKL, 4, estimator=estimators.score)
    return Case(model, guide, (counts(),), loss=loss)


@constructs.compiled
def importance_weighted_bound():
    case = counted(lambda rate, share: dist.Poisson(rate * share))
    case.loss = lambda: IWAE(4)
    return case


@constructs.compiled
def forward_divergence():
    case = counted(lambda rate, share: dist.Poisson(rate * share))
    case.loss = lambda: ForwardKL(4)
    return case


@constructs.compiled_in_single_precision
def single_precision():
    return counted(lambda rate, share: dist.Poisson(rate * share))
