"""All particles in one run, mapped or one after the other: the same objective, warned of a loop."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger

from pyro_klmodes import IWAE, ForwardKL, ReverseKL, draws
from pyro_klmodes.errors import InvalidArgument, KLModesWarning

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
COUNTY = torch.tensor([0, 0, 1, 2])


def normal(loc, x, sd=1.0):
    return dist.Normal(loc, sd).log_prob(x)


def prior_guide():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def branching():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    loc = 2.0 * z if z > 0 else z
    pyro.sample("x", dist.Normal(loc, 1.0), obs=torch.ones(()))


def summing():
    """Adds the particles up: a vectorised run gives numbers without any complaint."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.ones(()))


def summing_next_to_a_large_constant():
    pyro.factor("constant", torch.tensor(-1e6))
    summing()


def unsqueezed():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(torch.tensor(z.tolist()).sum(), 1.0), obs=torch.ones(()))


def log_weights(model, z):
    if model is branching:
        return normal(torch.where(z > 0, 2 * z, z), torch.ones(()))
    constant = -1e6 if model is summing_next_to_a_large_constant else 0.0
    return normal(z, torch.ones(())) + constant


@pytest.mark.parametrize("model", [summing, summing_next_to_a_large_constant])
def test_a_model_that_mixes_particles_up_is_mapped_without_a_warning(model):
    """It gives numbers in a vectorised run, the wrong ones; a mapped one sees a single particle."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = IWAE(6).draws(model, prior_guide)
    torch.testing.assert_close(d.log_w, log_weights(model, d.values["z"]))


@pytest.mark.parametrize("model", [branching, unsqueezed])
def test_a_model_that_does_not_broadcast_is_looped_with_one_warning(model):
    loss = IWAE(6)
    with pytest.warns(KLModesWarning, match="one after the other") as caught:
        d = loss.draws(model, prior_guide)
    assert len(caught) == 1
    torch.testing.assert_close(d.log_w, log_weights(model, d.values["z"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss.draws(model, prior_guide)


def cancelling(z):
    """Twice z; a single run adds up large numbers to zero on the way, which costs it digits."""
    if z.dim() > 0:
        return 2.0 * z
    large = z * torch.cos(torch.arange(50.0)) * 1e-5 / torch.finfo(z.dtype).eps
    return 2.0 * z + large.cumsum(0)[-1] - large.flip(0).cumsum(0)[-1]


def rounded():
    """What is lost is of the size of a tenth of the standard deviation."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(cancelling(z), 1e-3), obs=torch.ones(()))


def rounded_and_mixed_up():
    rounded()
    z = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(1e-3 * z.sum(), 0.1), obs=torch.ones(()))


def branching_on_nothing():
    """Mixed up as well, and torch cannot map it."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(cancelling(z), 1e-3), obs=torch.ones(()))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    loc = 1e-3 * w.sum() if bool((w < 100.0).all()) else w.sum()
    pyro.sample("y", dist.Normal(loc, 0.1), obs=torch.ones(()))


def rounded_guide():
    pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def test_rounding_that_a_model_magnifies_is_no_difference():
    """Log-probabilities differ by more than one; so they do next to each value."""
    z = torch.linspace(0.5, 3.0, 8)
    together = normal(cancelling(z), torch.ones(()), 1e-3)
    apart = torch.stack([normal(cancelling(each), torch.ones(()), 1e-3) for each in z])
    assert float((together - apart).abs().max()) > 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draws(rounded, prior_guide, num_particles=3).log_w.shape == (3,)


def test_mixed_up_particles_show_next_to_magnified_rounding():
    """Those of another term, by a hundredth of a standard deviation each."""
    with pytest.warns(KLModesWarning, match="gives other log-probabilities"):
        draws(branching_on_nothing, rounded_guide, num_particles=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = draws(rounded_and_mixed_up, rounded_guide, num_particles=3)
    terms = {t.name: t.log_prob for where, t in d.terms if where == "model"}
    torch.testing.assert_close(terms["y"], normal(1e-3 * d.values["w"], torch.ones(()), 0.1))


def indexing(x=X):
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=x)


def indexing_guide(x=X):
    loc = pyro.param("loc", torch.tensor([0.2, -0.3, 0.5]))
    pyro.sample("a", dist.Normal(loc, 0.7).to_event(1))


@pytest.mark.parametrize("loss_of", [ReverseKL, IWAE, ForwardKL])
def test_a_mapped_model_has_the_results_of_the_chosen_loop(loss_of):
    """``a[county]`` would index the particles by mistake; results are those of an explicit loop.

    Both draw the same numbers: so few are taken from the generator one by one.
    """
    values, gradients = [], []
    for vectorise in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        loss = loss_of(4, vectorize_particles=vectorise)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values.append(loss.loss_and_grads(indexing, indexing_guide))
        gradients.append(pyro.get_param_store()._params["loc"].grad.clone())
    torch.testing.assert_close(*values, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("loss_of", [ReverseKL, IWAE, ForwardKL])
def test_a_forced_loop_is_the_chosen_loop(loss_of):
    """A branch on a latent value: the same numbers, whether the loop was asked for or not."""

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.2)), 0.7))

    values, gradients = [], []
    for vectorise in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        loss = loss_of(4, vectorize_particles=vectorise)
        if vectorise:
            with pytest.warns(KLModesWarning, match="one after the other"):
                values.append(loss.loss_and_grads(branching, guide))
        else:
            values.append(loss.loss_and_grads(branching, guide))
        gradients.append(pyro.get_param_store()._params["loc"].grad.clone())
    assert values[0] == values[1]
    assert torch.equal(*gradients)


def test_a_vectorised_run_and_a_loop_have_the_same_distribution():
    """The mean IWAE bound over 1000 and 200 runs agrees within 4 standard errors of 0.07."""

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    means, errors = [], []
    for vectorise, repeats in ((True, 1000), (False, 200)):
        loss = IWAE(3, num_outer=1, vectorize_particles=vectorise)
        values = torch.tensor([loss.loss(model, prior_guide) for _ in range(repeats)])
        means.append(values.mean())
        errors.append(values.std() / math.sqrt(repeats))
    assert max(errors) < 0.07
    assert abs(means[0] - means[1]) < 4 * torch.stack(errors).square().sum().sqrt()


def test_a_model_with_noise_of_its_own_is_still_vectorised():
    def noisy():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + torch.randn(()), 1.0), obs=torch.ones(()))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draws(noisy, prior_guide, num_particles=3).log_w.shape == (3,)


def stochastic_support(p_second):
    def guide():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        if z > p_second:
            pyro.sample("w", dist.Normal(z, 1.0))

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        total = z + pyro.sample("w", dist.Normal(z, 1.0)) if z > p_second else z
        pyro.sample("x", dist.Normal(total.detach(), 1.0), obs=torch.ones(()))

    return model, guide


@pytest.mark.parametrize("seed", range(6))
def test_branches_may_draw_different_sites(seed):
    """Whichever branch comes first; values of sites that some particles lack are left out."""
    model, guide = stochastic_support(0.0)
    pyro.set_rng_seed(seed)
    d = draws(model, guide, num_particles=8, vectorize_particles=False)
    z = d.values["z"]
    assert set(d.values) == {"z"}
    short = z <= 0
    assert short.any()
    assert (~short).any()
    torch.testing.assert_close(d.log_w[short], normal(z[short], torch.ones(())))


def test_a_discrete_site_in_a_rare_branch_has_its_score():
    def guide():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        if z > 0:
            pyro.sample("b", dist.Bernoulli(pyro.param("p", torch.tensor(0.3))))

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Bernoulli(0.5)) if z > 0 else torch.zeros(())
        pyro.sample("x", dist.Normal(2 * b, 1.0), obs=torch.ones(()) * 2)

    for seed in range(4):
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        IWAE(8, vectorize_particles=False).loss_and_grads(model, guide)
        assert pyro.param("p").grad.abs() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vectorise", [True, False])
def test_the_precision_of_the_model_is_that_of_the_weights(dtype, vectorise):
    torch.set_default_dtype(dtype)
    x = X.to(dtype)

    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

    d = draws(model, guide, num_particles=3, vectorize_particles=vectorise)
    assert d.log_w.dtype == dtype
    exact = dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)
    torch.testing.assert_close(d.log_w, exact.expand(3, 4))


def test_float32_weights_of_a_large_data_set_are_vectorised_without_complaint():
    torch.set_default_dtype(torch.float32)
    x = torch.randn(20_000)

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = draws(model, prior_guide, num_particles=4)
    assert d.log_w.abs().min() > 1e5
    assert d.log_w.isfinite().all()


@pytest.mark.parametrize("guide_of", [AutoNormal, AutoNormalMessenger])
def test_lazy_guides_make_their_parameters_without_particles(guide_of):
    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    guide = guide_of(model)
    loss = IWAE(7, max_plate_nesting=1)
    assert loss.draws(model, guide).plates == ("data",)
    assert {tuple(p.shape) for p in guide.parameters()} == {(4,)}


def test_a_max_plate_nesting_that_is_too_small_is_refused():
    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(InvalidArgument, match=r"max_plate_nesting=0.*1 deep"):
        IWAE(2, max_plate_nesting=0).loss(model, model)
