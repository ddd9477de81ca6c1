# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # EM: one divergence, minimised over each of its arguments
#
# Expectation maximisation is often told as a recipe: "compute the posterior, then maximise the
# likelihood, which is forward KL". The recipe hides what holds it together. With any distribution
# $q(z)$ over the latents, define the free energy (Neal and Hinton, 1998)
#
# $$F(q, \theta) = E_q[\log p(x, z; \theta) - \log q(z)]
#   = \log p(x; \theta) - \mathrm{KL}\big(q(z) \,\|\, p(z \mid x; \theta)\big).$$
#
# Up to its sign it *is* a divergence, $-F = \mathrm{KL}(q(z) \,\|\, p(x, z; \theta))$, whose
# second argument need not sum to one. EM lowers this one number in turns: the E-step over the first
# argument, the M-step over the second. Seen from $q$ the E-step is a reverse-KL projection; seen
# from $\theta$ the M-step is a forward-KL projection of the completed data onto the model, which
# is maximum likelihood. Neither step climbs $\log p(x; \theta)$ by itself; both together do. So
# what happens if the first projection is restricted, and what if the zigzag between both is slow?

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.patches import Ellipse
from pyro.distributions import constraints
from sklearn.mixture import GaussianMixture
from tutorial_tools import COLOURS, begin, say, sized

from models import hidden_markov, hidden_markov_exact, mixed_poisson, old_faithful
from models import variational_em_bias as two_causes
from pyro_klmodes import EM
from pyro_klmodes.inference import Anderson, CoordinateAscent, KMeansPlusPlus, Plain, Squarem

begin(seed=0)
torch.set_default_dtype(torch.float64)  # this is about last digits
geyser = old_faithful.data()  # minutes an eruption lasts, minutes until the next one


def two_bumps(x):
    """One mean is unknown; all else is given, so that everything can be drawn."""
    mean = pyro.param("mean", torch.tensor(5.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("x", dist.Normal(torch.where(z == 1, mean, 0.0), 1.0), obs=x)


# %% [markdown]
# ## Both steps in one picture
#
# Half of the data come from a standard normal, half from $N(\theta, 1)$, and nobody says which.
# After an E-step $q$ is the posterior at the present $\theta_t$, the KL is zero, and
# $F(q_t, \theta)$ touches the log-likelihood there. Everywhere else it lies below, by the KL from
# $q_t$ to a posterior that $\theta$ has moved away. The M-step goes to the top of $F(q_t, \cdot)$;
# the log-likelihood there is higher still, by the gap that the next E-step closes.

# %% mystnb={"image": {"alt": "Left, the log-likelihood of one mean with three free energies below it, each touching it where EM stood and highest where EM goes next. Right, the free energy after each E-step and M-step, a staircase up to the maximum likelihood"}}
x, visited = torch.cat([torch.randn(150), 1.5 + torch.randn(150)]), []
em = EM(two_bumps).fit(
    x, callback=lambda now: visited.append(float(now.theta[0, 0])), progress=False
)


def log_joint(theta):  # (T,) -> (T, N, 2)
    locs = torch.stack([torch.zeros_like(theta), theta], -1)[:, None]
    return dist.Normal(locs, 1.0).log_prob(x[:, None]) - np.log(2)


def free_energy(q, theta):  # (N, 2), (T,) -> (T,)
    return (q * (log_joint(theta) - q.clamp(min=1e-300).log())).sum((-1, -2))


path = torch.tensor(visited)
posteriors = log_joint(path).softmax(-1)
log_likelihood = log_joint(path).logsumexp(-1).sum(-1)
after_e = torch.cat([free_energy(q, t[None]) for q, t in zip(posteriors, path, strict=True)])
after_m = torch.cat([free_energy(q, t[None]) for q, t in zip(posteriors, path[1:], strict=False)])
gap_closed_by_e = log_likelihood[1:] - after_m

grid = torch.linspace(-0.5, 5.3, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
exact = log_joint(grid).logsumexp(-1).sum(-1)
left.plot(grid, exact, color=COLOURS["target"], lw=2, label=r"$\log p(x; \theta)$")
for t, shade in enumerate((1.0, 0.7, 0.4)):
    bound = free_energy(posteriors[t], grid)
    left.plot(grid, bound, color=COLOURS["reverse"], alpha=shade, label=rf"$F(q_{t}, \theta)$")
    left.plot(path[t], log_likelihood[t], "o", color=COLOURS["reverse"], alpha=shade)
    left.plot(path[t + 1], after_m[t], "^", color=COLOURS["forward"], alpha=shade)
left.set(xlabel=r"mean $\theta$", ylabel="nats", ylim=(-880, -490))
left.legend(loc="lower center")
shown = min(6, len(after_m))
right.plot(range(shown), after_e[:shown], "o", color=COLOURS["reverse"], label="after E")
right.plot(np.arange(shown) + 0.5, after_m[:shown], "^", color=COLOURS["forward"], label="after M")
stairs = torch.stack([after_e[:shown], after_m[:shown]], -1).flatten()
right.plot(np.arange(2 * shown) / 2, stairs, color="0.7", zorder=0)
right.axhline(log_likelihood[-1], color=COLOURS["target"], ls="--", label="maximum likelihood")
right.set(xlabel="steps", ylabel=r"free energy $F$ (nats)")
right.legend()
plt.show()
say(
    f"EM needs {len(path)} E-steps for one parameter and ends at "
    f"{path[-1]:.3f}. After every E-step free energy and log-likelihood differ by at most "
    f"{(after_e - log_likelihood).abs().max():.1e} nats, which is rounding. The first "
    f"M-step raises $F$ by {after_m[0] - after_e[0]:.1f} nats and leaves a KL of "
    f"{gap_closed_by_e[0]:.1f} for the next E-step to close."
)

# %% [markdown]
# ## A mixture, from many starts
#
# `EM` takes an ordinary Pyro model and maximises over its `pyro.param`s. It sums the discrete
# latents out, which is an exact E-step, and looks for closed-form M-steps by running the model;
# what has none is moved by L-BFGS. The free energy is not concave, so one start proves little:
# `KMeansPlusPlus(n)` runs $n$ of them in one batch. We ask for three components where the eye sees
# two, since that is where local maxima live. And as a component that shrinks onto one datum sends
# the likelihood to infinity, `floor` bounds the variances from below.

# %% mystnb={"image": {"alt": "Left, eruptions of Old Faithful with the three components found by EM from its best start, on those of scikit-learn. Right, log-likelihoods where all starts have ended: four levels, few of them at the best"}}
number = 3
standardised = (geyser - geyser.mean(0)) / geyser.std(0, correction=0)


def mixture(x):
    weights = pyro.param("weights", torch.ones(number) / number, constraints.simplex)
    locs = pyro.param("locs", torch.randn(number, 2))
    tril = pyro.param("tril", torch.eye(2).repeat(number, 1, 1), constraints.lower_cholesky)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(locs[z], scale_tril=tril[z]), obs=x)


many = EM(mixture, starts=KMeansPlusPlus(sized(20, 4)), floor=1e-3).fit(
    standardised, tolerance=sized(1e-5, 1e-4), seed=5, progress=False
)
optima = many.restarts.optima(tolerance=0.1)
best = GaussianMixture(
    number, tol=1e-9, max_iter=5000, reg_covar=0.0, means_init=many.params["locs"]
)
sklearn_log_likelihood = len(geyser) * best.fit(standardised).score(standardised)


def ellipse(loc, covariance, **style):  # two standard deviations
    (small, large), vectors = np.linalg.eigh(np.asarray(covariance))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return Ellipse(loc, 4 * large**0.5, 4 * small**0.5, angle=angle, fill=False, **style)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(3, 2))
palette = np.array([COLOURS["reverse"], COLOURS["forward"], COLOURS["importance"]])
left.scatter(*standardised.T, s=8, c=palette[many.responsibilities()["z"].argmax(-1)], alpha=0.5)
for k, colour in enumerate(palette):
    covariance = many.params["tril"][k] @ many.params["tril"][k].T
    left.add_patch(ellipse(many.params["locs"][k], covariance, color=colour, lw=3, alpha=0.5))
    left.add_patch(ellipse(best.means_[k], best.covariances_[k], color="black", ls="--"))
left.plot([], [], color="0.5", lw=3, label="EM, best start")
left.plot([], [], color="black", ls="--", label="scikit-learn")
left.set(xlabel="eruption (standardised)", ylabel="wait (standardised)")
left.legend(loc="upper left")
ends = many.restarts.log_likelihood.sort().values
right.plot(range(1, len(ends) + 1), ends, "o", color=COLOURS["reverse"], label="starts, sorted")
right.axhline(sklearn_log_likelihood, color=COLOURS["target"], ls="--", label="scikit-learn")
right.set(xlabel="start", ylabel="log-likelihood reached (nats)")
right.legend(loc="lower right")
plt.show()
commonest = max(optima, key=lambda o: len(o.starts))
lost_by_commonest = optima[0].log_likelihood - commonest.log_likelihood
say(
    f"The best place, {optima[0].log_likelihood:.2f} nats, is the end of {len(optima[0].starts)} "
    f"of {len(ends)} starts; scikit-learn, started at its means, ends at "
    f"{sklearn_log_likelihood:.2f}. All places where starts have ended are at "
    f"{', '.join(f'{o.log_likelihood:.2f}' for o in optima)}, and the commonest of them, with "
    f"{len(commonest.starts)} starts, is {lost_by_commonest:.1f} nats below the best. "
    f"Closed-form updates were found for {', '.join(many.closed_form)}."
)

# %% [markdown]
# ## A hidden Markov model is the same algorithm
#
# If the component of one moment depends on that of the moment before, the model gains an argument
# and the E-step gains a backward pass. Nothing else changes: `EM` eliminates the states one by one,
# and its M-step is that of Baum and Welch. The two states below overlap so much that a measurement
# alone says little about them. What a state *is* comes from its neighbours.

# %% mystnb={"image": {"alt": "A noisy series with its true states shaded; the probability of state 1 by the hidden Markov model, smooth and on the exact one; the same by a mixture, which jumps with every measurement"}}
truth = hidden_markov.Gaussian(
    initial=torch.tensor([0.5, 0.5]),
    transition=torch.tensor([[0.95, 0.05], [0.05, 0.95]]),
    locs=torch.tensor([[-1.0], [1.0]]),
    scales=torch.tensor([[1.3], [1.3]]),
)
series, states = hidden_markov.simulate_gaussian(sized(30, 12), sized(60, 20), at=truth, seed=1)
series = series[..., 0]


def chain(x):  # (S, T)
    initial = pyro.param("initial", torch.tensor([0.5, 0.5]), constraints.simplex)
    transition = pyro.param("transition", torch.eye(2) / 2 + 0.25, constraints.simplex)
    locs = pyro.param("locs", torch.tensor([-0.5, 0.5]))
    scale = pyro.param("scale", torch.tensor(1.0), constraints.positive)
    z = torch.tensor(0)
    with pyro.plate("series", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            z = pyro.sample(f"z_{t}", dist.Categorical(transition[z] if t else initial))
            pyro.sample(f"x_{t}", dist.Normal(locs[z], scale), obs=x[:, t])


def pooled(x):  # all measurements of all series, in no order
    weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraints.simplex)
    locs = pyro.param("locs", torch.tensor([-0.5, 0.5]))
    scale = pyro.param("scale", torch.tensor(1.0), constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(locs[z], scale), obs=x)


hmm = EM(chain).fit(series, tolerance=1e-4, progress=False)
timeless = EM(pooled).fit(series.flatten(), tolerance=sized(1e-4, 1e-3), progress=False)
by_hmm = torch.stack([p[:, 1] for p in hmm.responsibilities().values()], -1)
by_mixture = timeless.responsibilities()["z"][:, 1].reshape(series.shape)
smoothed = hidden_markov_exact.forward_backward(truth, series[..., None]).marginals[..., 1]
right_hmm, right_mixture, right_best = (
    float(((p > 0.5) == (states == 1)).float().mean()) for p in (by_hmm, by_mixture, smoothed)
)

figure, axes = plt.subplots(3, 1, figsize=(9, 4.6), sharex=True, height_ratios=(2, 1, 1))
time, one = np.arange(series.shape[1]), 8
axes[0].plot(time, series[one], "o-", color=COLOURS["target"], lw=0.5, ms=3, label="measured $x_t$")
axes[1].plot(
    time, smoothed[one], color=COLOURS["target"], lw=4, alpha=0.4, label="exact, true parameters"
)
axes[1].plot(time, by_hmm[one], color=COLOURS["reverse"], label="hidden Markov model by EM")
axes[2].plot(time, by_mixture[one], color=COLOURS["forward"], label="mixture by EM")
for axis, name in zip(axes, ("$x_t$", "$p(z_t=1)$", "$p(z_t=1)$"), strict=True):
    low, high = (-5.0, 5.0) if axis is axes[0] else (-0.03, 1.03)
    shade = axis.fill_between(
        time, low, high, where=states[one] == 1, step="mid", color="0.92", lw=0
    )
    axis.set(ylabel=name, ylim=(low, high))
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
axes[0].legend(
    [axes[0].lines[0], shade],
    ["measured $x_t$", "truly state 1"],
    loc="upper left",
    bbox_to_anchor=(1.0, 1.0),
)
axes[2].set_xlabel("time $t$")
plt.show()
say(
    f"Of all states, {right_hmm:.1%} are told right by the hidden Markov model, {right_best:.1%} "
    f"by the exact smoother that was given the true parameters, {right_mixture:.1%} by the "
    f"mixture. EM found a chance of {float(hmm.params['transition'].diagonal().mean()):.3f} to "
    f"stay (true: {float(truth.transition[0, 0]):.2f})."
)

# %% [markdown]
# ## What a restricted E-step costs
#
# Where the posterior is out of reach, $q$ is restricted, to mean field, say. Then the E-step no
# longer closes the gap, and EM climbs log-likelihood *minus gap*. That is not maximum likelihood,
# however many data there are: the M-step moves $\theta$ to where the posterior looks more like
# something that $q$ can be (Turner and Sahani, 2011). The smallest example has two causes of one
# effect, $x = w (z_1 + z_2) + \varepsilon$ with standard normals and a known noise of variance one.
# Given $x$ the causes are anticorrelated, and the more so the larger $w$ is. Mean field cannot say
# so, and $w$ pays. Below, `CoordinateAscent()` makes the E-step; the data have exactly the second
# moment that infinitely many would have, so what is left is bias.

# %% mystnb={"image": {"alt": "Left, the log-likelihood by the weight and the largest mean-field bound below it, whose top is at a smaller weight, where EM with a mean-field E-step ends. Right, relative bias by the true weight: negative and growing for mean field, zero with one latent instead of two"}}


def causes(x):
    w = pyro.param("w", torch.tensor(0.8))
    with pyro.plate("data", len(x)):
        z_1 = pyro.sample("z_1", dist.Normal(torch.tensor(0.0), 1.0))
        z_2 = pyro.sample("z_2", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(w * (z_1 + z_2), 1.0), obs=x)


def their_sum(x):  # the same distribution of x, with one latent: nothing is left to factorise
    w = pyro.param("w", torch.tensor(0.8))
    with pyro.plate("data", len(x)):
        total = pyro.sample("total", dist.Normal(torch.tensor(0.0), 2**0.5))
        pyro.sample("x", dist.Normal(w * total, 1.0), obs=x)


def learnt(model, w):
    x = two_causes.data(w, 1.0, number=4)
    fitted = EM(model, e_step=CoordinateAscent()).fit(x, steps=500, tolerance=1e-4, progress=False)
    return fitted, float(fitted.params["w"])


true_weights = sized((0.5, 1.0, 2.0), (0.5, 1.0))
mean_field = {w: learnt(causes, w) for w in true_weights}
restricted = np.array([mean_field[w][1] for w in true_weights])
unrestricted = np.array([learnt(their_sum, w)[1] for w in true_weights])
second_moment = 2 * 1.0**2 + 1.0
closed_form_weight = two_causes.variational_weight(second_moment, 1.0)
weight_at_one = mean_field[1.0][1]
bound_at_one = mean_field[1.0][0].log_likelihood / 4

w_grid = torch.linspace(0.0, 2.0, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
left.plot(
    w_grid,
    two_causes.log_likelihood(w_grid, 1.0, second_moment),
    color=COLOURS["target"],
    label="log-likelihood",
)
left.plot(
    w_grid,
    two_causes.bound(w_grid, 1.0, second_moment),
    color=COLOURS["reverse"],
    label="largest mean-field bound",
)
left.vlines(1.0, -2.4, -1.9, color=COLOURS["target"], ls=":", label="true weight")
left.vlines(
    closed_form_weight, -2.4, -1.9, color=COLOURS["reverse"], ls=":", label="exact top of it"
)
left.plot(weight_at_one, bound_at_one, "o", color=COLOURS["forward"], label="EM, mean-field E-step")
left.set(xlabel="$w$", ylabel="nats per datum", ylim=(-2.85, -1.9))
left.legend(loc="lower left", fontsize="small")
curve = np.linspace(0.05, 5, 200)
exact_bias = np.array([two_causes.variational_weight(2 * w**2 + 1, 1.0) / w - 1 for w in curve])
right.plot(curve, exact_bias, color=COLOURS["reverse"], label="mean field, closed form")
right.plot(
    true_weights,
    restricted / true_weights - 1,
    "o",
    color=COLOURS["forward"],
    label="EM, mean-field E-step",
)
right.axhline(0, color=COLOURS["target"], label="maximum likelihood")
right.plot(
    true_weights,
    unrestricted / true_weights - 1,
    "s",
    mfc="none",
    color=COLOURS["importance"],
    label="EM, one latent instead of two",
)
right.axhline(0.5**0.5 - 1, color="0.6", ls=":", label=r"limit $1/\sqrt{2} - 1$")
right.set(xlabel="true $w$", ylabel=r"relative bias of $\hat{w}$", ylim=(-0.35, 0.2))
right.legend(ncols=2, loc="upper center", fontsize="x-small")
plt.show()
gap_there = float(two_causes.gap(torch.tensor(weight_at_one), 1.0))
say(
    f"At a true weight of 1, mean-field EM ends at {weight_at_one:.4f} (closed form: "
    f"{closed_form_weight:.4f}), a bias of {weight_at_one - 1:+.1%} that no amount of data "
    f"removes, with a gap of {gap_there:.4f} nats per datum. With one latent in the place of two, "
    "mean field contains the posterior, and EM ends within "
    f"{abs(unrestricted - true_weights).max():.0e} of the truth. A remedy is to give $q$ the "
    "dependence that the model has, or to write the model so that it has none."
)

# %% [markdown]
# ## When the zigzag is slow
#
# EM's rate of convergence is the fraction of information that is missing (Dempster, Laird and
# Rubin, 1977). Where the latents are nearly unknown given the data, each step gains next to
# nothing. Hasselblad's (1969) death notices in *The Times* are a classic: two Poisson distributions
# that overlap almost entirely. Since EM is a fixed-point map $\theta \mapsto M(\theta)$,
# extrapolation helps: `Squarem()` uses the last two steps (Varadhan and Roland, 2008), `Anderson()`
# a least-squares fit to the last few. Both are checked against the log-likelihood, so they climb as
# EM does.

# %% mystnb={"image": {"alt": "Left, distance from the published maximum by evaluations: EM needs thousands, Squarem tens, Anderson fewest. Right, evaluations of the three on three problems: far apart on the death notices, alike on Old Faithful"}}
deaths = mixed_poisson.data()


def notices(x):
    weights = pyro.param("weights", x.new_tensor([0.3, 0.7]), constraints.simplex)
    rates = pyro.param("rates", x.new_tensor([1.0, 2.5]), constraints.positive)
    with pyro.plate("days", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Poisson(rates[z]), obs=x)


published = torch.tensor(mixed_poisson.MAXIMUM)  # Varadhan and Roland (2008)
top = float(mixed_poisson.em_step(published)[1])
methods = {"EM": Plain(), "Squarem": Squarem(), "Anderson": Anderson()}
colours = (COLOURS["reverse"], COLOURS["forward"], COLOURS["importance"])
problems = {
    "death notices": (notices, deaths, 1e-8),
    "overlapping normals": (pooled, series.flatten(), 1e-6),
    "Old Faithful": (pooled, standardised[:, 1], 1e-6),
}
runs = {
    (name, method): EM(model, acceleration=a).fit(
        data, steps=sized(4000, 100), tolerance=tol, progress=False
    )
    for name, (model, data, tol) in problems.items()
    for method, a in methods.items()
}
evaluations = {case: int(run.restarts.evaluations[0]) for case, run in runs.items()}
ends_of_notices = {m: runs["death notices", m] for m in methods}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
for (method, run), colour in zip(ends_of_notices.items(), colours, strict=True):
    short_of = (top - run.restarts.history[:, 0]).clamp(min=1e-10)
    left.loglog(range(1, len(short_of) + 1), short_of, color=colour, label=method)
left.set(xlabel="evaluations of the EM map", ylabel="nats below the published maximum")
left.legend(loc="lower left")
for i, (method, colour) in enumerate(zip(methods, colours, strict=True)):
    heights = [evaluations[name, method] for name in problems]
    bars = right.bar(np.arange(3) + 0.27 * (i - 1), heights, 0.25, color=colour, label=method)
    right.bar_label(bars, fontsize="small")
right.set(yscale="log", ylabel="evaluations in all")
right.set_xticks(range(3), ["death\nnotices", "overlapping\nnormals", "waits of\nOld Faithful"])
plt.show()
on_deaths, on_geyser = (
    [evaluations[name, m] for m in methods] for name in ("death notices", "Old Faithful")
)
speedup = on_deaths[0] / on_deaths[2]
em_arrived = runs["death notices", "EM"].converged
short_of_top = {m: abs(top - run.log_likelihood) for m, run in ends_of_notices.items()}
ahead = {
    m: [name for name in problems if evaluations[name, m] < evaluations[name, other]]
    for m, other in (("Squarem", "Anderson"), ("Anderson", "Squarem"))
}
say(
    f"On the death notices EM {'takes' if em_arrived else 'has not arrived after'} {on_deaths[0]} "
    f"evaluations, Squarem takes {on_deaths[1]} and Anderson {on_deaths[2]}, fewer by a factor of "
    f"{'' if em_arrived else 'more than '}{speedup:.0f}. EM ends {short_of_top['EM']:.1g} nats "
    f"from the published maximum, Squarem {short_of_top['Squarem']:.1g} and Anderson "
    f"{short_of_top['Anderson']:.1g}. Where the components are well apart there is little to win: "
    f"{on_geyser[0]}, {on_geyser[1]} and {on_geyser[2]} evaluations for the waits of Old Faithful. "
    "Which accelerator is ahead depends on the problem: here Squarem leads on "
    f"{' and '.join(ahead['Squarem']) or 'none'}, Anderson on "
    f"{' and '.join(ahead['Anderson']) or 'none'}."
)

# %% [markdown]
# ## What to take home
#
# There is one divergence, and EM minimises it over each argument in turn. Exact E-steps make that
# maximum likelihood, but only a local one: use many starts and look at
# `result.restarts.optima()`. Restricted E-steps estimate something else, and the bound does not
# tell. `MonteCarlo(guide)`, or a guide with the right dependence in `Variational(guide)`, are the
# ways out. If steps are many, pass `acceleration=Anderson()` or `Squarem()`; both need an E-step
# without noise. The next tutorial turns the parameters into latents with priors, which makes both
# steps the same step.
