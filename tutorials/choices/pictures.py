"""The figures of the tutorial, from numbers that its cells compute."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from scipy import stats
from tutorial_tools import COLOURS

from choices import data_size, dimension, modes, purpose, tails
from pyro_klmodes import log_density

__all__ = ["data_picture", "dimension_picture", "modes_picture", "purpose_picture", "tails_picture"]

LOOK = {"reverse KL": "reverse", "forward KL": "forward", "chi-square": "other"}


def purpose_picture(answers) -> None:
    """One panel for every use: each divergence beside the exact answer."""
    _, axes = plt.subplots(1, len(purpose.USES), figsize=(10, 2.9))
    short = ("coverage of\na 90% interval", "sd of\n$z_1 - z_2$", "sd of\n$z_1 + z_2$",
             "nats short of\nthe evidence", "effective share\nwhen weighted")  # fmt: skip
    for ax, use, title in zip(axes, purpose.USES, short, strict=True):
        ax.axhline(purpose.EXACT[use], color=COLOURS["target"], lw=2)
        for place, (name, colour) in enumerate(LOOK.items()):
            value = answers[name][use]
            ax.bar(place, value, color=COLOURS[colour], width=0.7)
            label = ax.text(place, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
        ax.set_title(title, fontsize=9)
        top = max(purpose.EXACT[use], *(answers[name][use] for name in LOOK))
        ax.set(xticks=[], xlim=(-0.6, 2.6), ylim=(0, 1.15 * top))
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[c]) for c in LOOK.values()]
    handles.append(plt.Line2D([], [], color=COLOURS["target"], lw=2))
    figure = axes[0].figure
    figure.legend(handles, [*LOOK, "exact"], loc="outside lower center", ncols=4)


def dimension_picture(mean_field, reverse, forward) -> None:
    """Standard deviations of a coordinate and of the average, by dimension."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    every = range(2, max(mean_field) + 1)
    for which, ax in enumerate(axes):
        ax.plot(every, [dimension.exact(d)[which] for d in every], color=COLOURS["target"],
                label="exact")  # fmt: skip
        ax.plot(every, [dimension.reverse_closed(d)[which] for d in every], "--",
                color=COLOURS["reverse"], label="mean field, reverse KL, exact")  # fmt: skip
        dots = (("mean field, ForwardKL", mean_field, "o-", "forward"),
                ("low rank, ReverseKL", reverse, "D", "reverse"),
                ("low rank, ForwardKL", forward, "D", "forward"))  # fmt: skip
        for name, found, mark, colour in dots:
            values = [spread[which] for spread in found.values()]
            ax.plot(list(found), values, mark, color=COLOURS[colour], label=name)
        ax.set(xlabel="dimension", ylim=(0, 1.1))
    axes[0].set_ylabel("sd of a coordinate")
    axes[1].set_ylabel("sd of the average")
    axes[0].figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )


def modes_picture(fits) -> None:
    """The target with the densities of the fits."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    z = torch.linspace(-9, 9, 401)
    for ax, names in zip(axes, (list(fits)[:2], list(fits)[2:]), strict=True):
        target = modes.exact().log_prob(z).exp()
        ax.fill_between(z, target, color=COLOURS["target"], alpha=0.3, lw=0, label="exact")
        for name, colour in zip(names, ("reverse", "forward"), strict=True):
            q = log_density(fits[name].guide, {"z": z}).detach().exp()
            ax.plot(z, q, color=COLOURS[colour], label=name)
        ax.set(xlabel="z", ylim=(0, 0.55))
        ax.legend(fontsize=8)
    axes[0].set_ylabel("density")


def tails_picture(found) -> None:
    """Probabilities of exceeding z, on a logarithmic axis."""
    z = torch.linspace(0, 15, 300).numpy()
    exact = stats.t(tails.DEGREES)
    plt.plot(z, exact.sf(z), color=COLOURS["target"], lw=4, alpha=0.4, label="exact")
    for (name, q), colour in zip(found.items(), ("reverse", "forward", "importance"), strict=True):
        plt.plot(z, q.sf(z), color=COLOURS[colour], label=name)
    plt.axhline(1 - tails.LEVEL, color="0.7", lw=0.8, ls=":")
    plt.gca().set(xlabel="z", ylabel="chance to exceed z", yscale="log", ylim=(1e-6, 1))
    plt.legend()


def data_picture(fitted) -> None:
    """The best reverse-KL standard deviation as a share of the exact one, by counts seen."""
    shapes = torch.logspace(0, 3, 100).tolist()
    share = [data_size.reverse_sd(a) / data_size.exact_sd(a) for a in shapes]
    _, ax = plt.subplots(figsize=(6, 3.2))
    ax.axhline(1.0, color=COLOURS["target"], lw=2, label="exact, and forward KL")
    ax.plot(shapes, share, color=COLOURS["reverse"], label="reverse KL, closed form")
    at = [data_size.PRIOR_SHAPE + count for count in fitted]
    dots = [sd / data_size.exact_sd(a) for sd, a in zip(fitted.values(), at, strict=True)]
    ax.plot(at, dots, "o", color=COLOURS["reverse"], label="ReverseKL, fitted")
    ax.set(xscale="log", xlabel="events counted, plus one", ylabel="sd of q / sd of p")
    ax.set_ylim(0.7, 1.1)
    ax.legend(loc="lower right")
