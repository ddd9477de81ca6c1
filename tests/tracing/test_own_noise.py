"""A full-rank normal knows the density of its own draw; of any other value as ever."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

import pyro_klmodes as klmodes
from pyro_klmodes import guides
from pyro_klmodes.tracing.own_noise import KeepNoise, MultivariateNormal


def parameters(*batch):
    torch.manual_seed(0)
    loc = torch.randn(*batch, 4, dtype=torch.float64, requires_grad=True)
    tril = torch.randn(*batch, 4, 4, dtype=torch.float64).tril(-1)
    tril = (tril + torch.rand(*batch, 4, dtype=torch.float64).add(0.5).diag_embed()).detach()
    return loc, tril.requires_grad_()


def density(fn, loc, tril, shape):
    """A draw, its log-density, and the total derivatives of the latter and of the draw."""
    torch.manual_seed(1)
    x = fn.rsample(shape)
    log_q = fn.log_prob(x)
    slopes = torch.autograd.grad((log_q + (x**3).sum(-1)).sum(), (loc, tril))
    return [x.detach(), log_q.detach(), slopes[0], slopes[1].tril()]


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("shape", [(), (5,)])
def test_the_density_of_its_own_draw_is_that_of_a_solve(batch, shape):
    loc, tril = parameters(*batch)
    plain = dist.MultivariateNormal(loc, scale_tril=tril)
    expected = density(plain, loc, tril, shape)
    found = density(MultivariateNormal.of(plain), loc, tril, shape)
    assert torch.equal(found[0], expected[0])
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_another_value_and_a_detached_draw_have_their_own_derivatives():
    loc, tril = parameters()
    plain = dist.MultivariateNormal(loc, scale_tril=tril)
    fn = MultivariateNormal.of(plain)
    for x in (fn.rsample().detach(), torch.ones(4, dtype=torch.float64)):
        pairs = [torch.autograd.grad(d.log_prob(x), (loc, tril)) for d in (fn, plain)]
        assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_validation_still_sees_what_is_no_number():
    loc = torch.full((2,), torch.nan)
    fn = MultivariateNormal.of(
        dist.MultivariateNormal(torch.zeros(2), torch.eye(2), validate_args=True)
    )
    fn.loc = loc
    with pytest.raises(ValueError, match="within the support"):
        fn.log_prob(fn.rsample())


def test_it_stays_what_it_is_inside_of_plates():
    loc, tril = (x.detach() for x in parameters())
    with KeepNoise(), poutine.trace() as tracer, pyro.plate("particles", 3):
        x = pyro.sample("x", dist.MultivariateNormal(loc, scale_tril=tril))
    site = tracer.trace.nodes["x"]
    assert type(site["fn"]) is MultivariateNormal
    assert x.shape == (3, 4)
    wanted = dist.MultivariateNormal(loc, scale_tril=tril).log_prob(x)
    torch.testing.assert_close(site["fn"].log_prob(x), wanted, rtol=1e-12, atol=1e-12)


def model():
    z = pyro.sample("z", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
    s = pyro.sample("s", dist.LogNormal(torch.zeros((), dtype=torch.float64), 1.0))
    pyro.sample("y", dist.Normal(z.sum(), s), obs=torch.tensor(1.0, dtype=torch.float64))


def slopes(guide, loss):
    pyro.set_rng_seed(3)
    loss.loss_and_grads(model, guide)
    found = {n: p.grad.clone() for n, p in guide.named_parameters()}
    for p in guide.parameters():
        p.grad = None
    return found


def test_gradients_of_the_bound_are_those_of_pyro():
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(is_validate=True):
        guide = AutoMultivariateNormal(model, init_scale=0.5)
        guide()
        expected = slopes(guide, Trace_ELBO(num_particles=1))
        found = slopes(guide, klmodes.ReverseKL(1))
    assert expected.keys() == found.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [guides.AutoFullRank, guides.AutoMultivariateStudentT])
def test_our_own_guides_know_their_draws_too(make):
    pyro.set_rng_seed(0)
    guide = make(model)
    guide()
    q = guide.get_posterior()
    own = q.rsample(torch.Size([6]))
    known = q.log_conditionals(own, [3, 4])
    solved = q.log_conditionals(own.clone(), [3, 4])
    torch.testing.assert_close(known, solved, rtol=1e-10, atol=1e-10)
    params = [p for p in guide.parameters() if p.requires_grad]
    pairs = [
        torch.autograd.grad((x + 0.3 * x**2).sum() + own.sin().sum(), params, retain_graph=True)
        for x in (known, solved)
    ]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
