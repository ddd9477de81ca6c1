# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # What the usual picture gets wrong
#
# There is an introduction to the asymmetry of the Kullback-Leibler divergence that everybody has
# read. It draws two bumps. Then it says that $\mathrm{KL}(p\|q)$ covers and $\mathrm{KL}(q\|p)$
# seeks a mode, and goes on to coding, variational autoencoders, EM, mean field, tails and high
# dimension. Most of it is nearly right, some of it is not, and which part is which is hard to tell
# by reading.
#
# So we take it sentence by sentence. Each of 32 sentences gets an experiment with a known answer, a
# number that decides, and a verdict: *true*, *imprecise* (true under a condition that is usually
# left out), or *false*. The experiments are small functions in the folder `claims` beside this
# file, one call here for each. The table at the end is made of what they return.

# %%
import math

import matplotlib.pyplot as plt
import torch
from claims import algorithms, directions, families, learning, modes, pictures, tails
from claims.sentences import SENTENCES, VERDICTS, as_markdown
from tutorial_tools import begin, say, sized

from models.correlated_gaussian import mean_field_sd

begin(seed=0)
because = {}  # what decides a sentence, by its number


# %% [markdown]
# ## The two directions
#
# For a target $p$ and a guide $q$,
#
# $$\mathrm{KL}(p\|q)=\int p\log\frac pq \quad\text{(forward)},\qquad
#   \mathrm{KL}(q\|p)=\int q\log\frac qp\quad\text{(reverse)}.$$
#
# The picture is that of a normal guide for $0.7\,N(-d/2,1)+0.3\,N(d/2,1)$. Usually it is drawn for
# one distance $d$. Here are three, with every local optimum of reverse KL, found by L-BFGS on a sum
# over a grid from three starts, and the forward optimum, which has the target's mean and variance.

# %% mystnb={"image": {"alt": "Two modes at three distances. Four standard deviations apart the reverse-KL normal lies over both, six and ten apart there is one on each; the forward-KL normal lies over both always"}}
optima = {d: modes.optima(d) for d in (4, 6, 10)}

pictures.modes_picture(optima)
plt.show()

one_at_4, two_at_6, two_at_10 = (len(optima[d]) for d in (4, 6, 10))
say(
    f"The numbers are $\\mathrm{{KL}}(q\\|p)$. Four standard deviations apart there is "
    f"{one_at_4} reverse-KL optimum and it spans both modes, with a standard deviation of "
    f"{optima[4][0][1]:.2f}; six apart there are {two_at_6}, of {optima[6][0][2]:.3f} and "
    f"{optima[6][1][2]:.3f} nats, and the start decides. The limit is $-\\log$ of the mode's mass, "
    f"{-math.log(0.7):.3f} and {-math.log(0.3):.3f}: at ten, {optima[10][0][2]:.3f} and "
    f"{optima[10][1][2]:.3f}."
)

# %%
asymmetric, symmetric = directions.both_ways(sd=2, shift=0), directions.both_ways(sd=1, shift=1)
letters = [1 / 2, 1 / 4, 1 / 8, 1 / 8]
wasted_bits, kl_in_bits = directions.excess_bits(p=letters, q=letters[::-1])
charge = directions.penalties()
covariance = directions.with_a_full_covariance(0.9)
yardsticks = directions.by_each_yardstick(0.9)
right = {k: charge[f"mass on the right, {k}"] for k in ("target", "wide guide", "narrow guide")}
valley = {k: charge[f"mass in the valley, {k}"] for k in ("target", "wide guide", "narrow guide")}
sd_reverse = covariance["diagonal, reverse"][0, 0].sqrt()
sd_forward = covariance["diagonal, forward"][0, 0].sqrt()
full_difference = (covariance["full, reverse"] - covariance["full, forward"]).abs().max()

because[1] = (
    f"N(0, 1) and N(0, 4): {asymmetric[0]:.3f} and {asymmetric[1]:.3f} nats. It can be: N(0, 1) "
    f"and N(1, 1), {symmetric[0]:.3f} and {symmetric[1]:.3f}"
)
because[2] = f"Huffman codes waste {wasted_bits:.3f} bits a symbol, KL is {kl_in_bits:.3f} bits"
because[3] = (
    f"A guide on one of two modes: {charge['forward, of the narrow guide']:.2f} forward, "
    f"{charge['reverse, of the narrow guide']:.2f} reverse; one over both: "
    f"{charge['forward, of the wide guide']:.2f} and {charge['reverse, of the wide guide']:.2f}"
)
because[6] = (
    f"{one_at_4} optimum over both modes at 4 sd, {two_at_6} at 6 sd: it takes well separated "
    "modes and a guide with one"
)
because[18] = (
    f"Mean field, r = 0.9: by reverse KL the guides of reverse, forward, chi-square have "
    f"{', '.join(f'{v:.2f}' for v in yardsticks[:, 0])}; by chi-square "
    f"{', '.join(f'{v:.2f}' for v in yardsticks[:, 2])}. Each wins by its own measure"
)
because[22] = (
    f"{valley['wide guide']:.0%} of its draws in the valley |z| < 1, of the target's "
    f"{valley['target']:.0%}"
)
because[31] = (
    f"Mean field at r = 0.9: sd {sd_reverse:.3f} and {sd_forward:.3f}; full covariance: they "
    f"differ by {full_difference:.0e}. If the family holds p there is one optimum"
)
because[32] = (
    f"P(z > 0) = {right['target']:.2f}: forward says {right['wide guide']:.2f}, reverse "
    f"{right['narrow guide']:.3f}. Draws in the valley: {valley['wide guide']:.2f}, "
    f"{valley['narrow guide']:.2f}, truth {valley['target']:.2f}. And dimension, estimator and "
    "number of particles decide with it"
)

# %% [markdown]
# ## What an algorithm makes of it
#
# Forward KL needs draws of $p$, and in inference there are none. Every library, ours too, draws
# $z_1,\dots,z_K$ from the guide and weighs them, $\bar w_k\propto p(x,z_k)/q(z_k)$. With $K$ fixed
# this is another objective. Below, real fits by `ForwardKL(num_particles=K)`, all with equally many
# draws in a step, from a start that covers both modes and from one in the left mode.

# %% mystnb={"image": {"alt": "Left, fits by forward KL to two modes: with 100 particles on the exact optimum over both, with 2 on one mode. Right, fitted standard deviation by particles: from a wide start right from 5 on, from a narrow start only at 100"}}
particles = sized((2, 5, 20, 100), (2, 100))
starts = sized(("wide", "narrow"), ("wide",))
steps, draws = sized((300, 2000), (100, 600))
adam = sized({"lr": 0.1}, {"lr": 0.2, "betas": (0.8, 0.95)})
forward_fits = {
    (K, start): algorithms.forward_fit(K, start, steps, draws, adam)
    for K in particles
    for start in starts
}
exact_sd = math.sqrt(1 + 9 - 1.2**2)

pictures.particles_picture(particles, starts, forward_fits, exact_sd)
plt.show()

few, many = forward_fits[2, "wide"], forward_fits[100, "wide"]
slope, variance = algorithms.sleep()
last_kl, average_kl = algorithms.last_and_average(sized(1500, 300))

because[4] = (
    f"Mean and sd, exactly (-1.20, {exact_sd:.2f}); by 100 particles ({many[0]:.2f}, {many[1]:.2f}), by 2 "
    f"({few[0]:.2f}, {few[1]:.2f}), one mode, from a start over both"
)
because[5] = (
    f"On draws of p, which a posterior does not offer. The model's own draws (z, x) do: maximum "
    f"likelihood gives q(z|x) = N({slope:.3f} x, {variance:.3f}), the posterior is N(x/2, 1/2)"
)
because[9] = (
    f"{two_at_6} optima at 6 sd. In 100 dimensions, with one optimum, a constant step size leaves "
    f"{last_kl:.2f} nats; averaged iterates {average_kl:.2f}"
)

# %% [markdown]
# ## Models that learn
#
# The introduction then says that a VAE "minimises $\mathrm{KL}(q(z|x)\|p(z))$", and that
# mode-seeking keeps it from posterior collapse. In a *linear* VAE everything is known: latent $j$
# is worth its while exactly if the eigenvalue $\lambda_j$ of the data's covariance is above the
# noise $\sigma^2$ (Tipping and Bishop, 1999; Lucas et al., 2019). We maximise the bound, with a
# reverse-KL encoder, and the exact likelihood, with no encoder at all, and count the latents in
# use.
#
# On the right is what a restricted posterior does to a model that learns: two causes of one effect,
# $x=w(z_1+z_2)+\text{noise}$, whose guide takes them for independent. Dotted lines mark where each
# curve is highest.

# %% mystnb={"image": {"alt": "Left, latents in use fall with the noise in steps, the same by the bound and by maximum likelihood without a guide. Right, the log likelihood is highest at the true weight, the bound of independent causes at a smaller one"}}
noises = sized((0.5, 1.0, 2.5, 6.0), (2.5, 6.0))
collapse = {s: learning.linear_autoencoder(s) for s in noises}
em = learning.restricted_e_step(w=1.0, variance=1.0)

pictures.learning_picture(noises, collapse, em)
plt.show()

terms = learning.three_terms()
identity = terms["bound"] + terms["KL to the posterior"] - terms["log evidence"]
halves = learning.free_energy()
shared = learning.amortisation(sized(200, 100))
far_mode = modes.far_contamination()
noisiest = collapse[noises[-1]]
loss_of_bound = max(abs(c["likelihood"] - c["bound"]) for c in collapse.values())

because[7] = (
    f"Of the inference step. What is learnt is the likelihood, forward KL of the data: the best "
    f"bound of the linear VAE is within {loss_of_bound:.0e} of it"
)
because[10] = (
    f"The weight comes out {em['bias']:+.1%}, and new data lose {em['lost']:.3f} nats each, with "
    "infinitely many data to learn from"
)
because[11] = (
    f"{far_mode['nats lost']:.3f} nats lost, and the sd is {far_mode['sd of the guide']:.2f} "
    f"where it should be {far_mode['sd of the target']:.2f}"
)
because[12] = (
    f"KL to the prior {terms['KL to the prior']:.3f}; the bound misses the evidence by KL to the "
    f"posterior, {terms['KL to the posterior']:.3f}, to {abs(identity):.0e}"
)
because[14] = (
    f"{noisiest['in use by the bound']} latent in use by the bound and "
    f"{noisiest['in use by maximum likelihood']} without any guide, at noise {noises[-1]:g}; of "
    f"the others KL in both directions is {noisiest['both KLs of the unused']:.0e}"
)
because[15] = f"Free energy minus log likelihood after it: {halves['equal']:.1g}"
because[16] = (
    f"It maximises Q: the first one gives w = {em['first step']:.3f}, maximum likelihood is "
    f"{em['exact']:.3f}, after many. The E-step is the reverse KL"
)
because[17] = (
    f"And EM climbs something else: w = {em['restricted']:.3f} instead of {em['exact']:.3f}"
)
because[30] = (
    f"It takes some: each of 200 data loses, {shared['smallest gap']:.0e} nats at least and "
    f"{shared['mean gap']:.3f} on average. It saves: {shared['parameters of the network']} "
    f"parameters for {shared['parameters of free normals']}"
)

# %% [markdown]
# ## Simple families and their tails
#
# Next come the sentences on mean field and on tails. For the latter the target is a Student-t with
# three degrees of freedom. We ask for the probability of exceeding $z$, on logarithmic axes, where
# a power is a straight line and a normal falls off a cliff.

# %% mystnb={"image": {"alt": "Chance of exceeding z on logarithmic axes: that of the Student-t target is a straight line, a Student-t guide with lighter tails falls faster, normals by reverse and by forward KL fall off a cliff"}}
reverse_sd, reverse_lost = tails.normal_for_student(3.0)
cauchy_sd, cauchy_lost = tails.normal_for_student(1.0)

pictures.tails_picture(reverse_sd)
plt.show()

true_quantile, guide_quantile = tails.student_quantile(0.999, 3.0), 3.0902 * reverse_sd
diverging = tails.truncated_forward_kl(2.0, torch.tensor([1e2, 1e3, 1e4]))
lighter, heavier = tails.khat(4.0, 2.0), tails.khat(2.0, 4.0)
noise_of_gradient = families.gradient_noise()
gamma_slope, gamma_error = families.gradient_through_gamma()
factor = families.free_form_factor()
field = families.mean_field()
falls = (field["losses"][1:] - field["losses"][:-1]).max()

because[8] = (
    f"Cheap draws, yes. Of a logistic likelihood the gradient is an estimate, whose sd with one "
    f"draw is {noise_of_gradient:.1f} times its mean"
)
because[13] = (
    f"Not needed: dE[z]/da of Gamma(a, 1) by its path is {gamma_slope:.3f} ± {gamma_error:.3f}, "
    "exactly 1"
)
because[19] = (
    f"They follow from the model: with a Poisson likelihood the best factor has skewness "
    f"{factor['skewness']:.2f} and beats the best normals by "
    f"{factor['bound'] - factor['bound of normals']:.3f} nats"
)
because[20] = (
    f"The bound never falls in {len(field['losses'])} sweeps, and the mean ends "
    f"{abs(field['mean'] - field['exact mean']):.0e} off"
)
because[21] = (
    f"At r = -0.8 the sd is {field['sd']:.3f} for {field['exact sd']:.3f}, the mean right; linear "
    f"response repairs it to {field['repaired sd']:.3f}"
)
because[23] = (
    f"Student-t, 3 degrees: 99.9 % quantile {true_quantile:.2f}, of reverse KL "
    f"{guide_quantile:.2f}. With 2 degrees forward KL is infinite for every normal: up to 10², "
    f"10³, 10⁴ it is {', '.join(f'{v:.1f}' for v in diverging)}, and so on. Reverse KL does not "
    f"notice even a Cauchy, {cauchy_lost:.3f} nats"
)
because[24] = (
    f"If they are heavy enough: k-hat {lighter:.2f} for 4 degrees on 2 (law: 1 - 2/4), "
    f"{heavier:.1f} for 2 on 4, bounded weights"
)

# %% [markdown]
# ## Many dimensions, and richer families
#
# "In high dimension the mass is far from the mode." So it is, and a normal guide has it there too.
# What fails is weighing: the effective share of draws falls exponentially, on the left for a guide
# whose scale is 0.9 of the right one, and with it whatever is made of weights. On the right is forward KL by 100 self-normalised particles for normals that
# correlate by 0.5. Its exact mean-field optimum has the marginal standard deviation, 1, in every
# dimension.

# %% mystnb={"image": {"alt": "Left, the effective share of draws falls to nothing between ten and a thousand dimensions. Right, forward KL by 100 particles falls from the exact standard deviation 1 towards that of reverse KL as the dimension grows"}}
dimensions = (2, 5, 10, 20, 50)
share = {d: tails.effective_share(d) for d in (1, *dimensions, 100, 300, 1000)}
radii = {d: tails.radius(d) for d in (10, 100, 1000)}
drift = {d: algorithms.forward_sd(d, sets=sized(2000, 400)) for d in dimensions}
field_sd = {d: mean_field_sd(d, 0.5) for d in dimensions}

pictures.dimensions_picture(share, drift, field_sd)
plt.show()

spread_kl, spread_left = modes.mixture_guide(10, starts=(-5.0, 5.0))
together_kl, together_left = modes.mixture_guide(10, starts=(-6.0, -4.0))
flows = families.densities()
hierarchy = families.structured()

because[25] = (
    f"E‖z‖ = {radii[10]:.2f}, {radii[100]:.2f}, {radii[1000]:.1f} in 10, 100, 1000 dimensions, of "
    f"normal guides too. What fails are weights: at 0.9 of the scale {share[10]:.2f}, "
    f"{share[100]:.3f}, {share[1000]:.0e} of the draws are effective"
)
because[26] = (
    f"And for reverse KL: in 50 dimensions 100 particles of forward KL end at {drift[50]:.2f}, "
    f"exactly 1, reverse KL at {field_sd[50]:.2f}"
)
because[27] = (
    f"If they start there: {spread_kl:.0e} nats from a spread start; from one mode "
    f"{together_kl:.3f}, with {together_left:.2f} of the mass on the left for 0.70"
)
because[28] = (
    f"In the direction they are built for. A coupling flow sums to {flows['total']:.4f} at given "
    "points; a planar flow has no density there, and forward KL refuses it"
)
because[29] = (
    f"It is a structured guide, and exact where mean field is not: log-weights spread by "
    f"{hierarchy['spread of log-weights']:.0e}, mean field misses {hierarchy['mean field']:.3f} "
    "nats. The name is that of a prior on variational parameters"
)

# %% [markdown]
# ## All of it
#
# Read the third column first. The sentences that are false are about *comfort*: that landscapes are
# stable, that a simple guide regularises, that mode-seeking keeps latents alive, that amortisation
# adds flexibility, that factors come from a family one knows, that one divergence is the better one.
# Those that are imprecise leave out a condition, and it is always the same one: what is said of an objective holds for its exact value
# and a family that is small; a finite number of particles, a start, a dimension or a larger family
# change it.

# %%
verdicts = [sentence.verdict for sentence in SENTENCES.values()]
count = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
say(", ".join(f"{number} {verdict}" for verdict, number in count.items()) + ".")
say(as_markdown(because))
