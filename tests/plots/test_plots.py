"""What figures show: numbers that are drawn, and what is left out."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from pyro_klmodes import inference_data, plots
from pyro_klmodes.comparison import Comparison
from pyro_klmodes.entries import Moments, Reference
from pyro_klmodes.plots.draws import Columns, most_different
from pyro_klmodes.plots.theme import DARK, LIGHT, looks
from tests.comparison.made_up import (
    REFERENCE,
    S,
    chains,
    coverage,
    diagnosis,
    fitted,
    inference_data_of,
    khats,
    opinion,
    weights,
)

EVERY = (
    plots.density,
    plots.evidence,
    plots.forest,
    plots.khat,
    plots.modes,
    plots.pair,
    plots.training,
)


def bimodal(label, *masses):
    found = diagnosis(opinion=opinion(0.3, 0.7), coverage=coverage(*masses))
    return fitted(label, diagnosis=found)


def comparison(*fits, reference=REFERENCE):
    return Comparison(fits or (bimodal("a", 0.4, 0.6), bimodal("b", 1.0, 0.0)), reference)


def contrast(first, second):
    """Of two colours, as the Web Content Accessibility Guidelines (2018) define it."""

    def luminance(colour):
        parts = np.array([int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("draw", EVERY)
def test_every_figure_is_drawn_for_light_and_for_dark(draw):
    light, dark = (plots.png(draw(comparison(), theme=theme)) for theme in (LIGHT, DARK))

    assert light.startswith(b"\x89PNG\r\n")
    assert light[16:24] == dark[16:24]  # one size
    assert light != dark


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_lines_stand_out_from_the_page(theme):
    assert contrast(theme.ink, theme.page) > 7
    assert contrast(theme.soft, theme.page) > 4.5
    assert contrast(theme.reference, theme.page) > 4.5
    # Lines and markers; the fifth and later fits, which have markers of their own, somewhat less.
    assert all(contrast(colour, theme.page) > 2.9 for colour in theme.palette[:4])
    assert all(contrast(colour, theme.page) > 2 for colour in theme.palette)


def test_bars_are_the_masses_of_the_largest_mode_first():
    (panel,) = plots.modes(comparison()).axes

    heights = np.array([bar.get_height() for bar in panel.patches]).reshape(3, 2)
    np.testing.assert_allclose(heights, [[0.7, 0.3], [0.6, 0.4], [0.0, 1.0]])


def test_without_modes_there_is_no_figure_of_modes():
    assert plots.modes(comparison(fitted())) is None


def test_fits_of_another_model_have_modes_of_their_own():
    other = fitted("c", diagnosis=diagnosis(opinion=opinion(0.5, 0.5), coverage=coverage(0.5, 0.5)))
    (panel,) = plots.modes(comparison(bimodal("a", 0.4, 0.6), other)).axes

    assert len(panel.patches) == 2 * 2


def test_the_evidence_figure_shows_bound_estimate_and_exact_value():
    (panel,) = plots.evidence(comparison(fitted())).axes

    exact, *rest = panel.lines
    assert exact.get_xdata() == [-3.01, -3.01]
    assert [-3.25] in [list(line.get_xdata()) for line in rest]  # ELBO
    assert [-3.0] in [list(line.get_xdata()) for line in rest]  # estimate


def test_a_bound_that_is_far_off_is_cut_and_told():
    far = fitted("far", diagnosis=diagnosis(evidence={}, weights=weights(log_evidence=-900.0)))
    (panel,) = plots.evidence(comparison(fitted("a"), fitted("b"), far)).axes

    assert panel.get_xlim()[0] > -10
    assert any("−900" in text.get_text() for text in panel.texts)


def test_chains_alone_have_neither_weights_nor_evidence_nor_losses():
    found = comparison(chains())

    assert plots.khat(found) is None
    assert plots.evidence(found) is None
    assert plots.training(found) is None
    assert plots.forest(found) is not None


def test_cells_of_local_plates_are_drawn_as_points_and_a_joint_weight_as_a_line():
    local = fitted("local", diagnosis=diagnosis(k_hat=khats(0.2, np.inf, 0.9), weights=weights()))
    (panel,) = plots.khat(comparison(local, fitted("joint"))).axes

    (points,) = panel.collections
    np.testing.assert_allclose(points.get_offsets(), [[0, 0.2], [1, 1.5], [2, 0.9]], rtol=1e-6)
    assert sorted(line.get_ydata()[0] for line in panel.lines) == [0.5, 0.7]


def test_without_local_plates_k_hat_is_that_of_every_site():
    (panel,) = plots.khat(comparison(fitted())).axes

    assert [label.get_text() for label in panel.get_yticklabels()] == ["mu", "theta"]


def test_the_forest_has_a_panel_per_site_and_a_row_per_element():
    panels = plots.forest(comparison()).axes

    names = [[label.get_text() for label in panel.get_yticklabels()] for panel in panels]
    assert names == [["mu"], ["theta[0]", "theta[1]"]]


def test_a_forest_stops_after_forty_rows():
    moments = {"x": Moments.of(np.zeros(100), np.ones(100))}
    fit = fitted(moments=moments, data=inference_data_of({"x": torch.randn(S, 100)}))
    (panel,) = plots.forest(comparison(fit, reference=Reference())).axes

    assert len(panel.get_yticklabels()) == 40


def test_integers_and_constants_have_no_density():
    moments = {"k": Moments.of(1.0, 0.8), "c": Moments.of(3.0, 0.0)}
    data = inference_data_of({"k": torch.arange(S) % 3, "c": torch.full((S,), 3.0)})
    found = comparison(fitted(moments=moments, data=data), reference=Reference())

    assert plots.density(found) is None
    assert plots.pair(found) is None
    assert plots.forest(found) is not None


def test_a_collapsed_fit_is_a_line_and_does_not_spoil_the_others():
    moments = {"mu": Moments.of(2.0, 1e-8), "theta": Moments.of([0.0, 0.0], [0.0, 0.0])}
    draws = {"mu": 2.0 + 1e-8 * torch.randn(S), "theta": torch.zeros(S, 2)}
    collapsed = fitted("point", moments=moments, data=inference_data_of(draws))
    found = comparison(fitted(), collapsed, reference=Reference())

    panel, *_ = plots.density(found).axes
    heights = [np.max(line.get_ydata()) for line in panel.lines]
    assert max(heights) < 2
    assert plots.png(plots.pair(found)).startswith(b"\x89PNG")


def test_contours_hold_the_share_of_a_normal_that_they_should():
    torch.manual_seed(1)
    x = torch.randn(4000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    moments = {"x": Moments.of([0.0, 0.0], [1.0, 1.0])}
    fit = fitted(moments=moments, data=inference_data.from_chains({"x": x[None].numpy()}))
    figure = plots.pair(comparison(fit, reference=Reference()))

    (contours,) = figure.axes[2].collections
    precision = torch.linalg.inv(torch.tensor([[1.0, 0.8], [0.8, 1.0]])).numpy()
    for path, squared in zip(contours.get_paths(), (4.605, 1.386), strict=True):  # -2 log(1 - m)
        vertices = path.vertices
        radii = np.einsum("vi,ij,vj->v", vertices, precision, vertices)
        assert np.median(radii) == pytest.approx(squared, rel=0.1)


def test_the_parameters_of_the_pair_plot_are_those_that_differ_most():
    reference = Reference({"theta": Moments.of([0.25, 30.0], [3.0, 3.5])})
    found = comparison(fitted(), reference=reference)
    candidates = Columns(found).continuous(found)

    chosen = most_different(found, candidates, 1)

    assert [parameter.name for parameter in chosen] == ["theta[1]"]


def test_crossed_guides_and_losses_share_colours_and_lines():
    pairs = [(guide, loss) for guide in ("G", "H") for loss in ("r", "f")]
    found = looks([fitted(f"{g}{r}", g, r) for g, r in pairs], LIGHT)

    assert found[0].colour == found[2].colour != found[1].colour
    assert found[0].line == found[1].line != found[2].line


def test_guides_and_losses_that_are_not_crossed_look_all_different():
    pairs = [("G", "r"), ("H", "f"), ("G", "elbo")]
    found = looks([fitted(f"{g}{r}", g, r) for g, r in pairs], LIGHT)

    assert len({look.colour for look in found}) == len({look.line for look in found}) == 3


def test_the_reference_fit_has_the_colour_of_the_text():
    found = looks([fitted("a"), chains("nuts")], DARK, "nuts")

    assert found[1].colour == DARK.ink
    assert found[0].colour == DARK.palette[0]


def test_skipped_steps_leave_no_hole_in_the_loss():
    losses = np.linspace(9.0, 3.0, 50)
    losses[10] = np.nan
    (panel,) = plots.training(comparison(fitted(training=losses))).axes

    (line,) = panel.lines
    assert np.isfinite(line.get_ydata()).all()
    assert 10 not in line.get_xdata()


def test_a_training_is_drawn_with_its_bound_and_the_exact_value():
    losses = np.array([5.0, np.nan, 3.0, 2.0])
    steps, bounds = np.array([2, 4]), np.array([-3.0, -2.0])
    left, right = plots.learning(losses, steps, bounds, 0 * bounds, exact=-1.5).axes

    (line,) = left.lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 5], [3, 3], [4, 2]])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[2, -3], [4, -2]])
    assert list(right.lines[1].get_ydata()) == [-1.5, -1.5]


def test_pictures_and_their_reconstructions_are_above_one_another():
    shown = np.linspace(0, 1, 5 * 6).reshape(5, 2, 3)
    (panel,) = plots.pictures(shown, 1 - shown, columns=3).axes

    mosaic = np.ma.filled(panel.images[0].get_array(), np.nan)
    assert mosaic.shape == (4 * 3 - 1, 3 * 4 - 1)  # a pixel between two of them
    for number, picture in enumerate(shown):
        row, column = divmod(number, 3)
        across = slice(4 * column, 4 * column + 3)
        np.testing.assert_allclose(mosaic[6 * row : 6 * row + 2, across], picture)
        np.testing.assert_allclose(mosaic[6 * row + 3 : 6 * row + 5, across], 1 - picture)
    assert np.isfinite(mosaic).sum() == 2 * shown.size


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_picture_goes_from_the_colour_of_the_page_to_that_of_the_text(theme):
    (panel,) = plots.pictures(np.array([[[0.0, 1.0]]]), columns=4, theme=theme).axes
    image = panel.images[0]
    assert [to_hex(image.cmap(image.norm(v))) for v in (0.0, 1.0)] == [theme.page, theme.ink]
