import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_klmodes.diagnostics import khat, marginal_khat
from pyro_klmodes.errors import InvalidArgument


def independent(sd, num_draws=4000):
    """Draws of independent normals, and log-weights towards standard normals."""
    x = sd * torch.randn(num_draws, *sd.shape)
    terms = Normal(0.0, 1.0).log_prob(x) - Normal(torch.zeros_like(sd), sd).log_prob(x)
    return x, terms


class TestIndependentSites:
    """The law is k = 1 - s^2, element by element."""

    def test_the_site_to_blame_is_found(self):
        sd = torch.ones(5)
        sd[3] = math.sqrt(0.4)
        shapes = []
        for _ in range(10):
            x, terms = independent(sd)
            found = marginal_khat(terms.sum(1), {"x": x})["x"]
            assert found.worst_index == (3,)
            assert found.worst == found.value[3]
            shapes.append(found.value)
        shapes = torch.stack(shapes)
        # measured: mean 0.56, standard deviation 0.01; averages of neighbours gave the others 0.4
        assert abs(shapes[:, 3].mean() - 0.6) < 0.06
        others = shapes[:, [0, 1, 2, 4]]
        assert others.max() < 0.25
        assert others.mean() < 0.0

    def test_two_sites_and_a_number(self):
        sd = torch.tensor([[0.9, 0.9, 0.6], [0.9, 0.9, 0.9]])
        x, terms = independent(sd)
        y, y_terms = independent(torch.tensor(0.8))
        found = marginal_khat(terms.sum((1, 2)) + y_terms, {"x": x, "y": y})
        assert found["x"].worst_index == (0, 2)
        assert found["x"].value.shape == (2, 3)
        assert found["y"].worst_index == ()
        assert found["x"].worst == pytest.approx(1 - 0.36, abs=0.1)
        assert found["y"].worst == pytest.approx(1 - 0.64, abs=0.1)

    def test_local_weights_blame_the_cell(self):
        sd = torch.ones(6, 2)
        sd[4, 1] = 0.6
        x, terms = independent(sd)
        found = marginal_khat(terms.sum(2), {"x": x})["x"]
        assert found.worst_index == (4, 1)
        assert found.worst == pytest.approx(0.64, abs=0.1)
        assert found.value[4, 0] < 0.25
        # the weights of the other cells are equal, so that there is nothing to be wrong
        assert found.value[[0, 1, 2, 3, 5]].abs().max() == 0.0


@pytest.mark.parametrize(("correlation", "bias"), [(0.5, 0.03), (0.7, 0.1), (0.9, 0.22)])
def test_mean_field_guide_of_correlated_normals(correlation, bias):
    """The law is 1 - s_q^2/s_p^2 = r^2, approached from below; measured means 0.25, 0.42, 0.64.

    The standard deviation of one value was 0.04 to 0.1; four standard errors of 20 are allowed.
    """
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    posterior = MultivariateNormal(torch.zeros(2), covariance)
    guide = Normal(0.0, math.sqrt(1 - correlation**2))
    shapes = []
    for _ in range(10):
        x = guide.sample((4000, 2))
        log_w = posterior.log_prob(x) - guide.log_prob(x).sum(1)
        shapes.append(marginal_khat(log_w, {"x": x})["x"].value)
    error = 4 * 0.1 / math.sqrt(20)
    mean = torch.cat(shapes).mean()
    assert correlation**2 - bias - error < mean < correlation**2 + error


def test_many_latents_spoil_the_joint_but_not_the_marginals():
    """Thirty sites with k = 0.19 each: jointly k is 0.19 too, but k-hat is far above it."""
    x, terms = independent(torch.full((30,), 0.9))
    joint = khat(terms.sum(1)).value
    found = marginal_khat(terms.sum(1), {"x": x})["x"]
    assert joint > 0.4
    assert abs(found.value.mean() - 0.19) < 0.1


def test_the_shift_of_a_guide_is_no_matter_of_the_tail():
    x = torch.randn(4000)
    found = marginal_khat(0.5 * x - 0.125, {"x": x})["x"]
    assert found.worst < 0.3


def test_one_draw_with_all_the_weight():
    log_w = torch.zeros(1000)
    log_w[7] = 200.0
    found = marginal_khat(log_w, {"x": torch.randn(1000, 3)})["x"]
    assert not found.value.isnan().any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(9, 2), r"'x' have shape \(9, 2\), .* shape of log_w, \(10, 4\)"),
        (torch.full((10, 4), math.nan), "'x' are not all finite"),
    ],
)
def test_bad_input_is_refused(values, message):
    with pytest.raises(InvalidArgument, match=message):
        marginal_khat(torch.randn(10, 4), {"x": values})
