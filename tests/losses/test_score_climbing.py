"""Score climbing: exact mean gradients on stationary chains, for every kind of pair."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scipy import stats

from pyro_klmodes import ForwardKL
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.losses import ScoreClimbing

kernels = pytest.mark.parametrize("kernel", ["cis", "independence"])

# A plate of identical data, each with parameters of its own, is as many independent chains. Their
# gradients, averaged over steps, are independent, whatever the autocorrelation within a chain.

CHAINS = 400
BURN_IN = 30
STEPS = 25


def mean_gradients(loss, model, guide, names, *, steps=STEPS):
    """Gradients of every chain averaged over steps, (CHAINS, number of parameters)."""
    total = {}
    for step in range(BURN_IN + steps):
        loss.loss_and_grads(model, guide)
        for name in names:
            p = pyro.get_param_store()._params[name]
            if step >= BURN_IN:
                total[name] = total.get(name, 0.0) + p.grad.reshape(CHAINS, -1) / steps
            p.grad = None
    return torch.cat([total[name] for name in names], 1)


def p_value(gradients, exact):
    """Hotelling's test that independent rows have a mean: a chi-square over all parameters."""
    n, k = gradients.shape
    gap = gradients.mean(0) - torch.as_tensor(exact)
    t2 = n * gap @ torch.linalg.solve(torch.cov(gradients.T), gap)
    return float(stats.f.sf(float(t2) * (n - k) / (k * (n - 1)), k, n - k))


def assert_exact_and_forward_kl_is_not(model, guide, names, exact, *, loss):
    assert p_value(mean_gradients(loss, model, guide, names), exact) > 1e-3
    biased = mean_gradients(ForwardKL(loss.num_particles), model, guide, names)
    assert p_value(biased, exact) < 1e-9


# A conjugate pair: z ~ N(prior, 1), x ~ N(z, NOISE).

NOISE = 0.8
DATUM = torch.tensor(1.3)
PRIOR, LOC, LOG_SCALE = 0.2, 0.3, math.log(0.9)
PRECISION = 1.0 + 1.0 / NOISE**2
POSTERIOR_MEAN = (PRIOR + DATUM.item() / NOISE**2) / PRECISION


def normal_model():
    prior = pyro.param("prior", torch.full((CHAINS,), PRIOR))
    with pyro.plate("data", CHAINS):
        z = pyro.sample("z", dist.Normal(prior, 1.0))
        pyro.sample("x", dist.Normal(z, NOISE), obs=DATUM.expand(CHAINS))


def normal_guide():
    loc = pyro.param("loc", torch.full((CHAINS,), LOC))
    log_scale = pyro.param("log_scale", torch.full((CHAINS,), LOG_SCALE))
    with pyro.plate("data", CHAINS):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def exact_normal_gradient():
    """Of -E_p log q in the guide's parameters, and of the negated log-evidence in the prior's."""
    off, variance = POSTERIOR_MEAN - LOC, math.exp(2 * LOG_SCALE)
    of_prior = -(DATUM.item() - PRIOR) / (1.0 + NOISE**2)
    return [-off / variance, 1 - (1 / PRECISION + off**2) / variance, of_prior]


@kernels
@pytest.mark.parametrize("S", [2, 5])
def test_continuous_latents(kernel, S):
    assert_exact_and_forward_kl_is_not(
        normal_model,
        normal_guide,
        ["loc", "log_scale", "prior"],
        exact_normal_gradient(),
        loss=ScoreClimbing(S, kernel),
    )


@kernels
def test_particles_one_after_the_other(kernel):
    """A model that does not broadcast: the state is in the first of S runs."""
    loss = ScoreClimbing(2, kernel, vectorize_particles=False)
    found = mean_gradients(loss, normal_model, normal_guide, ["loc", "log_scale", "prior"])
    assert p_value(found, exact_normal_gradient()) > 1e-3


MEANS = torch.tensor([-1.0, 0.5, 2.0])
PRIOR_LOGITS = torch.tensor([0.3, -0.4, 0.1])
GUIDE_LOGITS = torch.tensor([0.5, 0.2, -0.7])


def discrete_model():
    logits = pyro.param("prior", PRIOR_LOGITS.repeat(CHAINS, 1))
    means = pyro.param("means", MEANS.repeat(CHAINS, 1))
    with pyro.plate("data", CHAINS):
        z = pyro.sample("z", dist.Categorical(logits=logits))
        mean = means.expand((*z.shape, 3)).gather(-1, z.unsqueeze(-1)).squeeze(-1)
        pyro.sample("x", dist.Normal(mean, 1.0), obs=DATUM.expand(CHAINS))


def discrete_guide():
    logits = pyro.param("logits", GUIDE_LOGITS.repeat(CHAINS, 1))
    with pyro.plate("data", CHAINS):
        pyro.sample("z", dist.Categorical(logits=logits))


def exact_discrete_gradient():
    leaves = [t.clone().requires_grad_() for t in (GUIDE_LOGITS, PRIOR_LOGITS, MEANS)]
    logits, prior, means = leaves
    log_joint = prior.log_softmax(-1) + dist.Normal(means, 1.0).log_prob(DATUM)
    log_evidence = log_joint.logsumexp(-1)
    posterior = (log_joint - log_evidence).exp().detach()
    target = -(posterior * logits.log_softmax(-1)).sum() - log_evidence
    return torch.autograd.grad(target, leaves)


@kernels
def test_discrete_latents(kernel):
    # the gradients of logits add up to zero: the third of each says nothing new
    keep = [0, 1, 3, 4, 6, 7, 8]
    exact = torch.cat(exact_discrete_gradient())[keep]
    names = ["logits", "prior", "means"]

    def found(loss):
        return mean_gradients(loss, discrete_model, discrete_guide, names)[:, keep]

    assert p_value(found(ScoreClimbing(3, kernel)), exact) > 1e-3
    assert p_value(found(ForwardKL(3)), exact) < 1e-9


# A positive latent under an autoguide: z ~ Gamma(2, 1), x ~ Poisson(z).

COUNT = torch.tensor(4.0)


def positive_model():
    rate = pyro.param("rate", torch.ones(CHAINS))
    with pyro.plate("data", CHAINS):
        z = pyro.sample("z", dist.Gamma(2.0, rate))
        pyro.sample("x", dist.Poisson(z), obs=COUNT.expand(CHAINS))


def test_an_autoguide_of_a_constrained_latent():
    """The posterior is Gamma(6, 2); moments of log z by quadrature."""
    log_z = torch.linspace(-6.0, 5.0, 20001)
    density = dist.Gamma(6.0, 2.0).log_prob(log_z.exp()).exp() * log_z.exp()
    density = density / density.sum()
    loc, scale = 0.4, 0.8
    off = (density * log_z).sum().item() - loc
    second = (density * (log_z - loc) ** 2).sum().item()
    # Pyro's scale is the softplus of what is trained
    softplus = 1 - math.exp(-scale)
    # log-evidence of a negative binomial: 2 log rate - 6 log(rate + 1) + constant
    exact = [-off / scale**2, softplus * (1 / scale - second / scale**3), -(2.0 - 6.0 / 2.0)]

    guide = AutoNormal(positive_model, init_scale=scale)
    guide()
    with torch.no_grad():
        guide.locs.z.fill_(loc)
    names = ["AutoNormal.locs.z", "AutoNormal.scales.z", "rate"]
    assert_exact_and_forward_kl_is_not(positive_model, guide, names, exact, loss=ScoreClimbing(3))


def test_minibatches_by_index():
    """Each step sees half of the data; its gradient counts them twice."""

    def model(index):
        with pyro.plate("data", CHAINS, subsample=index) as i:
            z = pyro.sample("z", dist.Normal(PRIOR, 1.0))
            pyro.sample("x", dist.Normal(z, NOISE), obs=DATUM.expand(CHAINS)[i])

    def guide(index):
        loc = pyro.param("loc", torch.full((CHAINS,), LOC))
        log_scale = pyro.param("log_scale", torch.full((CHAINS,), LOG_SCALE))
        with pyro.plate("data", CHAINS, subsample=index) as i:
            pyro.sample("z", dist.Normal(loc[i], log_scale[i].exp()))

    loss = ScoreClimbing(3)
    total = torch.zeros(CHAINS, 2)
    epochs = 20
    for epoch in range(BURN_IN + epochs):
        for index in torch.randperm(CHAINS).reshape(2, -1):
            loss.loss_and_grads(model, guide, index)
            for column, name in enumerate(("loc", "log_scale")):
                p = pyro.get_param_store()._params[name]
                assert (p.grad != 0).nonzero().flatten().tolist() == sorted(index.tolist())
                if epoch >= BURN_IN:
                    total[:, column] += p.grad / epochs / 2
                p.grad = None
    assert p_value(total, exact_normal_gradient()[:2]) > 1e-3
    assert (loss.ages >= 0).all()


def test_other_cells_are_masked_out():
    """Half of the data are masked: their gradient is zero, that of the others as it was."""
    mask = torch.arange(CHAINS) % 2 == 0

    def model():
        prior = pyro.param("prior", torch.full((CHAINS,), PRIOR))
        with pyro.plate("data", CHAINS), pyro.poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(prior, 1.0))
            pyro.sample("x", dist.Normal(z, NOISE), obs=torch.full((CHAINS,), DATUM.item()))

    def guide():
        with pyro.poutine.mask(mask=mask):
            normal_guide()

    found = mean_gradients(ScoreClimbing(3), model, guide, ["loc", "log_scale", "prior"])
    assert (found[~mask] == 0).all()
    assert p_value(found[mask], exact_normal_gradient()) > 1e-3


def test_sites_that_are_summed_out():
    """A discrete site of the model is enumerated: x ~ sum_c N(z + c, NOISE) / 2, c = -1, 1."""

    def model():
        with pyro.plate("data", CHAINS):
            z = pyro.sample("z", dist.Normal(PRIOR, 1.0))
            c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(z + 2 * c - 1, NOISE), obs=DATUM.expand(CHAINS))

    z = torch.linspace(-8.0, 8.0, 40001)
    both = torch.stack([dist.Normal(z + c, NOISE).log_prob(DATUM) for c in (-1.0, 1.0)])
    log_p = dist.Normal(PRIOR, 1.0).log_prob(z) + both.logsumexp(0)
    p = log_p.softmax(0)
    off = (p * z).sum().item() - LOC
    second = (p * (z - LOC) ** 2).sum().item()
    variance = math.exp(2 * LOG_SCALE)
    found = mean_gradients(ScoreClimbing(3), model, normal_guide, ["loc", "log_scale"])
    assert p_value(found, [-off / variance, 1 - second / variance]) > 1e-3


# -- what it is ------------------------------------------------------------------------------------


def test_the_first_step_of_a_chain_is_forward_kl():
    """The chain begins at a draw of the guide: self-normalised importance sampling."""
    gradients = []
    for loss in (ScoreClimbing(5), ForwardKL(5)):
        pyro.set_rng_seed(2)
        value = loss.loss_and_grads(normal_model, normal_guide)
        found = {n: p.grad.clone() for n, p in pyro.get_param_store()._params.items()}
        pyro.clear_param_store()
        gradients.append((value, found))
    assert gradients[0][0] == gradients[1][0]
    assert torch.equal(gradients[0][1]["loc"], gradients[1][1]["loc"])
    assert torch.equal(gradients[0][1]["prior"], gradients[1][1]["prior"])


@kernels
def test_from_the_second_step_on_it_is_a_loss_of_its_own(kernel):
    def trained(make):
        loss = make()
        for _ in range(3):
            loss.loss_and_grads(normal_model, normal_guide)
        for p in pyro.get_param_store()._params.values():
            p.grad = None
        pyro.set_rng_seed(4)
        loss.loss_and_grads(normal_model, normal_guide)
        return {n: p.grad.clone() for n, p in pyro.get_param_store()._params.items()}

    other = "independence" if kernel == "cis" else "cis"
    own = trained(lambda: ScoreClimbing(4, kernel))
    for make in (lambda: ScoreClimbing(4, other), lambda: ForwardKL(4)):
        theirs = trained(make)
        for name in own:
            assert (own[name] - theirs[name]).abs().mean() > 0.1 * own[name].abs().mean()


def test_the_value_is_that_of_the_forward_kl():
    """Of stationary chains: KL(p | q) + log Z, in closed form; standard error from the values."""
    guide_scale = math.exp(LOG_SCALE)
    posterior = dist.Normal(torch.tensor(POSTERIOR_MEAN), PRECISION**-0.5)
    kl = dist.kl.kl_divergence(posterior, dist.Normal(torch.tensor(LOC), guide_scale))
    log_evidence = dist.Normal(PRIOR, math.sqrt(1 + NOISE**2)).log_prob(DATUM)
    loss = ScoreClimbing(4)
    values = torch.tensor(
        [loss.loss_and_grads(normal_model, normal_guide) / CHAINS for _ in range(BURN_IN + 48)]
    )[BURN_IN:]
    error = values.reshape(6, 8).mean(1).std() / math.sqrt(6)
    assert abs(values.mean() - (kl + log_evidence)) < 3.5 * error
    assert error < 0.01


@pytest.mark.parametrize("kernel", ["imh", None, "CIS"])
def test_an_unknown_kernel_is_refused(kernel):
    with pytest.raises(
        InvalidArgument, match=r"kernel=.* must be one of \['cis', 'independence'\]"
    ):
        ScoreClimbing(4, kernel)


@pytest.mark.parametrize("S", [1, 0, True, 2.0])
def test_it_needs_a_proposal_beside_the_state(S):
    with pytest.raises(InvalidArgument, match="num_particles="):
        ScoreClimbing(S)
