"""Models that learn: EM, the VAE, posterior collapse and amortisation, all without draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from models import linear_vae, nonlinear_latent
from models import variational_em_bias as bias


def three_terms(x: float = 1.3, mean: float = 0.2, sd: float = 0.9) -> dict[str, float]:
    """The parts of the bound for z ~ N(0, 1), x ~ N(z, 1) and the guide N(mean, sd²)."""
    number = torch.tensor([x, mean, sd], dtype=torch.float64)
    prior = Normal(torch.zeros_like(number[0]), torch.ones_like(number[0]))
    posterior = Normal(number[0] / 2, torch.full_like(number[0], math.sqrt(0.5)))
    evidence = Normal(prior.loc, math.sqrt(2) * prior.scale).log_prob(number[0])
    guide = Normal(number[1], number[2])
    fits = -((number[0] - number[1]) ** 2 + number[2] ** 2 + math.log(2 * math.pi)) / 2
    to_prior = kl_divergence(guide, prior)
    return {
        "KL to the prior": float(to_prior),
        "KL to the posterior": float(kl_divergence(guide, posterior)),
        "bound": float(fits - to_prior),
        "log evidence": float(evidence),
    }


def climb(value, parameters: list[Tensor], iterations: int = 400) -> float:
    """Maximise by L-BFGS; the value in the end."""
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        tolerance_grad=1e-7,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -value()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return float(value())


def linear_autoencoder(noise_variance: float, seed: int = 0) -> dict[str, float]:
    """A linear VAE by its bound and by exact maximum likelihood: values and latents in use.

    A latent is in use if its column of the decoder has a norm above 0.1. For maximum likelihood,
    which does not care about rotations, it is the number of singular values above 0.1. The guide of
    a latent that is not in use is compared with the prior, which then is its posterior, by KL in
    both directions.
    """
    x = linear_vae.data(200).double()
    noise = math.sqrt(noise_variance)
    torch.manual_seed(seed)
    vae = linear_vae.LinearVAE(8, 6, noise).double()
    learnt = [p for p in (*vae.encoder.parameters(), *vae.decoder.parameters()) if p.requires_grad]
    bound = climb(lambda: linear_vae.elbo(vae, x) / len(x), learnt) * len(x)
    in_use = vae.decoder.linear.weight.norm(dim=0) > 0.1
    with torch.no_grad():
        loc, scale = vae.encoder(x)
        guide = Normal(loc[:, ~in_use], scale.expand(loc.shape)[:, ~in_use])
        prior = Normal(torch.zeros_like(guide.loc), torch.ones_like(guide.loc))
        collapsed = kl_divergence(guide, prior).sum() + kl_divergence(prior, guide).sum()

    exact = linear_vae.LinearVAE(8, 6, noise).double()
    decoder = list(exact.decoder.linear.parameters())
    likelihood = climb(lambda: linear_vae.log_likelihood(exact, x).mean(), decoder) * len(x)
    rank = int((torch.linalg.svdvals(exact.decoder.linear.weight) > 0.1).sum())
    return {
        "bound": bound,
        "likelihood": likelihood,
        "closed form": linear_vae.max_log_likelihood(x, 6, noise),
        "both KLs of the unused": float(collapsed / len(x)),
        "in use by the bound": int(in_use.sum()),
        "in use by maximum likelihood": rank,
        "expected": linear_vae.active(x, 6, noise),
    }


def restricted_e_step(w: float, variance: float) -> dict[str, float]:
    """EM with the exact and with an independent posterior, from the same start to the end.

    ``lost`` is by how much data of the true model are less likely, on average, under what EM with
    the independent posterior learns: the price on new data as well, as the data are infinitely
    many.
    """
    moment = 2 * w**2 + variance
    exact = restricted = torch.tensor(0.3 * w, dtype=torch.float64)
    path = [float(exact)]
    for _ in range(700):
        exact = bias.exact_em_step(exact, variance, moment)
        restricted = bias.variational_em_step(restricted, variance, moment)
        path.append(float(exact))
    best, found = (bias.log_likelihood(at, variance, moment) for at in (exact, restricted))
    return {
        "exact": float(exact),
        "restricted": float(restricted),
        "first step": path[1],
        "bias": float(restricted) / w - 1,
        "lost": float(best - found),
    }


def free_energy(steps: int = 60) -> dict[str, object]:
    """EM for the means of two unit normals of equal mass: what each half of a step does.

    The data are 40 quantiles of 0.5 N(-1, 1) + 0.5 N(2, 1), found by bisection. ``equal`` is the
    free energy after the E-step minus the log likelihood, ``short`` what a wrong posterior misses
    minus its reverse KL to the right one.
    """
    x = _quantiles(40)
    means = torch.tensor([0.0, 0.5], dtype=torch.float64)

    def log_joint(at: Tensor) -> Tensor:  # (2, N)
        return math.log(0.5) + Normal(at[:, None], 1.0).log_prob(x)

    likelihoods, path = [], []
    equal = short = 0.0
    for step in range(steps):
        joint = log_joint(means)
        q = torch.softmax(joint, 0)  # the E-step: Bayes' rule
        likelihood = joint.logsumexp(0).sum()
        if step == 0:
            equal = float((q * (joint - q.log())).sum() - likelihood)
            other = torch.full_like(q, 0.5)
            missing = likelihood - (other * (joint - other.log())).sum()
            short = float(missing - (other * (other.log() - q.log())).sum())
        likelihoods.append(float(likelihood))
        path.append(means)
        means = (q * x).sum(1) / q.sum(1)  # the M-step
    return {
        "likelihoods": likelihoods,
        "equal": equal,
        "short": short,
        "first M-step": path[1].tolist(),
        "maximum likelihood": means.tolist(),
    }


def _quantiles(number: int) -> Tensor:
    low = torch.full((number,), -10.0, dtype=torch.float64)
    high = torch.full((number,), 10.0, dtype=torch.float64)
    wanted = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    for _ in range(60):
        middle = (low + high) / 2
        below = (Normal(-1.0, 1.0).cdf(middle) + Normal(2.0, 1.0).cdf(middle)) / 2 < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def amortisation(num_data: int, seed: int = 0) -> dict[str, float]:
    """Bounds of normals of their own for every datum, and of those that a small network gives.

    Points around a parabola, ``x ~ N((z / 2, z² / 2), 0.4²)``; the expectation of the bound is a
    polynomial of mean and variance. Free normals start where the network's are.
    """
    x, _ = nonlinear_latent.data(num_data)
    x = x.double()

    def bounds(mean: Tensor, log_sd: Tensor) -> Tensor:  # (N,)
        v = (2 * log_sd).exp()
        second = mean**2 + v
        fourth = mean**4 + 6 * mean**2 * v + 3 * v**2
        errors = x[:, 0] ** 2 - x[:, 0] * mean + second / 4
        errors = errors + x[:, 1] ** 2 - x[:, 1] * second + fourth / 4
        noise = nonlinear_latent.NOISE**2
        log_p = -errors / (2 * noise) - math.log(2 * math.pi * noise)
        return log_p - (second - 1 - 2 * log_sd) / 2

    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    climb(lambda: bounds(*network(x).T).mean(), list(network.parameters()), 200)
    shared = bounds(*network(x).T).detach()
    own = [column.detach().clone().requires_grad_() for column in network(x).T]
    climb(lambda: bounds(*own).sum(), own, 200)
    free = bounds(*own).detach()
    return {
        "smallest gap": float((free - shared).min()),
        "mean gap": float((free - shared).mean()),
        "parameters of the network": sum(p.numel() for p in network.parameters()),
        "parameters of free normals": 2 * num_data,
    }
