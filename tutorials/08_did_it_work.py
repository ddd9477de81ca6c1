# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Did it work?
#
# A variational fit always ends with an answer. It has no chains that refuse to mix and no divergent
# transitions, only a loss that goes down and then stops going down. Did it find the posterior, or
# the best of a bad family? We take eight schools, where the exact answer is an integral on a line,
# and radon in 85 counties, for which there is a long run of NUTS, and ask the diagnostics of this
# package what they would have told us. Some of them will be wrong, in both directions, and we
# count how often.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, init_to_value
from pyro.optim import ClippedAdam
from tutorial_tools import COLOURS, begin, say, sized

import pyro_klmodes as klm
from models import eight_schools as schools
from models import hierarchical_radon as radon
from models.nuts_reference import stored_run
from pyro_klmodes import ForwardKL, ReverseKL, diagnose, estimators, fit
from pyro_klmodes.diagnostics import corrected_moments, khat
from pyro_klmodes.guides import AutoHierarchical, AutoStudentT
from pyro_klmodes.inference_data import dataset, elpd_numbers
from pyro_klmodes.inference_data.versions import az  # ArviZ, without the news of its next version

begin(seed=0)

# %% [markdown]
# ## A fit that looks fine
#
# Eight schools have tried a coaching programme; $y_j$ is its measured effect in school $j$ and
# $s_j$ the standard error (Rubin, 1981):
#
# $$\mu \sim N(0, 5),\quad \tau \sim \mathrm{HalfCauchy}(5),\quad
# \theta_j \sim N(\mu, \tau),\quad y_j \sim N(\theta_j, s_j) .$$
#
# This form is called centred. In the non-centred one, $\theta_j = \mu + \tau \tilde\theta_j$ with
# $\tilde\theta_j \sim N(0, 1)$: the same posterior in other coordinates, and for a guide that is
# all the difference. We fit both by mean-field guides and others, with several divergences.
#
# Given $\tau$ everything is normal, and $y \sim N(0, \mathrm{diag}(s^2 + \tau^2) + 25)$, so the
# posterior of $\tau$ and the evidence are sums over a grid. ArviZ ships a NUTS run of each form.

# %% mystnb={"image": {"alt": "Three panels. Left: the negative ELBO of the centred fit falls and is level, above the exact negative log evidence. Middle: draws of NUTS form a funnel in theta of the first school and log tau; those of the guide fill an ellipse over its wide end. Right: exact density of log tau, wide, with a long left tail; the guide's is a narrow peak on its right side, that of the NUTS run of the centred form lacks the left tail too."}}
STEPS, ENGINE = sized((1000, "graph"), (60, "eager"))
ADAM = sized({"lr": 0.1}, {"lr": 0.3, "betas": (0.8, 0.95)})
y, errors = schools.data()
centred, non_centred = schools.centred_model, schools.non_centred_model
near_data = {"mu": torch.tensor(8.0), "tau": torch.tensor(5.0)}
near_data |= {"theta": (y + 8) / 2, "theta_t": torch.zeros(8)}


def fitted(model, guide_class, loss):
    guide = guide_class(model, init_loc_fn=init_to_value(values=near_data), init_scale=1.0)
    optim = ClippedAdam({**ADAM, "lrd": 0.02 ** (1 / STEPS)})
    return fit(
        model, guide, loss, y, errors, steps=STEPS, optim=optim, engine=ENGINE, progress=False
    )


plans = {  # model, guide, loss
    "centred, reverse": (centred, AutoNormal, ReverseKL(16)),
    "centred, forward": (centred, AutoNormal, ForwardKL(128)),
    "centred, full rank": (centred, AutoMultivariateNormal, ReverseKL(16)),
    "non-centred, reverse": (non_centred, AutoNormal, ReverseKL(16)),
    "non-centred, forward": (non_centred, AutoNormal, ForwardKL(128)),
    "non-centred, t, forward": (non_centred, AutoStudentT, ForwardKL(128)),
}
wanted = sized(list(plans), ["centred, reverse", "centred, forward", "non-centred, reverse"])
fits = {name: fitted(*plans[name]) for name in wanted}

log_tau = torch.arange(-12.0, 7.0, 0.01, dtype=torch.float64)


def log_joint(keep):  # log p(log tau, y of the schools in keep) on the grid
    spread = errors[keep].double() ** 2 + log_tau.exp()[:, None] ** 2
    of_y = dist.MultivariateNormal(torch.zeros_like(spread), torch.diag_embed(spread) + 25.0)
    prior = dist.HalfCauchy(torch.tensor(5.0, dtype=torch.float64)).log_prob(log_tau.exp())
    return of_y.log_prob(y[keep].double()) + prior + log_tau


all_schools = list(range(8))
log_evidence = float(log_joint(all_schools).logsumexp(0) + np.log(0.01))
density = (log_joint(all_schools) - log_evidence).exp()  # of log tau, exactly
exact_mean = float((density * log_tau).sum() * 0.01)
exact_sd = float((density * (log_tau - exact_mean) ** 2).sum() * 0.01) ** 0.5

first = fits["centred, reverse"]
of_guide = dataset(klm.to_arviz(first), "posterior")
bundled = {form: az.load_arviz_data(f"{form}_eight") for form in ("centered", "non_centered")}
nuts = {form: dataset(found, "posterior") for form, found in bundled.items()}
figure, (loss, funnel, scale) = plt.subplots(1, 3, figsize=(9.5, 3.3))
loss.plot(first.losses, lw=0.6, color=COLOURS["reverse"], label="-ELBO of the step")
loss.axhline(-log_evidence, color=COLOURS["target"], label="exact -log evidence")
loss.set(xlabel="step", ylabel="loss", ylim=(30, 45))
loss.legend(fontsize=8)
for draws, colour, name in (
    (nuts["non_centered"], "target", "NUTS, non-centred"),
    (of_guide.isel(draw=slice(0, 2000)), "reverse", "guide"),
):
    funnel.plot(
        draws["theta"][..., 0].values.ravel(),
        np.log(draws["tau"].values.ravel()),
        ".",
        ms=2,
        color=COLOURS[colour],
        label=name,
    )
funnel.set(xlabel="theta of the first school", ylabel="log tau", xlim=(-20, 40), ylim=(-4, 4))
funnel.legend(fontsize=8, loc="lower right", markerscale=4)
scale.fill_between(log_tau, density, color=COLOURS["target"], alpha=0.3, lw=0, label="exact")
for draws, colour, name in (
    (of_guide, "reverse", "guide"),
    (nuts["centered"], "forward", "NUTS, centred"),
    (nuts["non_centered"], "importance", "NUTS, non-centred"),
):
    values = np.log(draws["tau"].values.ravel())
    scale.hist(values, 40, density=True, histtype="step", color=COLOURS[colour], label=name)
scale.set(xlabel="log tau", ylabel="density", xlim=(-4, 4))
scale.legend(fontsize=8, loc="upper left")
plt.show()

# %%
losses = torch.as_tensor(first.losses)
fifth = STEPS // 5
last, before = losses[-fifth:].mean(), losses[-2 * fifth : -fifth].mean()
elbo = {name: float(found.log_weights(4000).mean()) for name, found in fits.items()}
below_one = {
    "exact": float(density[log_tau < 0].sum() * 0.01),
    "guide": float((of_guide["tau"] < 1).mean()),
} | {form: float((draws["tau"] < 1).mean()) for form, draws in nuts.items()}
r_hat = {form: float(az.rhat(draws)["tau"]) for form, draws in nuts.items()}
guide_sd = float(np.log(of_guide["tau"]).std())
say(
    f"The loss is level: over its last fifth it changed by {float(before - last):+.2f}. That is all "
    f"a loss can tell. The ELBO is {elbo['centred, reverse']:.2f}; that the log evidence is "
    f"{log_evidence:.2f} only the quadrature knows. And $\\log\\tau$ has a standard deviation of "
    f"{exact_sd:.2f}, the guide gives it {guide_sd:.2f}. A small $\\tau$, schools that hardly "
    f"differ, is a finding one would report: $P(\\tau < 1)$ is {below_one['exact']:.2f}, and "
    f"{below_one['guide']:.4f} under the guide. NUTS on the same form is no gold standard either: "
    f"its draws say {below_one['centered']:.2f}, with an $\\hat R$ of {r_hat['centered']:.2f}; the "
    f"non-centred run says {below_one['non_centered']:.2f}, with {r_hat['non_centered']:.2f}. A "
    f"reference has to pass its own diagnostics before it is held against anything."
)
diagnosis = diagnose(first, num_samples=sized(4000, 500), num_starts=sized(16, 0))
print(diagnosis)

# %% [markdown]
# ## What k-hat says, and how often it is right
#
# The last table holds the guide's draws against the same draws weighted: how many standard deviations
# weighting moves each mean, the guide's standard deviation over the weighted one, and the k-hat of
# this latent alone. The table above it has the log evidence by bounds and estimates, which should
# agree and do not; `KL(q||p)` is the gap between it and the ELBO, and *beyond the guide* is an
# estimate by draws that are not the guide's. *Worst combinations* are the linear combinations of
# latents whose mean and whose standard deviation are furthest off. And k-hat?
#
# Weigh draws of the guide by $w = p/q$. If the tail of the weights falls like
# $P(w > t) \sim t^{-1/k}$, then a $k$ below one half leaves them a variance, and above 0.7 nothing
# that is computed with them can be trusted (Yao et al., 2018; Vehtari et al., 2024). Here $k$ can be
# found on paper. Towards small $\tau$ the posterior density of $\ell = \log\tau$ falls like
# $e^{\ell}$, a normal guide's much faster, so that $\log w$ grows like $\ell^2/2\sigma^2$ while
# the probability of such an $\ell$ is $e^{-\ell^2/2\sigma^2}$: with every normal guide, in both
# forms and under every divergence, $k = 1$, up to factors slower than any power. With a Student-t
# guide in non-centred coordinates the weights are bounded, and there is no tail. In the centred
# form not even that helps: where all eight $\theta_j$ are within $\tau$ of $\mu$ the posterior is
# as high as $\tau^{-7}$ and a guide in which they are independent of $\tau$ gets there with
# probability $\tau^8$, so that $k \ge 7/8$.
#
# But nobody has infinitely many draws. What $\hat k$ measures is the tail as far as the draws go,
# and what matters is whether an answer that is computed from as many draws is right. So we take set
# after set of 4,000 draws, each a diagnosis that somebody might have made, and compare $\hat k$ with
# the error of what it vouches for: the mean of $\log\tau$ by Pareto-smoothed weights, which should be
# within 0.15 posterior standard deviations of the exact one (the distance that `diagnose` lets pass).

# %% mystnb={"image": {"alt": "Error of the reweighted mean of log tau against k-hat, a point per set of 4,000 draws. Left, centred form: most points are beyond 0.7 and far off, some below 0.7 and far off as well, which are false assurances. Right, non-centred form: nearly all are below 0.7 and right, a few beyond 0.7 although they are right, which are false alarms."}}
SETS, LIMIT, CLOSE = sized(100, 20), 0.7, 0.15
k_hats, missed, own_error, tail_of_all = {}, {}, {}, {}
for name, found in fits.items():
    many = found.draws(4000 * SETS, seed=1)
    log_w = many.log_w.detach().reshape(4000, SETS)
    held = {"log tau": many.values["tau"].log().reshape(4000, SETS)}
    moments = corrected_moments(log_w, held)["log tau"]
    k_hats[name] = khat(log_w).value
    missed[name] = (moments.corrected_mean - exact_mean).abs() / exact_sd
    own_error[name] = float((held["log tau"].mean() - exact_mean).abs() / exact_sd)
    tail_of_all[name] = float(khat(log_w.flatten()).value)
alarm = {name: float((k > LIMIT).double().mean()) for name, k in k_hats.items()}
false_alarm, false_assurance = (
    {name: float(wrong(k_hats[name], missed[name]).double().mean()) for name in fits}
    for wrong in (
        lambda k, off: (k > LIMIT) & (off < CLOSE),
        lambda k, off: (k <= LIMIT) & (off > CLOSE),
    )
)
figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.7), sharex=True, sharey=True)
for panel, form in zip(panels, ("centred", "non-centred"), strict=True):
    here = [name for name in fits if name.split(",")[0] == form]
    for name, colour in zip(here, ("reverse", "forward", "importance"), strict=False):
        panel.plot(
            k_hats[name],
            missed[name].clamp(min=1e-3),
            ".",
            ms=4,
            color=COLOURS[colour],
            label=name.removeprefix(f"{form}, "),
        )
    panel.axvline(LIMIT, color=COLOURS["target"], lw=0.8, ls=":")
    panel.axhline(CLOSE, color=COLOURS["target"], lw=0.8, ls=":")
    panel.set(
        title=form, xlabel="k-hat of 4,000 draws", yscale="log", xlim=(0, 1.4), ylim=(8e-4, 9)
    )
    panel.legend(fontsize=8, loc="upper left")
    for x, height, words, side in (
        (0.68, 5, "false assurance", "right"),
        (0.72, 5, "true alarm", "left"),
        (0.72, 1e-3, "false alarm", "left"),
    ):
        panel.text(x, height, words, ha=side, fontsize=8, color=COLOURS["target"])
panels[0].set_ylabel("error of the mean of log tau, in sd")
plt.show()

# %%
centred_fits = [name for name in fits if name.startswith("centred")]
good_fits = [name for name in fits if name.startswith("non")]
weighted_error = {name: float(missed[name].median()) for name in fits}


def heard(make):
    """What it returns, and how many warnings came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return make(), len(caught)


repaired, repair_warnings = {}, {}
for name, found in fits.items():
    draws, repair_warnings[name] = heard(lambda found=found: klm.to_arviz(found, resample="psis"))
    repaired[name] = float((dataset(draws, "posterior")["tau"] < 1).mean())
rows = "\n".join(
    f"| {name} | {elbo[name]:.4g} | {own_error[name]:.2f} | {weighted_error[name]:.2f} "
    f"| {repaired[name]:.3f} | {float(k_hats[name].median()):.2f} | {alarm[name]:.0%} "
    f"| {false_alarm[name]:.0%} | {false_assurance[name]:.0%} |"
    for name in fits
)
say(
    "| fit | ELBO | error of the guide | error, weighted | P(tau < 1), weighted | k-hat "
    f"| alarms | false alarms | false assurances |\n|---|---|---|---|---|---|---|---|---|\n{rows}"
)
say(
    f"Errors are of the mean of $\\log\\tau$, in standard deviations; those of weighted draws and "
    f"$\\hat k$ are medians over {SETS} sets of draws, and alarms are shares of them: $\\hat k$ above "
    f"{LIMIT}, falsely if the error is below {CLOSE}; an assurance is false if it is above. In the centred form every fit is told off in "
    f"{min(alarm[n] for n in centred_fits):.0%} of the sets or more. Other divergences and a "
    f"full-rank guide change where it fails, and weighting leaves errors from "
    f"{min(weighted_error[n] for n in centred_fits):.2f} up: what a guide never draws cannot be "
    f"weighed. $P(\\tau < 1)$, exactly {below_one['exact']:.3f}, is at "
    f"most {max(repaired[n] for n in centred_fits):.3f} after weighting, and "
    f"{sum(repair_warnings[n] > 0 for n in centred_fits)} of these {len(centred_fits)} fits are "
    f"resampled under protest, with a warning. In the non-centred form, three other "
    f"lines of the model, the error is at most {max(weighted_error[n] for n in good_fits):.2f} after "
    f'weighting, and `to_arviz(fit, resample="psis")` gives draws by which the probability is '
    f"{min(repaired[n] for n in good_fits):.3f} to {max(repaired[n] for n in good_fits):.3f}. It was "
    f"the coordinates, not the divergence."
)
say(
    f"Now the diagnostic itself. In the centred form $\\hat k$ falls below the limit by luck, and "
    f"assures falsely, in up to {max(false_assurance[n] for n in centred_fits):.0%} of the sets; in "
    f"the other form it alarms for nothing in up to {max(false_alarm[n] for n in good_fits):.0%}, "
    f"and lets a mean pass that is just too far off in up to "
    f"{max(false_assurance[n] for n in good_fits):.0%}. One $\\hat k$ is a random number: near the "
    f"limit draw again, with another seed and more draws. All {4000 * SETS:,} draws of the "
    f"non-centred fit by reverse KL together say {tail_of_all['non-centred, reverse']:.2f}, where "
    f"the exact $k$ is 1: strictly speaking its weights have no variance, but what the draws do not "
    f"reach holds too little mass to matter."
)
if "non-centred, t, forward" in fits:
    say(
        f"And the ELBO? By it the fit with t tails is the worst of all: {elbo['non-centred, t, forward']:.1e}, "
        f"and exactly it is $-\\infty$, as the exponential of a t variable has no mean. By its "
        f"weights it is among the best. Full rank has the highest ELBO of the centred fits and is "
        f"as useless as the others. ELBOs compare fits as bounds on the evidence, which is not what "
        f"one wants to know."
    )

# %% [markdown]
# ## Leave-one-out
#
# ArviZ computes leave-one-out by weights too, $1 / p(y_j \mid \theta)$ for each draw, which is
# right for draws *of the posterior*. Draws of a guide also need the factor $p/q$
# (Magnusson et al., 2019), which `loo` takes from what `to_arviz` has stored; `corrected=False`
# leaves it out, as somebody would who hands ArviZ the draws of an autoguide. Exact values are
# ratios of two evidences, $p(y) / p(y_{-j})$, by the same sum over a grid. As a second model we
# take complete pooling, $\tau = 0$, where all is normal.


# %% mystnb={"image": {"alt": "Error of leave-one-out by school for two fits. Left, the centred one: without correction the errors are small, with it larger. Right, the non-centred one: without correction most schools are far too low, with it all are on the exact line, as are those of NUTS."}}
def pooled(keep):
    of_y = dist.MultivariateNormal(torch.zeros(len(keep)), torch.diag(errors[keep] ** 2) + 25.0)
    return float(of_y.log_prob(y[keep]))


without = [[i for i in all_schools if i != j] for j in all_schools]
exact_loo = np.array(
    [log_evidence - float(log_joint(rest).logsumexp(0) + np.log(0.01)) for rest in without]
)
pooled_loo = sum(pooled(all_schools) - pooled(rest) for rest in without)
nuts_loo = elpd_numbers(heard(lambda: klm.loo(bundled["non_centered"]))[0])
shown = ("centred, reverse", "non-centred, reverse")
plain, corrected, plain_warnings = {}, {}, {}
for name, found in fits.items():
    data = klm.to_arviz(found, groups=("posterior", "log_likelihood", "sample_stats"))
    estimate, plain_warnings[name] = heard(lambda data=data: klm.loo(data, corrected=False))
    plain[name] = elpd_numbers(estimate)
    corrected[name] = elpd_numbers(heard(lambda data=data: klm.loo(data))[0])

figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
for panel, name in zip(panels, shown, strict=True):
    panel.axhline(0.0, color=COLOURS["target"], lw=1, label="exact")
    for estimate, mark, colour, label in (
        (nuts_loo, "s", "other", "NUTS, non-centred"),
        (plain[name], "x", "reverse", "guide, uncorrected"),
        (corrected[name], "o", "importance", "guide, corrected"),
    ):
        off = estimate.pointwise - exact_loo
        panel.plot(range(1, 9), off, mark, color=COLOURS[colour], mfc="none", label=label)
    panel.set(title=name, xlabel="school left out")
panels[0].set_ylabel("log predictive density - exact")
panels[1].legend(fontsize=8)
plt.show()

bad, good = shown
too_high = int((corrected[bad].pareto_k > corrected[bad].good_k).sum())
say(
    f"Exactly, the sum over schools is {exact_loo.sum():.2f} for the hierarchy and {pooled_loo:.2f} "
    f"for complete pooling; NUTS says {nuts_loo.elpd:.2f} for the first. Uncorrected, the "
    f"non-centred fit says {plain[good].elpd:.2f} with {plain[good].p:.1f} effective parameters: a "
    f"few draws far out, where the effect of some school is next to impossible, take over. It misses by "
    f"{exact_loo.sum() - plain[good].elpd:.1f}, where the two models differ by "
    f"{pooled_loo - exact_loo.sum():.1f}. ArviZ warns, with a Pareto $k$ of up to "
    f"{plain[good].pareto_k.max():.2f}. Corrected, the fit says {corrected[good].elpd:.2f}, and the "
    f"largest $k$ is {corrected[good].pareto_k.max():.2f}."
)
say(
    f"The centred fit is the treacherous one. Uncorrected, it says {plain[bad].elpd:.2f} with "
    f"{plain[bad].p:.1f} effective parameters (the run of NUTS: {nuts_loo.p:.1f}), a Pareto $k$ of "
    f"at most {plain[bad].pareto_k.max():.2f} and {plain_warnings[bad]} warnings. Those $k$ tell how "
    f"much a single school would change *the guide*, and nothing of whether the guide is right. Ask "
    f"for the correction, and {too_high} of 8 schools are beyond the limit. A quiet LOO of "
    f"uncorrected draws vouches for nothing, not even where, by luck, its sum is right."
)

# %% [markdown]
# ## Radon: ninety latents
#
# The houses of 85 counties, an intercept for each county, a predictor on each level (Gelman and
# Hill, 2007; the data are simulated). There is no integral on a line to look at in real work; there
# is, at best, one long run of NUTS, stored here with its moments. `compare` holds three fits
# against it: mean field by reverse and by forward KL, and a guide with the structure of the model.

# %% mystnb={"image": {"alt": "Ratio of the guide's standard deviation to that of NUTS, for five global parameters and each of 85 counties. The structured guide is near one throughout. Mean field by reverse KL is right for the counties and too narrow for the globals, most of all for sigma_a, less so by forward KL."}}
RADON_STEPS, RADON_ENGINE = sized((800, "graph"), (60, "eager"))
RADON_ADAM = sized({"lr": 0.1}, {"lr": 0.2, "betas": (0.8, 0.95)})
houses = radon.data()
level, county = houses[:2]
count = torch.bincount(county)
start = {
    "mu_a": level.mean(),
    "beta": torch.tensor(-0.5),
    "gamma": torch.tensor(0.5),
    "sigma_a": torch.tensor(0.3),
    "sigma_y": torch.tensor(0.8),
    "alpha": (torch.bincount(county, level) + 5 * level.mean()) / (count + 5),
}


def fitted_radon(guide_class, loss):
    guide = guide_class(radon.model, init_loc_fn=init_to_value(values=start), init_scale=0.05)
    optim = ClippedAdam({**RADON_ADAM, "lrd": 0.02 ** (1 / RADON_STEPS)})
    settings = {"steps": RADON_STEPS, "optim": optim, "engine": RADON_ENGINE, "progress": False}
    return fit(radon.model, guide, loss, *houses, **settings)


radon_plans = {
    "mean field, reverse": (AutoNormal, ReverseKL(4, estimator=estimators.doubly)),
    "mean field, forward": (AutoNormal, ForwardKL(64)),
    "structured, reverse": (AutoHierarchical, ReverseKL(4, estimator=estimators.doubly)),
}
radon_wanted = sized(list(radon_plans), ["mean field, reverse"])
radon_fits = {name: fitted_radon(*radon_plans[name]) for name in radon_wanted}
run = stored_run("hierarchical_radon")
moments = {site: (found.mean, found.sd) for site, found in run.sites.items()}
comparison = klm.compare(radon_fits, reference=moments, num_samples=sized(4000, 400))
table = comparison.table()
sd_ratio = comparison.parameters()["sd_ratio"].unstack()[radon_wanted]
of_all = ["mu_a", "beta", "gamma", "sigma_a", "sigma_y"]
intercepts = sd_ratio.drop(of_all)

figure, panel = plt.subplots(figsize=(8, 3.4))
panel.axhline(1.0, color=COLOURS["target"], label="NUTS")
for shift, name in enumerate(radon_wanted):
    colour = COLOURS[("reverse", "forward", "importance")[shift]]
    at = np.arange(len(of_all)) + 0.16 * (shift - 1)
    panel.plot(at, sd_ratio.loc[of_all, name], "o", color=colour, label=name)
    panel.plot(
        np.linspace(5, 8, len(intercepts)), intercepts[name], ".", ms=4, color=colour, mec="none"
    )
panel.set_xticks([*range(5), 6.5], [*of_all, "alpha, county by county"])
panel.set(ylabel="sd of guide / sd of NUTS", ylim=(0.4, 1.3))
panel.legend(fontsize=8, loc="lower right")
plt.show()

points = "\n".join(f"- {point}" for point in comparison.conclusion.points)
say(f"What `comparison.conclusion` says: {comparison.conclusion.headline}\n\n{points}")
radon_rows = "\n".join(
    f"| {name} | {table.verdict[name]} | {table.k_hat[name]:.2f} "
    f"| {table.effective_draws[name]:.0f} of {table.num_draws[name]} "
    f"| {sd_ratio.loc['sigma_a', name]:.2f} | {intercepts[name].median():.2f} |"
    for name in radon_wanted
)
rhat_nuts = max(float(site.rhat.max()) for site in run.sites.values())
say(
    "| fit | verdict | k-hat | effective draws | sd of sigma_a / NUTS | median sd of alpha / NUTS "
    f"|\n|---|---|---|---|---|---|\n{radon_rows}"
)
say(
    f"The run of NUTS has an $\\hat R$ of at most {rhat_nuts:.3f}, so it may serve. Had we looked "
    f"at the {len(intercepts)} counties alone, mean field would have passed: its standard "
    f"deviations are {intercepts[radon_wanted[0]].median():.2f} times those of NUTS in the median. "
    f"But it gives `sigma_a`, the spread between counties, "
    f"{sd_ratio.loc['sigma_a', radon_wanted[0]]:.2f} times the standard deviation of NUTS, and "
    f"$\\hat k$, which judges all {len(sd_ratio)} latents at once, is "
    f"{table.k_hat[radon_wanted[0]]:.2f}."
)
if len(radon_wanted) == 3:
    forward, structured = radon_wanted[1:]
    of_scale = comparison.parameters().loc[("sigma_a", forward)]
    repaired_ratio = of_scale["corrected_sd"] / of_scale["reference_sd"]
    say(
        f"Forward KL brings this to {sd_ratio.loc['sigma_a', forward]:.2f}, with a $\\hat k$ of "
        f"{table.k_hat[forward]:.2f}, and the verdict is *{table.verdict[forward]}*: weighted, its "
        f"draws give {repaired_ratio:.2f}, and {table.effective_draws[forward]:.0f} of "
        f"{table.num_draws[forward]} are effective. So here, in {len(sd_ratio)} dimensions and from a "
        f"good start, the divergence did help; this posterior is not far from a normal one. The "
        f"structured guide, whose intercepts depend on the globals, brings it to "
        f"{sd_ratio.loc['sigma_a', structured]:.2f} under plain reverse KL, with a $\\hat k$ of "
        f"{table.k_hat[structured]:.2f}, and needs no weights. `comparison.save(folder)` writes the "
        f"whole page, with densities, forests and a file for ArviZ of every fit."
    )

# %% [markdown]
# ## What passes all the same
#
# Two false assurances that are no matter of luck. Simulation-based calibration draws truths from
# the prior, data from the model, and looks where the truth lies among the draws of the guide (Talts
# et al., 2018; Yao et al., 2018). Let a guide for the eight schools take the prior for $\tau$, as if
# there were no data, and for $\mu$ the posterior under complete pooling. And let $p$ have two modes
# of equal mass, eight standard deviations apart in each of many coordinates, with a guide that is
# exactly one of them: for all its draws the weights are the same.


# %%
def unaware(y, errors):
    precision = 1 / 25 + (1 / errors**2).sum(-1)
    pyro.sample("mu", dist.Normal((y / errors**2).sum(-1) / precision, precision**-0.5))
    pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", 8):
        pyro.sample("theta_t", dist.Normal(torch.zeros(()), 1.0))


simulations = {"num_simulations": sized(300, 100), "num_draws": 199, "refit": False, "steps": 0}
calibration = klm.vsbc(non_centred, lambda _: unaware, ReverseKL(), y, errors, **simulations)
found = klm.draws(non_centred, unaware, (y, errors), {}, num_particles=4000)
of_prior = corrected_moments(found.log_w, {"log tau": found.values["tau"].log()})["log tau"]
prior_shift = float(of_prior.shift)


def one_of_two(size):
    """A model with two modes, and a guide that is one of them: half of the mass is missing."""

    def model():
        wide = dist.Normal(torch.zeros(size), 10.0).to_event(1)
        z = pyro.sample("z", wide)
        modes = dist.Normal(torch.tensor([[0.0], [8.0]]).expand(2, size), 1.0).to_event(1)
        both = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), modes)
        pyro.factor("p", both.log_prob(z) - wide.log_prob(z))

    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(size), 1.0).to_event(1))

    return model, guide


sizes = sized((2, 20, 60), (60,))
half = {size: diagnose(one_of_two(size), num_samples=sized(4000, 500)) for size in sizes}
verdicts = "; ".join(f"{size} dimensions: *{d.verdict.word}*" for size, d in half.items())
say(
    f"Calibration sees that $\\mu$ is {calibration.readings()['mu'].width}, by a factor of about "
    f"{calibration.readings()['mu'].sd_ratio:.1f}. Of $\\tau$ it says: "
    f"{calibration.readings()['tau'].words}. Of course: on average over the prior the prior is "
    f"right. For *these* schools the weights move the mean of $\\log\\tau$ by "
    f"{abs(prior_shift):.2f} standard deviations. Calibrate, and then look at the data you have."
)
say(
    f"Of the guide with half of the mass `diagnose` says, in {verdicts}. Its $\\hat k$ is as good as "
    f"can be, {half[60].weights.effective_draws:.0f} of {half[60].num_draws} draws are effective, and "
    f"the evidence it reports, {half[60].weights.log_evidence:.3f}, is short by "
    f"$\\log 2 = {np.log(2):.3f}$. In few dimensions a search from other starts finds the second "
    f"mode; in many it may not. Beyond 50 coordinates it is not made, and the diagnosis says so: "
    f"{half[60].notes[0]}"
)
if 20 in half:
    say(
        f"In 20 dimensions it was made, found nothing, and left {len(half[20].notes)} notes: a "
        f"false assurance of our own, and there is no warning label on it."
    )

# %% [markdown]
# ## When to walk away
#
# Use the guide's own draws where the verdict is *reliable*, its weighted draws where it is
# *reweight*, and in both cases only after another seed has said the same. Where $\hat k$ stays above
# 0.7, do not publish the number with a caveat: neither the draws nor anything corrected with their
# weights is to be trusted, and more steps of the same fit will not help. First change coordinates,
# if a hierarchy is centred where data are weak. Then change the family: give the guide the
# structure of the model, or heavier tails. Then the divergence, in few dimensions or from a good
# start near a posterior that is almost normal. It comes last because it only decides which part of
# the posterior a family gives up. When all of this has been tried, walk away and run NUTS; and if
# its chains do not agree either, the model, not the inference, is what needs work. Last, where
# there may be modes that nobody has looked for, no number in this tutorial would have told you.
