"""Small models, one for each way in which parameters are arguments of distributions."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

K, D, N = 3, 2, 40
PARALLEL = {"enumerate": "parallel"}


def positive(name, *shape):
    start = 0.5 + torch.arange(1.0, 1.0 + torch.Size(shape).numel()).reshape(shape)
    return pyro.param(name, start, constraint=constraints.positive)


def simplex(name, *shape):
    start = torch.ones(shape) / shape[-1]
    return pyro.param(name, start, constraint=constraints.simplex)


def probability(name, *shape):
    return pyro.param(name, torch.full(shape, 0.4), constraint=constraints.unit_interval)


def covariance(name, *shape):
    start = torch.eye(D).expand(*shape, D, D).clone()
    return pyro.param(name, start, constraint=constraints.positive_definite)


def component(weights=None):
    weights = torch.ones(K) / K if weights is None else weights
    return pyro.sample("z", dist.Categorical(weights), infer=PARALLEL)


# Each model makes its own data, the same every time and in every precision.
def data(*shape):
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.to(torch.get_default_dtype())


def counts(*shape):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 6, shape, generator=generator).to(torch.get_default_dtype())


def normal_untied():
    weights, scale = simplex("weights", K), positive("scale", K, D)
    loc = pyro.param("loc", torch.zeros(K, D))
    with pyro.plate("data", N):
        z = component(weights)
        pyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=data(N, D))


def normal_tied_scale():
    loc, scale = pyro.param("loc", torch.zeros(K, D)), positive("scale")
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Normal(loc[z], scale).to_event(1), obs=data(N, D))


def normal_scale_of_component():
    loc, scale = pyro.param("loc", torch.zeros(K, D)), positive("scale", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Normal(loc[z], scale[z][..., None]).to_event(1), obs=data(N, D))


def normal_features_in_a_plate():
    loc, scale = pyro.param("loc", torch.zeros(D, 1)), positive("scale", D, 1)
    with pyro.plate("features", D, dim=-2), pyro.plate("data", N, dim=-1):
        pyro.sample("x", dist.Normal(loc, scale), obs=data(D, N))


def normal_known_scale():
    loc = pyro.param("loc", torch.zeros(K))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc[component()], 0.5 + data(N) ** 2), obs=data(N))


def normal_known_loc():
    scale = positive("scale", K)
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(torch.sin(data(N)), scale[component()]), obs=data(N))


def normal_other_forms():
    loc, log_scale = pyro.param("loc", torch.zeros(K)), pyro.param("log_scale", torch.zeros(K))
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Normal(loc[z], log_scale[z].exp()), obs=data(N))
        pyro.sample("y", dist.Normal(data(N).cos(), positive("variance").sqrt()), obs=data(N))
        pyro.sample("v", dist.Normal(0.5, positive("precision", K)[z].rsqrt()), obs=data(N))


def normal_groups():
    loc, scale = pyro.param("loc", torch.zeros(4)), positive("scale", 2)
    group = torch.arange(N) % 4
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc[group], scale[group // 2]), obs=data(N))


def normal_shared_loc():
    loc, scale = pyro.param("loc", torch.zeros(())), positive("scale", K)
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc, scale[component()]), obs=data(N))


def normal_two_scales():
    loc = pyro.param("loc", torch.zeros(K))
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Normal(loc[z], positive("scale")), obs=data(N))
        pyro.sample("y", dist.Normal(loc[z], 0.5), obs=1 + data(N))


def normal_shared_loc_other_form():
    loc, precision = pyro.param("loc", torch.zeros(())), positive("precision", K)
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc, precision[component()] ** -0.5), obs=data(N))


def multivariate_shared_loc():
    loc, matrix = pyro.param("loc", torch.zeros(D)), covariance("matrix", K)
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(loc, covariance_matrix=matrix[component()])
        pyro.sample("x", fn, obs=data(N, D))


def normal_two_sites():
    loc, scale = pyro.param("loc", torch.zeros(K)), positive("scale")
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Normal(loc[z], scale), obs=data(N))
        pyro.sample("y", dist.Normal(loc[z], scale), obs=3 + data(N))


def normal_mixed_parameters():
    first, second = pyro.param("first", torch.zeros(())), pyro.param("second", torch.zeros(2))
    loc = torch.cat([first[None], second])
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc[component()], positive("scale")), obs=data(N))


def log_normal():
    loc, scale = pyro.param("loc", torch.zeros(K)), positive("scale", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.LogNormal(loc[z], scale[z]), obs=data(N).exp())


def masked_entries():
    loc, scale = pyro.param("loc", torch.zeros(K, D)), positive("scale", D)
    keep = data(N, D) > -0.5
    with pyro.plate("data", N):
        fn = dist.Normal(loc[component()], scale).mask(keep).to_event(1)
        pyro.sample("x", fn, obs=data(N, D))


def multivariate(form):
    def model():
        weights, loc = simplex("weights", K), pyro.param("loc", torch.zeros(K, D))
        triangle = form == "scale_tril"
        kind = constraints.lower_cholesky if triangle else constraints.positive_definite
        matrix = pyro.param("matrix", torch.eye(D).expand(K, D, D).clone(), constraint=kind)
        with pyro.plate("data", N):
            z = component(weights)
            fn = dist.MultivariateNormal(loc[z], **{form: matrix[z]})
            pyro.sample("x", fn, obs=data(N, D))

    return model


def multivariate_tied():
    loc, matrix = pyro.param("loc", torch.zeros(K, D)), covariance("matrix")
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(loc[component()], covariance_matrix=matrix)
        pyro.sample("x", fn, obs=data(N, D))


def multivariate_known_loc():
    matrix = covariance("matrix", K)
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(data(N, D).sin(), covariance_matrix=matrix[component()])
        pyro.sample("x", fn, obs=data(N, D))


def multivariate_known_covariance():
    loc = pyro.param("loc", torch.zeros(K, D))
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(loc[component()], torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
        pyro.sample("x", fn, obs=data(N, D))


def markov_chain():
    start, transition = simplex("start", K), simplex("transition", K, K)
    emission = simplex("emission", K, 4)
    words = counts(5, N).long() % 4
    with pyro.plate("series", N):
        z = None
        for t in pyro.markov(range(5)):
            probs = start if z is None else transition[z]
            z = pyro.sample(f"z_{t}", dist.Categorical(probs), infer=PARALLEL)
            pyro.sample(f"x_{t}", dist.Categorical(emission[z]), obs=words[t])


def one_hot():
    probs = simplex("probs", K, 4)
    x = torch.eye(4)[counts(N).long() % 4]
    with pyro.plate("data", N):
        pyro.sample("x", dist.OneHotCategorical(probs[component()]), obs=x)


def multinomial():
    probs = simplex("probs", K, 4)
    x = torch.stack([counts(N), counts(N), 10 - 2 * counts(N), torch.zeros(N)], -1)
    with pyro.plate("data", N):
        pyro.sample("x", dist.Multinomial(10, probs[component()]), obs=x)


def bernoulli():
    probs = probability("probs", K, D)
    with pyro.plate("data", N):
        fn = dist.Bernoulli(probs[component()]).to_event(1)
        pyro.sample("x", fn, obs=(data(N, D) > 0).double())


def binomial():
    total = 6 + torch.arange(N)
    with pyro.plate("data", N):
        fn = dist.Binomial(total, probability("probs", K)[component()])
        pyro.sample("x", fn, obs=counts(N))


def geometric_and_bernoulli():
    probs = probability("probs", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Geometric(probs[z]), obs=counts(N))
        pyro.sample("y", dist.Bernoulli(probs[z]), obs=(data(N) > 0).double())


def poisson_and_exponential():
    rate = positive("rate", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Poisson(rate[z]), obs=counts(N))
        pyro.sample("y", dist.Exponential(rate[z]), obs=data(N).exp())


def gamma_rate():
    with pyro.plate("data", N):
        fn = dist.Gamma(1 + counts(N), positive("rate", K)[component()])
        pyro.sample("x", fn, obs=data(N).exp())


def gamma_both():
    concentration, rate = positive("concentration", K), positive("rate", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Gamma(concentration[z], rate[z]), obs=data(N).exp())


def gamma_tied_rate():
    concentration, rate = positive("concentration", K), positive("rate")
    with pyro.plate("data", N):
        pyro.sample("x", dist.Gamma(concentration[component()], rate), obs=data(N).exp())


def gamma_concentration():
    with pyro.plate("data", N):
        fn = dist.Gamma(positive("concentration", K)[component()], data(N) ** 2 + 0.1)
        pyro.sample("x", fn, obs=data(N).exp())


def beta():
    a, b = positive("a", K), positive("b", K)
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Beta(a[z], b[z]), obs=data(N).sigmoid())


def dirichlet():
    concentration = positive("concentration", K, 3)
    with pyro.plate("data", N):
        fn = dist.Dirichlet(concentration[component()])
        pyro.sample("x", fn, obs=data(N, 3).softmax(-1))


def without_plates():
    for i in range(3):
        fn = dist.Normal(pyro.param("loc", torch.zeros(())), positive("scale"))
        pyro.sample(f"x_{i}", fn, obs=data(3)[i])
        pyro.sample(f"n_{i}", dist.Poisson(positive("rate")), obs=torch.tensor(i + 1.0))
        pyro.sample(f"c_{i}", dist.Categorical(simplex("probs", 3)), obs=torch.tensor(i))
        pyro.sample(f"g_{i}", dist.Gamma(positive("a"), positive("b")), obs=torch.tensor(i + 1.0))
    for i in range(6):
        fn = dist.MultivariateNormal(pyro.param("vector", torch.zeros(2)), covariance("matrix"))
        pyro.sample(f"v_{i}", fn, obs=data(6, 2)[i])


def map_simplex():
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([2.0, 1.5, 3.0])))
    with pyro.plate("rows", K):
        probs = pyro.sample("probs", dist.Dirichlet(1.5 * torch.ones(4)))
    with pyro.plate("data", N):
        z = component(weights)
        pyro.sample("x", dist.Categorical(probs[z]), obs=counts(N).long() % 4)


def map_probability_and_rate():
    with pyro.plate("components", K):
        probs = pyro.sample("probs", dist.Beta(2.0, 3.0))
        rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
        speed = pyro.sample("speed", dist.Exponential(1.5))
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.Bernoulli(probs[z]), obs=(data(N) > 0).double())
        pyro.sample("y", dist.Poisson(rate[z]), obs=counts(N))
        pyro.sample("v", dist.Exponential(speed[z]), obs=data(N).exp())


def map_known_scale():
    with pyro.plate("components", K):
        loc = pyro.sample("loc", dist.Normal(torch.arange(3.0), 0.3).expand([K]))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc[component()], 2.0), obs=data(N))


def map_vector_known_covariance():
    prior = dist.MultivariateNormal(torch.ones(D), torch.tensor([[0.1, 0.05], [0.05, 0.2]]))
    with pyro.plate("components", K):
        loc = pyro.sample("loc", prior)
        other = pyro.sample("other", dist.Normal(1.0, torch.tensor([0.1, 0.3])).to_event(1))
    known = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    with pyro.plate("data", N):
        z = component()
        pyro.sample("x", dist.MultivariateNormal(loc[z], known), obs=data(N, D))
        pyro.sample("y", dist.MultivariateNormal(other[z], known), obs=data(N, D))


def map_normal():
    with pyro.plate("components", K):
        loc = pyro.sample("loc", dist.Normal(torch.arange(3.0), 0.3))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc[component()], positive("scale")), obs=data(N))


def map_vector():
    matrix = covariance("matrix")
    with pyro.plate("components", K):
        loc = pyro.sample("loc", dist.Normal(1.0, 0.2).expand([D]).to_event(1))
    with pyro.plate("data", N):
        fn = dist.MultivariateNormal(loc[component()], precision_matrix=matrix)
        pyro.sample("x", fn, obs=data(N, D))


#: the maximum is exact, whatever the values before
EXACT = [
    *(normal_untied, normal_tied_scale, normal_scale_of_component, normal_features_in_a_plate),
    *(normal_known_scale, normal_known_loc, normal_two_sites, normal_mixed_parameters, log_normal),
    normal_other_forms,
    without_plates,
    *(normal_groups, masked_entries, multivariate("covariance_matrix")),
    *(multivariate("precision_matrix"), multivariate("scale_tril"), multivariate_tied),
    *(multivariate_known_loc, multivariate_known_covariance, markov_chain, one_hot, multinomial),
    *(bernoulli, binomial, geometric_and_bernoulli, poisson_and_exponential, gamma_rate),
    *(gamma_both, gamma_concentration, beta, dirichlet),
]
EXACT_WITH_PRIORS = {
    map_simplex: ("weights", "probs"),
    map_probability_and_rate: ("probs", "rate", "speed"),
    map_known_scale: ("loc",),
    map_vector_known_covariance: ("loc", "other"),
}

#: parameters in the order in which they are maximised, each given the values of the others
CONDITIONAL = {
    normal_shared_loc: ((), ("loc", "scale")),
    normal_shared_loc_other_form: ((), ("loc", "precision")),
    normal_two_scales: ((), ("loc", "scale")),
    multivariate_shared_loc: ((), ("loc", "matrix")),
    gamma_tied_rate: ((), ("rate", "concentration")),
    map_normal: (("loc",), ("loc", "scale")),
    map_vector: (("loc",), ("loc", "matrix")),
}
