"""The figure to drag: its table against closed forms and other integrals, its page by its parts."""

import itertools
import json
import math
import re
import runpy
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from tests.tutorials.runs import FOLDER

ROOT = FOLDER.parent
PAGE = FOLDER / "dial.html"
MIXTURES = {
    "two_modes": ((0.7, -3.0, 1.0), (0.3, 3.0, 1.0)),
    "skewed": ((0.75, 0.0, 1.0), (0.25, 2.5, 2.0)),
}
MEAN, SD, DIVERGENCE, EFFECTIVE, MISSED = range(5)


@pytest.fixture(scope="module")
def make():
    return runpy.run_path(str(FOLDER / "make_dial.py"))


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(text):
    return json.loads(re.search(r'<script type="application/json" id="table">(.*?)<', text)[1])


def optima(table, target, alpha):
    """By branch, those that the table has."""
    at = table["alphas"].index(alpha)
    return {
        name: branch["rows"][at - branch["first"]]
        for name, branch in table["targets"][target]["branches"].items()
        if 0 <= at - branch["first"] < len(branch["rows"])
    }


def density(target):
    if target == "heavy_tails":
        return lambda z: stats.t.pdf(z, 3)
    return lambda z: sum(w * stats.norm.pdf(z, m, s) for w, m, s in MIXTURES[target])


def integral(function):
    """By Gauss and Kronrod, piece by piece: another method than the table's sum over a grid."""
    edges = [-np.inf, -9, -6, -3, 0, 3, 6, 9, np.inf]
    return sum(
        integrate.quad(function, a, b, epsabs=1e-12, epsrel=1e-11)[0]
        for a, b in itertools.pairwise(edges)
    )


def divergence(q, alpha, p):
    """As it is defined in tutorial 2."""

    def inside(z):
        q_z = math.exp(-0.5 * ((z - q[0]) / q[1]) ** 2) / (q[1] * math.sqrt(2 * math.pi))
        if q_z < 1e-250:
            return 0.0  # and the quotient of what has underflowed is nothing
        if alpha == 0:
            return p(z) * math.log(p(z) / q_z)
        if alpha == 1:
            return q_z * math.log(q_z / p(z))
        return q_z**alpha * p(z) ** (1 - alpha)

    total = integral(inside)
    return total if alpha in (0, 1) else math.log(total) / (alpha * (alpha - 1))


# The table


@pytest.mark.parametrize(
    ("target", "alpha", "branch"),
    [
        ("two_modes", 1.0, "the right mode"),
        ("two_modes", 0.6, "the left mode"),
        ("skewed", -1.0, "all of p"),
        ("skewed", 2.0, "all of p"),
        ("heavy_tails", 0.5, "all of p"),
    ],
)
def test_an_entry_is_a_minimum_of_another_integral(table, target, alpha, branch):
    row, p = optima(table, target, alpha)[branch], density(target)
    assert divergence(row, alpha, p) == pytest.approx(row[DIVERGENCE], rel=6e-5)  # five digits
    # each parameter by itself: a search from the table's entry, 5 % around it
    for change in ((1.0, 0.0), (0.0, 1.0)):
        along = optimize.minimize_scalar(
            lambda step, c=change: divergence(
                (row[MEAN] + step * c[0], row[SD] * (1 + step * c[1])), alpha, p
            ),
            bounds=(-0.05, 0.04),
            method="bounded",
            options={"xatol": 1e-6},
        )
        assert abs(along.x) < 2e-4


def test_forward_kl_has_the_moments_of_p(table):
    for target, parts in MIXTURES.items():
        (row,) = optima(table, target, 0.0).values()
        mean = sum(w * m for w, m, _ in parts)
        variance = sum(w * (s**2 + (m - mean) ** 2) for w, m, s in parts)
        assert row[:2] == pytest.approx([mean, math.sqrt(variance)], rel=1e-4)
    (row,) = optima(table, "heavy_tails", 0.0).values()
    assert row[:2] == pytest.approx([0.0, math.sqrt(3)], rel=1e-4)  # df / (df - 2)


def test_effective_draws_by_closed_form(table):
    """E_q w^2 of a mixture is a sum of integrals of exponentials of quadratics, or infinite."""
    seen_infinite = 0
    for target, parts in MIXTURES.items():
        for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0):
            for row in optima(table, target, alpha).values():
                second = 0.0
                for w, m, s in parts:
                    for v, n, r in parts:
                        a = 1 / s**2 + 1 / r**2 - 1 / row[SD] ** 2
                        b = m / s**2 + n / r**2 - row[MEAN] / row[SD] ** 2
                        c = (m / s) ** 2 + (n / r) ** 2 - (row[MEAN] / row[SD]) ** 2
                        second += (
                            w * v * row[SD] / (s * r * math.sqrt(a)) * math.exp((b**2 / a - c) / 2)
                            if a > 0
                            else math.inf
                        )
                seen_infinite += second == math.inf
                # the table's five digits of mean and sd are multiplied by up to 40 in an exponent
                assert row[EFFECTIVE] == pytest.approx(1 / second, rel=5e-3)
    assert seen_infinite == 2  # of the skewed target under reverse KL and beyond


def test_missed_mass(table):
    for target, branch in (("two_modes", "the left mode"), ("heavy_tails", "all of p")):
        row, p = optima(table, target, 1.0)[branch], density(target)
        # 3.2905: the two-sided 99.9 % quantile of a normal
        edges = [row[MEAN] + sign * 3.2905267 * row[SD] for sign in (-1, 1)]
        assert row[MISSED] == pytest.approx(1 - integrate.quad(p, *edges)[0], abs=2e-5)


def test_optima_coexist_as_in_the_tutorial(table):
    assert list(optima(table, "two_modes", 0.4)) == ["both modes"]
    assert list(optima(table, "two_modes", 0.425)) == ["the left mode", "both modes"]
    assert len(optima(table, "two_modes", 0.675)) == 3
    assert len(optima(table, "two_modes", 0.8)) == 3
    assert list(optima(table, "two_modes", 0.825)) == ["the left mode", "the right mode"]
    after = {n: b["after"] for n, b in table["targets"]["two_modes"]["branches"].items()}
    assert after == {
        "the left mode": ["both modes", None],
        "the right mode": ["both modes", None],
        "both modes": [None, "the left mode"],
    }


def test_no_optimum_is_left_out(table, make):
    """Every descent from a start on a lattice ends at an entry."""
    for target in make["TARGETS"]:
        log_p = make["TARGETS"][target].p.logpdf(make["Z"])
        for alpha in (0.3, 0.7, 1.0):
            known = np.array([row[:2] for row in optima(table, target, alpha).values()])
            ends = [
                make["optimum"](np.array([mean, math.log(sd)]), alpha, log_p)
                for mean in (-3.5, 0.5, 4.0)
                for sd in (0.7, 1.2)
            ]
            for mean, log_sd in ends:
                off = np.abs(known - [mean, math.exp(log_sd)]).max(axis=1)
                assert off.min() < 1e-3


def test_heavy_tails_have_no_divergence_beyond_forward_kl(table):
    assert not optima(table, "heavy_tails", -0.025)
    (row,) = optima(table, "heavy_tails", 1.0).values()
    assert row[EFFECTIVE] == 0.0  # E_q w^2 is infinite at every alpha

    def cut(at, alpha=-0.025, sd=3.0):  # log of the integrand there: it grows without end
        return alpha * stats.norm.logpdf(at, 0, sd) + (1 - alpha) * stats.t.logpdf(at, 3)

    assert cut(1e2) < cut(1e3) < cut(1e4)
    assert cut(1e3) > 100


def test_the_whole_table_is_what_the_script_computes(table, make):
    made = json.loads(json.dumps(make["table"]()))
    assert made["alphas"] == table["alphas"]
    for name, target in made["targets"].items():
        stored = table["targets"][name]
        assert {k: target[k] for k in ("title", "formula", "z", "p")} == {
            k: stored[k] for k in ("title", "formula", "z", "p")
        }
        for branch, found in target["branches"].items():
            known = stored["branches"][branch]
            assert (found["first"], found["after"]) == (known["first"], known["after"])
            np.testing.assert_allclose(found["rows"], known["rows"], rtol=2e-3, atol=1e-6)


# The page


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements(text):
    page = Elements()
    page.feed(text)
    return page.found


def test_the_page_is_the_template_with_the_table(text, table, make):
    assert make["page"](table) == text, "run `python make_dial.py` in the folder of the tutorials"
    for name, target in make["TARGETS"].items():
        stored = table["targets"][name]
        assert (stored["title"], stored["formula"]) == (target.title, target.formula)
        np.testing.assert_allclose(
            stored["p"], np.exp(target.p.logpdf(np.array(stored["z"]))), atol=6e-6
        )
        assert list(stored["branches"]) == list(target.starts)


def test_nothing_is_loaded(text):
    loads = runpy.run_path(str(ROOT / "docs" / "offline.py"))["loads"]
    assert loads(PAGE) == []
    assert not re.search(r"https?:|//\w+\.\w|fetch\(|import\b|XMLHttp|url\(", text)


def test_the_dial_can_be_used_without_seeing_or_a_mouse(elements, table):
    (dial,) = [a for tag, a in elements if tag == "input"]
    assert dial["type"] == "range"  # arrows, home and end move it
    assert dial["aria-label"] == "alpha, the dial"
    assert [float(dial[k]) for k in ("min", "max", "step")] == [-1.0, 2.0, 0.025]
    assert table["alphas"] == pytest.approx(np.arange(-1.0, 2.01, 0.025))
    drawings = [a for tag, a in elements if tag == "svg"]
    assert len(drawings) == 2
    assert all(a["role"] == "img" and a["aria-label"] for a in drawings)
    ids = {a.get("id"): a for _, a in elements}
    assert ids[dial["aria-describedby"]]["aria-live"] == "polite"
    assert ("label", {"for": "target"}) in elements
    # the text alternative: one row for each optimum at five alphas, and one for no optimum
    expected = sum(
        max(1, len(optima(table, t, a)))
        for t in table["targets"]
        for a in (-1.0, 0.0, 0.5, 1.0, 2.0)
    )
    assert [tag for tag, _ in elements].count("tr") == 1 + expected


def test_the_page_fits_phones_and_the_dark(elements, text):
    (viewport,) = [a for tag, a in elements if tag == "meta" and a.get("name") == "viewport"]
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert "@media (prefers-color-scheme: dark)" in text
    assert ("html", {"lang": "en"}) in elements
