"""Tails of a flow: those of its base and its tail layer, whatever it is fitted to."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import init_to_value

from pyro_klmodes import ReverseKL
from pyro_klmodes.guides.flow import (
    Affine,
    AutoFlow,
    Autoregressive,
    StudentTailLayer,
    StudentTBase,
)
from pyro_klmodes.weights import pareto_khat


def fitted(df, steps=300, **choices):
    """Draws of a flow before a fit to a standard Student t, and its density after."""

    def model():
        pyro.sample("x", dist.StudentT(df, torch.zeros(()), 1.0))

    guide = AutoFlow(
        model,
        architecture=Autoregressive(Affine(), transforms=1),
        init_loc_fn=init_to_value(values={"x": torch.zeros(())}),
        **choices,
    )
    optimizer = pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.02 ** (1 / steps)})
    svi = SVI(model, guide, optimizer, ReverseKL(num_particles=64))
    guide()
    start = draws(guide.family.density())
    for _ in range(steps):
        svi.step()
    return start, guide.family.density()


@torch.no_grad()
def draws(density):
    return density.rsample(torch.Size([100_000])).squeeze(-1)


@torch.no_grad()
def khat(density, df):
    u = density.rsample(torch.Size([100_000]))
    target = dist.StudentT(df, torch.zeros(()), 1.0).log_prob(u).squeeze(-1)
    return pareto_khat(target - density.log_prob(u))


def test_a_gaussian_flow_does_not_reach_the_tails_of_a_cauchy():
    _, density = fitted(1.0, steps=150)
    assert khat(density, 1.0) > 0.7


def test_a_learned_student_base_finds_the_tails_of_a_cauchy():
    """By its degrees of freedom: k-hat of weights that are all but equal is noise."""
    _, density = fitted(1.0, base=StudentTBase(df=5.0))
    df = density.base.joint.base_dist.df
    assert abs(5.0 - 1.0) > 5 * 0.1
    assert abs(df - 1.0) < 0.1


def test_a_student_base_of_other_degrees_of_freedom_is_as_good_as_the_law_says():
    """Tails of index 1 weighed by tails of index 1.5: k = 1 - 1 / 1.5."""
    _, density = fitted(1.0, base=StudentTBase(df=1.5, learn=False))
    assert abs(khat(density, 1.0) - 1 / 3) < 0.1


def test_a_learned_tail_layer_finds_the_tails_of_a_cauchy():
    _, density = fitted(1.0, tails=StudentTailLayer(weights=0.2))
    assert khat(density, 1.0) < 0.5


def test_the_extremes_of_a_t_are_found():
    """The 99.9 % quantile within 10 %; that of 100,000 draws has a standard error of 3.5 %."""
    exact = 10.2145  # of a Student t with three degrees of freedom
    start, density = fitted(3.0, base=StudentTBase(df=30.0))
    assert abs(start.quantile(0.999) / exact - 1) > 5 * 0.1
    assert abs(draws(density).quantile(0.999) / exact - 1) < 0.1
