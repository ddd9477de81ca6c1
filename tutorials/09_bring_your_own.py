# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Bring your own
#
# A divergence that is not in the list, a guide that is not in the list. Both are a few lines here,
# and a few lines of mathematics are easily wrong in a way that trains without complaint. How do you
# know? There are laws that every divergence and every guide has to obey, whatever it is; the
# package holds its own code to them, and offers them to yours. We write one divergence and one
# guide, get the first version wrong, and then look at what the laws do *not* see.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.optim import ClippedAdam
from scipy.optimize import minimize
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform, Transform
from tutorial_tools import COLOURS, begin, say, sized

from pyro_klmodes import FDivergence, fit, log_density, objectives
from pyro_klmodes.guides import AutoDistribution
from pyro_klmodes.objectives.f_functions import forward_kl, reverse_kl
from pyro_klmodes.testing import GUIDE_LAWS, LOSS_LAWS, OBJECTIVE_LAWS, assert_integrates_to_one

begin(seed=0)

# %% [markdown]
# ## A divergence in one function
#
# For every convex $f$ with $f(1) = 0$,
#
# $$D_f = \mathbb E_q\, f\!\left(\frac{p(z\mid x)}{q(z)}\right)$$
#
# is never negative, and zero only for $q = p$ (Ali and Silvey, 1966). `FDivergence` wants $f$ as a
# function of $t = \log r$, the log-ratio. The sum of both KL divergences, which Jeffreys (1946)
# proposed, is
#
# $$\mathrm{KL}(q\|p) + \mathrm{KL}(p\|q) = \mathbb E_q\,(r - 1)\log r = \mathbb E_q\; t\,(e^t - 1),$$
#
# and that is all there is to write. Along the path of a draw its gradient is multiplied by
# $r^2 f''(r) = f_{tt} - f_t$ (Wan, Li and Hayashi, 2020): by 1 for reverse KL, $r$ for forward KL,
# and $1 + r$ for their sum. As a test we take a number of unknown sign, about which all that is
# known is that it looked positive. The posterior is bent, its evidence is exactly one half, and on
# a line every integral is a sum over a grid.

# %%
PARTICLES, STEPS = 500, sized(600, 60)
settings = {"lr": sized(0.1, 0.2), "lrd": 0.02 ** (1 / STEPS)}


def model():
    z = pyro.sample("z", dist.Normal(0.0, 2.0))
    pyro.sample("positive", dist.Bernoulli(logits=4.0 * z), obs=torch.tensor(1.0))


def jeffreys(t):
    return t * torch.expm1(t)


def fitted(f, guide=AutoNormal, particles=PARTICLES, **start):
    loss, optim = FDivergence(f, particles), ClippedAdam(settings)
    return fit(model, guide(model, **start), loss, steps=STEPS, optim=optim, progress=False)


z = np.linspace(-12.0, 12.0, 4001)
log_p = -((z / 2) ** 2) / 2 - np.log(np.sqrt(8 * np.pi)) - np.logaddexp(0, -4 * z) + np.log(2)


def both_ways(log_q):
    """KL(q || p) and KL(p || q)."""
    q, p = np.exp(log_q), np.exp(log_p)
    return np.array([(q * (log_q - log_p)).sum(), (p * (log_p - log_q)).sum()]) * (z[1] - z[0])


def of_normal(at):
    return -(((z - at[0]) / at[1]) ** 2) / 2 - np.log(at[1] * np.sqrt(2 * np.pi))


def exact_best(reverse, forward):
    return minimize(lambda at: both_ways(of_normal(at)) @ [reverse, forward], [1.5, 1.2]).x


functions = {"reverse KL": reverse_kl, "forward KL": forward_kl, "Jeffreys": jeffreys}
best = dict(zip(functions, (exact_best(1, 0), exact_best(0, 1), exact_best(1, 1)), strict=True))


def ends(result):
    return [float(result.params[f"AutoNormal.{part}.z"]) for part in ("locs", "scales")]


found = {name: ends(fitted(f, init_scale=2.0)) for name, f in functions.items()}
few = ends(fitted(jeffreys, particles=4, init_scale=2.0))

# %% mystnb={"image": {"alt": "Left, the factor of a draw's path gradient by its log-ratio: one for reverse KL, rising exponentially for forward KL, and their sum for Jeffreys. Right, contours of the Jeffreys divergence over mean and standard deviation of a normal guide, with the exact optima of the three divergences as crosses and the fits as circles close to them."}}
look = {"reverse KL": "reverse", "forward KL": "forward", "Jeffreys": "importance"}


def path_factor(f, t):
    """f_tt - f_t, which is r^2 f''(r)."""
    t = torch.as_tensor(t, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(f(t).sum(), t, create_graph=True)
    bend = torch.autograd.grad(slope.sum(), t)[0] if slope.requires_grad else torch.zeros_like(t)
    return (bend - slope).detach()


figure, (factors, plane) = plt.subplots(1, 2, figsize=(8.5, 3.6))
t = np.linspace(-4, 1.6, 200)
for name, f in functions.items():
    factors.plot(t, path_factor(f, t), color=COLOURS[look[name]], label=name)
factors.set(xlabel="log-ratio $t = \\log p/q$", ylabel="factor of the path gradient", ylim=(0, 6))
factors.legend()
means, sds = np.linspace(1.3, 1.8, 40), np.linspace(0.95, 1.4, 40)
values = [[both_ways(of_normal((mean, sd))).sum() for mean in means] for sd in sds]
drawn = plane.contour(means, sds, values, levels=8, colors="0.75", linewidths=0.8)
plane.clabel(drawn, fontsize=7)
for name, colour in look.items():
    plane.plot(*best[name], "+", ms=12, mew=2, color=COLOURS[colour])
    plane.plot(*found[name], "o", mfc="none", color=COLOURS[colour], label=name)
plane.plot([], [], "+", ms=12, mew=2, color="black", label="exact")
plane.plot([], [], "o", mfc="none", color="black", label="fitted")
plane.set(xlabel="mean of q", ylabel="standard deviation of q")
plane.legend(fontsize=8, loc="lower right", ncols=2, frameon=True, framealpha=1, edgecolor="white")
plt.show()

# %%
say(
    f"By quadrature the best normal under Jeffreys has standard deviation "
    f"{best['Jeffreys'][1]:.3f}, between the {best['reverse KL'][1]:.3f} of reverse and the "
    f"{best['forward KL'][1]:.3f} of forward KL. The fits, with {PARTICLES} draws a step, end at "
    f"{found['Jeffreys'][1]:.3f}, {found['reverse KL'][1]:.3f} and {found['forward KL'][1]:.3f}. "
    f"With 4 draws a step the one of Jeffreys ends at {few[1]:.3f}: weights are normalised by "
    "their own mean, and a rare large one raises that mean together with itself, so that few draws "
    "play down what they ought to report. It is the price of not knowing the evidence. (The grey "
    "contours are those of the Jeffreys divergence.)"
)

# %% [markdown]
# ## The laws
#
# `pyro_klmodes.testing` holds three lists of functions. `OBJECTIVE_LAWS` take a divergence as a
# function of log-weights: the order of draws does not matter, nor does the scale of the density,
# cells of a plate do not see one another, derivatives are derivatives, weights of zero do no harm.
# `LOSS_LAWS` take a function that makes a loss: it trains in `SVI`, its forms agree, it can be
# copied and pickled. Each law returns nothing, or raises `AssertionError` with the numbers. In a
# test suite that is one parametrised test; here is a loop. We put in the function above, and one by
# somebody who had heard that exponentials should be taken after subtracting the largest.

# %%


def broken(laws, *subject):
    """Names of the laws that do not hold."""
    names = []
    for law in laws:
        try:
            law(*subject)
        except AssertionError:
            names.append(law.__name__)
    return names


def broken_by(f):
    return broken(OBJECTIVE_LAWS, objectives.FDivergence(f)) + broken(
        LOSS_LAWS, lambda: FDivergence(f, num_particles=8)
    )


def stabilised(t):
    return jeffreys(t - t.max())


def mended(t):
    return jeffreys(t.clamp(min=-1000.0))


verdicts = {f.__name__: broken_by(f) for f in (jeffreys, stabilised, mended)}
at_zero = torch.tensor([-float("inf"), 0.0], requires_grad=True)
at_zero_gradient = torch.autograd.grad(jeffreys(at_zero)[1], at_zero)[0]
for name, names in verdicts.items():
    print(f"{name:12}", f"breaks {', '.join(names)}" if names else "obeys all laws")

# %%
say(
    f"Of {len(OBJECTIVE_LAWS) + len(LOSS_LAWS)} laws our own first version breaks one. Nothing is "
    f"wrong with its mathematics. But a draw may have weight zero, where a likelihood underflows "
    f"or a constraint is violated; there $t = -\\infty$ and the value is rightly infinite. Leave "
    f"that entry out of a sum, and its gradient still is {at_zero_gradient[0].item()}, because "
    "zero times infinity is no number. One such draw can put it into every parameter. "
    "`mended` bounds $t$ where $e^t$ is zero anyway. The clever one, `stabilised`, breaks "
    f"`{verdicts['stabilised'][0]}` as well: what it subtracts is the largest of *all* cells, so that "
    "every datum of a plate would depend on the others. The ratios come normalised; there is "
    "nothing to stabilise."
)

# %% [markdown]
# ## A guide in eleven lines
#
# The posterior is bent, and a normal is not. The sinh-arcsinh family (Jones and Pewsey, 2009) has
# two parameters more, for skewness and tails: $u = m + s\,\sinh((\operatorname{arsinh} e +
# \epsilon)/\delta)$ with $e$ standard normal. `AutoDistribution` makes a guide of any distribution
# over the vector $u$ of all latents, unconstrained; it knows about sites, supports and plates, and
# the distribution does not have to. (It is a `JointGuide`, the class to derive from if your density
# has conditionals or quantiles in closed form to offer.) `SinhWithoutJacobian` is the mistake that
# everybody makes once.

# %% mystnb={"image": {"alt": "The bent posterior, the best normal and the sinh-arcsinh guide by the Jeffreys divergence. The normal puts mass on negative values where the posterior has next to none; the sinh-arcsinh guide follows the steep left edge and the long right tail."}}


class Sinh(Transform):
    domain, codomain, bijective, sign = constraints.real, constraints.real, True, 1
    _call, _inverse = staticmethod(torch.sinh), staticmethod(torch.asinh)

    def log_abs_det_jacobian(self, x, y):
        return x.cosh().log()


class SinhWithoutJacobian(Sinh):
    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x)


def sinh_arcsinh(loc, sinh=Sinh):
    zeros, ones, positive = torch.zeros_like(loc), torch.ones_like(loc), constraints.positive
    skew, tail = pyro.param("skew", zeros), pyro.param("tail", ones, constraint=positive)
    m, s = pyro.param("m", loc), pyro.param("s", ones, constraint=positive)
    way = [sinh().inv, AffineTransform(skew / tail, 1 / tail), sinh(), AffineTransform(m, s)]
    return dist.TransformedDistribution(dist.Normal(zeros, ones), way).to_event(1)


bent = fitted(mended, AutoDistribution, distribution=sinh_arcsinh)
log_q = log_density(bent.guide, {"z": torch.tensor(z, dtype=torch.float32)}).detach().numpy()
left = {"normal": both_ways(of_normal(best["Jeffreys"])).sum(), "bent": both_ways(log_q).sum()}

plt.fill_between(z, np.exp(log_p), color=COLOURS["target"], alpha=0.25, lw=0, label="posterior")
normal = of_normal(best["Jeffreys"])
plt.plot(z, np.exp(normal), color=COLOURS["reverse"], label="best normal, exact")
plt.plot(z, np.exp(log_q), color=COLOURS["forward"], label="sinh-arcsinh, fitted")
plt.gca().set(xlabel="z", ylabel="density", xlim=(-3, 7))
plt.legend()
plt.show()

# %% [markdown]
# `GUIDE_LAWS` take a model and a guide. The density at given values is that of the guide's own
# draws, it has gradients, losses of all kinds work, copies are copies. `assert_integrates_to_one`
# wants a wide prior for its model, and integrates the guide's density by draws from that. The
# sites below have different supports; the guide brings its own transforms, and each has to be right.


# %%
def wide():
    pyro.sample("real", dist.Normal(0.0, 3.0))
    pyro.sample("positive", dist.Gamma(0.5, 0.2))


outcome, complaint = {}, ""
for sinh in (Sinh, SinhWithoutJacobian):
    pyro.clear_param_store()
    guide = AutoDistribution(wide, lambda loc, sinh=sinh: sinh_arcsinh(loc, sinh))
    guide()  # creates the parameters, which we move away from those of a normal
    for name, values in (("skew", [0.4, -0.2]), ("tail", [1.4, 0.8])):
        pyro.param(name).data = torch.tensor(values)
    outcome[sinh.__name__] = broken((*GUIDE_LAWS, assert_integrates_to_one), wide, guide)
    try:
        assert_integrates_to_one(wide, guide)
    except AssertionError as error:
        complaint = str(error)
wrong = fitted(
    mended,
    AutoDistribution,
    distribution=lambda loc: sinh_arcsinh(loc, SinhWithoutJacobian),
)
claimed = {
    name: float(result.log_weights(4000).logsumexp(0) - np.log(4000))
    for name, result in (("right", bent), ("wrong", wrong))
}
say(
    f"The guide in eleven lines obeys all {len(GUIDE_LAWS) + 1} laws. Without its Jacobian it trains "
    f"without a murmur, and breaks `{outcome['SinhWithoutJacobian'][0]}` alone: *{complaint}*. The "
    "price of not noticing is an evidence that is not one. The logarithm of the mean weight is "
    f"{claimed['right']:.3f} for the guide that is right, {claimed['wrong']:.3f} for the other, "
    f"and exactly {np.log(0.5):.3f}. With the right one the Jeffreys divergence falls from the "
    f"{left['normal']:.3f} of the best normal to {left['bent']:.3f}."
)

# %% [markdown]
# ## What the laws do not see
#
# The laws are about calculus. They cannot know what you *meant*. The squared Hellinger distance is
# $\mathbb E_q (1 - \sqrt r)$; here is somebody who wrote it the other way round. It is a perfectly
# smooth function of the weights with perfectly correct derivatives. One property makes it not a
# divergence: $f$ is concave, so that the factor of the path gradient is negative, and every draw is
# told to go where the posterior is *not*. That can be checked in one line, and should be.


# %%
def turned_round(t):
    return torch.expm1(t / 2)


verdicts["turned_round"] = broken_by(turned_round)
somewhere = np.linspace(-8, 8, 321)
least = {f.__name__: float(path_factor(f, somewhere).min()) for f in (mended, turned_round)}
astray = ends(fitted(turned_round, init_scale=2.0))
allowance = 4 * float(complaint.split()[-1])
astray_kl = both_ways(of_normal(astray))
start_kl = both_ways(of_normal([0.0, 2.0]))
say(
    f"Laws broken: {len(verdicts['turned_round'])}. Least factor of the path gradient for "
    f"log-ratios between -8 and 8: {least['turned_round']:.2f}, and {least['mended']:.2f} for "
    f"Jeffreys. The fit went from a mean of 0 and a standard deviation of 2 to "
    f"{astray[0]:.2f} and {astray[1]:.3f}, the forward KL from {start_kl[1]:.2f} to "
    f"{astray_kl[1]:.3g}. And the integral of a guide is an estimate, here with four standard "
    f"errors of allowance, so that a normaliser wrong by less than {allowance:.0%} passes, too. "
    "A suite that is obeyed is where trust begins. What completes it is a problem whose answer you "
    "know, like the grid of this page."
)
