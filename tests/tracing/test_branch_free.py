"""A step that was taken before can be written down as a graph: nothing looks at values again."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes import CUBO, IWAE, ForwardKL, Renyi, ReverseKL, TailAdaptive, estimators
from pyro_klmodes.errors import KLModesWarning
from pyro_klmodes.tracing.runs import Pair

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
COUNTY = torch.tensor([0, 0, 1, 2])
ROWS = torch.tensor([0, 2])


def counties(x):
    a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 4):
        pyro.sample("x", dist.Normal(a[COUNTY], 1.0), obs=x)


def local(x):
    """With a site that depends on no latent value outside of the plate."""
    pyro.sample("aside", dist.Normal(0.0, 1.0), obs=x[0])
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def masked(x):
    with pyro.plate("data", 4), poutine.mask(mask=x > 0):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def impossible(x):
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("never", torch.where(x > 1.0, -math.inf, 0.0) + 0.0 * z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def mixture(x):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu[z.long()], 1.0), obs=x)


def minibatch(x):
    with pyro.plate("data", 4, subsample=ROWS) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def minibatch_guide(x):
    loc = pyro.param("loc", torch.zeros(4))
    with pyro.plate("data", 4, subsample=ROWS) as rows:
        pyro.sample("z", dist.Normal(loc[rows], 1.0))


LOSSES = [
    ReverseKL(3),
    ReverseKL(3, beta=0.5),
    IWAE(3),
    IWAE(3, estimator=estimators.doubly),
    ForwardKL(3),
    Renyi(0.5, 3),
    CUBO(2, 3),
    TailAdaptive(3),
]


def loss_of_settled(loss, pair):
    layout = replace(loss._layout(pair), settled=True)
    return loss._surrogate(loss._draws(pair, layout, loss._cut(pair, layout)), layout)


def traced_and_eager(loss, model, guide):
    """The loss of a graph and of a plain call, from the same random numbers."""
    pyro.set_rng_seed(0)
    loss.differentiable_loss(model, guide, X)
    store = pyro.get_param_store()
    names = list(store._params)
    values = [store._params[n].detach().clone() for n in names]

    def step(x, *params):
        with pyro.validation_enabled(False):
            given = dict(zip(names, params, strict=True))
            before = dict(store._params)
            store._params.update(given)
            store._param_to_name.update({p: n for n, p in given.items()})
            try:
                return loss_of_settled(loss, Pair(model, guide, (x,)))
            finally:
                store._params.clear()
                store._params.update(before)

    pyro.set_rng_seed(7)
    graph = make_fx(step)(X, *values)
    found = []
    for run in (graph, step):
        pyro.set_rng_seed(8)
        found.append(run(X, *values))
    return found


def hand_written(model):
    names = {"a": (3,), "mu": (2,), "z": (4,)}

    def guide(x):
        for name, shape in names.items():
            if name == model:
                pyro.sample(
                    name, dist.Normal(pyro.param("loc", torch.zeros(shape)), 0.8).to_event(1)
                )

    return guide


def plated_guide(x):
    loc = pyro.param("loc", torch.zeros(4))
    with pyro.plate("data", 4):
        pyro.sample("z", dist.Normal(loc, 0.8))


PAIRS = [
    (counties, hand_written("a")),
    (local, plated_guide),
    (masked, plated_guide),
    (mixture, hand_written("mu")),
    (minibatch, minibatch_guide),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{type(loss).__name__}-{loss.estimator}")
@pytest.mark.parametrize(("model", "guide"), PAIRS, ids=lambda f: f.__name__)
def test_the_graph_of_a_step_gives_what_the_step_gives(model, guide, loss):
    found, exact = traced_and_eager(loss, model, guide)
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=1e-13)


def test_dead_cells_are_cut_without_a_look():
    loss = ForwardKL(3)
    with pytest.warns(KLModesWarning, match="Every particle of some cell has weight zero"):
        found, exact = traced_and_eager(loss, impossible, plated_guide)
    assert found == exact == -math.inf


def test_what_varies_once_is_not_called_independent_again():
    """Provenance overlooks what goes through Python numbers; two particles show it."""

    def overlooking(x):
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        loc = torch.stack([torch.as_tensor(row.detach().numpy()).sum() for row in z.reshape(-1, 4)])
        with pyro.plate("one", 1):
            pyro.sample("y", dist.Normal(loc.reshape(*z.shape[:-1], 1), 1.0), obs=torch.ones(1))

    loss = IWAE(5)
    assert loss.draws(overlooking, plated_guide, X).plates == ()
    layout = loss._layout(Pair(overlooking, plated_guide, (X,)))
    assert layout.independent is None or "y" not in layout.independent


def test_autoguides_make_their_parameters_before():
    guide = AutoNormal(counties)
    loss = IWAE(4)
    loss.loss(counties, guide, X)
    with pyro.validation_enabled(False):
        graph = make_fx(lambda x: loss_of_settled(loss, Pair(counties, guide, (x,))))(X)
    assert any(node.op == "placeholder" for node in graph.graph.nodes)
