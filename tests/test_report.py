"""The page of a comparison, from fits whose numbers are known."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pyro_klmodes.comparison import Comparison
from pyro_klmodes.entries import Moments, Reference, Settings
from pyro_klmodes.report import write_page
from tests.comparison.made_up import (
    FAILURE,
    chains,
    coverage,
    diagnosis,
    elpd,
    fitted,
    opinion,
)

# theta[0] is off by a quarter of a standard deviation, theta[1] has 0.78 of the spread.
REFERENCE = Reference({"theta": Moments.of([1.0, -0.5], [3.0, 4.5])}, -3.01, "closed form")
VOID = {"meta", "link", "br", "img", "source"}
FIGURES = ["evidence", "modes", "forest", "density", "pair", "khat", "training"]


class Page(HTMLParser):
    """Every tag with its attributes, the text, and whether tags close as they open."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.text, self.open = source, [], "", []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} repeats an attribute"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def everything():
    masses = diagnosis("misses mass", opinion=opinion(0.7, 0.3), coverage=coverage(1.0, 0.0))
    return (
        fitted("a", diagnosis=masses, loo=elpd(0.1, 0.9), notes=("mind the gap",)),
        fitted("b & c", loss="ForwardKL"),
        chains(),
        FAILURE,
    )


def comparison(*outcomes, **more):
    known = {"reference": REFERENCE, "name": "a <b> model", "source": "made up"}
    settings = Settings(num_draws=4000, seed=3, command="klmodes compare <some> model", steps=50)
    return Comparison(outcomes, **(known | {"settings": settings} | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    comparison(*everything()).save(place)
    return place


@pytest.fixture
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def page_of(place, *outcomes, **more):
    return Page(write_page(place, comparison(*outcomes, **more)).read_text(encoding="utf-8"))


def test_the_page_asks_nobody_for_anything(page, folder):
    names = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")
    addresses = [a[name] for _, a in page.tags for name in names if name in a]
    beside = sorted({x for x in addresses if not x.startswith("data:")})

    assert beside == ["a.nc", "b-c.nc", "fits.csv", "nuts.nc", "parameters.csv", "results.json"]
    assert all((folder / name).is_file() for name in beside)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "iframe", "object", "embed", "base", "form", "audio", "video", "frame"}
    )
    assert [a["rel"] for a in page.all("link")] == ["icon"]
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.source)
    for request in ("@import", "url(", "http:", "https:", "//"):
        assert request not in without_pictures


def test_tags_close_as_they_open_and_names_are_given_once(page):
    assert page.source.startswith("<!DOCTYPE html>")
    assert page.open == []
    names = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(names)) == len(names)
    referred = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert referred <= set(names)


def test_the_page_can_be_read_by_everybody(page):
    assert page.all("html") == [{"lang": "en"}]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert set(headings[1:]) == {2}
    assert [len(page.all(tag)) for tag in ("main", "header", "footer", "title")] == [1] * 4
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table")) == 2
    images = page.all("img")
    assert all(len(image["alt"]) > 40 for image in images)
    assert all(int(image["width"]) and int(image["height"]) for image in images)
    # What scrolls can be reached by keyboard and has a name.
    scrolling = [a for a in page.all("section") if "scroll" in a.get("class", "")]
    assert len(scrolling) == 2 + len(FIGURES)
    assert all(a["tabindex"] == "0" and a["aria-labelledby"] for a in scrolling)
    links = [a["aria-label"] for a in page.all("a") if a["href"].endswith(".nc")]
    assert links == [f"Draws of {label} as NetCDF" for label in ("a", "b & c", "nuts")]


def test_figures_come_for_light_and_dark_each_with_a_sentence(page, folder):
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(FIGURES)
    sources = page.all("source")
    assert {a["media"] for a in sources} == {"screen and (prefers-color-scheme: dark)"}
    light = [a["src"] for a in page.all("img")]
    dark = [a["srcset"] for a in sources]
    assert len(light) == len(dark) == len(FIGURES)
    assert not set(light) & set(dark)
    assert all(x.startswith("data:image/png;base64,") for x in light + dark)
    assert "@media print" in page.source
    for name in FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    (modes,) = [a["alt"] for a in page.all("img") if "each mode" in a["alt"]]
    assert "found without a guide 70%, 30%; a 100%, 0%" in modes


def test_the_summary_comes_first(page):
    order = ["a <b> model", "b & c and nuts can be believed", "Can the fits be believed?"]
    order += ["Posterior means", "Mass of the modes", "How it was run"]

    places = [page.text.index(text) for text in order]

    assert places == sorted(places)


def test_the_page_says_what_the_fits_say(page):
    for expected in (
        "closed form",
        "made up",
        "✓ reliable",
        "! misses mass",
        "✗ failed",
        "−3.000 ± 0.020",
        "exact −3.01",
        "ELBO −3.25",
        "−31.5 ± 1.5",
        "1 bad k",
        "R-hat 1.00",
        "64\u2009000",
        "mind the gap",
        FAILURE.message,
        "theta[1]",
        "−0.5 ± 3.5",
        "−0.25 sd · ×1.00",
        "klmodes compare <some> model",
        "50 steps per fit, 4\u2009000 draws of each guide, seed 3",
    ):
        assert expected in re.sub(r"[ \n]+", " ", page.text), expected


def test_only_what_is_off_the_reference_is_marked(page):
    marked = [a for a in page.all("span") if a.get("class") == "off"]

    assert len(marked) == 3  # theta[1] in each of the fits


def test_a_model_without_reference_has_no_reference_column(tmp_path):
    page = page_of(tmp_path, fitted(), reference=Reference())

    assert "Reference" not in page.text
    assert "exact" not in page.text


def test_a_page_of_failures_has_their_reasons_and_no_figures(tmp_path):
    page = page_of(tmp_path, FAILURE)

    assert "The fit failed." in page.text
    assert FAILURE.message in page.text
    assert not page.all("img")
    assert page.open == []


def test_what_a_fit_calls_itself_cannot_become_a_tag(tmp_path):
    rude = replace(FAILURE, label="<script>alert(1)</script>", message='"><img src=x>')
    page = page_of(tmp_path, rude)

    assert not page.all("script")
    assert not page.all("img")
    assert rude.label in page.text
