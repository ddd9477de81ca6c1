"""Write ``dial.html``: the dial between forward and reverse KL, as a figure to drag.

Run as ``python make_dial.py`` in this folder. For each of three targets p and each alpha it finds
every normal q at which the divergence of tutorial 2 has a local minimum, and puts the table of them
into ``dial_template.html``, which draws it. Nothing is optimised, and nothing loaded, in a browser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp

HERE = Path(__file__).parent
ALPHAS = [round(-1 + i / 40, 3) for i in range(121)]

# An integral is a sum over this grid; z = sinh(u) reaches so far that a power's tail is in it, and
# is so smooth that the sum is exact to rounding for whatever is wider than the spacing.
_U = np.linspace(-20.0, 20.0, 4001)
Z, LOG_DZ = np.sinh(_U), np.log(np.cosh(_U) * (_U[1] - _U[0]))


class Mixture(NamedTuple):
    """A sum of normals, each (weight, mean, sd)."""

    parts: tuple[tuple[float, float, float], ...]

    def logpdf(self, z):
        """Log density."""
        return logsumexp([np.log(w) + stats.norm.logpdf(z, m, s) for w, m, s in self.parts], 0)

    def cdf(self, z):
        """Probability of less."""
        return sum(w * stats.norm.cdf(z, m, s) for w, m, s in self.parts)


class Target(NamedTuple):
    """What the figure offers: a density p, and where to begin looking for each optimum."""

    title: str
    formula: str
    p: Any
    window: tuple[float, float]
    starts: dict[str, tuple[float, float, float]]  # of an optimum: alpha, mean, sd
    finite_from: float = -1.0  # the divergence of every normal is infinite below this alpha


TARGETS = {
    "two_modes": Target(
        "Two modes",
        "0.7 N(−3, 1) + 0.3 N(3, 1)",
        Mixture(((0.7, -3.0, 1.0), (0.3, 3.0, 1.0))),
        (-9.0, 9.0),
        {
            "the left mode": (1.0, -3.0, 1.0),
            "the right mode": (1.0, 3.0, 1.0),
            "both modes": (0.0, -1.2, 2.9),
        },
    ),
    "skewed": Target(
        "Skewed",
        "0.75 N(0, 1) + 0.25 N(2.5, 2²)",
        Mixture(((0.75, 0.0, 1.0), (0.25, 2.5, 2.0))),
        (-5.0, 9.0),
        {"all of p": (0.0, 0.6, 1.7)},
    ),
    # q^alpha p^(1 - alpha) grows like exp(z^2) for alpha < 0, whatever normal q is
    "heavy_tails": Target(
        "Heavy tails",
        "Student-t, 3 degrees of freedom",
        stats.t(3),
        (-9.0, 9.0),
        {"all of p": (0.0, 0.0, 1.7)},
        finite_from=0.0,
    ),
}


def divergence(q, alpha, log_p):
    """D_alpha of tutorial 2 and its gradient in q = (mean, log sd), with its limits at 0 and 1."""
    mean, log_sd = q
    e = (Z - mean) * np.exp(-log_sd)
    log_q = -0.5 * e**2 - log_sd - 0.5 * np.log(2 * np.pi)
    score = np.stack([e * np.exp(-log_sd), e**2 - 1])  # of log q
    if alpha == 0:
        mass = np.exp(log_p + LOG_DZ)
        return np.sum(mass * (log_p - log_q)), -score @ mass
    if alpha == 1:
        mass = np.exp(log_q + LOG_DZ)
        excess = np.where(mass > 0, log_q - log_p, 0.0)
        return np.sum(mass * excess), score @ (mass * excess)
    log_mass = alpha * log_q + (1 - alpha) * log_p + LOG_DZ
    total = logsumexp(log_mass)
    if max(log_mass[0], log_mass[-1]) > total - 20:  # still growing where the grid ends
        return np.inf, np.zeros(2)
    return total / (alpha * (alpha - 1)), score @ np.exp(log_mass - total) / (alpha - 1)


def optimum(start, alpha, log_p):
    """The (mean, log sd) of the local minimum below a start."""
    return minimize(divergence, start, (alpha, log_p), "BFGS", jac=True, options={"gtol": 1e-9}).x


def follow(start, alphas, log_p):
    """The optima that are the continuation of one another, and where the next one jumps to."""
    found = []
    for alpha in alphas:
        following = optimum(start, alpha, log_p)
        if found and np.abs(following - start).max() > 0.5:
            return found, following
        found.append(start := following)
    return found, None


def row(q, alpha, target, log_p):
    """Mean, sd, divergence, share of effective draws, and mass of p outside of q's interval."""
    mean, sd = np.where(abs(q[0]) < 1e-9, 0.0, q[0]), np.exp(q[1])
    second_moment = logsumexp(2 * log_p - stats.norm.logpdf(Z, mean, sd) + LOG_DZ)  # log E_q w^2
    low, high = mean + sd * stats.norm.ppf(0.0005), mean + sd * stats.norm.ppf(0.9995)
    values = (
        mean,
        sd,
        divergence(q, alpha, log_p)[0],
        np.exp(-second_moment),
        target.p.cdf(low) + 1 - target.p.cdf(high),
    )
    return [float(f"{value:.5g}") for value in values]


def branches(target):
    """By name of each branch of optima: place of its first alpha, its rows, what comes after it."""
    log_p = target.p.logpdf(Z)
    found, ends = {}, {}
    for name, (home, mean, sd) in target.starts.items():
        at, start = ALPHAS.index(home), np.array([mean, np.log(sd)])
        finite = [alpha for alpha in ALPHAS if alpha >= target.finite_from]
        below, after_low = follow(start, [a for a in reversed(finite) if a <= home], log_p)
        above, after_high = follow(start, [a for a in finite if a >= home], log_p)
        first, optima = at + 1 - len(below), below[::-1] + above[1:]
        rows = [row(q, ALPHAS[first + i], target, log_p) for i, q in enumerate(optima)]
        found[name] = {"first": first, "rows": rows, "after": [None, None]}
        ends[name] = [(first - 1, after_low), (first + len(rows), after_high)]
    for name, both_ends in ends.items():
        for end, (at, q) in enumerate(both_ends):
            if q is not None:
                found[name]["after"][end] = landing(q, at, found)
    return found


def landing(q, at, found):
    """The branch on which an optimum at the alpha of a place lies."""
    for name, branch in found.items():
        place = at - branch["first"]
        if 0 <= place < len(branch["rows"]):
            mean, sd = branch["rows"][place][:2]
            if np.allclose([q[0], np.exp(q[1])], [mean, sd], atol=1e-3):
                return name
    raise ValueError(f"the optimum {q} at alpha = {ALPHAS[at]} lies on no branch")


def table():
    """Everything that the figure shows."""
    targets = {}
    for name, target in TARGETS.items():
        z = np.round(np.linspace(*target.window, 181), 3)
        p = np.exp(target.p.logpdf(z))
        targets[name] = {
            "title": target.title,
            "formula": target.formula,
            "z": z.tolist(),
            "p": [round(float(value), 5) for value in p],
            "branches": branches(target),
        }
    return {"alphas": ALPHAS, "targets": targets}


def stops(made):
    """The same in words and numbers, for five alphas: rows of an HTML table."""
    for target in made["targets"].values():
        for at in (0, 40, 60, 80, 120):
            where = f"<td>{target['title']}, {{}}</td><td>{ALPHAS[at]:g}</td>"
            there = {
                name: branch["rows"][at - branch["first"]]
                for name, branch in target["branches"].items()
                if 0 <= at - branch["first"] < len(branch["rows"])
            }
            for name, values in there.items():
                numbers = "".join(f"<td>{value:.3g}</td>" for value in values)
                yield f"<tr>{where.format(name)}{numbers}</tr>".replace("-", "−")
            if not there:
                none = '<td colspan="5">infinite for every normal q</td>'
                yield f"<tr>{where.format('none')}{none}</tr>".replace("-", "−")


def page(made):
    """The template, filled."""
    template = (HERE / "dial_template.html").read_text(encoding="utf-8")
    filled = template.replace("@TABLE@", json.dumps(made, separators=(",", ":")))
    return filled.replace("@STOPS@", "\n".join(stops(made)))


if __name__ == "__main__":
    (HERE / "dial.html").write_text(page(table()), encoding="utf-8")
