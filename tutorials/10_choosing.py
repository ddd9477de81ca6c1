# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Choosing
#
# Which divergence, then, and which guide? The honest answer is a list of questions about the
# posterior: how many dimensions, how many modes, which tails, how many data, and what it is *for*.
# Each gets a small experiment with an exact answer here, in the folder `choices` beside this file.
# What they say is collected in a table and a flow chart at the end; a recommendation is there if it
# has a number, and next to it stands where it fails. All of them are small problems, chosen because
# they can be solved. They tell what *can* go wrong; how often it does, your own problem has to say.

# %%
import matplotlib.pyplot as plt
from choices import data_size, dimension, modes, pictures, purpose, tails
from choices.chart import Step, flow_chart
from choices.table import Choice, as_markdown
from tutorial_tools import begin, say, sized

from pyro_klmodes import diagnose

begin(seed=0)
STEPS = sized(300, 50)

# %% [markdown]
# ## What is it for?
#
# This comes first, because the other questions cannot be answered without it. The target is a pair
# of standard normals with correlation 0.9, and the guide two independent normals, so that nothing
# fits. Three divergences make three compromises, and we ask all of them the same five things.

# %% mystnb={"image": {"alt": "Five groups of three bars, for fits by reverse KL, forward KL and chi-square, with the exact value as a line: coverage of a 90 percent interval, where forward KL is right; standard deviations of the difference, where all are too wide, and of the sum, where all are too narrow; nats short of the evidence, least for reverse KL; effective share of weighted draws, most for chi-square."}}
pair_fits = purpose.fits(STEPS)
answers = {name: purpose.answers(result) for name, result in pair_fits.items()}
correlated = purpose.correlated(STEPS)
*weighted, log_evidence = purpose.weighted(pair_fits["chi-square"])
pair_diagnosis = diagnose(pair_fits["forward KL"], num_starts=sized(16, 4))

pictures.purpose_picture(answers)
plt.show()

reverse, forward, chi = (answers[name] for name in ("reverse KL", "forward KL", "chi-square"))
worst_mean = max(answer["mean"] for answer in answers.values())
too_wide = forward["difference"] / purpose.EXACT["difference"]
say(
    f"For *point estimates* take any: all means are right, within {worst_mean:.2f}. For *intervals* "
    f"of single parameters take forward KL: a nominal 90% interval contains "
    f"{forward['coverage']:.0%}, under reverse KL {reverse['coverage']:.0%}. For a *bound* on the "
    f"evidence take reverse KL, by definition: {reverse['bound']:.2f} nats short and not "
    f"{forward['bound']:.2f}. For draws that will be *weighted*, in importance sampling or "
    f"leave-one-out, take chi-square: {chi['share']:.0%} of them are effective, and of those of "
    f"reverse KL {reverse['share']:.0%}, for their weights have no variance. The mean weight of the "
    f"chi-square draws is also the better *estimate* of the log evidence, {log_evidence:+.3f} where "
    f"0 is exact. And for *combinations* of parameters take none of them: the difference has a "
    f"standard deviation of {purpose.EXACT['difference']:.2f}, and the guides say "
    f"{reverse['difference']:.2f}, {forward['difference']:.2f} and {chi['difference']:.2f}. That "
    f"needs a guide that can correlate ({correlated[0]:.2f}), or weights: those of the chi-square "
    f"draws repair it to {weighted[0]:.2f}. `diagnose` tells: the forward fit has a difference that "
    f"is {too_wide:.1f} times too wide, and the verdict is *{pair_diagnosis.verdict.word}*, because of "
    f"{pair_diagnosis.combination.sd_at}."
)

# %% [markdown]
# ## How many dimensions?
#
# Standard normals that correlate by one half, from two to many dimensions. Mean field by `ForwardKL`
# with a hundred draws is *started* at its exact optimum, with a standard deviation of 1 everywhere,
# and has nothing to do but to stay.

# %% mystnb={"image": {"alt": "Standard deviation of a coordinate, left, and of the average of all, right, by dimension. Mean field by ForwardKL falls from the exact value 1 to that of reverse KL as the dimension grows; its average falls to zero, as any independent guide's does. Low rank by ReverseKL lies on the exact curves; low rank by ForwardKL leaves them in many dimensions."}}
dimensions, corners = sized(((2, 5, 10, 20, 50), (2, 50)), ((2, 20), (20,)))
mean_field = {d: dimension.forward_mean_field(d, STEPS) for d in dimensions}
low_rank, share = {"reverse KL": {}, "forward KL": {}}, {}
for loss, found in low_rank.items():
    for d in corners:
        found[d], share[loss, d] = dimension.low_rank(d, loss, STEPS)
high = max(dimensions)
full_spread, full_share = dimension.full_rank(high, "forward KL", STEPS)

pictures.dimension_picture(mean_field, low_rank["reverse KL"], low_rank["forward KL"])
plt.show()

holds_to = max(d for d in dimensions if abs(mean_field[d][0] - 1) < 0.1)
high_exact, high_closed = dimension.exact(high), dimension.reverse_closed(high)
low_average, low_forward = (low_rank[loss][high][1] for loss in low_rank)
say(
    f"It stays, within a tenth, up to {holds_to} dimensions. In {high} it is at "
    f"{mean_field[high][0]:.2f}, where reverse KL has {high_closed[0]:.2f} for less noise. Beyond "
    f"a few dimensions the name of the divergence hardly matters; what counts is the family. One "
    f"direction of dependence, fitted by *reverse* KL, gives {low_average:.3f} for the standard "
    f"deviation of the average (exact: {high_exact[1]:.3f}), with {share['reverse KL', high]:.0%} "
    f"of the draws effective. The same family by `ForwardKL`, in as many steps, gives "
    f"{low_forward:.3f} with {share['forward KL', high]:.0%}; and with a full covariance the few "
    f"draws that have weight pull it apart, to a standard deviation of {full_spread[0]:.2f} in the "
    f"mean over coordinates, and {full_share:.2%} of the draws effective. All three families hold "
    f"the answer, or its margins. It is the weights that give way."
)

# %% [markdown]
# ## How many modes?
#
# $0.7\,N(-3, 1) + 0.3\,N(3, 1)$ once more. A normal has to choose between leaving out a mode and
# filling the valley. `AutoMixture` need not choose, if it knows where to begin: `FromModes` looks
# for the modes of the model by optimisation from many starts. The other mixture is told nothing,
# starts on the left, and relies on a covering loss.

# %% mystnb={"image": {"alt": "The two-mode target. Left, a normal by reverse KL on the left mode and one by forward KL over both and the valley. Right, a mixture started from the modes on top of the target, and a mixture started from one mode that has little or nothing of the right one."}}
mode_fits = modes.fits(STEPS)
right = {}
for name, result in mode_fits.items():
    right[name], valley = modes.masses(result.sample(20_000)["z"])
    if name == "normal, forward KL":
        forward_valley = valley
stuck_verdict = diagnose(mode_fits["mixture from one mode"], num_starts=sized(16, 6)).verdict.word

pictures.modes_picture(mode_fits)
plt.show()

say(
    f"P(z > 0) is {modes.EXACT_RIGHT:.3f}. The normals say {right['normal, reverse KL']:.3f} by "
    f"reverse KL and {right['normal, forward KL']:.3f} by forward KL, which pays with "
    f"{forward_valley:.0%} of its draws in the valley |z| < 1, where there are "
    f"{modes.EXACT_VALLEY:.1%}. The mixture that began at the modes says "
    f"{right['mixture from the modes']:.3f}, by plain reverse KL. The other one, by `ForwardKL`, "
    f"says {right['mixture from one mode']:.3f}: no loss covers what no draw reaches. "
    f"Here `diagnose` is of use; its verdict is *{stuck_verdict}*."
)

# %% [markdown]
# ## Which tails?
#
# A Student-t with three degrees of freedom, and a question about its 99.9% quantile. No divergence
# gives a normal guide tails. `AutoStudentT(learn_df=True)` has them.

# %% mystnb={"image": {"alt": "Chance to exceed z on a logarithmic axis. The exact curve falls slowly; both normal guides fall off a cliff; the Student-t guide lies on the exact curve."}}
tail_fits = tails.fits(STEPS)
quantile = {name: float(q.ppf(tails.LEVEL)) for name, q in tail_fits.items()}
exact_quantile = tails.exact_quantile()
fixed_k, fixed_k_exact = tails.k_of_fixed(10.0, sized(500_000, 50_000)), 1 - tails.DEGREES / 10

pictures.tails_picture(tail_fits)
plt.show()

say(
    f"It is {exact_quantile:.2f}. The normals say {quantile['normal, reverse KL']:.2f} and "
    f"{quantile['normal, forward KL']:.2f}; covering helps little, and less than it should, for the "
    f"exact optimum has {3.0902 * tails.FORWARD_SD:.2f}, and the draws that would tell are never "
    f"drawn. The t guide says {quantile['Student-t, forward KL']:.2f}, after starting with ten "
    f"degrees of freedom and ending at {tail_fits['Student-t, forward KL'].args[0]:.2f}. Had they "
    f"been fixed at ten, the weights would have $k = 1 - 3/10 = {fixed_k_exact:.2f}$, no matter how "
    f"well it fits otherwise; and {sized('500,000', '50,000')} draws would still estimate it at "
    f"{fixed_k:.2f}."
)

# %% [markdown]
# ## How many data?
#
# A Poisson rate with a Gamma posterior of shape $a$, one plus the number of events counted. In
# $\log$ rate its standard deviation is $\sqrt{\psi'(a)}$; reverse KL has the closed form
# $1/\sqrt a$, forward KL is exact. With few data the posterior has a shape of its own, and the
# divergences differ. With many it is normal, and nobody can tell them apart.

# %% mystnb={"image": {"alt": "Standard deviation of the reverse-KL guide as a share of the exact one, by the number of events: from 0.78 with none up to 1 with hundreds; the fits lie close to the closed form."}}
few_counts = sized((0.0, 9.0), (0.0,))
few_sd = {n: data_size.reverse_fit(data_size.data(1) * 0 + n, STEPS) for n in few_counts}
few_share = {n: sd / data_size.exact_sd(1 + n) for n, sd in few_sd.items()}
many = data_size.data(10_000)
many_mean, many_sd = data_size.exact(many)
many_share = data_size.reverse_sd(1 + float(many.sum())) / many_sd
batch_steps, too_few = sized((1500, 30), (60, 15))
batch_mean, batch_sd = data_size.on_minibatches(many, 100, batch_steps)
early_mean, _ = data_size.on_minibatches(many, 100, too_few)
mean_off, early_off = ((mean - many_mean) / many_sd for mean in (batch_mean, early_mean))
refusal = data_size.refusal(many, 100)

pictures.data_picture(few_sd)
plt.show()

say(
    f"With no event the reverse-KL fit has {few_share[0.0]:.2f} of the exact standard deviation; "
    f"with {int(many.sum()):,} events it would have {many_share:.6f}. So with many data the cheapest "
    f"loss is the best, and that is reverse KL on minibatches: from 100 of {len(many):,} data a step "
    f"it ends {mean_off:+.1f} standard deviations from the exact mean, with {batch_sd / many_sd:.2f} "
    f"of the exact standard deviation. But the noise of minibatches takes long to average out, which "
    f"is the weak side of the recommendation: after {too_few} steps, and not {batch_steps:,}, it "
    f"is {early_off:+.1f} standard deviations off. "
    f"Covering losses refuse: *{refusal.split(':')[0]}*."
)

# %% [markdown]
# ## The guide as a table
#
# All numbers are those of the cells above: what was *measured* for a recommendation and what would be
# *exact*, what one gets by something else *instead*, and where the recommendation itself fails.

# %%
guide_table = [
    Choice(
        "minibatches, latents outside of them",
        "`ReverseKL`",
        f"mean off by {mean_off:+.1f} sd",
        "0",
        "others refuse",
        f"after {too_few} steps: {early_off:+.1f} sd",
    ),
    Choice(
        "many data for each latent",
        "`ReverseKL`, as the cheapest",
        f"sd {many_share:.4f} of the exact one",
        "1",
        "no difference",
        f"with few data: {few_share[0.0]:.2f}",
    ),
    Choice(
        "several modes",
        "`AutoMixture(start=FromModes())`",
        f"P(z > 0) = {right['mixture from the modes']:.3f}",
        f"{modes.EXACT_RIGHT:.3f}",
        f"one normal: {right['normal, reverse KL']:.3f}",
        f"if the search misses one: {right['mixture from one mode']:.3f}",
    ),
    Choice(
        "heavy tails",
        "`AutoStudentT(learn_df=True)`",
        f"99.9% quantile {quantile['Student-t, forward KL']:.1f}",
        f"{exact_quantile:.1f}",
        f"normal, `ForwardKL`: {quantile['normal, forward KL']:.1f}",
        f"too many degrees of freedom: k = {fixed_k_exact:.2f}",
    ),
    Choice(
        f"more than about {holds_to} dimensions",
        "`ReverseKL` and a richer family",
        f"sd of the average {low_average:.3f}",
        f"{high_exact[1]:.3f}",
        f"`ForwardKL`: {low_forward:.3f}",
        f"if the family lacks it: {high_closed[1]:.2f} by mean field",
    ),
    Choice(
        "few dimensions, for point estimates",
        "any, so `ReverseKL`",
        f"means within {worst_mean:.2f} sd",
        "0",
        "no difference",
        f"if taken for more: interval covers {reverse['coverage']:.0%}",
    ),
    Choice(
        "few dimensions, for intervals",
        "`ForwardKL`",
        f"90% interval covers {forward['coverage']:.0%}",
        "90%",
        f"reverse KL: {reverse['coverage']:.0%}",
        f"sd of a difference {too_wide:.1f} times too large",
    ),
    Choice(
        "few dimensions, for weighted draws",
        "`CUBO(2)`",
        f"{chi['share']:.0%} effective",
        "100%",
        f"reverse KL: {reverse['share']:.0%}",
        f"its bound is {chi['bound']:.1f} nats short",
    ),
    Choice(
        "a bound on the evidence",
        "`ReverseKL`",
        f"{reverse['bound']:.2f} nats short",
        "0",
        f"forward KL: {forward['bound']:.2f}",
        f"as an estimate; the mean weight of `CUBO(2)` is {abs(log_evidence):.3f} off",
    ),
    Choice(
        "combinations of parameters",
        "a family that can correlate, or weights",
        f"sd of a difference {correlated[0]:.2f}, {weighted[0]:.2f}",
        f"{purpose.EXACT['difference']:.2f}",
        f"mean field: {reverse['difference']:.2f} to {chi['difference']:.2f}",
        f"weights of a fit by reverse KL: {reverse['share']:.0%} effective",
    ),
]
say(as_markdown(guide_table))

# %% mystnb={"image": {"alt": "A flow chart of the table: minibatches, many data, several modes, heavy tails, many dimensions, each with what to take if yes and its number, and at the end what the posterior is for, with one line for intervals, weighted draws, evidence and combinations."}}
flow_chart(
    [
        Step(
            "minibatches of data for\nlatents outside of them?",
            "ReverseKL; covering losses refuse",
            f"mean {mean_off:+.1f} sd from the exact one, sd {batch_sd / many_sd:.2f} of it",
            f"fails if stopped early: {early_off:+.1f} sd after {too_few} of {batch_steps:,} steps",
        ),
        Step(
            "many data for each latent?",
            "ReverseKL, the cheapest: all agree",
            f"sd {many_share:.4f} of the exact one",
            f"fails with few data: {few_share[0.0]:.2f}",
        ),
        Step(
            "several modes?",
            "AutoMixture(start=FromModes())",
            f"mass {right['mixture from the modes']:.3f} for {modes.EXACT_RIGHT:.3f}",
            f"fails if the start misses one: {right['mixture from one mode']:.3f}",
        ),
        Step(
            "heavy tails?",
            "AutoStudentT(learn_df=True)",
            f"99.9% quantile {quantile['Student-t, forward KL']:.1f} for {exact_quantile:.1f}",
            f"fails with too many degrees of freedom: k = {fixed_k_exact:.2f}",
        ),
        Step(
            f"more than about {holds_to} dimensions?",
            "ReverseKL with a family that can correlate",
            f"sd of the average {low_average:.3f} for {high_exact[1]:.3f}",
            f"fails if the family lacks it: {high_closed[1]:.2f}",
        ),
    ],
    "few dimensions, one mode,\nnormal tails, few data:\nwhat is it for?",
    [
        ("estimates", f"any: means within {worst_mean:.2f} sd"),
        ("intervals", f"ForwardKL: {forward['coverage']:.0%} for 90%"),
        ("weighting", f"CUBO(2): {chi['share']:.0%} of the draws effective"),
        (
            "evidence",
            f"bound: ReverseKL, {-reverse['bound']:.2f}; "
            f"estimate: CUBO(2), {log_evidence:+.3f}; for 0",
        ),
        (
            "combinations",
            f"AutoFullRank: sd {correlated[0]:.2f}, or weights: {weighted[0]:.2f}, "
            f"for {purpose.EXACT['difference']:.2f}",
        ),
    ],
)
plt.show()
