"""Losses and autoguides of Pyro 1.9.2, and ours, against the same exact answers.

Each test is about one way in which a loss or autoguide of Pyro is silently wrong in ordinary use.
It holds ours to the exact answer first, then shows by how much Pyro misses it; a version of Pyro
that has become right skips the second half. S1, S2, ... is our own numbering; a number without a
test is a defect of something that has no counterpart here.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
    TraceTMC_ELBO,
)
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
    init_to_value,
)

from pyro_klmodes import (
    IWAE,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    check,
    draws,
    log_density,
)
from pyro_klmodes.errors import KLModesWarning, NoDensity, UnsupportedStructure
from pyro_klmodes.weights import effective_sample_size
from tests.against_pyro.gamma_poisson import (
    FORWARD_M,
    FORWARD_S,
    REVERSE_M,
    REVERSE_S,
    gamma_poisson,
    log_normal_elbo,
    log_normal_wake_gradient,
)
from tests.against_pyro.measure import (
    ERRORS,
    EXACT,
    Tail,
    WakeSleep,
    assert_converged,
    assert_pyro_is_off,
    assert_right,
    bound,
    estimate,
    gradient,
    param,
    skip_because_pyro_is_right,
)
from tests.against_pyro.pairs import (
    DATUM,
    POSTERIOR_SD,
    bound_of_two,
    coin_gradient,
    coins,
    local_normals,
    log_evidence,
    one_normal,
)
from tests.against_pyro.two_modes import (
    reverse_kl_gradient,
    tail_adaptive_gradient,
    two_modes,
    wide_normal,
)


def at(guide_class, model, value, sd):
    """An autoguide whose latent z starts at a value, with a standard deviation."""
    pyro.clear_param_store()  # autoguides of one class share their parameters by name
    guide = guide_class(model, init_loc_fn=init_to_value(values={"z": value}), init_scale=sd)
    guide()
    return guide


def train(loss, model, guide, steps=300):
    """Train with Adam under a falling learning rate."""
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.98}), loss)
    for _ in range(steps):
        svi.step()
    return guide


@pytest.mark.parametrize("batch", [5, 1])
def test_s01_importance_weighted_bound_looks_at_one_minibatch(batch):
    """S1: RenyiELBO draws a new minibatch for every particle, and averages weights of other data.

    Exact: the guide is the posterior, so every estimate is N/B times the evidence of its minibatch.
    """
    x = torch.linspace(-6.0, 6.0, 20)
    evidence = log_evidence(x)
    model, guide = local_normals(x, batch)
    for vectorised in (True, False):
        loss = IWAE(5, vectorize_particles=vectorised)
        loss.loss(model, guide)  # the pair is surveyed at the first call, with random numbers
        pyro.set_rng_seed(1)
        value = loss.loss(model, guide)
        pyro.set_rng_seed(1)
        seen = loss.draws(model, guide)
        expected = evidence[seen.indices["data"]]
        assert torch.allclose(seen.log_w, expected.expand(5, batch), rtol=0, atol=EXACT)
        assert value == pytest.approx(-len(x) / batch * expected.sum().item(), abs=EXACT)

    theirs = bound(RenyiELBO(num_particles=5, max_plate_nesting=1), model, guide, 200)
    assert_pyro_is_off(theirs.mean - evidence.sum().item(), more_than=15.0, noise=theirs.se)


@pytest.mark.parametrize(
    "guide_class", [AutoDiagonalNormal, AutoMultivariateNormal, AutoStructured]
)
def test_s02_joint_autoguide_inside_a_plate(guide_class):
    """S2: RenyiELBO subtracts the density of a guide's whole vector once for every datum.

    Exact: the guide is the posterior, so every log-weight is the log-evidence.
    """
    x = torch.linspace(-3.0, 3.0, 6)
    model, _ = local_normals(x)
    guide = at(guide_class, model, x / 2, POSTERIOR_SD)
    exact = log_evidence(x).sum()
    seen = draws(model, guide, num_particles=4)
    assert seen.plates == ()
    assert torch.allclose(seen.log_w, exact.expand(4), rtol=0, atol=EXACT)
    assert IWAE(4).loss(model, guide) == pytest.approx(-exact.item(), abs=EXACT)

    for vectorised in (True, False):
        theirs = RenyiELBO(num_particles=4, vectorize_particles=vectorised)
        assert_pyro_is_off(-theirs.loss(model, guide) - exact.item(), more_than=10.0)


def test_s03_minibatch_scale_stays_outside_of_the_logarithm():
    """S3: RenyiELBO scales log-weights by N/B inside the exponential; its bound is none any more.

    Exact: the bound of two particles on the full data, by quadrature.
    """
    x = torch.full((6,), 2.0)  # alike, so that all minibatches have the same bound
    exact, evidence = bound_of_two(x, 0.0, 1.0), log_evidence(x).sum().item()
    for batch in (None, 3, 1):
        ours = bound(IWAE(2, num_outer=20), *local_normals(x, batch, sd=1.0), 100)
        assert_right(ours, exact, at_most=0.1)

    theirs = RenyiELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    found = bound(theirs, *local_normals(x, 1, sd=1.0), 500)
    assert_pyro_is_off(found.mean - exact, more_than=0.3, noise=found.se)
    assert found.mean > evidence + ERRORS * found.se


@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0])
def test_s04_gradient_of_a_discrete_guide(alpha):
    """S4: RenyiELBO's gradient of a discrete guide is zero at alpha = 0, and biased elsewhere.

    Exact: enumeration of the 2^3 draws of three particles.
    """
    copies, particles = 100_000, 3
    exact = coin_gradient(alpha, particles)
    model, guide = coins(copies)
    guide()
    if alpha < 0:
        with pytest.warns(KLModesWarning, match="upper bound"):
            loss = Renyi(alpha, particles)
    else:
        loss = Renyi(alpha, particles)
    (ours,) = gradient(loss, model, guide, param("logits"))
    assert_right(estimate(ours), exact, at_most=abs(exact) / 10)

    theirs = RenyiELBO(alpha, particles, vectorize_particles=True, max_plate_nesting=1)
    found = estimate(gradient(theirs, model, guide, param("logits"))[0])
    assert_pyro_is_off(found.mean - exact, more_than=abs(exact) / 4, noise=found.se)
    if alpha == 0.0:
        assert found == (0.0, 0.0)


def test_s05_elbo_of_an_autoguide_on_a_constrained_site():
    """S5: TraceMeanField_ELBO drops the log-determinant of autoguides on constrained sites.

    Exact: the ELBO of a log-normal guide of a Gamma-Poisson model and its optimum, closed form.
    """
    guide = at(AutoNormal, gamma_poisson, torch.tensor(3.0), 0.5)
    exact = log_normal_elbo(math.log(3.0), 0.5)
    ours = bound(ReverseKL(2000), gamma_poisson, guide, 20)
    assert_right(ours, exact, at_most=0.02)
    best = at(AutoNormal, gamma_poisson, torch.tensor(REVERSE_M).exp(), REVERSE_S)
    slopes = [gradient(ReverseKL(2000), gamma_poisson, best, best.locs.z)[0] for _ in range(20)]
    assert_right(estimate(slopes), 0.0, at_most=0.02)

    loss = TraceMeanField_ELBO(2000, vectorize_particles=True, max_plate_nesting=0)
    theirs = bound(loss, gamma_poisson, guide, 20)
    assert_pyro_is_off(theirs.mean - exact, more_than=1.0, noise=theirs.se)
    slopes = [gradient(loss, gamma_poisson, best, best.locs.z)[0] for _ in range(20)]
    found = estimate(slopes)
    assert_pyro_is_off(found.mean, more_than=0.9, noise=found.se)


def test_s05_fit_of_an_autoguide_on_a_constrained_site():
    """S5, what comes of it: the fitted posterior mean is 3 instead of 3.5.

    Exact: the ELBO is highest at E z = 3.5, closed form. Both start at E z = 1.08.
    """

    def fitted_mean(loss, steps=300):
        guide = at(AutoNormal, gamma_poisson, torch.tensor(1.0), 0.4)
        train(loss, gamma_poisson, guide, steps)
        return (guide.locs.z + guide.scales.z**2 / 2).exp().item()

    ours = ReverseKL(100)
    assert_converged([fitted_mean(ours)], [fitted_mean(ours, steps=0)], [3.5], tolerance=0.05)

    loss = TraceMeanField_ELBO(100, vectorize_particles=True, max_plate_nesting=0)
    assert_pyro_is_off(fitted_mean(loss) - 3.5, more_than=0.4, noise=0.01)


def test_s06_wake_gradient_of_an_autoguide_on_a_constrained_site():
    """S6: ReweightedWakeSleep's gradient of an autoguide misses a term on constrained sites.

    Exact: the self-normalised gradient written out for the very same draws.
    """
    guide = at(AutoNormal, gamma_poisson, torch.tensor(2.0), 0.4)
    ours = ForwardKL(10)
    ours.loss(gamma_poisson, guide)  # the pair is surveyed at the first call, with random numbers
    pyro.set_rng_seed(1)
    found = gradient(ours, gamma_poisson, guide, guide.locs.z)[0]
    pyro.set_rng_seed(1)
    z = ours.draws(gamma_poisson, guide).values["z"]
    exact = log_normal_wake_gradient(guide, z)[0]
    assert torch.allclose(found, exact, rtol=0, atol=EXACT)

    theirs = WakeSleep(num_particles=10, max_plate_nesting=0)
    found = gradient(theirs, gamma_poisson, guide, guide.locs.z)[0]
    exact = log_normal_wake_gradient(guide, theirs.drawn("z"))[0]
    assert_pyro_is_off((found - exact).item(), more_than=0.9)


def test_s06_fit_by_forward_kl_on_a_constrained_site():
    """S6, what comes of it: the fit misses the forward-KL optimum.

    Exact: E log z and sd log z under the Gamma(7, 2) posterior, by polygamma functions. Both start
    at 0 and 0.8.
    """

    def fitted(loss):
        guide = train(loss, gamma_poisson, at(AutoNormal, gamma_poisson, torch.tensor(1.0), 0.8))
        return guide.locs.z.item(), guide.scales.z.item()

    exact = FORWARD_M, FORWARD_S
    assert_converged(fitted(ForwardKL(500)), (0.0, 0.8), exact, tolerance=0.02)

    m, _ = fitted(WakeSleep(num_particles=500, max_plate_nesting=0))
    assert_pyro_is_off(m - FORWARD_M, more_than=0.1, noise=0.005)


def test_s07_wake_phase_with_a_structured_guide():
    """S7: ReweightedWakeSleep shrinks AutoStructured to a point, because its density is no density.

    Exact: the posterior is normal, mean 0.85 and variance 1/2; Pyro's fit even starts there.
    """
    posterior = DATUM / 2, POSTERIOR_SD
    structured = at(AutoStructured, one_normal, *posterior)
    with pytest.raises(NoDensity, match=r"AutoNormal.*ReverseKL"):
        ForwardKL(50).loss_and_grads(one_normal, structured)
    # the two ways out: a pathwise loss for this guide, or a guide with a density for this loss
    exact = log_evidence(DATUM).item()
    assert IWAE(3).loss(one_normal, structured) == pytest.approx(-exact, abs=EXACT)
    guide = train(ForwardKL(500), one_normal, at(AutoNormal, one_normal, torch.tensor(0.0), 1.0))
    fitted = guide.locs.z.item(), guide.scales.z.item()
    assert_converged(fitted, (0.0, 1.0), (DATUM.item() / 2, POSTERIOR_SD), tolerance=0.02)

    structured = at(AutoStructured, one_normal, *posterior)
    train(WakeSleep(num_particles=50, max_plate_nesting=0), one_normal, structured)
    with torch.no_grad():
        sd = torch.stack([structured()["z"] for _ in range(200)]).std().item()
    assert_pyro_is_off(sd - POSTERIOR_SD, more_than=0.5, noise=POSTERIOR_SD / math.sqrt(400))


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoDiagonalNormal])
def test_s08_autoguide_scored_at_draws_from_the_prior(guide_class):
    """S8: the sleep phase scores an autoguide at draws from the model; its density there is 0.

    Exact: the log-normal density that the autoguide has, and its gradient, written out.
    """
    guide = at(guide_class, gamma_poisson, torch.tensor(2.0), 0.4)
    z = dist.Gamma(3.0, 1.0).sample((1000,))
    loc = torch.tensor(math.log(2.0), requires_grad=True)
    exact = dist.LogNormal(loc, 0.4).log_prob(z)
    ours = log_density(guide, {"z": z})
    assert torch.allclose(ours, exact, rtol=0, atol=EXACT)
    leaf = guide.locs.z if guide_class is AutoNormal else guide.loc
    found = torch.autograd.grad(-ours.mean(), leaf)[0].sum()
    slope = torch.autograd.grad(-exact.mean(), loc)[0]
    assert found.item() == pytest.approx(slope.item(), abs=EXACT)
    # prior draws in a loss: half of the particles come from the model's prior
    assert math.isfinite(ForwardKL(20, defensive=0.5).loss(gamma_poisson, guide))

    theirs = WakeSleep(num_particles=1000, insomnia=0.0, max_plate_nesting=0)
    _, phi = theirs.loss(gamma_poisson, guide)
    assert_pyro_is_off(phi.item() + exact.mean().item(), more_than=100.0, noise=0.1)


def test_s10_weights_per_datum():
    """S10: ReweightedWakeSleep weighs all data of an amortised guide by one joint weight.

    Exact: the forward-KL gradient of a guide N(a x, 0.7) is -sum x^2 (1/2 - a)/0.49, closed form.
    """
    x = torch.linspace(-3.0, 3.0, 200)
    slope, sd, particles = 0.3, 0.7, 500

    def model(observations=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(observations=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(slope)) * x, sd))

    guide()
    exact = -((x**2).sum() * (0.5 - slope) / sd**2).item()
    seen = draws(model, guide, num_particles=particles)
    assert effective_sample_size(seen.log_w).mean() > particles / 2
    assert effective_sample_size(seen.log_w.sum(1)) < particles / 20
    ours = [gradient(ForwardKL(particles), model, guide, param("slope"))[0] for _ in range(20)]
    assert_right(estimate(ours), exact, at_most=abs(exact) / 50)

    loss = WakeSleep(num_particles=particles, max_plate_nesting=1)
    theirs = [gradient(loss, model, guide, param("slope"))[0] for _ in range(20)]
    found = estimate(theirs)
    assert_pyro_is_off(found.mean - exact, more_than=abs(exact) / 4, noise=found.se)


def add_observation():
    """A reading that has nothing to do with the latents."""
    pyro.sample("other", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))


def add_factor():
    """A constant in the log-density."""
    pyro.factor("constant", torch.tensor(-1.0))


@pytest.mark.parametrize(
    ("addition", "constant"),
    [
        (add_observation, dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.3)).item()),
        (add_factor, -1.0),
    ],
)
def test_s11_granularity_does_not_flip(addition, constant):
    """S11: a site that has nothing to do with the latents makes RenyiELBO's weights joint ones.

    Exact: the bound of two particles by quadrature, plus the constant that the site contributes.
    """
    x = torch.linspace(-3.0, 3.0, 20)
    local, guide = local_normals(x, offset=0.5, sd=1.0)

    def model():
        addition()
        local()

    exact = bound_of_two(x, 0.5, 1.0) + constant
    seen = draws(model, guide, num_particles=2)
    assert seen.plates == ("data",)
    assert seen.rest.item() == pytest.approx(constant, abs=EXACT)
    assert_right(bound(IWAE(2), model, guide, 200), exact, at_most=0.3)

    theirs = RenyiELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    found = bound(theirs, model, guide, 200)
    assert_pyro_is_off(found.mean - exact, more_than=0.5, noise=found.se)


def test_s11_joint_weights_of_a_sequential_plate_are_reported():
    """S11: a sequential plate makes weights joint in RenyiELBO, silently; ``check`` says so here.

    Exact: the sums over data of the log-weights, written out for the same draws.
    """
    x = [-1.0, 0.0, 2.0]

    def model():
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=torch.tensor(x[i]))

    def guide():
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(x[i] / 2 + 0.5, 1.0))

    seen = draws(model, guide, num_particles=4)
    by_hand = sum(
        dist.Normal(0.0, 1.0).log_prob(z)
        + dist.Normal(z, 1.0).log_prob(torch.tensor(x[i]))
        - dist.Normal(x[i] / 2 + 0.5, 1.0).log_prob(z)
        for i, z in enumerate(seen.values.values())
    )
    assert seen.plates == ()
    assert torch.allclose(seen.log_w, by_hand, rtol=0, atol=EXACT)
    report = check(model, guide, loss=IWAE(4))
    assert report.granularity == ()
    assert any("sequential plate(s) ['data']" in problem for problem in report.problems)


def test_s12_model_side_enumerated_latent():
    """S12: RenyiELBO and ReweightedWakeSleep count the probability of an unguided latent twice.

    Exact: the guide is the posterior with that latent summed out; every weight is the evidence.
    """
    shares = torch.tensor([0.1, 0.9])

    def model(observations=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        c = pyro.sample("c", dist.Categorical(shares), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(torch.where(c == 0, mu, -mu), 1.0), obs=DATUM)

    def guide(observations=None):
        modes = dist.Normal(torch.stack([DATUM, -DATUM]) / 2, POSTERIOR_SD)
        pyro.sample("mu", dist.MixtureSameFamily(dist.Categorical(shares), modes))

    exact = log_evidence(DATUM)
    seen = draws(model, guide, num_particles=10)
    assert torch.allclose(seen.log_w, exact.expand(10), rtol=0, atol=EXACT)
    assert IWAE(10).loss(model, guide) == pytest.approx(-exact.item(), abs=EXACT)

    theirs = RenyiELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=0)
    with pytest.warns(UserWarning, match="in model but not guide"):
        assert_pyro_is_off(-theirs.loss(model, guide) - exact.item(), more_than=0.15)
    with pytest.warns(UserWarning, match="in model but not guide"):
        wake, _ = WakeSleep(num_particles=2000, max_plate_nesting=0).loss(model, guide)
    assert_pyro_is_off(-wake.item() - exact.item(), more_than=0.15)


def test_s14_tail_adaptive_gradient():
    """S14: TraceTailAdaptive_ELBO weighs draws without regard to their importance weights.

    Exact: the gradient of Wang, Liu and Liu (2018) written out for the very same draws, and the
    gradient of the reverse KL divergence by quadrature, which is what Pyro's follows on average.
    """
    particles = 50
    wide_normal()
    leaves = param("m"), param("s")
    ours = TailAdaptive(particles)
    ours.loss(two_modes, wide_normal)  # the pair is surveyed at the first call
    pyro.set_rng_seed(1)
    found = torch.stack(gradient(ours, two_modes, wide_normal, *leaves))
    pyro.set_rng_seed(1)
    z = ours.draws(two_modes, wide_normal).values["z"]
    assert torch.allclose(found, tail_adaptive_gradient(z), rtol=0, atol=EXACT)

    theirs = Tail(
        tail_adaptive_beta=-1.0,
        num_particles=particles,
        vectorize_particles=True,
        max_plate_nesting=0,
    )
    found, exact = [], []
    for _ in range(300):
        found.append(torch.stack(gradient(theirs, two_modes, wide_normal, *leaves)))
        exact.append(tail_adaptive_gradient(theirs.drawn("z")))
    found, exact = torch.stack(found), torch.stack(exact)
    cosine = torch.cosine_similarity(found.mean(0), exact.mean(0), dim=0)
    assert_pyro_is_off(1 - cosine.item(), more_than=0.5)
    # its particles are averaged twice, hence the factor
    for column, reverse in zip(particles * found.T, reverse_kl_gradient(), strict=True):
        assert_right(estimate(column), reverse.item(), at_most=0.1)


def test_s15_bound_of_tensor_monte_carlo_on_minibatches():
    """S15: TraceTMC_ELBO scales log-weights by N/B inside the exponential.

    Exact: the bound of two particles on the full data, by quadrature.
    """
    x = torch.full((6,), 2.0)  # alike, so that all minibatches have the same bound
    exact, evidence = bound_of_two(x, 0.0, 1.0), log_evidence(x).sum().item()
    ours = bound(IWAE(2, num_outer=20), *local_normals(x, 1, sd=1.0), 100)
    assert_right(ours, exact, at_most=0.1)

    theirs = TraceTMC_ELBO(max_plate_nesting=1)
    full_data = bound(theirs, *local_normals(x, sd=1.0, num_samples=2), 100)
    assert_right(full_data, exact, at_most=0.1)
    found = bound(theirs, *local_normals(x, 1, sd=1.0, num_samples=2), 500)
    assert_pyro_is_off(found.mean - exact, more_than=0.3, noise=found.se)
    assert found.mean > evidence + ERRORS * found.se


def test_s15_gradient_of_a_discrete_guide():
    """S15: TraceTMC_ELBO's gradient of a discrete guide is zero.

    Exact: enumeration of the draws of three particles; ours meets it in the test of S4.
    """
    exact = coin_gradient(0.0, 3)
    model, guide = coins(1000, num_samples=3)
    guide()
    theirs = TraceTMC_ELBO(max_plate_nesting=1)
    found = estimate(gradient(theirs, model, guide, param("logits"))[0])
    assert_pyro_is_off(found.mean - exact, more_than=abs(exact) / 2, noise=found.se)
    assert found == pytest.approx((0.0, 0.0), abs=EXACT)


def test_s16_joint_autoguide_on_minibatches_is_refused():
    """S16: AutoDiagonalNormal holds parameters for one minibatch, which all data then share.

    Exact: the posterior of every datum, and its evidence.
    """
    x = torch.linspace(-6.0, 6.0, 20)
    model, _ = local_normals(x, 5)
    whole, _ = local_normals(x)
    packed = at(AutoDiagonalNormal, model, torch.zeros(5), 1.0)
    for loss in (ReverseKL(2), IWAE(2), ForwardKL(4)):
        with pytest.raises(UnsupportedStructure, match=r"AutoNormal.*full data"):
            loss.loss_and_grads(model, packed)
    # the two ways out: AutoNormal on minibatches, or this guide on the full data
    guide = at(AutoNormal, model, torch.zeros(5), POSTERIOR_SD)
    guide.locs.z.data.copy_(x / 2)
    seen = IWAE(3).draws(model, guide)
    expected = log_evidence(x)[seen.indices["data"]].expand(3, 5)
    assert torch.allclose(seen.log_w, expected, rtol=0, atol=EXACT)
    guide = at(AutoDiagonalNormal, whole, x / 2, POSTERIOR_SD)
    exact = log_evidence(x).sum().item()
    assert IWAE(3).loss(whole, guide) == pytest.approx(-exact, abs=EXACT)

    packed = at(AutoDiagonalNormal, model, torch.zeros(5), 1.0)
    train(Trace_ELBO(10, vectorize_particles=True, max_plate_nesting=1), model, packed)
    if packed.loc.shape == x.shape:
        skip_because_pyro_is_right()
    extremes = (packed.loc[:, None] - x[[0, -1]] / 2).abs()  # no parameter is near either of them
    assert extremes.min() > 2 * POSTERIOR_SD


@pytest.mark.parametrize("masked", [False, True])
def test_s17_scale_and_mask_of_a_model_site(masked):
    """S17: TraceMeanField_ELBO ignores scale and mask of a model's site if the KL is analytic.

    Exact: the expectations of normal log-densities under a normal guide, closed form.
    """
    x, m, s = torch.tensor([1.0, -0.5, 2.0]), 0.5, 0.7
    factor = 0.0 if masked else 0.1

    def model():
        tempered = poutine.mask(mask=False) if masked else poutine.scale(scale=factor)
        with tempered:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(m)), s))

    def expected_log_normal(distance):  # E log N(x; z, 1) for z ~ N(m, s)
        return -0.5 * (math.log(2 * math.pi) + distance**2 + s**2)

    likelihood = expected_log_normal(x - m).sum().item()
    entropy = math.log(s) + 0.5 * math.log(2 * math.pi * math.e)
    exact = factor * expected_log_normal(m) + likelihood + entropy
    assert_right(bound(ReverseKL(5000), model, guide, 20), exact, at_most=0.02)

    theirs = TraceMeanField_ELBO(5000, vectorize_particles=True, max_plate_nesting=1)
    found = bound(theirs, model, guide, 20)
    assert_pyro_is_off(found.mean - exact, more_than=0.5, noise=found.se)
