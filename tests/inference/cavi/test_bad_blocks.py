"""Blocks that have no joint factor, or no exact update, are refused naming sites and a way out."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.guides import AutoBlocks, AutoMeanField
from pyro_klmodes.guides.site_families import Gamma
from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
from pyro_klmodes.inference import by_index
from pyro_klmodes.inference.cavi import CAVI

Y = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)


def model(y):
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, tau.rsqrt()))
    other = pyro.sample("other", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu + other, tau.rsqrt()), obs=y)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("tau", r'blocks=.tau. must be a list of groups .*\[\("w", "tau"\)\]'),
        ([["mu", 3]], "must be a list of groups of site names"),
        (["mu", "tau"], "must be a list of groups of site names"),
        ([("mu", "sigma")], "site 'sigma', which is no latent of the model; it has 'tau', 'mu'"),
        ([("mu", "tau"), ("tau", "other")], r"'tau' in \('mu', 'tau'\) and \('tau', 'other'\)"),
        ([("mu", "tau", "mu")], "site 'mu' twice in"),
        ([("mu",)], r"block \('mu',\) has one site"),
    ],
)
def test_blocks_that_are_none(blocks, message):
    with pytest.raises(InvalidArgument, match=message):
        CAVI(model, blocks=blocks).fit(Y)
    with pytest.raises(InvalidArgument, match=message):
        AutoBlocks(model, blocks)(Y)


def test_a_guide_has_its_own_blocks():
    with pytest.raises(InvalidArgument, match=r"AutoBlocks\(model, \[\('mu', 'tau'\)\]\) alone"):
        CAVI(model, AutoMeanField(model), blocks=[("mu", "tau")])
    guide = AutoBlocks(model, [("mu", "tau")], families={"tau": Gamma()})
    with pytest.raises(InvalidArgument, match="families names site 'tau', which is in a block"):
        guide(Y)


def two_rates(y):
    a = pyro.sample("a", dist.Gamma(2.0, 1.0))
    pyro.sample("b", dist.Gamma(2.0, a))
    pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("m", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    pyro.sample("v", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("s", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    pyro.sample("L", BartlettWishart(torch.tensor(4.0), torch.eye(2)))
    with pyro.plate("rows", 2, dim=-1):
        pyro.sample("row", dist.Normal(0.0, 1.0))
        pyro.sample("on", dist.Bernoulli(0.5))
        pyro.sample("taus", dist.Gamma(2.0, 1.0))
    with pyro.plate("columns", 2, dim=-2):
        pyro.sample("column", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (("a", "b"), "no joint family: 'a' is on .*Take the others out"),
        (("p", "row"), "no joint family: 'p' is on Simplex"),
        (("z", "row"), "no joint family: 'z' is on Boolean"),
        (("a", "m"), r"site 'm' with event shape \(2, 2\) cannot be in a block"),
        (("s", "v"), r"'s' and 'v' have event shapes \(2,\) and \(3,\)"),
        (("L", "v"), r"'L' and 'v' have event shapes \(2, 2\) and \(3,\)"),
        (("row", "column"), "'row' is in plate 'rows' and 'column', which is drawn given it"),
        (("taus", "column"), "'taus' is in plate 'rows' and 'column'"),
        (("z", "on"), "'z' and 'on' are in other plates"),
    ],
)
def test_sites_without_a_joint_family(block, message):
    with pytest.raises(InvalidArgument, match=message):
        CAVI(two_rates, blocks=[block]).fit(Y[0])


def test_sites_that_are_not_jointly_conjugate():
    with pytest.raises(
        UnsupportedStructure,
        match=r"'other'\) is not jointly conjugate: term 'other' .*Normal\(m, \(tau \* k\).rsqrt",
    ):
        CAVI(model, blocks=[("mu", "tau", "other")]).fit(Y)

    def product(y):
        a = pyro.sample("a", dist.Normal(1.0, 1.0))
        b = pyro.sample("b", dist.Normal(1.0, 1.0))
        pyro.sample("y", dist.Normal(a * b, 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match=r"term 'y' not affine .*A product of two sites"):
        CAVI(product, blocks=[("a", "b")]).fit(Y[0])
    assert CAVI(product).fit(Y[0]).conjugacy.conjugate

    def apart(y):
        matrix = pyro.sample("matrix", BartlettWishart(torch.tensor(4.0), torch.eye(2)))
        v = pyro.sample("v", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.MultivariateNormal(v, precision_matrix=matrix), obs=y)

    with pytest.raises(UnsupportedStructure, match=r"term 'v' .*precision_matrix=k \* matrix"):
        CAVI(apart, blocks=[("v", "matrix")]).fit(Y[:2])

    def first_entry(y):
        """Quadratic in v and linear in the matrix, but not in the statistics of the family."""
        matrix = pyro.sample("matrix", BartlettWishart(torch.tensor(4.0), torch.eye(2)))
        v = pyro.sample("v", dist.MultivariateNormal(torch.zeros(2), precision_matrix=matrix))
        pyro.sample("y", dist.Normal(v[..., 0], matrix[..., 0, 0].rsqrt()), obs=y)

    with pytest.raises(UnsupportedStructure, match="term 'y' not affine in its joint statistics"):
        CAVI(first_entry, blocks=[("v", "matrix")]).fit(Y[0])


def test_elements_that_meet():
    def regression(x, y):
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        with pyro.plate("columns", 2):
            w = pyro.sample("w", dist.Normal(0.0, tau.rsqrt()))
        pyro.sample("y", dist.Normal((w * x).sum(-1), tau.squeeze().rsqrt()), obs=y)

    with pytest.raises(UnsupportedStructure, match=r"elements .* meet in term 'y'.*to_event\(1\)"):
        CAVI(regression, blocks=[("w", "tau")]).fit(Y[:2], Y[2])

    def count(y):
        with pyro.plate("items", 2):
            a = pyro.sample("a", dist.Bernoulli(0.5))
            b = pyro.sample("b", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal((a * b).sum(-1), 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match="in term 'y' a value depends on several"):
        CAVI(count, blocks=[("a", "b")]).fit(Y[0])


def test_a_global_and_a_local_site_on_minibatches():
    def local(y, subsample=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample=subsample) as index:
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    with pytest.raises(UnsupportedStructure, match="'z' sees a minibatch and 'mu' does not"):
        CAVI(local, blocks=[("mu", "z")]).fit(Y, batches=by_index([torch.arange(2)]), epochs=1)
    assert CAVI(local, blocks=[("mu", "z")]).fit(Y).converged


def test_masked_sites_and_large_tables():
    def masked(y):
        with pyro.plate("data", len(y)), poutine.mask(mask=y > 0.7):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match="site 'mu' is masked in places"):
        CAVI(masked, blocks=[("mu", "z")]).fit(Y)

    def many(y):
        on = [pyro.sample(f"on_{i}", dist.Bernoulli(0.5)) for i in range(20)]
        pyro.sample("y", dist.Normal(sum(on), 1.0), obs=y)

    block = tuple(f"on_{i}" for i in range(20))
    with pytest.raises(UnsupportedStructure, match="1,048,576 combinations .*smaller blocks"):
        CAVI(many, blocks=[block]).fit(Y[0])


def test_an_improper_block():
    def improper(y):
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, tau.rsqrt()))
        pyro.factor("undo", 0.5 * tau * mu * mu)
        pyro.sample("y", dist.Normal(0.0, tau.rsqrt()), obs=y)

    with pytest.raises(NonFiniteLoss, match="site '(tau|mu)' has no proper distribution"):
        CAVI(improper, blocks=[("mu", "tau")]).fit(Y[0])
