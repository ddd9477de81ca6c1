"""Both ways to differentiate a mixture have the gradient of the bound itself, by quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_klmodes import CUBO, IWAE, ForwardKL, Renyi, ReverseKL, TailAdaptive, draws
from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.guides import At, AutoMixture, Full, Implicit, Stratified, StudentT
from pyro_klmodes.testing import assert_same_mean, gradient_samples

GRID = torch.linspace(-30.0, 30.0, 20_001, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


def log_target(z):
    one = dist.Normal(-1.5, 1.0).log_prob(z) + math.log(0.3)
    other = dist.Normal(2.0, 0.7).log_prob(z) + math.log(0.7)
    return torch.logaddexp(one, other) + 0.4  # log evidence 0.4


def model():
    prior = dist.Normal(0.0, 3.0)
    z = pyro.sample("z", prior)
    pyro.factor("f", log_target(z) - prior.log_prob(z))


def mixture(how, radial=None, at=(-0.5, 1.0), init_scale=1.2):
    extra = {} if radial is None else {"radial": radial}
    guide = AutoMixture(
        model, 2, start=At(torch.tensor(at)[:, None]), init_scale=init_scale, draws=how, **extra
    )
    guide()
    with torch.no_grad():
        guide.family.logits_unconstrained += torch.tensor([0.6, 0.0])
    return guide


def exact_gradient(guide, value):
    """Of a function of log p and log q on the grid, by the names' order."""
    parameters = sorted(pyro.get_param_store().named_parameters())
    log_q = guide.get_posterior().log_prob(GRID.unsqueeze(-1))
    total = value(log_target(GRID), log_q)
    gradients = torch.autograd.grad(total, [p for _, p in parameters])
    return torch.cat([g.reshape(-1) for g in gradients])


def negative_elbo(log_p, log_q):
    return (log_q.exp() * (log_q - log_p)).sum() * STEP


RADIALS = {"gaussian": None, "student_t": StudentT(5.0, learn_df=True)}


@pytest.mark.parametrize("radial", RADIALS)
@pytest.mark.parametrize("how", [Stratified(), Implicit()], ids=["stratified", "implicit"])
def test_reverse_kl_has_the_exact_mean_gradient(how, radial):
    guide = mixture(how, RADIALS[radial])
    expected = exact_gradient(guide, negative_elbo)
    samples = gradient_samples(ReverseKL(32), model, guide, repetitions=180)
    assert_same_mean(samples, expected)


def test_pyros_elbo_has_the_exact_mean_gradient():
    guide = mixture(Stratified())
    expected = exact_gradient(guide, negative_elbo)
    loss = Trace_ELBO(32, vectorize_particles=True, max_plate_nesting=0)
    assert_same_mean(gradient_samples(loss, model, guide, repetitions=180), expected)


def test_strata_have_less_variance_where_components_are_apart():
    """Between them a draw of the mixture would have to move far for a little weight."""
    variances = []
    for how in (Stratified(), Implicit()):
        pyro.clear_param_store()
        samples = gradient_samples(
            ReverseKL(8), model, mixture(how, None, (-1.5, 4.0), 0.7), repetitions=150
        )
        variances.append(samples.var(0))
    assert float(variances[0].sum()) < 0.05 * float(variances[1].sum()), variances


@pytest.mark.parametrize("outer", [1, 4])
def test_the_stratified_weights_average_to_the_evidence(outer):
    """4 standard errors; shares that are wrong by a factor would be far off."""
    guide = mixture(Stratified())
    loss = IWAE(6, outer)
    totals = []
    for _ in range(600 // outer):
        found = loss.draws(model, guide)
        assert found.log_share is not None
        totals.append((found.log_w + found.log_share).exp().mean(0).reshape(-1))
    totals = torch.cat(totals)
    error = float(totals.std()) / len(totals) ** 0.5
    assert abs(float(totals.mean()) - math.exp(0.4)) < 4 * error
    assert error < 0.02 * math.exp(0.4)


@pytest.mark.parametrize(
    "loss",
    [ReverseKL(4), IWAE(4), Renyi(0.5, 4), ForwardKL(4), CUBO(2, 4)],
    ids=lambda loss: type(loss).__name__,
)
def test_particles_are_spread_where_the_loss_can_take_it(loss):
    found = loss.draws(model, mixture(Stratified()))
    shares = found.log_share.exp()
    weights = torch.tensor([0.6, 0.0]).softmax(0)
    torch.testing.assert_close(shares, (2 * weights).repeat_interleave(2))


@pytest.mark.parametrize(
    "loss",
    [ReverseKL(1), TailAdaptive(4), ForwardKL(4, "tempered")],
    ids=lambda loss: type(loss).__name__,
)
def test_elsewhere_draws_are_of_the_mixture(loss):
    assert loss.draws(model, mixture(Stratified())).log_share is None
    assert draws(model, mixture(Stratified()), num_particles=4).log_share is None


def test_groups_that_cannot_be_alike_are_refused():
    with pytest.raises(IncompatibleEstimator, match="multiple"):
        IWAE(3, 2).loss(model, mixture(Stratified()))


def test_forward_kl_finds_a_target_in_the_family():
    """Maximum likelihood on weighted draws of both modes; the start is far from all parameters."""
    from pyro_klmodes import fit

    guide = AutoMixture(model, 2, start=At(torch.tensor([[-3.0], [5.0]])), init_scale=2.0)

    @torch.no_grad()
    def distance():
        log_q = guide.get_posterior().log_prob(GRID.unsqueeze(-1))
        log_p = log_target(GRID) - 0.4
        return float((log_p.exp() * (log_p - log_q)).sum() * STEP)

    guide()
    start = distance()
    optim = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 800)})
    with fit(model, guide, ForwardKL(64), steps=800, optim=optim, progress=False).scope():
        end = distance()
    assert start > 5 * 0.005
    assert end < 0.005, (start, end)


def test_the_model_s_own_modes_are_a_start():
    from pyro_klmodes.guides import FromModes

    guide = AutoMixture(model, 2, start=FromModes(radius=3.0, num_starts=8))
    guide()
    assert sorted(guide.family.locs.detach().flatten().round(decimals=1).tolist()) == [-1.5, 2.0]


def test_a_pruned_guide_keeps_its_components():
    guide = AutoMixture(model, 3, scale=Full(), start=At(torch.tensor([[-2.0], [0.0], [2.0]])))
    guide()
    with torch.no_grad():
        guide.family.logits_unconstrained += torch.tensor([1.0, -3.0, 1.0])
    small = guide.prune(threshold=0.1)
    torch.testing.assert_close(small.weights(), torch.tensor([0.5, 0.5]))
    z = torch.tensor([-1.9, 2.2])
    ratio = (small.log_prob({"z": z}) - guide.log_prob({"z": z})).exp()
    # what was dropped has at most e^-4 of the density where the others are
    torch.testing.assert_close(ratio, torch.full((2,), 1 / (1 - 0.009)), rtol=0.02, atol=0)
    assert small.num_components == 2
