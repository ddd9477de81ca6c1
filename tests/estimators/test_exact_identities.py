"""Every estimator of every loss against exact expectations, through the real losses.

Two particles of q = N(m, s^2) for p = N(z; 0, 1) N(x; z, 1) at x = 1.3. The noise of the two is
not random here: a plate holds the nodes of a quadrature rule over the plane, one node per cell,
and the guide's normals return them. Parameters are given per cell too, so that the gradient of
the summed loss lists the estimate at every node; the rule's weights then give its expectation.
"""

import math
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    estimators,
)
from pyro_klmodes.estimators.base import leave_one_out
from pyro_klmodes.objectives import f_functions

X, MEAN, SCALE = 1.3, 0.2, 0.9
LOG_EVIDENCE = -0.5 * math.log(4 * math.pi) - X**2 / 4

# log w is a parabola in the noise; its vertex is where the order of two weights can flip.
VERTEX = (X - 2 * MEAN) * SCALE / (2 * SCALE**2 - 1)


def panels(edges, nodes_per_panel):
    """Gauss-Legendre nodes and weights on consecutive intervals."""
    x, w = np.polynomial.legendre.leggauss(nodes_per_panel)
    pieces = [((a + b) / 2, (b - a) / 2) for a, b in pairwise(edges)]
    nodes = np.concatenate([middle + half * x for middle, half in pieces])
    return nodes, np.concatenate([half * w for _, half in pieces])


def rule():
    """Nodes ``(2, G)`` and weights ``(G,)`` for expectations over two standard normals.

    The axes are turned by 45 degrees, and cut where two weights are equal: at equal noise, and at
    noise symmetric about the vertex. So losses with a kink there (ranks, extreme weights, total
    variation) are integrated piece by piece, and no node is a tie.
    """
    u, weight_u = panels([-10.0, -5.0, 0.0, 5.0, 10.0], 24)
    v, weight_v = panels([-10.0, -4.0, math.sqrt(2) * VERTEX, 5.0, 10.0], 24)
    u, v = np.meshgrid(u, v, indexing="ij")
    weight = np.outer(weight_u, weight_v) * np.exp(-0.5 * (u**2 + v**2)) / (2 * np.pi)
    nodes = np.stack([v + u, v - u]).reshape(2, -1) / math.sqrt(2)
    return torch.from_numpy(nodes), torch.from_numpy(weight.ravel())


NODES, WEIGHTS = rule()
SIZE = NODES.shape[1]


class NormalAtNodes(dist.Normal):
    """A normal whose noise is the quadrature rule's."""

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        particles = shape[0] if len(shape) == 2 else 1
        noise = NODES[torch.arange(particles) % 2].reshape(shape)
        return self.loc + self.scale * noise


class DiscreteAtNodes(NormalAtNodes):
    """The same without a path: for estimators that must not need one."""

    has_rsample = False

    def sample(self, sample_shape=()):
        return super().rsample(sample_shape).detach()


class Pair:
    """Model and guide with one parameter per cell."""

    def __init__(self, family=NormalAtNodes):
        def leaf(value):
            return torch.full((SIZE,), value, requires_grad=True)

        self.mean, self.log_scale = leaf(MEAN), leaf(math.log(SCALE))
        self.prior_mean = leaf(0.0)

        def model():
            with pyro.plate("nodes", SIZE):
                z = pyro.sample("z", dist.Normal(self.prior_mean, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(X))

        def guide():
            with pyro.plate("nodes", SIZE):
                pyro.sample("z", family(self.mean, self.log_scale.exp()))

        self.both = model, guide

    def set(self, mean, log_scale):
        self.mean.data.fill_(mean)
        self.log_scale.data.fill_(log_scale)


def gradients(loss, family=NormalAtNodes):
    """The estimate at every node, with respect to (m, log s) and to the model's prior mean."""
    pair = Pair(family)
    loss.loss_and_grads(*pair.both)
    return torch.stack([pair.mean.grad, pair.log_scale.grad]), pair.prior_mean.grad


def expectation(per_node):
    return per_node @ WEIGHTS


@cache
def expected_gradient(name, estimator=None, family=NormalAtNodes):
    """Of a loss of the table below, with its own estimator if none is given."""
    chosen = {} if estimator is None else {"estimator": estimator}
    return expectation(gradients(ALL[name](**chosen), family)[0])


PATHWISE, DOUBLY = estimators.pathwise, estimators.doubly
SCORE, FIXED = estimators.score, estimators.fixed
EVEN = (0.0, 0.25, 0.5, 0.75, 1.0)
F_FUNCTIONS = {
    name: getattr(f_functions, name)
    for name in ("forward_kl", "reverse_kl", "chi_square", "hellinger", "jensen_shannon")
}

#: losses that are the expectation of a function of the weights, so that they have a derivative
WHOLE = {
    "reverse_kl": lambda **kw: ReverseKL(2, **kw),
    "iwae": lambda **kw: IWAE(2, **kw),
    "cubo (alpha = -1)": lambda **kw: CUBO(2, 2, **kw),
    **{f"renyi {a}": lambda a=a, **kw: Renyi(a, 2, **kw) for a in (0.0, 0.3, 0.7, 1.0, 2.0)},
    **{f"f {n}": lambda f=f, **kw: FDivergence(f, 2, **kw) for n, f in F_FUNCTIONS.items()},
    **{
        f"f {n}, evidence known": lambda f=f, **kw: FDivergence(
            f, 2, log_evidence=LOG_EVIDENCE, **kw
        )
        for n, f in F_FUNCTIONS.items()
    },
    "thermodynamic left": lambda **kw: Thermodynamic(EVEN, 2, **kw),
    "thermodynamic right": lambda **kw: Thermodynamic(EVEN, 2, bound="right", **kw),
}
KINKED = {
    "smallest weight": lambda **kw: Renyi(math.inf, 2, **kw),
    "total variation": lambda **kw: FDivergence(f_functions.total_variation, 2, **kw),
}
PARTIAL = {
    "forward_kl": lambda **kw: ForwardKL(2, **kw),
    "tail_adaptive": lambda **kw: TailAdaptive(2, **kw),
}
ALL = {**WHOLE, **KINKED, **PARTIAL}
#: their default follows the divergence itself and not the mean of its estimate, see the wake forms
LOWERED = {"cubo (alpha = -1)", "thermodynamic right"}


def close(actual, expected, tolerance=1e-9):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def log_weight(z):
    log_p = -math.log(2 * math.pi) - (z**2 + (X - z) ** 2) / 2
    log_q = -0.5 * math.log(2 * math.pi) - math.log(SCALE) - (z - MEAN) ** 2 / (2 * SCALE**2)
    return log_p - log_q


Z = MEAN + SCALE * NODES  # (2, G)
LOG_W = log_weight(Z)
SLOPE = X - 2 * Z + NODES / SCALE  # d log w / dz with the guide's parameters fixed
PATH = torch.stack([SLOPE, SLOPE * SCALE * NODES])  # P_k, with respect to (m, log s)
GUIDE_SCORE = torch.stack([NODES / SCALE, NODES**2 - 1])  # S_k


def test_the_rule_integrates_normals():
    close(WEIGHTS.sum(), 1.0, 1e-13)
    moments = torch.stack([NODES**power for power in (1, 2, 3, 4, 6)])
    close(expectation(moments), [[m, m] for m in (0.0, 1.0, 0.0, 3.0, 15.0)], 1e-11)
    close(expectation(NODES[0] ** 2 * NODES[1] ** 4), 3.0, 1e-11)
    close(expectation(LOG_W.exp()), [math.exp(LOG_EVIDENCE)] * 2, 1e-12)
    assert (LOG_W[0] != LOG_W[1]).all()


def test_the_losses_see_the_nodes():
    draws = IWAE(2).draws(*Pair().both)
    assert draws.log_w.shape == (2, SIZE)
    close(draws.log_w, LOG_W, 1e-12)


# The gradients of this toy to eight digits, by Gauss-Hermite quadrature, for bounds that are
# raised: IWAE (Burda, Grosse and Salakhutdinov, 2016) and wake-phi (Bornschein and Bengio, 2015).
@pytest.mark.parametrize("estimator", [PATHWISE, DOUBLY, SCORE], ids=repr)
def test_iwae(estimator):
    close(-expected_gradient("iwae", estimator), (0.37402589, -0.11088154), 1e-8)


@pytest.mark.parametrize("estimator", [FIXED, DOUBLY, SCORE], ids=repr)
def test_forward_kl(estimator):
    close(-expected_gradient("forward_kl", estimator), (0.32467538, -0.16816673), 1e-8)


@pytest.mark.parametrize("name", WHOLE)
def test_pathwise_is_the_derivative_of_the_expected_loss(name):
    loss, pair = WHOLE[name](), Pair()

    def expected_loss(mean_shift, log_scale_shift):
        pair.set(MEAN + mean_shift, math.log(SCALE) + log_scale_shift)
        return expectation(loss.objective(loss.draws(*pair.both).log_w))

    # Fourth-order differences: the error is step^4 / 30 times the fifth derivative.
    step = 2e-3
    stencil = {-2: 1, -1: -8, 1: 8, 2: -1}
    in_mean = sum(c * expected_loss(n * step, 0.0) for n, c in stencil.items())
    in_log_scale = sum(c * expected_loss(0.0, n * step) for n, c in stencil.items())
    differences = torch.stack([in_mean, in_log_scale]) / (12 * step)
    close(expected_gradient(name, PATHWISE), differences, 1e-8)


@pytest.mark.parametrize("name", WHOLE)
def test_doubly_has_the_mean_of_pathwise(name):
    close(expected_gradient(name, DOUBLY), expected_gradient(name, PATHWISE))


@pytest.mark.parametrize("family", [NormalAtNodes, DiscreteAtNodes], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ALL)
def test_score_has_the_same_mean(name, family):
    other = DOUBLY if name in PARTIAL else PATHWISE
    close(expected_gradient(name, SCORE, family), expected_gradient(name, other))


@pytest.mark.parametrize("family", [NormalAtNodes, DiscreteAtNodes], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", sorted(set(ALL) - LOWERED))
def test_what_is_chosen_by_default_has_the_same_mean(name, family):
    close(expected_gradient(name, None, family), expected_gradient(name, SCORE))


def test_every_loss_has_a_gradient_of_its_own():
    """Otherwise the agreements above could be those of one formula with itself."""
    alike = (
        {"iwae", "renyi 0.0"},
        {"reverse_kl", "renyi 1.0", "f reverse_kl, evidence known"},
    )
    for one, other in combinations(ALL, 2):
        distance = (expected_gradient(one) - expected_gradient(other)).norm().item()
        if any({one, other} <= group for group in alike):
            assert distance < 1e-9
        else:
            assert distance > 5e-3, (one, other)


def test_draw_by_draw_sticking_the_landing_is_dreg_plus_wake():
    """``sum wbar P`` is the sum of the path-only gradients of IWAE and forward KL.

    Without the score, IWAE's gradient is therefore biased by exactly that of forward KL.
    """
    whole, _ = gradients(IWAE(2, estimator=DOUBLY))
    wake, _ = gradients(ForwardKL(2, estimator=DOUBLY))
    weight = LOG_W.softmax(0)
    close(whole, -(weight**2 * PATH).sum(1), 1e-12)
    close(wake, -((weight - weight**2) * PATH).sum(1), 1e-12)
    path = -(weight * PATH).sum(1)
    close(whole + wake, path, 1e-12)
    close(-expectation(path), (0.69870127, -0.27904828), 1e-8)


def test_draw_by_draw_the_whole_is_path_plus_wake():
    whole, _ = gradients(IWAE(2, estimator=PATHWISE))
    wake, _ = gradients(ForwardKL(2, estimator=FIXED))
    weight = LOG_W.softmax(0)
    close(wake, -(weight * GUIDE_SCORE).sum(1), 1e-12)
    close(whole, -(weight * PATH).sum(1) - wake, 1e-12)


@pytest.mark.parametrize("name", F_FUNCTIONS)
def test_draw_by_draw_an_f_divergence_weighs_paths_by_its_second_derivative(name):
    """``-f''(r) r^2 P`` with exact ratios (Wan, Li and Hayashi, 2020)."""
    second = {
        "forward_kl": lambda r: 1 / r,
        "reverse_kl": lambda r: r**-2,
        "chi_square": lambda r: 2 * torch.ones_like(r),
        "hellinger": lambda r: r**-1.5 / 4,
        "jensen_shannon": lambda r: 1 / (2 * r * (1 + r)),
    }[name]
    ratio = (LOG_W - LOG_EVIDENCE).exp()
    loss = FDivergence(F_FUNCTIONS[name], 2, log_evidence=LOG_EVIDENCE, estimator=DOUBLY)
    close(gradients(loss)[0], -(second(ratio) * ratio**2 * PATH).mean(1), 1e-12)


def test_draw_by_draw_sticking_the_landing():
    found, _ = gradients(ReverseKL(2, estimator=DOUBLY))
    close(found, -PATH.mean(1), 1e-12)


@pytest.mark.parametrize("name", [n for n in ALL if n not in KINKED])
def test_path_only_gradients_vanish_draw_by_draw_at_the_posterior(name):
    pair = Pair()
    pair.set(X / 2, 0.5 * math.log(0.5))
    ALL[name](estimator=DOUBLY).loss_and_grads(*pair.both)
    close(torch.stack([pair.mean.grad, pair.log_scale.grad]), torch.zeros(2, SIZE), 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_models_gradient_is_that_of_its_bound_draw_by_draw(name):
    """The loss itself where it is a negated bound, else IWAE with the same weights."""
    loss = ALL[name]()
    slope = Z  # d log p / d prior mean, at prior mean zero
    expected = (loss.objective.for_model().credit(LOG_W) * slope).sum(0)
    for estimator in (loss.estimator, SCORE, *([] if name in KINKED else [DOUBLY])):
        close(gradients(ALL[name](estimator=estimator))[1], expected, 1e-12)


@pytest.mark.parametrize("num_particles", [2, 3, 5])
def test_the_mean_of_others_does_not_depend_on_the_particle_left_out(num_particles):
    """Not even by rounding: at two particles a rounded mean breaks the tie it makes, at random."""
    log_w = torch.randn(num_particles, 3)
    found = leave_one_out(lambda x: x, log_w)
    close(found, (log_w.sum(0) - log_w) / (num_particles - 1), 1e-12)
    log_w[1] = 1e17
    close(leave_one_out(lambda x: x, log_w)[1], found[1], 0.0)
