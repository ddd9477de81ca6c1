"""Sequences: the linear system against one dense normal, masks against shorter sequences."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

from models import deep_markov
from models.deep_markov import DeepMarkov, Emitter, GatedTransition

STEPS = 5


def dense(system, steps):
    """Mean and covariance of (z_1, ..., z_T, x_1, ..., x_T), by writing the noises' weights out."""
    k, n = len(system.start), len(system.offset)
    powers = [torch.linalg.matrix_power(system.transition, j) for j in range(steps + 1)]
    mean_z = torch.cat([powers[t + 1] @ system.start for t in range(steps)])
    of_noise = torch.zeros(steps * k, steps * k)
    for t in range(steps):
        for s in range(t + 1):
            block = powers[t - s] @ system.transition_sd.diag()
            of_noise[t * k : (t + 1) * k, s * k : (s + 1) * k] = block
    shown = torch.block_diag(*[system.emission] * steps)
    mean = torch.cat([mean_z, shown @ mean_z + system.offset.repeat(steps)])
    roots = torch.cat([of_noise, shown @ of_noise])
    noise = torch.cat([torch.zeros(steps * k), system.emission_sd.repeat(steps)])
    return mean, roots @ roots.T + noise.diag() ** 2, steps * k, n


def random_system():
    """One without the symmetries of the model that data come from."""
    dmm = deep_markov.linear_model()
    with torch.no_grad():
        for p in dmm.generative.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return dmm


def test_the_kalman_filter_is_the_density_of_one_dense_normal():
    system = random_system().system()
    x, lengths = deep_markov.linear_data(6, STEPS)
    assert len(set(lengths.tolist())) > 1
    mean, covariance, cut, n = dense(system, STEPS)
    found = system.log_likelihood(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        part = slice(cut, cut + length * n)
        normal = dist.MultivariateNormal(mean[part], covariance[part, part])
        expected = normal.log_prob(x[i, :length].flatten())
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-10)


def test_smoothed_moments_are_those_of_conditioning_one_dense_normal():
    system = random_system().system()
    x, lengths = deep_markov.linear_data(6, STEPS)
    joint_mean, joint, cut, n = dense(system, STEPS)
    mean, sd = system.smoothed(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        seen = slice(cut, cut + length * n)
        gain = torch.linalg.solve(joint[seen, seen], joint[seen, :cut]).T
        expected = joint_mean[:cut] + gain @ (x[i, :length].flatten() - joint_mean[seen])
        variance = (joint[:cut, :cut] - gain @ joint[seen, :cut]).diagonal()
        torch.testing.assert_close(mean[i].flatten(), expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(sd[i].flatten(), variance.sqrt(), rtol=0, atol=1e-10)


def test_draws_of_the_exact_posterior_weigh_the_evidence_at_unequal_lengths_too():
    case = deep_markov.linear_problem()
    x, lengths = deep_markov.linear_data(10, 7)
    exact = deep_markov.linear_model().system().log_likelihood(x, lengths).sum().item()
    for _ in range(5):
        loss = Trace_ELBO().loss(case.model, case.exact_guide, x, lengths)
        assert -loss == pytest.approx(exact, abs=1e-9)


def networks():
    return DeepMarkov(GatedTransition(2, 8), Emitter(2, 8, 3), latents=2, size=3, hidden=8)


def log_weights(dmm, x, lengths, values, **options):
    """log p - log q at given latents."""
    parts = []
    for program in (dmm.model, dmm.guide):
        conditioned = poutine.condition(program, values)
        parts.append(poutine.trace(conditioned).get_trace(x, lengths, **options).log_prob_sum())
    return parts[0] - parts[1]


def test_what_is_behind_the_end_of_a_sequence_does_not_matter():
    dmm = networks()
    x, _ = deep_markov.curved_data(3, STEPS)
    lengths = torch.tensor([2, 5, 3])
    values = {f"z_{t}": torch.randn(3, 2) for t in range(1, STEPS + 1)}
    together = log_weights(dmm, x, lengths, values)
    alone = sum(
        log_weights(
            dmm,
            x[i : i + 1, :n],
            lengths[i : i + 1],
            {f"z_{t}": values[f"z_{t}"][i : i + 1] for t in range(1, n + 1)},
        )
        for i, n in enumerate(lengths.tolist())
    )
    torch.testing.assert_close(together, alone)


def test_the_guide_reads_from_the_end_of_each_sequence_to_the_present():
    dmm = networks()
    x, _ = deep_markov.curved_data(2, STEPS)
    lengths = torch.tensor([3, 5])
    read = dmm._read_backwards(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        reader = dmm.inference.reader
        expected, _ = reader(x[i : i + 1, :n].flip(1))
        torch.testing.assert_close(read[i, :n], expected[0].flip(0))


def test_annealing_scales_latents_and_nothing_else():
    dmm = networks()
    x, lengths = deep_markov.curved_data(3, STEPS)
    values = {f"z_{t}": torch.randn(3, 2) for t in range(1, STEPS + 1)}

    def at(factor):
        return log_weights(dmm, x, lengths, values, annealing_factor=factor)

    # log p(x | z) + factor (log p(z) - log q(z)) is a straight line in the factor
    torch.testing.assert_close(at(0.25), 0.75 * at(1e-12) + 0.25 * at(1.0))
    assert abs(at(0.25) - at(1.0)) > 1


def test_the_gate_mixes_two_means():
    transition, z = GatedTransition(2, 8), torch.randn(5, 2)
    loc, _ = transition(z)
    gate, proposal = transition.gate(z).sigmoid(), transition.proposal(z)
    torch.testing.assert_close(loc, z + gate * (proposal - z))  # its linear part starts at z itself


def test_every_parameter_learns():
    dmm, (x, lengths) = networks(), deep_markov.curved_data(8, STEPS)
    before = {name: p.detach().clone() for name, p in dmm.named_parameters()}
    svi = SVI(dmm.model, dmm.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(3):
        svi.step(x, lengths)
    assert all(not torch.equal(p, before[name]) for name, p in dmm.named_parameters())


def test_data_come_from_the_linear_system():
    x, lengths = deep_markov.linear_data(2000, 4, equal=True)
    mean, covariance, cut, _ = dense(deep_markov.linear_model().system(), 4)
    flat = x.reshape(2000, -1)
    assert lengths.tolist() == [4] * 2000
    # 5 standard errors of 2000 sequences
    error = covariance[cut:, cut:].diagonal().sqrt() / math.sqrt(2000)
    assert ((flat.mean(0) - mean[cut:]).abs() < 5 * error).all()
    variance = covariance[cut:, cut:].diagonal()
    assert ((flat.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / 2000)).all()


def test_padding_is_zero_and_lengths_vary():
    x, lengths = deep_markov.curved_data(50, 9)
    assert lengths.min() == 5
    assert lengths.max() == 9
    behind = torch.arange(9) >= lengths[:, None]
    assert not x[behind].any()
    assert torch.equal(deep_markov.curved_data(50, 9)[0], x)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0 and 12"):
        deep_markov.linear_data(0)
    with pytest.raises(ValueError, match="linear transition and emitter"):
        networks().system()
