# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Mean field by coordinate ascent
#
# Mean field replaces a posterior by independent factors, $q(z)=\prod_i q_i(z_i)$, and reverse KL
# says which: holding all others fixed, the bound is largest at
#
# $$q_i^*(z_i)\;\propto\;\exp\,E_{q_{-i}}[\log p(x, z)] .$$
#
# No family was assumed. If the model is *conditionally conjugate*, $\log p$ is linear in the
# sufficient statistics of $z_i$, the right-hand side is in an exponential family, and the update
# is a closed form: no gradients, no step size, no draws. Taken in turns, that is coordinate ascent
# (CAVI; Bishop, 2006, chapter 10), and it is EM in which the parameters have become latents: both
# steps of the last tutorial are now the same step.
#
# What does it cost? One number, the coupling that the factors ignore, decides twice: how slow the
# sweeps are, and by how much the variances are too small. The second can be repaired.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.patches import Ellipse
from pyro.distributions import constraints
from pyro.infer.autoguide import init_to_value
from torch.distributions import MultivariateNormal, transform_to
from torch.utils.data import BatchSampler, RandomSampler
from tutorial_tools import COLOURS, begin, say, sized

from models import bayesian_linear_regression, logistic_regression
from pyro_klmodes import CAVI, linear_response
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.inference import RobbinsMonro, by_index

begin(seed=0)
torch.set_default_dtype(torch.float64)  # this is about last digits


def ellipse(mean, covariance, **style):  # two standard deviations
    (small, large), vectors = np.linalg.eigh(np.asarray(covariance))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return Ellipse(mean, 4 * large**0.5, 4 * small**0.5, angle=angle, fill=False, **style)


# %% [markdown]
# ## Two correlated normals
#
# Let $p$ be two normals of variance one with correlation $r$. The precision matrix $\Lambda$ has
# $1/(1-r^2)$ on its diagonal, and the updates are
#
# $$q_i = N(m_i, 1/\Lambda_{ii}),\qquad m_1 - \mu_1 \leftarrow r\,(m_2-\mu_2),\qquad
#   m_2 - \mu_2 \leftarrow r\,(m_1-\mu_1) .$$
#
# So the means become exact, by a factor of $r^2$ a sweep, and the variances are right, and wrong,
# from the first sweep on: $1-r^2$ instead of $1$. `CAVI` is given the model and nothing else; it
# finds the updates by running it.

# %% mystnb={"image": {"alt": "Left: zigzag of the means of coordinate ascent to the centre of a correlated normal, with the circle of mean field inside its ellipse. Right: error of the mean against sweeps for three correlations, on the lines of the law r to the power two n."}}
CENTRE, EDGE = torch.tensor([1.0, -1.0]), torch.tensor([-0.5, 0.9])


def pair(r):
    a = pyro.sample("a", dist.Normal(CENTRE[0], 1.0))
    pyro.sample("b", dist.Normal(CENTRE[1] + r * (a - CENTRE[0]), math.sqrt(1 - r**2)))


def from_the_edge(r, **stop):
    guide = AutoMeanField(pair, init_loc_fn=init_to_value(values={"a": EDGE[0], "b": EDGE[1]}))
    return CAVI(pair, guide).fit(r, progress=False, **stop)


def means_after(sweeps, r):
    params = from_the_edge(r, steps=sweeps, tolerance=1e-15).site_params
    return torch.stack([params["a"]["loc"], params["b"]["loc"]])


correlations, sweeps = sized((0.5, 0.9, 0.99), (0.5, 0.9)), sized(12, 4)
errors, pair_fits = {}, {}
for r in correlations:
    visited = torch.stack([means_after(n, r) for n in range(1, sweeps + 1)])
    errors[r] = (visited - CENTRE).abs().amax(-1)
    pair_fits[r] = from_the_edge(r, steps=2000, tolerance=1e-6)
rate = {r: float(errors[r][3] / errors[r][2]) for r in correlations}
sd_of_pair = {r: float(found.site_params["a"]["scale"]) for r, found in pair_fits.items()}
bound_gap = {r: -float(found.elbos[-1]) for r, found in pair_fits.items()}  # the evidence is 1

r = 0.9
path = torch.stack([means_after(n, r) for n in range(1, sweeps + 1)])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
exact = torch.tensor([[1.0, r], [r, 1.0]])
left.add_patch(ellipse(CENTRE, exact, color=COLOURS["target"], lw=2, label="posterior, 2 sd"))
factor = pair_fits[r].site_params["a"]["scale"] ** 2 * torch.eye(2)
left.add_patch(ellipse(CENTRE, factor, color=COLOURS["reverse"], lw=2, label="mean field, 2 sd"))
staircase = [tuple(EDGE.tolist())]
for a, b in path.tolist():
    staircase += [(a, staircase[-1][1]), (a, b)]
left.plot(
    *zip(*staircase, strict=True), ".-", color=COLOURS["forward"], label="means, update by update"
)
left.set(xlabel="$a$", ylabel="$b$", xlim=(-1.5, 3.5), ylim=(-3.5, 2.3), aspect="equal")
left.legend(fontsize="small", loc="upper left")
for r, colour in zip(correlations, ("importance", "reverse", "forward"), strict=False):
    number = np.arange(1, sweeps + 1)
    right.semilogy(number, errors[r], "o", color=COLOURS[colour], label=f"$r = {r}$")
    law = float(errors[r][0]) * r ** (2 * (number - 1))
    right.plot(number, law, color=COLOURS["target"], lw=1, zorder=0)
right.plot([], [], color=COLOURS["target"], lw=1, label="law, $r^{2n}$")
right.set(xlabel="sweep $n$", ylabel="error of the means")
right.legend(fontsize="small")
plt.show()
rates, sds, gaps = (
    ", ".join(f"{found[r]:.4f}" for r in correlations) for found in (rate, sd_of_pair, bound_gap)
)
say(
    f"A sweep takes the error down by {rates} for $r$ of {', '.join(map(str, correlations))}: "
    f"$r^2$. The standard deviations end at {sds}, that is $\\sqrt{{1-r^2}}$, where the posterior "
    f"has 1, and the bound stays {gaps} nats below the evidence, $-\\frac12\\log(1-r^2)$. Slow and "
    "overconfident come together: a model whose sweeps are slow is one whose variances should not "
    "be trusted."
)

# %% [markdown]
# ## Linear response
#
# The means were right. So ask the means (Giordano, Broderick and Jordan, 2018; Opper and Winther,
# 2004): add $t\,z_i$ to $\log p$, and the posterior mean of $z_j$ moves by
# $\mathrm{Cov}(z_i, z_j)\,t$; that is what a cumulant is. Mean field predicts how its own means
# move, through all factors, and `linear_response` takes that derivative instead of the variance of
# $q_i$. For a normal posterior it is exact. For others it is as good as the means are.
#
# The example is the diabetes study (Efron et al., 2004): 442 patients, ten measurements, several of
# them blood values that are nearly functions of each other. Coefficients and noise have independent
# priors, so that each is conjugate given the other and the posterior is an integral over the noise.

# %% mystnb={"image": {"alt": "Standard deviations of ten coefficients: the exact ones, those of mean field, far too small for the correlated blood values, and those of linear response, on top of the exact ones."}}
x, y = bayesian_linear_regression.data()
NAMES = ("age", "sex", "bmi", "bp", "tc", "ldl", "hdl", "tch", "ltg", "glu")


def regression(x, y, subsample=None):
    tau = pyro.sample("tau", dist.Gamma(torch.tensor(2.0), 1.0))
    with pyro.plate("columns", x.shape[1], dim=-2):
        w = pyro.sample("w", dist.Normal(torch.tensor(0.0), 2**0.5))
    with pyro.plate("data", len(y), subsample=subsample, dim=-1) as index:
        mean = (w * x[index].T).sum(-2, keepdim=True)
        pyro.sample("y", dist.Normal(mean, tau.rsqrt()), obs=y[index])


diabetes = CAVI(regression).fit(x, y, progress=False)
response = linear_response(diabetes)
moments, log_evidence = bayesian_linear_regression.semi_conjugate_posterior(x, y)  # by quadrature
exact_sd = moments["w"].sd
field_sd, repaired_sd = response.mean_field_sd["w"].flatten(), response.sd["w"].flatten()
mean_error = float(((response.mean["w"].flatten() - moments["w"].mean) / exact_sd).abs().max())
too_small = exact_sd / field_sd
repair_error = float((repaired_sd / exact_sd - 1).abs().max())
tau_field = float(response.mean_field_sd["tau"] / moments["tau"].sd - 1)
tau_repaired = float(response.sd["tau"] / moments["tau"].sd - 1)

figure, axis = plt.subplots(figsize=(8, 3.4))
places = np.arange(len(NAMES))
axis.bar(places, exact_sd.tolist(), 0.6, color="0.85", label="exact, by quadrature")
axis.plot(places, field_sd, "o", color=COLOURS["reverse"], label="mean field")
axis.plot(places, repaired_sd, "D", color=COLOURS["importance"], label="linear response")
axis.set_xticks(places, NAMES)
axis.set(ylabel="standard deviation of a coefficient")
axis.legend()
plt.show()
worst = int(too_small.argmax())
say(
    f"What `CAVI` found out about the two sites:\n\n- `{diabetes.conjugacy['w']}`\n"
    f"- `{diabetes.conjugacy['tau']}`\n\n{diabetes.steps} sweeps are enough "
    f"here because the coefficients are one site, whose means are solved for together. The means "
    f"are within {mean_error:.0e} posterior standard deviations of quadrature. The standard "
    f"deviations are too small by factors of {float(too_small.min()):.2f} to "
    f"{float(too_small.max()):.2f} (the latter for {NAMES[worst]}), and by linear response all "
    f"within {repair_error:.1%}. For the precision $\\tau$ mean field is off by {tau_field:+.1%}, "
    f"linear response by {tau_repaired:+.0e}."
)

# %% [markdown]
# ## An update is a natural gradient
#
# Let $\lambda_i$ be the natural parameters of $q_i$ and $F_i$ its Fisher information, by which
# distances between distributions are measured. Then
#
# $$F_i^{-1}\,\nabla_{\lambda_i}\,\mathrm{bound} = \lambda_i^* - \lambda_i ,$$
#
# so that coordinate ascent is natural-gradient ascent with a step of length one (Khan and Lin,
# 2017), which is why there is no step size to tune. It also says what to do if the data are too
# many to look at: take a step of $\rho_t < 1$ towards the optimum for a minibatch (stochastic
# variational inference; Hoffman et al., 2013), $\rho_t=(t+1)^{-0.7}$, say.
#
# The model is the same regression with all coefficients in *one* factor, a normal with any
# covariance. It is the other cure: where a block is conjugate, nothing within it is ignored. To
# compare geometry and nothing else, Adam gets the exact bound to climb, without noise.

# %% mystnb={"image": {"alt": "Left: what is missing to the best bound against steps: coordinate ascent is there in a few, natural-gradient steps of one half fall by a constant factor, Adam lags far behind. Right: missing per datum against passes over the data; minibatches are near within a fraction of a pass, coordinate ascent exact after a few."}}


def blocked(x, y, subsample=None):
    tau = pyro.sample("tau", dist.Gamma(torch.tensor(2.0), 1.0))
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 2**0.5).to_event(1))
    with pyro.plate("data", len(y), subsample=subsample) as index:
        pyro.sample("y", dist.Normal((w * x[index]).sum(-1), tau.rsqrt()), obs=y[index])


in_one = CAVI(blocked).fit(x, y, progress=False)
in_one_sd = in_one.site_params["w"]["scale_tril"].norm(dim=-1)  # roots of the diagonal of L L'
block_error = float((in_one_sd / exact_sd - 1).abs().max())
bound, best = in_one.expectation.elbo, float(in_one.elbos[-1])

# the identity, for tau away from its optimum: (concentration, rate) are natural up to a sign
c, d = (torch.tensor(v, requires_grad=True) for v in (90.0, 70.0))
value = bound({"tau": {"concentration": c, "rate": d}, "w": in_one.site_params["w"]})
gradient = torch.stack(torch.autograd.grad(value, (c, d)))
c, d = c.detach(), d.detach()
fisher = torch.stack([torch.polygamma(1, c), -1 / d, -1 / d, c / d**2]).reshape(2, 2)
natural_gradient = torch.linalg.solve(fisher, gradient)
optimum = torch.stack([in_one.site_params["tau"][n] for n in ("concentration", "rate")])
to_the_optimum = optimum - torch.stack([c, d])


def after(steps, length):
    found = CAVI(blocked, step=length).fit(x, y, steps=steps, progress=False)
    return best - float(bound(found.site_params))


steps = sized(16, 6)
by_length = {length: [after(n, length) for n in range(1, steps + 1)] for length in (1.0, 0.5)}


def by_adam(lr, steps):
    loc, raw = torch.zeros(10, requires_grad=True), torch.zeros(10, 10, requires_grad=True)
    log_tau = torch.tensor([2.0, 1.0]).log().requires_grad_()
    optimiser, missing = torch.optim.Adam([loc, raw, log_tau], lr=lr), []
    for _ in range(steps):
        concentration, rate = log_tau.exp()
        tril = transform_to(constraints.lower_cholesky)(raw)
        tau, w = {"concentration": concentration, "rate": rate}, {"loc": loc, "scale_tril": tril}
        loss = best - bound({"tau": tau, "w": w})
        missing.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return missing


adam = {lr: by_adam(lr, sized(500, 30)) for lr in sized((0.1, 0.02), (0.1,))}

NUMBER, BATCH = sized(10_000, 2000), 50
many_x = x[torch.randint(len(x), (NUMBER,))]
many_y = many_x @ moments["w"].mean + torch.randn(NUMBER) * float(moments["tau"].mean) ** -0.5
of_all = CAVI(blocked).fit(many_x, many_y, progress=False)


def missing_per_datum(found):
    return float(of_all.elbos[-1] - of_all.expectation.elbo(found.site_params)) / NUMBER


on_batches = {}
for count in sized((1, 3, 10, 30, 100, 400), (1, 10, 30)):
    batches = by_index(BatchSampler(RandomSampler(range(NUMBER)), BATCH, drop_last=True))
    on_batches[count * BATCH / NUMBER] = missing_per_datum(
        CAVI(blocked, step=RobbinsMonro(delay=1, forgetting=0.7)).fit(
            many_x, many_y, batches=batches, steps=count, progress=False
        )
    )
in_sweeps = {
    count: missing_per_datum(CAVI(blocked).fit(many_x, many_y, steps=count, progress=False))
    for count in (1, 2, 3)
}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
for length, colour in ((1.0, "importance"), (0.5, "reverse")):
    curve = np.maximum(by_length[length], 1e-12)
    label = f"natural gradient, step {length:g}"
    left.loglog(range(1, steps + 1), curve, "o-", ms=4, color=COLOURS[colour], label=label)
for (lr, curve), style in zip(adam.items(), ("-", "--"), strict=False):
    label = f"Adam, rate {lr:g}"
    left.loglog(range(1, len(curve) + 1), curve, style, color=COLOURS["forward"], label=label)
left.set(xlabel="step", ylabel="missing to the best bound (nats)", ylim=(1e-9, 1e5))
left.legend(fontsize="small", loc="lower right")
label = f"minibatches of {BATCH}, falling steps"
right.loglog(*zip(*on_batches.items(), strict=True), "o-", color=COLOURS["reverse"], label=label)
exhausted = {count: max(value, 1e-12) for count, value in in_sweeps.items()}
label = "coordinate ascent on all"
right.loglog(*zip(*exhausted.items(), strict=True), "s-", color=COLOURS["importance"], label=label)
right.set(xlabel=f"passes over {NUMBER:,} data", ylabel="missing (nats per datum)")
right.legend(fontsize="small", loc="lower left")
plt.show()
identity_error = float((natural_gradient / to_the_optimum - 1).abs().max())
half_factor = by_length[0.5][-1] / by_length[0.5][-2]
adam_left = min(curve[-1] for curve in adam.values())
early, of_early = list(on_batches.items())[-3]
say(
    f"For $\\tau$ at a concentration of 90 and a rate of 70 the natural gradient is ({natural_gradient[0]:.2f}, "
    f"{natural_gradient[1]:.2f}), and the way to the optimum is the same to {identity_error:.0e}. "
    f"After {steps} steps of one half {by_length[0.5][-1]:.2g} nats are missing, and the last one "
    f"took that down by a factor of {half_factor:.2f}: half of the way to an optimum where the "
    f"bound is quadratic would be a quarter. Adam is {adam_left:.2g} nats short after "
    f"{len(adam[0.1])} steps, at the better of its rates. On {NUMBER:,} data minibatches are "
    f"within {of_early:.2g} nats per datum of the best bound after {early:.2f} of a pass, and coordinate ascent after one whole sweep within "
    f"{in_sweeps[1]:.2g}; then it wins, as it has no noise. The factor for all coefficients "
    f"together has standard deviations within {block_error:.1%} of the exact ones, without any "
    "repair."
)

# %% [markdown]
# ## Where the means are wrong
#
# Linear response repairs what the means know. Take $x=ab+\text{noise}$ with standard normal $a$
# and $b$. Given one, the other is conjugate: all updates are closed forms, the bound never falls.
# But $(a,b)$ and $(-a,-b)$ say the same of $x$, so that the posterior has two modes, and means of
# zero. Coordinate ascent ends on one mode, by its start, and says that it has converged. It has.

# %% mystnb={"image": {"alt": "Contours of a posterior with two modes in opposite corners, with the mean-field circle and the linear-response ellipse, which is tilted as the mode is, on one of them."}}
SEEN = 1.5


def product(x):
    a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
    b = pyro.sample("b", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("x", dist.Normal(a * b, 0.5), obs=x)


ends = [CAVI(product).fit(torch.tensor(SEEN), seed=s, progress=False) for s in range(sized(8, 4))]
modes_found = [round(float(end.site_params["a"]["loc"]), 3) for end in ends]
of_product = linear_response(ends[0])
side = torch.linspace(-4, 4, 401)
a, b = torch.meshgrid(side, side, indexing="ij")
log_p = -(a**2) / 2 - b**2 / 2 - ((SEEN - a * b) / 0.5) ** 2 / 2
weight = log_p.flatten().softmax(0).reshape(a.shape)
sd_of_both = float((weight * a**2).sum().sqrt())
same = weight * (a * torch.sign(torch.tensor(modes_found[0])) > 0)
same = same / same.sum()
mean_of_mode = (same * a).sum()
sd_of_mode = float((same * (a - mean_of_mode) ** 2).sum().sqrt())
field_of_mode, repaired_of_mode = (
    float(found["a"]) for found in (of_product.mean_field_sd, of_product.sd)
)

figure, axis = plt.subplots(figsize=(5.2, 4.2))
axis.contour(a, b, weight / weight.max(), levels=(0.05, 0.2, 0.5, 0.8), colors=COLOURS["target"],
             linewidths=1)  # fmt: skip
centre = [float(of_product.mean[name]) for name in ("a", "b")]
circle = torch.diag(torch.stack([of_product.mean_field_sd[n] ** 2 for n in ("a", "b")]))
axis.add_patch(ellipse(centre, circle, color=COLOURS["reverse"], lw=2))
axis.add_patch(ellipse(centre, of_product.covariance, color=COLOURS["importance"], lw=2))
for name, colour in (("posterior, exact", "target"), ("mean field, 2 sd", "reverse"),
                     ("linear response, 2 sd", "importance")):  # fmt: skip
    axis.plot([], [], color=COLOURS[colour], label=name)
axis.set(xlabel="$a$", ylabel="$b$", xlim=(-3, 3), ylim=(-3, 4.2), aspect="equal")
axis.legend(fontsize="small", loc="upper left")
plt.show()
say(
    f"{len(ends)} starts end with $E[a]$ at {' or '.join(map(str, sorted(set(modes_found))))}; "
    f"exactly it is 0. The standard deviation of $a$ is {sd_of_both:.3f} over both modes and "
    f"{sd_of_mode:.3f} within one. Mean field says {field_of_mode:.3f}, linear response "
    f"{repaired_of_mode:.3f}: it finds the tilt and most of the width of the mode it is on, and "
    "nothing of the other. Conjugacy is a property of updates. It says nothing about how many "
    "optima there are."
)

# %% [markdown]
# ## Without conjugacy
#
# Most models are not conjugate. `CAVI(model).check(...)` says which sites are, and why not. Normal
# sites that are not still have a natural gradient; its expectations are then sums over
# Gauss-Hermite points, a step may overshoot and is shortened, and the best factor need not be
# normal: its family is a choice again. Logistic regression, on few data so that the posterior is
# skewed: forty tumours of the Wisconsin study (Street, Wolberg and Mangasarian, 1993) and three
# measurements, two of which are nearly the same. The exact answer is a large importance sample.

# %% mystnb={"image": {"alt": "Standard deviations of three coefficients of a logistic regression: exact, mean field, far too small for the two related measurements, and linear response, nearly right."}}
tumours, benign = logistic_regression.data()
tumours, benign = tumours[:40, [1, 3, 2]], benign[:40]


def logistic(x, y):
    with pyro.plate("columns", x.shape[1], dim=-2):
        w = pyro.sample("w", dist.Normal(torch.tensor(0.0), 2.0))
    with pyro.plate("data", len(y), dim=-1):
        logits = (w * x.T).sum(-2, keepdim=True)
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


report = CAVI(logistic).check(tumours, benign)
of_tumours = CAVI(logistic).fit(tumours, benign, progress=False)
response_logistic = linear_response(of_tumours)
proposal = MultivariateNormal(
    response_logistic.mean["w"].flatten(), 2 * response_logistic.covariance
)
w = proposal.sample((sized(200_000, 20_000),))
logits = w @ tumours.T
log_weight = dist.Normal(0.0, 2.0).log_prob(w).sum(-1) - proposal.log_prob(w)
log_weight = log_weight + dist.Bernoulli(logits=logits).log_prob(benign).sum(-1)
weights = log_weight.softmax(0)[:, None]
effective = float(1 / weights.square().sum())
exact_mean = (weights * w).sum(0)
exact_logistic_sd = (weights * (w - exact_mean).square()).sum(0).sqrt()
skewness = (weights * ((w - exact_mean) / exact_logistic_sd) ** 3).sum(0)
logistic_field = response_logistic.mean_field_sd["w"].flatten()
logistic_repaired = response_logistic.sd["w"].flatten()
mean_off = (response_logistic.mean["w"].flatten() - exact_mean) / exact_logistic_sd
field_ratio, repaired_ratio = (
    (sd / exact_logistic_sd).tolist() for sd in (logistic_field, logistic_repaired)
)

figure, axis = plt.subplots(figsize=(6, 3.2))
axis.bar(
    range(3), exact_logistic_sd.tolist(), 0.5, color="0.85", label="exact, by importance sample"
)
axis.plot(range(3), logistic_field, "o", color=COLOURS["reverse"], label="mean field")
axis.plot(range(3), logistic_repaired, "D", color=COLOURS["importance"], label="linear response")
axis.set_xticks(range(3), ["radius", "perimeter", "texture"])
axis.set(ylabel="standard deviation", ylim=(0, 2.0))
axis.legend(fontsize="small")
plt.show()
say(
    f"What `CAVI` found out about the site:\n\n- `{report['w']}`\n\n"
    f"It took {of_tumours.steps} sweeps. Mean field has "
    f"{', '.join(f'{v:.3f}' for v in field_ratio)} of the exact standard deviations, linear "
    f"response {', '.join(f'{v:.3f}' for v in repaired_ratio)}. What it still lacks has to do with "
    f"the posterior's skewness, up to {float(skewness.abs().max()):.2f} here, which also puts the "
    f"means of mean field off, by up to {float(mean_off.abs().max()):.2f} standard deviations. The "
    f"exact numbers rest on {effective:,.0f} effective draws."
)

# %% [markdown]
# ## What to take home
#
# If the model is conditionally conjugate, `CAVI` needs no step size, no draws and few sweeps, and
# the bound tells when it is done. If its sweeps are many, look for the coupling, since the same
# coupling is missing from the variances: put the coupled latents in one site or in `blocks=`, and
# where that cannot be, take the standard deviations of `linear_response`. On large data take
# minibatches with falling steps. Neither conjugacy nor convergence says anything about other modes:
# start more than once, and let `diagnose` look elsewhere, as in the next tutorial.
