"""What families of guides can and cannot do: gradients, factors, structure, densities."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import iterated, planar
from pyro.infer.autoguide import AutoNormalizingFlow
from torch import Tensor

from claims.grid import GRID, log_normal, minimise
from models import conjugate_normal, gaussian_pair
from pyro_klmodes import CAVI, ForwardKL, draws, errors, fit, linear_response
from pyro_klmodes.guides import AutoFlow


def gradient_noise() -> float:
    """Standard deviation of a one-draw gradient of the bound over its mean, by a grid.

    z ~ N(0, 1), y = 1 with probability sigmoid(z); the guide is N(0, 1), the gradient that of its
    mean: ``d log p(y, z) / dz``. There is no closed form.
    """
    q = log_normal(GRID, 0.0, 1.0).exp()
    gradient = torch.sigmoid(-GRID) - GRID
    mean = torch.trapezoid(q * gradient, GRID)
    variance = torch.trapezoid(q * (gradient - mean) ** 2, GRID)
    return float(variance.sqrt() / mean.abs())


def gradient_through_gamma(draws: int = 20_000) -> tuple[float, float]:
    """Mean and standard error of the pathwise derivative of E z for z ~ Gamma(a, 1) at a = 2.

    The exact derivative is 1. Gamma draws are not a shift and a scale of noise: the derivative is
    implicit (Figurnov, Mohamed and Mnih, 2018).
    """
    torch.manual_seed(0)
    shape = torch.full((draws,), 2.0, requires_grad=True)
    dist.Gamma(shape, 1.0).rsample().sum().backward()
    each = shape.grad
    return float(each.mean()), float(each.std()) / math.sqrt(draws)


def free_form_factor() -> dict[str, float]:
    """The best factor for a, where a, b ~ N(0, 1) and a Poisson count of rate exp(a + b) is 0.

    Coordinate ascent with q(a) ∝ exp(E_b log p), no family assumed: only E exp(b) enters. The
    bound of the best normal factors is for comparison.
    """
    expected = 1.0
    for _ in range(200):
        log_q = -(GRID**2) / 2 - expected * GRID.exp()
        log_q = log_q - torch.log(torch.trapezoid(log_q.exp(), GRID))
        expected = float(torch.trapezoid((log_q + GRID).exp(), GRID))
    q = log_q.exp()
    mean = torch.trapezoid(q * GRID, GRID)
    sd = torch.trapezoid(q * (GRID - mean) ** 2, GRID).sqrt()
    skewness = torch.trapezoid(q * ((GRID - mean) / sd) ** 3, GRID)
    prior = log_normal(GRID, 0.0, 1.0)
    # a far tail underflows to zero mass, where 0 times minus infinity is to be zero
    each = torch.trapezoid(torch.where(q > 0, q * (prior - log_q), 0.0), GRID)
    bound = float(2 * each - expected**2)

    def loss(x: Tensor) -> Tensor:
        mean, log_sd = x
        to_prior = (mean**2 + (2 * log_sd).exp() - 1) / 2 - log_sd
        return 2 * to_prior + (2 * mean + (2 * log_sd).exp()).exp()

    normal = -float(loss(minimise(loss, [0.0, 0.0])))
    return {"skewness": float(skewness), "bound": bound, "bound of normals": normal}


def explaining_away(x: Tensor) -> None:
    """Two causes of one observation; their posterior correlation is -0.8."""
    a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
    pyro.sample("x", dist.Normal(a + b, 0.5), obs=x)


def mean_field() -> dict[str, object]:
    """Coordinate ascent on ``explaining_away`` at x = 2, and its repair by linear response.

    The posterior has the precision [[5, 4], [4, 5]]: means 8/9, standard deviations sqrt(5)/3.
    """
    fitted = CAVI(explaining_away).fit(torch.tensor(2.0), progress=False)
    repaired = linear_response(fitted)
    return {
        "losses": fitted.losses,
        "mean": float(repaired.mean["a"]),
        "sd": float(repaired.mean_field_sd["a"]),
        "repaired sd": float(repaired.sd["a"]),
        "exact mean": 8 / 9,
        "exact sd": math.sqrt(5) / 3,
    }


def structured() -> dict[str, float]:
    """Global and local latents: KL of the best mean field, and the spread of structured weights.

    Twenty data with a mean of their own each and one mean above them. The posterior is normal with
    precisions N + 1 of the global and 2 of the local latents, which determine the mean field.
    """
    case = conjugate_normal.hierarchical_problem()
    size = case.args[0].shape[0]
    precision = 2 * torch.eye(size + 1, dtype=torch.float64)
    precision[0, 0] = size + 1
    precision[0, 1:] = precision[1:, 0] = -1
    gap = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    found = draws(case.model, case.exact_guide, case.args, num_particles=1000)
    return {"mean field": float(gap), "spread of log-weights": float(found.log_w.std())}


def densities() -> dict[str, object]:
    """Whether a flow knows its density at values that are given: a coupling flow, a planar one.

    The parameters of the coupling flow are moved at random, so that it is no normal any more, and
    its density is summed over a grid: what is a density gives 1. Forward KL with the planar flow is
    asked for, and the refusal returned.
    """
    model = gaussian_pair.model
    side = torch.linspace(-8, 8, 81)
    points = torch.cartesian_prod(side, side)
    with pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(0)
        guide = AutoFlow(model)
        guide()  # makes its parameters
        for parameter in guide.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        density = guide.log_prob({"z": points}).exp()
    total = density.sum() * (side[1] - side[0]) ** 2
    refusal = ""
    try:
        one_way = AutoNormalizingFlow(model, partial(iterated, 1, planar))
        fit(model, one_way, ForwardKL(8), steps=1, progress=False)
    except errors.NoDensity as error:
        refusal = str(error)
    return {"total": float(total), "refusal": refusal}
