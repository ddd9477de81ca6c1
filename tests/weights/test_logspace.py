import math
from decimal import Decimal, localcontext

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import log_mean_exp, log_normalise, power_mean, self_normalise

ORDERS = [-math.inf, -3.0, -1.0, -0.1, -1e-6, 0.0, 1e-12, 1e-6, 0.1, 0.5, 1.0, 2.0, math.inf]
FINITE_ORDERS = ORDERS[1:-1]


def exact_power_mean(log_w, order):
    """Value and gradient with sixty digits."""
    with localcontext() as context:
        context.prec = 60
        order = Decimal(order)
        terms = [(order * Decimal(x)).exp() for x in log_w.tolist()]
        value = (sum(terms) / len(terms)).ln() / order
        return float(value), torch.tensor([float(term / sum(terms)) for term in terms])


def value_and_gradient(log_w, order):
    log_w = log_w.clone().requires_grad_()
    value = power_mean(log_w, order)
    (gradient,) = torch.autograd.grad(value.sum(), log_w)
    return value.detach(), gradient


class TestLogMeanExp:
    def test_closed_form(self):
        log_w = torch.tensor([[1.0, 2.0], [3.0, 8.0]]).log()
        torch.testing.assert_close(log_mean_exp(log_w), torch.tensor([2.0, 5.0]).log())
        torch.testing.assert_close(log_mean_exp(log_w, dim=-1), torch.tensor([1.5, 5.5]).log())

    def test_zero_weights_count(self):
        log_w = torch.tensor([-math.inf, 2.0, -math.inf, 2.0])
        torch.testing.assert_close(log_mean_exp(log_w), torch.tensor(2.0 - math.log(2)))

    def test_nothing_but_zero_weights(self):
        log_w = torch.tensor([[-math.inf, 0.0], [-math.inf, 0.0]], requires_grad=True)
        value = log_mean_exp(log_w)
        assert value.tolist() == [-math.inf, 0.0]
        value[1].backward()
        assert log_w.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


class TestNormalise:
    def test_closed_form(self):
        log_w = torch.tensor([1.0, 3.0, 4.0]).log() - 2000
        expected = torch.tensor([0.125, 0.375, 0.5])
        torch.testing.assert_close(self_normalise(log_w), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_normalise(log_w).exp(), expected, rtol=0, atol=1e-12)

    def test_zero_weights_stay_zero(self):
        log_w = torch.tensor([0.0, -math.inf, 0.0], requires_grad=True)
        assert log_normalise(log_w)[1] == -math.inf
        weights = self_normalise(log_w)
        assert weights.tolist() == [0.5, 0.0, 0.5]
        (weights * torch.arange(3)).sum().backward()
        assert log_w.grad.tolist() == [-0.5, 0.0, 0.5]

    @pytest.mark.parametrize("function", [log_normalise, self_normalise])
    def test_nothing_but_zero_weights_is_uniform_without_gradient(self, function):
        log_w = torch.full((4, 2), -math.inf)
        log_w[:, 1] = 1.0
        log_w.requires_grad_()
        result = function(log_w)
        uniform = torch.full((4, 2), 0.25)
        torch.testing.assert_close(result, uniform if function is self_normalise else uniform.log())
        (result * torch.arange(4.0).unsqueeze(1)).sum().backward()
        assert log_w.grad[:, 0].tolist() == [0.0] * 4
        assert log_w.grad[:, 1].abs().max() > 0.1


class TestPowerMean:
    @pytest.mark.parametrize(
        ("order", "mean"),
        [(-math.inf, 1), (-1, 1.6), (0, 2), (0.5, 2.25), (1, 2.5), (2, 8.5**0.5), (math.inf, 4)],
    )
    def test_closed_form(self, order, mean):
        value = power_mean(torch.tensor([1.0, 4.0]).log(), order)
        torch.testing.assert_close(value.exp(), torch.tensor(float(mean)), rtol=1e-14, atol=0)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
    @pytest.mark.parametrize("magnitude", [1e-18, 1e-12, 1e-9, 1e-6, 0.0099, 0.0101, 0.3, 7.0])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_value_and_gradient_against_sixty_digits(self, scale, magnitude, sign):
        log_w = scale * torch.randn(50) - 40.0
        value, gradient = value_and_gradient(log_w, sign * magnitude)
        exact_value, exact_gradient = exact_power_mean(log_w, sign * magnitude)
        assert abs(value.item() - exact_value) < 1e-12
        torch.testing.assert_close(gradient, exact_gradient, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("order", [1e-9, 1e-12, 1e-19, 1e-21, 1e-300, 5e-324])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_continuous_through_the_order_zero(self, order, sign):
        log_w = torch.randn(20)
        value, gradient = value_and_gradient(log_w, sign * order)
        # To first order in the order: half of it times the variance.
        difference = 0.5 * sign * order * log_w.var(correction=0)
        torch.testing.assert_close(value, log_w.mean() + difference, rtol=0, atol=1e-15)
        torch.testing.assert_close(gradient, torch.full((20,), 0.05), rtol=0, atol=order + 1e-16)

    @pytest.mark.parametrize("order", [1e19, 1e21, 1e300])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_huge_orders_are_extremes(self, order, dtype):
        log_w = torch.tensor([-3e4, 1.0, 2e4], dtype=dtype)
        assert power_mean(log_w, order) == 2e4
        assert power_mean(log_w, -order) == -3e4

    def test_extremes_have_the_gradient_of_their_particle(self):
        log_w = torch.tensor([0.0, 3.0, 1.0])
        assert value_and_gradient(log_w, math.inf)[1].tolist() == [0.0, 1.0, 0.0]
        assert value_and_gradient(log_w, -math.inf)[1].tolist() == [1.0, 0.0, 0.0]

    def test_rises_with_the_order(self):
        log_w = 5 * torch.randn(30, 8)
        orders = [-math.inf, -50, -3, -1, -0.02, -0.005, 0, 0.005, 0.02, 0.5, 1, 4, 50, math.inf]
        values = torch.stack([power_mean(log_w, order) for order in orders])
        assert (values.diff(dim=0) > 0).all()

    @pytest.mark.parametrize("order", ORDERS)
    def test_one_particle_is_its_own_mean(self, order):
        log_w = torch.randn(1, 5)
        value, gradient = value_and_gradient(log_w, order)
        torch.testing.assert_close(value, log_w[0], rtol=0, atol=1e-15)
        torch.testing.assert_close(gradient, torch.ones(1, 5), rtol=0, atol=1e-15)

    @pytest.mark.parametrize("order", FINITE_ORDERS)
    def test_gradcheck(self, order):
        log_w = (2 * torch.randn(6, 3)).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: power_mean(x, order), log_w)

    @pytest.mark.parametrize("order", FINITE_ORDERS)
    def test_second_derivatives(self, order):
        log_w = (2 * torch.randn(4, 2)).requires_grad_()
        assert torch.autograd.gradgradcheck(lambda x: power_mean(x, order), log_w)

    @pytest.mark.parametrize("order", [order for order in ORDERS if order > 0])
    def test_zero_weights_count_as_zero_for_positive_orders(self, order):
        finite = torch.randn(6)
        log_w = torch.cat([finite, torch.full((2,), -math.inf)])
        value, gradient = value_and_gradient(log_w, order)
        # The mean of w^order over all eight is 6/8 of the mean over the six.
        finite_value, finite_gradient = value_and_gradient(finite, order)
        expected = finite_value + math.log(0.75) / order
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(gradient[:6], finite_gradient, rtol=1e-13, atol=0)
        assert gradient[6:].tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("order", [order for order in ORDERS if order <= 0])
    def test_one_zero_weight_is_fatal_for_other_orders(self, order):
        log_w = torch.zeros(3, 2)
        log_w[1, 0] = -math.inf
        value, gradient = value_and_gradient(log_w, order)
        assert value.tolist() == [-math.inf, 0.0]
        assert gradient[:, 0].tolist() == [0.0, 0.0, 0.0]
        torch.testing.assert_close(gradient[:, 1], torch.full((3,), 1 / 3))

    @pytest.mark.parametrize("order", [*ORDERS, 1e-300, 1e300])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_nothing_but_zero_weights(self, order, dtype):
        log_w = torch.full((3, 2), -math.inf, dtype=dtype)
        log_w[:, 1] = 2.0
        value, gradient = value_and_gradient(log_w, order)
        assert value[0] == -math.inf
        assert gradient[:, 0].tolist() == [0.0, 0.0, 0.0]
        torch.testing.assert_close(value[1], torch.tensor(2.0, dtype=dtype))
        torch.testing.assert_close(gradient[:, 1], torch.full((3,), 1 / 3, dtype=dtype))

    @pytest.mark.parametrize("order", [-1.0, -0.02, -1e-6, 0.0, 1e-12, 1e-6, 0.02, 1.0])
    def test_float32(self, order):
        log_w = (3 * torch.randn(200)).float()
        value, gradient = value_and_gradient(log_w, order)
        exact_value, exact_gradient = value_and_gradient(log_w.double(), order)
        torch.testing.assert_close(value.double(), exact_value, rtol=0, atol=5e-5)
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-9)

    def test_not_a_number_is_refused_as_order(self):
        with pytest.raises(InvalidArgument, match="order is NaN"):
            power_mean(torch.zeros(3), math.nan)
