"""The grid of spins: sums over all states, the model's own density, and a cleaner picture."""

import itertools
import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate

from models import ising_denoise as ising
from models import ising_denoise_updates as updates
from tests.left_dimensions import check_left_dimensions, log_joint


def small():
    return torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def all_states(number):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=number)))


def by_brute_force(image, coupling, flip):
    """``p(state, image)`` for all states in plain Python."""
    height, width = image.shape
    joint = {}
    for state in itertools.product((-1, 1), repeat=height * width):
        log_p = 0.0
        for i, j in itertools.product(range(height), range(width)):
            s = state[i * width + j]
            agree = (s == 1) == bool(image[i, j])
            log_p += math.log(0.5 * (1 - flip if agree else flip))
            if i + 1 < height:
                log_p += coupling * s * state[(i + 1) * width + j]
            if j + 1 < width:
                log_p += coupling * s * state[i * width + j + 1]
        joint[state] = math.exp(log_p)
    return joint


def test_enumeration_agrees_with_brute_force():
    joint = by_brute_force(small(), 0.6, 0.2)
    log_evidence, chance = ising.enumeration(small(), 0.6, 0.2)
    total = sum(joint.values())
    assert log_evidence == pytest.approx(math.log(total), abs=1e-12)
    for i in range(6):
        expected = sum(p for state, p in joint.items() if state[i] == 1) / total
        assert float(chance.flatten()[i]) == pytest.approx(expected, abs=1e-12)


def test_the_model_has_the_evidence_and_marginals_of_the_enumeration():
    # All states of black along one dimension and all states of white along another.
    case = ising.problem()
    (image,) = case.args
    states = all_states(6)
    values = {
        "black": states[:, None, :],  # (64, 1, B)
        "white": states[:, None, :, None],  # (64, 1, A, 1)
    }
    log_p = log_joint(ising.model, (image,), {}, values, 2)  # (white, black)
    assert float(log_p.logsumexp((0, 1))) == pytest.approx(case.log_evidence, abs=1e-10)
    weight = log_p.flatten().softmax(0).reshape(64, 64)
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(weight.sum(0) @ states, case.reference["black"].mean, **close)
    white = (weight.sum(1) @ states)[:, None]
    torch.testing.assert_close(white, case.reference["white"].mean, **close)


@pytest.mark.parametrize(("coupling", "flip"), [(0.5, 0.15), (0.2, 0.3)])
def test_the_bound_is_that_of_the_guide_summed_over_its_states(coupling, flip):
    # The bound of independent spins is exact by enumeration of both sites.
    mean = torch.tensor([[0.3, -0.8, 0.1], [0.9, -0.2, 0.5]])
    joint = by_brute_force(small(), coupling, flip)
    expected = 0.0
    for state, p in joint.items():
        s = torch.tensor(state, dtype=torch.float64).reshape(2, 3)
        q = float(((1 + s * mean) / 2).prod())
        expected += q * (math.log(p) - math.log(q))
    found = float(updates.elbo(mean, small(), coupling, flip))
    assert found == pytest.approx(expected, abs=1e-12)

    black, white = ising.by_colour(mean.atanh() * 2)
    pyro.param("black_logits", black)
    pyro.param("white_logits", white[:, None])
    guide = config_enumerate(ising.mean_field_guide, default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=2).loss(ising.model, guide, small(), coupling, flip)
    assert -loss == pytest.approx(expected, abs=1e-10)


def test_an_update_of_one_colour_is_a_maximum():
    image = ising.tiny()
    torch.manual_seed(0)
    mean = torch.rand(3, 4) * 1.6 - 0.8
    colour = (torch.arange(3)[:, None] + torch.arange(4)) % 2

    def slopes(mean):
        logits = mean.atanh().requires_grad_()
        return torch.autograd.grad(updates.elbo(logits.tanh(), image), logits)[0].abs()

    assert float(slopes(mean).min()) > 1e-3
    after = updates.coordinate_updates(mean, image)
    assert float(slopes(after)[colour == 1].max()) < 1e-12  # updated last
    assert float(slopes(after)[colour == 0].max()) > 1e-3
    settled = updates.fixed_point(image)
    assert float(slopes(settled).max()) < 1e-12


@pytest.mark.parametrize("coupling", [0.2, 0.5, 1.0])
def test_sweeps_climb_and_stay_below_the_evidence(coupling):
    image = ising.tiny()
    log_evidence, chance = ising.enumeration(image, coupling)
    torch.manual_seed(0)
    mean = torch.rand(10, 3, 4) * 1.8 - 0.9  # ten starts
    bounds = []
    for _ in range(200):
        bounds.append(updates.elbo(mean, image, coupling))
        mean = updates.coordinate_updates(mean, image, coupling)
    climbs = torch.stack(bounds).diff(dim=0)
    assert (climbs >= -1e-12).all()
    assert (bounds[-1] < log_evidence).all()
    assert float((bounds[-1] - bounds[0]).min()) > 0.5
    if coupling == 0.2:  # weak enough: a single fixed point, near the truth
        assert float((mean - mean[0]).abs().max()) < 1e-12
        assert float(((1 + mean[0]) / 2 - chance).abs().max()) < 0.02


def test_without_coupling_mean_field_is_exact():
    image = ising.tiny()
    log_evidence, chance = ising.enumeration(image, 0.0)
    mean = updates.fixed_point(image, 0.0)
    torch.testing.assert_close((1 + mean) / 2, chance, rtol=0, atol=1e-12)
    assert float(updates.elbo(mean, image, 0.0)) == pytest.approx(log_evidence, abs=1e-12)
    assert log_evidence == pytest.approx(-12 * math.log(2), abs=1e-12)


def test_the_picture_gets_cleaner():
    clean = ising.picture()
    image = ising.noisy(clean)
    wrong = int((image != clean).sum())
    assert 120 < wrong < 190  # 154 expected, sd 11
    found = updates.fixed_point(image)
    assert int(((found > 0) != (clean > 0)).sum()) < 0.4 * wrong
    again = updates.coordinate_updates(found, image)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-12)


def test_squares_and_neighbours():
    grid = torch.arange(15).reshape(3, 5)
    black, white = ising.by_colour(grid)
    assert torch.equal(ising.on_grid(black, white, 3, 5), grid)
    touching = ising.neighbours(3, 5)
    assert touching.shape == (7, 8)
    assert float(touching.sum()) == 3 * 4 + 2 * 5  # sides between squares
    for i, j in itertools.product(range(7), range(8)):
        a, b = divmod(int(white[i]), 5), divmod(int(black[j]), 5)
        assert bool(touching[i, j]) == (abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1)


def test_latents_may_have_dimensions_of_their_own():
    check_left_dimensions(ising.model, (small(),), nesting=2)


def test_a_large_picture_runs_and_too_many_states_are_refused():
    image = ising.noisy(ising.picture())
    trace = poutine.trace(ising.model).get_trace(image)
    assert trace.nodes["white"]["value"].shape == (512, 1)
    with pytest.raises(ValueError, match=r"20 squares have 1048576 states; take up to 16"):
        ising.enumeration(torch.ones(4, 5))
