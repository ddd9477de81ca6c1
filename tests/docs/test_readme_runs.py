"""The Python of the README runs as it stands, with numbers of steps and draws that are smaller."""

import ast

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from models.networks import Decoder, Encoder
from models.vae import VAE, BernoulliPixels, NormalPrior
from pyro_klmodes import ForwardKL, ReverseKL, fit
from tests.docs.pages import ROOT, blocks

BLOCKS = blocks(ROOT / "README.md", "python")
SMALL = 40
DATA = torch.tensor([-2.1, -1.9, -2.3, -1.6, 2.0, 2.4, 1.7, 2.2, 1.9, 2.6])


def model(data):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(data)):
        pyro.sample("y", dist.Normal(mu, 2.0), obs=data)


def mixture(data):
    weights = pyro.param("weights", torch.full((2,), 0.5), constraint=constraints.simplex)
    locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(locs[z], scale), obs=data)


def bayesian(data):
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 2.0)))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(torch.tensor([-1.0, 1.0]), 3.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(locs[z], scale), obs=data)


def latent_normals(data):
    loc = pyro.param("loc", torch.tensor(0.5))
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=data)


def regression(data):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
    with pyro.plate("data", len(data)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=data)


def chains():
    mcmc = MCMC(NUTS(model), num_samples=100, warmup_steps=50, disable_progbar=True)
    mcmc.run(DATA)
    return mcmc


class Smaller(ast.NodeTransformer):
    """What is large becomes small, so that running a block takes a second."""

    def visit_Constant(self, node):
        if isinstance(node.value, int) and node.value > SMALL:
            return ast.copy_location(ast.Constant(SMALL), node)
        return node


def run(text, **names):
    tree = ast.fix_missing_locations(Smaller().visit(ast.parse(text)))
    exec(compile(tree, "README.md", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyro.set_rng_seed(0)


@pytest.fixture(scope="module")
def fitted():
    pyro.set_rng_seed(0)
    settings = {"steps": 300, "seed": 0, "progress": False}
    losses = {"reverse": ReverseKL(num_particles=8), "forward": ForwardKL(num_particles=32)}
    return {n: fit(model, AutoNormal(model), x, DATA, **settings) for n, x in losses.items()}


def test_there_is_a_test_for_every_block():
    assert len(BLOCKS) == 7


def test_the_one_line():
    names = run(BLOCKS[0], model=model, data=DATA)
    assert isinstance(names["svi"], SVI)
    assert names["guide"].locs.mu != 0.0


def test_check_fit_and_draw():
    guide = AutoNormal(model, init_scale=1.0)
    names = run(BLOCKS[1], model=model, guide=guide, data=DATA, ForwardKL=ForwardKL)
    assert len(names["result"].losses) == SMALL


def test_a_mixture_as_the_guide():
    guide = run(BLOCKS[2], model=model)["guide"]
    assert set(guide(DATA)) == {"mu"}


def test_learning():
    vae = VAE(Encoder(64, 16, 2), Decoder(2, 16, 64), NormalPrior(2), BernoulliPixels())
    images = torch.rand(90, 64).round()
    names = run(BLOCKS[3], vae=vae, images=images, test_images=images[:5])
    assert len(names["result"].losses) > 0


def test_em_and_coordinate_ascent():
    models = {"mixture": mixture, "bayesian": bayesian, "latent_normals": latent_normals}
    names = run(BLOCKS[4], data=DATA, regression=regression, **models)
    assert names["result"].closed_form


def test_diagnosis(fitted, tmp_path):
    results = {"result": fitted["reverse"], "other": fitted["forward"]}
    run(BLOCKS[5], mcmc=chains(), **results)
    assert (tmp_path / "folder").is_dir()


def test_compiled_steps():
    guide = AutoNormal(model)
    loss = ReverseKL(num_particles=4)
    names = run(BLOCKS[6], fit=fit, model=model, guide=guide, loss=loss, data=DATA)
    assert "eager" in str(names["result"].explain())
