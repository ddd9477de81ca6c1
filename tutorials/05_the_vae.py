# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # The VAE: where is the reverse KL?
#
# A variational autoencoder is trained on the evidence lower bound, the bound is reverse KL, reverse
# KL seeks modes: so do VAEs blur, collapse or drop modes because of *that*? The question mixes up
# two divergences. With data from $p^*(x)$, a model $p_\theta(x, z)$ and an encoder $q(z|x)$,
#
# $$-E_{p^*}[\mathrm{bound}] = H(p^*) +
#   \underbrace{\mathrm{KL}\big(p^*(x)\,\|\,p_\theta(x)\big)}_{\text{data: forward}} +
#   \underbrace{E_{p^*}\mathrm{KL}\big(q(z|x)\,\|\,p_\theta(z|x)\big)}_{\text{posterior: reverse}} .$$
#
# The entropy $H(p^*)$ is nobody's to change. The first KL is maximum likelihood; the reverse KL is
# the second one, one per datum, and it is the *gap* of the bound. (The "KL term" in the code of
# every VAE, $\mathrm{KL}(q(z|x)\|p(z))$, is a third, to the prior. It is a rate: what the latents
# may say about $x$.) Below, each of the two is measured where it is known exactly, then made
# smaller, then turned around.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import init_to_mean
from pyro.optim import Adam, ClippedAdam
from scipy.optimize import minimize
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset
from tutorial_tools import COLOURS, begin, say, sized

from models import images, linear_vae, nonlinear_latent
from models.networks import Decoder, Encoder
from models.vae import VAE, BernoulliPixels, NormalPrior
from pyro_klmodes import (
    IWAE,
    ForwardKL,
    ReverseKL,
    Separate,
    WakeSleep,
    draws,
    estimators,
    fit,
    gradient_snr,
    held_out_bound,
    objectives,
)
from pyro_klmodes.guides import AutoAmortized
from pyro_klmodes.guides.amortized import MLP, DiagonalNormal, FullNormal

begin(seed=0)


def falling(lr, steps):
    """Adam whose rate falls by a factor of a hundred."""
    return ClippedAdam({"lr": lr, "lrd": 0.01 ** (1 / steps)})


# %% [markdown]
# ## One picture, both divergences
#
# The smallest VAE has one latent, one pixel, and a decoder that is a line: $x = b + wz +
# \varepsilon$, so that $p_\theta(x) = N(b, w^2 + 1)$. Give it data with two bumps, which no such
# model can have. The loss is `ReverseKL`. If reverse KL acted between data and model, the fit would
# sit on one bump.

# %% mystnb={"image": {"alt": "Left: data with two bumps and the VAE's density, which lies over both exactly as the forward-KL normal does, while the reverse-KL normal sits on one bump. Right: on a logarithmic axis both divergences fall during training, the forward KL of the data to its smallest value and the reverse KL of the posterior to zero."}}
bump = torch.where(torch.rand(600) < 0.7, -3.0, 3.0)
x_bumps = bump + torch.randn(600)


def line(x):
    b, w = pyro.param("b", torch.tensor(2.0)), pyro.param("w", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(b + w * z, 1.0), obs=x)


def line_encoder(x):
    at, slope = pyro.param("at", torch.tensor(0.0)), pyro.param("slope", torch.tensor(0.0))
    sd = pyro.param("sd", torch.tensor(1.0), constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(at + slope * x, sd))


def exact_terms(b, w, at, slope, sd):
    """Mean log-likelihood of the data and mean gap, in closed form."""
    posterior = Normal(w * (x_bumps - b) / (1 + w**2), (1 + w**2) ** -0.5)
    gaps = kl_divergence(Normal(at + slope * x_bumps, sd), posterior)
    evidence = Normal(b, (1 + w**2) ** 0.5).log_prob(x_bumps)
    return float(evidence.mean()), float(gaps.mean())


path = []


def record(info):
    now = {name: value.detach().clone() for name, value in info.parameters().items()}
    path.append(exact_terms(now["b"], now["w"], now["at"], now["slope"], now["sd"].exp()))


steps = sized(300, 150)
loss = ReverseKL(2, estimator=estimators.doubly)
line_fit = fit(
    line,
    line_encoder,
    loss,
    x_bumps,
    steps=steps,
    optim=falling(0.15, steps),
    callbacks=[record],
    progress=False,
)
b, w = (float(line_fit.params[name]) for name in ("b", "w"))
vae_normal = (b, math.sqrt(w**2 + 1))
forward_normal = (float(x_bumps.mean()), float(x_bumps.std(correction=0)))
ceiling = float(Normal(*forward_normal).log_prob(x_bumps).mean())
log_likelihood, line_gap = path[-1]

grid = np.linspace(-9, 9, 1201)
density = 0.7 * np.exp(-((grid + 3) ** 2) / 2) + 0.3 * np.exp(-((grid - 3) ** 2) / 2)
density /= math.sqrt(2 * math.pi)


def normal(mean, sd):
    return np.exp(-(((grid - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def reverse_kl(parameters):
    q = normal(parameters[0], np.exp(parameters[1])).clip(1e-300)
    return np.sum(q * np.log(q / density)) * (grid[1] - grid[0])


narrow = minimize(reverse_kl, [-3.0, 0.0]).x
reverse_normal = (float(narrow[0]), float(np.exp(narrow[1])))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.hist(x_bumps, 60, density=True, color="0.85", label="data")
left.plot(grid, normal(*forward_normal), color=COLOURS["target"], lw=5, alpha=0.3,
          label="forward KL, exact")  # fmt: skip
left.plot(grid, normal(*vae_normal), color=COLOURS["reverse"], label="VAE, loss ReverseKL")
left.plot(grid, normal(*reverse_normal), color=COLOURS["other"], ls="--",
          label="reverse KL in data space")  # fmt: skip
left.set(xlabel="$x$", ylabel="density", ylim=(0, 0.52))
left.legend(fontsize="small")
evidence_path, gap_path = np.array(path).T
right.semilogy(ceiling - evidence_path, color=COLOURS["forward"], label="data: forward KL, excess")
right.semilogy(gap_path, color=COLOURS["reverse"], label="posterior: reverse KL, gap")
right.set(xlabel="step", ylabel="nats per datum", ylim=(1e-7, 50))
right.legend(fontsize="small")
plt.show()
say(
    f"The VAE ends at $N({vae_normal[0]:.3f}, {vae_normal[1]:.3f}^2)$. The forward-KL optimum, "
    f"which is mean and standard deviation of the data, is $N({forward_normal[0]:.3f}, "
    f"{forward_normal[1]:.3f}^2)$; the reverse-KL normal would be $N({reverse_normal[0]:.2f}, "
    f"{reverse_normal[1]:.2f}^2)$. The gap is {line_gap:.0e} nats in the end: this encoder can be "
    "the posterior, so that *which* KL it minimised does not matter any more. Blur is what forward "
    "KL does to a model that is too simple; the encoder has no part in it."
)

# %% [markdown]
# ## What the gap is made of
#
# $E\,\mathrm{KL}(q(z|x)\|p(z|x))$ has two sources (Cremer, Li and Duvenaud, 2018). The *family* of
# $q$ may not hold the posterior: the approximation gap. And one *network* serves all data, and may
# not give each its best member: the amortisation gap. In a linear-Gaussian model both are known.
# The posterior is $N(Mx, \Lambda^{-1})$ with $\Lambda = I + W^TW$ and $M = \Lambda^{-1}W^T$.
# Independent normals lack at best
#
# $$\tfrac12\Big(\sum_i\log\Lambda_{ii} - \log|\Lambda|\Big), \qquad\text{which is}\qquad
#   -\tfrac12\log(1 - r^2)$$
#
# for two latents with posterior correlation $-r$. An encoder with a bottleneck of $m$ numbers has
# $m$ directions of $Mx$ to say, and lacks at best $\tfrac12\sum_{j>m}s_j^2$, where $s_j$ are the
# singular values of $\Lambda^{1/2}MC^{1/2}$ and $C$ is the covariance of the data. We train four
# encoders, with and without correlation, with and without a bottleneck.

# %% mystnb={"image": {"alt": "Stacked bars of the exact approximation and amortisation gap for four encoders; the gaps of the trained encoders are dots on top of the bars."}}


def decoder_with(r, weak=0.5):
    """Two latents whose posterior correlation is -r, and a weak direction of strength `weak`."""
    strong = (1 + weak) * (1 + r) / (1 - r) - 1
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
    return torch.tensor([strong, weak]).sqrt()[:, None] * turn


def typical(covariance, number):  # draws whose mean and covariance are exact
    e = torch.randn(number, len(covariance))
    e = e - e.mean(0)
    e = torch.linalg.solve_triangular(torch.linalg.cholesky(e.T @ e / number), e.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ e).T


def two_causes(x, W):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, 1.0).to_event(1), obs=x)


W = decoder_with(0.9)
C = W @ W.T + torch.eye(2)
precision = torch.eye(2) + W.T @ W
x_causes = typical(C, 400)
posterior = MultivariateNormal(x_causes @ W @ precision.inverse(), precision_matrix=precision)
values, vectors = torch.linalg.eigh(precision)
root = vectors * values.sqrt() @ vectors.T
singular = torch.linalg.svdvals(root @ precision.inverse() @ W.T @ torch.linalg.cholesky(C))
of_family = float(precision.diagonal().log().sum() - precision.logdet()) / 2
of_network = float(singular[1] ** 2) / 2

steps = sized(300, 120)
exact_parts, fitted_gap = {}, {}
for family in sized((FullNormal(), DiagonalNormal()), (DiagonalNormal(),)):
    full = isinstance(family, FullNormal)
    for bottleneck, network in ((False, MLP(hidden=())), (True, nn.Linear(2, 1))):
        encoder = AutoAmortized(two_causes, data="x", encoder=network, family=family)
        found = fit(
            two_causes, encoder, ReverseKL(4, estimator=estimators.doubly), x_causes, W,
            steps=steps, optim=falling(0.1, steps), progress=False,
        )  # fmt: skip
        with torch.no_grad():
            q = found.guide.local_distributions(x_causes, W)["z"]
            covariance = q.covariance_matrix if full else q.variance.diag_embed()
            gaps = kl_divergence(MultivariateNormal(q.mean, covariance), posterior)
        case = ("full" if full else "independent", "bottleneck" if bottleneck else "no bottleneck")
        exact_parts[case] = (0.0 if full else of_family, of_network if bottleneck else 0.0)
        fitted_gap[case] = float(gaps.mean())
gap_error = max(abs(fitted_gap[case] - sum(exact_parts[case])) for case in exact_parts)

figure, axis = plt.subplots(figsize=(7, 3.2))
approximation, amortisation = np.array(list(exact_parts.values())).T
places = range(len(exact_parts))
axis.bar(places, approximation, 0.5, color=COLOURS["reverse"], label="approximation, exact")
axis.bar(places, amortisation, 0.5, bottom=approximation, color=COLOURS["importance"],
         label="amortisation, exact")  # fmt: skip
axis.plot(places, list(fitted_gap.values()), "D", color=COLOURS["forward"],
          label="trained encoder")  # fmt: skip
axis.set_xticks(places, [f"{kind} normals,\n{m}" for kind, m in exact_parts])
axis.set(ylabel="gap (nats per datum)", ylim=(-0.05, 1.25))
axis.legend(loc="upper left")
plt.show()
say(
    f"At $r = 0.9$ the family costs {of_family:.4f} nats, the bottleneck {of_network:.4f}. The "
    "trained encoders come to "
    + ", ".join(f"{gap:.4f} ({kind} normals, {m})" for (kind, m), gap in fitted_gap.items())
    + f": they are within {gap_error:.0e} of the sums. The bound sees only that sum. A richer "
    "family does nothing about a poor network, and the other way round. (Where nothing is linear, "
    "`amortisation_gap` splits a gap by quadrature.)"
)

# %% [markdown]
# ## Tighter by more draws
#
# The importance-weighted bound $E\log\frac1K\sum_k w_k$ closes the gap with the same encoder
# (Burda, Grosse and Salakhutdinov, 2016). How fast? If the weights, scaled to a mean of one, have a
# variance, then by $\mathrm{Var}(w)/2K$ (Domke and Sheldon, 2018). For the best independent normals
# $1+\mathrm{Var}(w) = (1-r^2)/\sqrt{1-4r^2}$: finite only for $r<\tfrac12$. Beyond, the tail index of
# the weights is $k = r$, as at the reverse-KL stop of the dial in tutorial 2, and a mean of $K$
# such weights is typically short of one by something like $K^{1-1/k}$.
#
# Tighter is not simply better. The gradient of the encoder is a gap too, and averaging over $K$
# weights leaves its signal falling as $1/K$ and its noise as $1/\sqrt K$ (Rainforth et al., 2018).
# The estimator `doubly` (Tucker et al., 2019) repairs that, and so does training the encoder by
# weighted draws, of which more below.

# %% mystnb={"image": {"alt": "Left: gap of the K-sample bound against K for three correlations, on the 1/K law for 0.3, slower for 0.6, hardly falling for 0.9. Right: signal-to-noise of the encoder's gradient, falling with K for the IWAE and rising for doubly and for forward KL."}}


def best_independent(x, W):
    precision = torch.eye(2) + W.T @ W
    with pyro.plate("data", len(x)):
        mean = x @ W @ precision.inverse()
        pyro.sample("z", dist.Normal(mean, precision.diagonal() ** -0.5).to_event(1))


def shifted(x, W):  # an encoder that still has something to learn
    shift = pyro.param("shift", torch.tensor([0.3, -0.3]))
    with pyro.plate("data", len(x)):
        mean = x @ W @ (torch.eye(2) + W.T @ W).inverse() + shift
        pyro.sample("z", dist.Normal(mean, 0.85).to_event(1))


def gaps_by_particles(log_ratio, particles, finite_variance):
    """Gaps of K-sample bounds with standard errors, from log w of shape (S, N); the mean of w is 1.

    With a finite variance, what the mean of the draws misses of 1 is noise and can be taken off.
    """
    found = {}
    for K in particles:
        bounds = log_ratio.unflatten(0, (-1, K)).logsumexp(1) - math.log(K)
        if finite_variance:
            bounds = bounds - bounds.expm1()
        found[K] = (-float(bounds.mean()), float(bounds.std()) / math.sqrt(bounds.numel()))
    return found


particles = [4**i for i in range(sized(6, 4))]
correlations = (0.3, 0.6, 0.9)
iwae_gap, slope = {}, {}
for r in correlations:
    W_r = decoder_with(r)
    C_r = W_r @ W_r.T + torch.eye(2)
    x_r = typical(C_r, 500)
    log_w = draws(two_causes, best_independent, (x_r, W_r), num_particles=sized(2048, 512)).log_w
    log_z = MultivariateNormal(torch.zeros(2), C_r).log_prob(x_r)
    iwae_gap[r] = gaps_by_particles(log_w.detach() - log_z, particles, r < 0.5)
    second, last = (iwae_gap[r][K][0] for K in (particles[1], particles[-1]))
    slope[r] = math.log(last / second) / math.log(particles[-1] / particles[1])
exact_elbo_gap = {r: -math.log(1 - r**2) / 2 for r in correlations}
variance = (1 - 0.3**2) / math.sqrt(1 - 4 * 0.3**2) - 1

kinds = {
    "IWAE": (IWAE, COLOURS["reverse"]),
    "IWAE, doubly": (lambda K: IWAE(K, estimator=estimators.doubly), COLOURS["importance"]),
    "ForwardKL": (ForwardKL, COLOURS["forward"]),
}
counts = sized([2, 8, 32, 128], [2, 128])
W_r = decoder_with(0.3)
x_few = typical(W_r @ W_r.T + torch.eye(2), 10)
moments = {
    (kind, K): gradient_snr(two_causes, shifted, make(K), x_few, W_r, repeats=sized(150, 30))
    for kind, (make, _) in kinds.items()
    for K in counts
}
snr = {}
for (kind, K), found in moments.items():  # "doubly" has the mean of the IWAE with less noise
    signal = moments["IWAE, doubly" if kind == "IWAE" else kind, K].mean["shift"].norm()
    snr[kind, K] = float(signal / found.sd["shift"].norm())

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for r, colour in zip(correlations, ("importance", "reverse", "forward"), strict=True):
    left.loglog(particles, [iwae_gap[r][K][0] for K in particles], "o", color=COLOURS[colour],
                label=f"$r = {r}$")  # fmt: skip
    left.plot(1, exact_elbo_gap[r], "s", ms=10, mfc="none", color=COLOURS["target"])
left.plot([], [], "s", ms=10, mfc="none", color=COLOURS["target"], label="exact at $K = 1$")
left.loglog(particles, [variance / (2 * K) for K in particles], color=COLOURS["target"],
            label="Var$(w)/2K$, $r = 0.3$")  # fmt: skip
left.set(xlabel="$K$", ylabel="gap of the bound (nats)")
left.legend(fontsize="small", loc="lower left")
for kind, (_, colour) in kinds.items():
    right.loglog(counts, [snr[kind, K] for K in counts], "o-", color=colour, label=kind)
right.set(xlabel="$K$", ylabel="signal / noise, encoder")
right.legend(fontsize="small")
plt.show()
last_K = particles[-1]
elbo_gaps = ", ".join(f"{gap:.4f}" for gap in exact_elbo_gap.values())
measured = ", ".join(f"{iwae_gap[r][1][0]:.4f}" for r in correlations)
left_over = ", ".join(f"{iwae_gap[r][last_K][0]:.1e}" for r in correlations)
slopes = ", ".join(f"{slope[r]:.2f}" for r in correlations)
say(
    f"At $K = 1$ the gaps are {elbo_gaps} nats exactly (measured {measured}). With {last_K} draws "
    f"{left_over} are left, and from {particles[1]} draws on the mean slopes on these axes are "
    f"{slopes}; $1 - 1/r$ is {1 - 1 / 0.6:.2f} for 0.6 and {1 - 1 / 0.9:.2f} for 0.9. Draws do not "
    f"buy off a family that is wrong. From {counts[0]} to {counts[-1]} draws the encoder's "
    "signal-to-noise ratio goes from "
    + "; ".join(f"{snr[k, counts[0]]:.2f} to {snr[k, counts[-1]]:.2f} ({k})" for k in kinds)
    + "."
)

# %% [markdown]
# ## Collapse is first of all a wish of the likelihood
#
# A latent has *collapsed* when the encoder says the same of all data. The usual suspect is the KL
# term, or the mode-seeking direction. But in the linear VAE everything is known: for a given noise
# variance $\sigma^2$ the likelihood is largest where latent $j$ has the rate
#
# $$\mathrm{KL}_j = \tfrac12\log(\lambda_j/\sigma^2)\quad\text{if }\lambda_j>\sigma^2,
#   \quad\text{else } 0,$$
#
# where $\lambda_j$ are the eigenvalues of the data's covariance (Tipping and Bishop, 1999). The
# posterior there is in the encoder's family, the gap is zero, and the bound has no local optima of
# its own (Lucas et al., 2019). A decoder that is told to be noisy wants no more latents than that.
# The weight `beta` on the rate is more noise by another name: divided by $\beta$ the objective is
# the bound at a noise variance of $\beta\sigma^2$, up to a constant.
#
# What the bound adds is a trap on the way. Along one column of the decoder, of length $a$, the
# likelihood of a latent that is worth its while rises from $a=0$. But as long as the encoder
# ignores the data, the bound falls: a decoder that is ahead of its encoder switches the latent off
# (He et al., 2019). It is a saddle and not a place to stay, and training the encoder more
# (`AggressiveInference`) gets past it.

# %% mystnb={"image": {"alt": "Left: rate of each latent of linear VAEs on its closed-form curve, zero where the noise variance is above the eigenvalue. Right: log-likelihood along a decoder column, with its top away from zero for small noise and at zero for large noise, and the bound with an idle encoder, which always falls."}}
x_linear = linear_vae.data(200)
eigenvalues = torch.tensor(linear_vae.EIGENVALUES)
LATENTS = 6
cases = {  # noise variance, weight of the rate, whether the noise is learnt
    r"$\sigma^2 = 1$": (1.0, 1.0, False),
    r"$\sigma^2 = 2.5$": (2.5, 1.0, False),
    r"$\sigma^2 = 1$, $\beta = 2.5$": (1.0, 2.5, False),
    r"$\sigma^2$ learnt": (1.0, 1.0, True),
}
cases = sized(cases, dict(list(cases.items())[2:3]))
steps = sized(700, 200)
rates, effective, linear_elbo, linear_best = {}, {}, {}, {}
for name, (variance_of_noise, beta, learn) in cases.items():
    torch.manual_seed(0)
    vae = linear_vae.LinearVAE(8, LATENTS, math.sqrt(variance_of_noise), learn_noise=learn)
    loss = ReverseKL(1, beta=beta, estimator=estimators.doubly)
    fit(vae.model, vae.guide, loss, x_linear, steps=steps, optim=falling(0.1, steps),
        progress=False)  # fmt: skip
    with torch.no_grad():
        q = Normal(*vae.encoder(x_linear))
        each = kl_divergence(q, Normal(torch.zeros(LATENTS), 1.0)).mean(0)
        rates[name] = each.sort(descending=True).values
        learnt_variance = float((2 * vae.decoder.log_scale).exp())
        effective[name] = beta * learnt_variance
        linear_elbo[name] = float(linear_vae.elbo(vae, x_linear)) / 200
    linear_best[name] = (
        linear_vae.max_log_likelihood(x_linear, LATENTS, effective[name] ** 0.5) / 200
    )
exact_rates = {
    name: (eigenvalues[:LATENTS] / variance).log().clamp(min=0) / 2
    for name, variance in effective.items()
}
rate_error = max(float((rates[name] - exact_rates[name]).abs().max()) for name in cases)
in_use = {name: int((found > 0.02).sum()) for name, found in rates.items()}


def along_column(a, eigenvalue, noise_variance):
    """Log-likelihood per datum of a column of length a, less that of none."""
    total = a**2 + noise_variance
    return -((total / noise_variance).log() + eigenvalue / total - eigenvalue / noise_variance) / 2


lengths = torch.linspace(0, 2.5, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
palette = ("reverse", "forward", "importance", "other")
for (name, found), colour, mark in zip(rates.items(), palette, "osxo", strict=False):
    left.plot(
        eigenvalues[:LATENTS], found, mark, ms=7, mfc="none", color=COLOURS[colour], label=name
    )
fine = torch.linspace(0.5, 9, 300)
for variance_of_curve in sorted({round(v, 2) for v in effective.values()}):
    left.plot(fine, (fine / variance_of_curve).log().clamp(min=0) / 2, color=COLOURS["target"],
              lw=1, zorder=0)  # fmt: skip
left.plot([], [], color=COLOURS["target"], lw=1, label="closed form")
left.set(xlabel=r"eigenvalue $\lambda_j$ of the data", ylabel="rate of latent $j$ (nats)")
left.legend(fontsize="small")
for noise_variance, colour in ((1.0, "importance"), (3.0, "forward")):
    right.plot(lengths, along_column(lengths, 2.0, noise_variance), color=COLOURS[colour],
               label=rf"log-likelihood, $\sigma^2 = {noise_variance:g}$")  # fmt: skip
right.plot(lengths, -(lengths**2) / 2, color=COLOURS["reverse"], ls="--",
           label=r"bound, encoder idle, $\sigma^2 = 1$")  # fmt: skip
right.axhline(0, color="0.85", zorder=0)
right.set(
    xlabel=r"length $a$ of the column, $\lambda = 2$", ylabel="nats per datum", ylim=(-0.5, 0.45)
)
right.legend(fontsize="small", loc="upper right")
plt.show()
say(
    "Latents in use: "
    + ", ".join(f"{number} of {LATENTS} ({name})" for name, number in in_use.items())
    + f". All rates are within {rate_error:.3f} nats of the closed form. So the cure for this "
    "collapse is in the model: let it learn its noise."
)

# %% [markdown]
# ## The other direction, for the encoder
#
# Wake-sleep trains the same encoder by $\mathrm{KL}(p_\theta(z|x)\|q(z|x))$: in *sleep* on pairs
# $(z, x)$ that the model dreams up, with no weights at all (Hinton et al., 1995); in *reweighted
# wake-sleep* on draws for real data that are weighted by $w$ (Bornschein and Bengio, 2015). To see
# what the direction does, keep the model fixed: points near a parabola, whose posteriors are known
# by quadrature and have two modes where the sign of $z$ is open. The encoder gives every point one
# normal.

# %% mystnb={"image": {"alt": "Left: a posterior with two modes and the normals that three encoders give it; that of reverse KL is narrower, those of sleep and reweighted wake-sleep reach both modes. Right: gap of the K-sample bound for the three encoders; reverse KL is best for one draw, the others for many."}}


def parabola(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(torch.stack([z / 2, z**2 / 2], -1), 0.4).to_event(1), obs=x)


x_parabola, _ = nonlinear_latent.data(sized(500, 200))
log_evidence = nonlinear_latent.posteriors(x_parabola.double())[0].float()
z_grid, step = torch.linspace(-6.4, 6.4, 641), 0.02
log_posterior = nonlinear_latent.log_joint(z_grid[:, None], x_parabola) - log_evidence
directions = {
    "reverse KL": (ReverseKL(8), COLOURS["reverse"]),
    "sleep": (WakeSleep(wake_theta=0.0, num_simulations=2), COLOURS["importance"]),
    "reweighted wake-sleep": (ForwardKL(32), COLOURS["forward"]),
}
steps = sized(500, 70)
log_q, both_kl, parabola_gap = {}, {}, {}
for name, (loss, _) in directions.items():
    pyro.set_rng_seed(0)
    encoder = AutoAmortized(parabola, encoder=MLP(hidden=(32, 32)), init_loc_fn=init_to_mean)
    found = fit(
        parabola, encoder, loss, x_parabola, steps=steps, optim=falling(0.02, steps), progress=False
    )
    with torch.no_grad():
        log_q[name] = found.guide.local_distributions(x_parabola)["z"].log_prob(z_grid[:, None])
        reverse = (log_q[name].exp() * (log_q[name] - log_posterior)).sum(0).mean() * step
        forward = (log_posterior.exp() * (log_posterior - log_q[name])).sum(0).mean() * step
        both_kl[name] = (float(reverse), float(forward))
        log_ratio = found.log_weights(sized(1024, 256)) - log_evidence
    parabola_gap[name] = gaps_by_particles(log_ratio, particles, True)

spread = (log_posterior.exp() * z_grid[:, None] ** 2).sum(0) * step
right_of_zero = log_posterior[z_grid > 0].exp().sum(0) * step
shown = int((5 * (right_of_zero - 0.7).abs() + (spread - 1.4).abs()).argmin())
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
left.fill_between(z_grid, log_posterior[:, shown].exp(), color="0.85", label="posterior, exact")
for name, (_, colour) in directions.items():
    left.plot(z_grid, log_q[name][:, shown].exp(), color=colour, label=name)
    right.loglog(particles, [g for g, _ in parabola_gap[name].values()], "o-", color=colour,
                 label=name)  # fmt: skip
    right.plot(0.85, both_kl[name][0], "_", color=colour, ms=12, mew=2)
left.set(xlabel="$z$", xlim=(-3.2, 3.2), ylabel="density")
left.set_ylim(0, 1.4 * float(log_posterior[:, shown].exp().max()))
left.legend(fontsize="small", loc="upper left")
right.plot([], [], "_", color=COLOURS["target"], ms=12, mew=2, label="exact at $K = 1$")
right.set(xlabel="$K$", ylabel="gap of the bound (nats)")
right.legend(fontsize="small")
plt.show()
gap_many = {name: parabola_gap[name][64][0] for name in directions}
say(
    "Mean KL over all data, "
    + "; ".join(f"{n}: {r:.3f} reverse, {f:.3f} forward" for n, (r, f) in both_kl.items())
    + ". What a user sees is the bound, and that changes sides: at $K = 1$ the gap is the reverse KL "
    f"and the reverse-KL encoder has the smallest; at $K = 64$ it is left with "
    f"{gap_many['reverse KL']:.4f} nats, sleep with {gap_many['sleep']:.4f}, as draws of a narrow "
    "encoder hardly reach the other mode."
)

# %% [markdown]
# ## Both at once, on digits
#
# In a real VAE the model moves too, and two choices are made at the same time by one line: which
# bound the *model* raises and which divergence the *encoder* lowers. `Separate` and `ForwardKL`
# pull them apart. Handwritten digits of 8 by 8 pixels (scikit-learn's, Alpaydin and Kaynak, 1998),
# twenty latents, four fits with the same initial weights. A unit counts as in use if its rate is
# above 0.05 nats.

# %% mystnb={"image": {"alt": "Rates of the twenty latents of four VAEs, sorted, on a logarithmic axis: the two models trained by the ELBO fall off early, whichever KL trained the encoder; the two trained by the IWAE late."}}
(digits, _), (test_digits, _) = images.digits()
LATENT_UNITS, K, epochs, MANY = 20, 8, sized(45, 1), sized(1000, 20)
ELBO, WEIGHTED = objectives.ReverseKL(), objectives.PowerMean(0.0)
fits = {  # (bound of the model, divergence of the encoder)
    ("ELBO", "reverse"): ReverseKL(K),
    ("ELBO", "forward"): Separate(objectives.ForwardKL(), ELBO, K),
    ("IWAE", "reverse"): Separate(ELBO, WEIGHTED, K),
    ("IWAE", "forward"): ForwardKL(K),
}
digit_rates, many_draws, one_draw = {}, {}, {}
for case, loss in fits.items():
    torch.manual_seed(0)
    vae = VAE(
        Encoder(64, 60, LATENT_UNITS), Decoder(LATENT_UNITS, 60, 64),
        NormalPrior(LATENT_UNITS), BernoulliPixels(),
    )  # fmt: skip
    batches = DataLoader(TensorDataset(digits), batch_size=100, shuffle=True)
    found = fit(
        vae.model, vae.guide, loss, batches=batches, epochs=epochs, optim=Adam({"lr": 8e-3}),
        progress=False,
    )  # fmt: skip
    with torch.no_grad():
        q = Normal(*vae.encoder(digits))
        each = kl_divergence(q, Normal(torch.zeros(LATENT_UNITS), 1.0)).mean(0)
    digit_rates[case] = each.sort(descending=True).values
    bound = held_out_bound(vae.model, found.guide, test_digits, num_particles=MANY)
    many_draws[case] = bound.per_datum
    one_draw[case] = held_out_bound(vae.model, found.guide, test_digits, num_particles=1).bound
units = {case: int((found > 0.05).sum()) for case, found in digit_rates.items()}
gained = many_draws["IWAE", "forward"] - many_draws["ELBO", "reverse"]
gain, gain_error = float(gained.mean()), float(gained.std()) / math.sqrt(len(gained))

figure, axis = plt.subplots(figsize=(7, 3.4))
for (of_model, of_encoder), found in digit_rates.items():
    axis.semilogy(
        range(1, LATENT_UNITS + 1), found, "o-" if of_model == "ELBO" else "s--", ms=4,
        color=COLOURS[of_encoder], label=f"model {of_model}, encoder {of_encoder} KL",
    )  # fmt: skip
axis.axhline(0.05, color="0.6", lw=0.8, ls=":")
axis.set(xlabel="unit, sorted by rate", ylabel="rate (nats per digit)")
axis.set_xticks(range(2, LATENT_UNITS + 1, 2))
axis.legend(fontsize="small")
plt.show()
say(
    f"| model raises | encoder lowers | units in use | bound by {MANY:,} draws | by one draw |\n"
    "| --- | --- | --- | --- | --- |\n"
    + "\n".join(
        f"| {m} | {e} KL | {units[m, e]} | {float(many_draws[m, e].mean()):.2f} "
        f"| {one_draw[m, e]:.2f} |"
        for m, e in fits
    )
)
say(
    "Bounds are in nats per held-out digit. The number of units in use goes with the bound of the model, and much less with the direction "
    f"of the encoder. From ELBO and reverse to IWAE and forward, held-out digits gain {gain:.2f} ± "
    f"{gain_error:.2f} nats by {MANY:,} draws (one seed; one standard error, over digits). By one draw, "
    "the ELBO, the forward encoders look worse: it is not what they were trained for."
)

# %% [markdown]
# ## What to take home
#
# A VAE is maximum likelihood, forward KL, up to a gap; the gap is reverse KL, one per datum, and
# says how wrong the *encoder* is. Split it before you mend it: a richer family for one half, a
# larger network for the other. More draws tighten the bound, quickly if the weights have a variance
# and hardly if not. Collapse is asked for by noise and `beta`, and by an encoder that lags; no KL
# direction is its cause or its cure. Where the encoder is what you need afterwards, for draws, for
# importance weights, for evidence, train it by `ForwardKL` or `WakeSleep`; where the ELBO is what
# you need, by `ReverseKL`. The next tutorial takes the same bound without a network: EM.
