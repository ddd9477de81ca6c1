"""The figures of the tutorial, from numbers that its cells compute."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from tutorial_tools import COLOURS

from claims import tails
from claims.grid import log_normal, log_two_modes
from models import linear_vae
from models import variational_em_bias as bias


def modes_picture(optima) -> None:
    """The target, all optima of reverse KL with their values, and the forward optimum."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
    z = torch.linspace(-10, 10, 801, dtype=torch.float64)
    for ax, (d, found) in zip(axes, optima.items(), strict=True):
        target = log_two_modes(z, d)
        ax.fill_between(z, target.exp(), color=COLOURS["target"], alpha=0.3, lw=0, label="target")
        for i, (mean, sd, lost) in enumerate(found):
            label = "reverse KL, each optimum" if i == 0 else None
            ax.plot(z, log_normal(z, mean, sd).exp(), color=COLOURS["reverse"], label=label)
            ax.annotate(f"{lost:.2f}", (mean, 0.41 if sd < 1.5 else 0.23), ha="center", fontsize=8)
        forward = log_normal(z, -0.2 * d, math.sqrt(1 + 0.21 * d**2))
        ax.plot(z, forward.exp(), "--", color=COLOURS["forward"], label="forward KL")
        ax.set(title=f"modes {d} sd apart", xlabel="$z$", ylim=(0, 0.45))
    axes[0].set_ylabel("density")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def particles_picture(particles, starts, forward_fits, exact_sd) -> None:
    """Fits with few and many particles, and the fitted scale by their number."""
    _, (ax, right_ax) = plt.subplots(1, 2, figsize=(9, 3.2))
    z = torch.linspace(-8, 8, 601, dtype=torch.float64)
    ax.fill_between(
        z, log_two_modes(z, 6.0).exp(), color=COLOURS["target"], alpha=0.3, lw=0, label="target"
    )
    ax.plot(
        z, log_normal(z, -1.2, exact_sd).exp(), color=COLOURS["target"], label="exact forward KL"
    )
    for K, style in ((2, ":"), (100, "--")):
        q = log_normal(z, *forward_fits[K, "wide"]).exp()
        ax.plot(z, q, style, color=COLOURS["forward"], label=f"$K={K}$, wide start")
    ax.set(xlabel="$z$", ylabel="density", ylim=(0, 0.6))
    ax.legend(ncols=2, fontsize=8)
    for start, marker, colour in (("wide", "o", "forward"), ("narrow", "s", "other")):
        if start in starts:
            sds = [forward_fits[K, start][1] for K in particles]
            right_ax.plot(
                particles, sds, marker + "-", color=COLOURS[colour], label=f"{start} start"
            )
    right_ax.axhline(exact_sd, color=COLOURS["target"], label="exact optimum")
    right_ax.set(xscale="log", xlabel="particles $K$", ylabel="fitted sd", ylim=(0, 3.4))
    right_ax.set_xticks(particles, particles)
    right_ax.minorticks_off()
    right_ax.legend(fontsize=8, loc="lower right")


def learning_picture(noises, collapse, em) -> None:
    """Latents in use by noise; log likelihood and bound by the weight, each with its maximum."""
    _, (ax, right_ax) = plt.subplots(1, 2, figsize=(9, 3.2))
    eigenvalues = torch.tensor(linear_vae.EIGENVALUES[:6])
    s = torch.linspace(0.3, 8.5, 400)
    ax.step(s, (eigenvalues > s[:, None]).sum(1), color=COLOURS["target"], label="theory")
    ax.plot(noises, [c["in use by the bound"] for c in collapse.values()], "o", ms=9,
            color=COLOURS["reverse"], label="the bound (reverse KL)")  # fmt: skip
    ax.plot(noises, [c["in use by maximum likelihood"] for c in collapse.values()], "x",
            color=COLOURS["forward"], label="maximum likelihood, no guide")  # fmt: skip
    ax.set(xlabel=r"noise variance $\sigma^2$", ylabel="latents in use", ylim=(0, 6.5))
    ax.legend(fontsize=8)
    w = torch.linspace(0.3, 1.6, 200, dtype=torch.float64)
    for curve, at, colour, label in (
        (bias.log_likelihood(w, 1.0, 3.0), em["exact"], "target", "log likelihood"),
        (bias.bound(w, 1.0, 3.0), em["restricted"], "reverse", "bound, independent causes"),
    ):
        right_ax.plot(w, curve, color=COLOURS[colour], label=label)
        right_ax.axvline(at, ymin=0.2, color=COLOURS[colour], ls=":")
    right_ax.set(xlabel="$w$ (truth: 1)", ylabel="nats per datum")
    right_ax.legend(fontsize=8, loc="lower center")


def tails_picture(reverse_sd) -> None:
    """Probability of exceeding z under the target and under three guides, on logarithmic axes."""
    _, ax = plt.subplots()
    z = torch.logspace(0, 1.5, 200, dtype=torch.float64)
    student_tail = {nu: torch.as_tensor(tails.exceeding(z, nu)) for nu in (3.0, 6.0)}
    ax.plot(
        z, student_tail[3.0], color=COLOURS["target"], lw=3, alpha=0.5, label=r"target, $\nu=3$"
    )
    ax.plot(z, student_tail[6.0], color=COLOURS["importance"], label=r"Student-t guide, $\nu=6$")
    for sd, name in ((reverse_sd, "reverse"), (math.sqrt(3), "forward")):
        normal_tail = torch.special.ndtr(-z / sd)
        ax.plot(z, normal_tail, color=COLOURS[name], label=f"normal by {name} KL, sd {sd:.2f}")
    ax.set(xscale="log", yscale="log", ylim=(1e-7, 1), xlabel="$z$", ylabel="P(exceeding $z$)")
    ax.legend(fontsize=8)


def dimensions_picture(share, drift, field_sd) -> None:
    """Effective share of draws, and the scale that forward KL finds, by dimension."""
    _, (ax, right_ax) = plt.subplots(1, 2, figsize=(9, 3.2))
    ax.loglog(list(share), list(share.values()), "o-", color=COLOURS["importance"])
    ax.set(
        xlabel="dimension", ylabel="effective share of draws", title="scale 0.9 of the right one"
    )
    right_ax.axhline(1.0, color=COLOURS["target"], label="exact forward KL")
    right_ax.plot(
        list(drift), list(drift.values()), "o-", color=COLOURS["forward"], label="forward, $K=100$"
    )
    right_ax.plot(
        list(field_sd),
        list(field_sd.values()),
        "--",
        color=COLOURS["reverse"],
        label="exact reverse KL",
    )
    right_ax.set(xlabel="dimension", ylabel="sd of the mean field", ylim=(0.6, 1.05))
    right_ax.legend(fontsize=8)
