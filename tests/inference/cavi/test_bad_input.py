"""What coordinate ascent refuses, and how it says so."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes.errors import (
    InvalidArgument,
    KLModesWarning,
    NonFiniteLoss,
    NotDefined,
    NotMonotone,
    UnsupportedStructure,
)
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Gamma, Normal, NormalMixture
from pyro_klmodes.inference.cavi import CAVI

Y = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)


def model(y):
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


def test_exact_refuses_what_is_not_conjugate_and_says_what_would_be():
    with pytest.raises(UnsupportedStructure) as error:
        CAVI(model, AutoMeanField(model), exact=True).fit(Y)
    assert "1 of 2 sites are not conditionally conjugate" in str(error.value)
    assert 'families={"tau": Gamma()} makes it so' in str(error.value)
    assert CAVI(model, exact=True).fit(Y).conjugacy.conjugate


def test_the_report_names_site_term_and_remedy():
    report = CAVI(model, AutoMeanField(model)).check(Y)
    assert report.others == ["tau"]
    assert not report.conjugate
    assert "term 'y'" in report["tau"].why or "terms 'tau' and 'y'" in report["tau"].why
    assert report["mu"].conjugate
    assert report["mu"].update == "exact coordinate update"
    assert "tau: LogNormal(), not conjugate" in str(report)

    def stubborn(y):
        x = pyro.sample("x", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    found = CAVI(stubborn).check(Y[0])["x"]
    assert not found.conjugate
    assert found.remedy == ""
    assert found.family == "LogNormal()"


def test_a_gamma_that_is_not_conjugate():
    def other(y):
        x = pyro.sample("x", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    guide = AutoMeanField(other, families={"x": Gamma()})
    with pytest.raises(UnsupportedStructure, match=r"site 'x' .* term 'y' not affine .*Normal\(\)"):
        CAVI(other, guide).fit(Y[0])


def test_guides():
    with pytest.raises(InvalidArgument, match="AutoNormal"):
        CAVI(model, AutoNormal(model))
    with pytest.raises(NotDefined, match="site 'mu' has the family NormalMixture"):
        CAVI(model, AutoMeanField(model, families={"mu": NormalMixture(2)})).fit(Y)

    def other(y):
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    def more(y):
        model(y)
        pyro.sample("extra", dist.Normal(0.0, 1.0))

    with pytest.raises(InvalidArgument, match="no site 'tau'.*another model"):
        CAVI(model, AutoMeanField(other)).fit(Y)
    with pytest.raises(InvalidArgument, match="site 'extra', which is no latent"):
        CAVI(model, AutoMeanField(more)).fit(Y)

    def marked(y):
        z = pyro.sample("z", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + z, 1.0), obs=y)

    with pytest.raises(InvalidArgument, match="marked for enumeration"):
        CAVI(marked, AutoMeanField(marked)).fit(Y[0])
    assert CAVI(marked).fit(Y[0]).converged


def test_nothing_to_update():
    def observed(y):
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match="no latent sites"):
        CAVI(observed).fit(Y[0])


def test_data():
    with pytest.raises(NonFiniteLoss, match="site 'y'.*nan"):
        CAVI(model).fit(torch.tensor([1.0, float("nan")]))


def test_an_improper_update():
    def improper(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("undo", 0.5 * mu * mu)
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    with pytest.raises((NonFiniteLoss, UnsupportedStructure), match="mu"):
        CAVI(improper).fit(Y[0])


def test_elements_that_meet():
    def counts(y):
        with pyro.plate("items", 3):
            z = pyro.sample("z", dist.Categorical(torch.ones(2) / 2))
        pyro.sample("y", dist.Normal(z.sum(-1).to(y.dtype), 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match="site 'z': in term 'y'"):
        CAVI(counts).fit(Y[0])

    def square(y):
        with pyro.plate("items", 3):
            s = pyro.sample("s", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(s.sum(-1), 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match="site 's': in term 'y'"):
        CAVI(square).fit(Y[0])

    def product(y):
        with pyro.plate("items", 2):
            r = pyro.sample("r", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Poisson(r.prod(-1)), obs=y)

    guide = AutoMeanField(product, families={"r": Gamma()})
    with pytest.raises(UnsupportedStructure, match="elements meet in term 'y'"):
        CAVI(product, guide).fit(torch.tensor(3.0))


def test_too_many_combinations():
    def sum_of_many(X, y):
        w = [pyro.sample(f"w{i}", dist.Normal(0.0, 1.0)) for i in range(30)]
        mean = sum(a * x for a, x in zip(w, X, strict=True))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(UnsupportedStructure, match=r"1,073,741,824 combinations .*one vector"):
        CAVI(sum_of_many).fit(torch.ones(30), Y[0])


def test_a_model_that_is_random_beyond_its_sites():
    def noisy(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y + torch.randn(len(y)))

    with pytest.raises((NotMonotone, UnsupportedStructure)):
        CAVI(noisy).fit(Y, tolerance=0.0)


def test_arguments():
    for wrong in ({"steps": -1}, {"steps": 1.5}, {"tolerance": -1.0}, {"seed": "a"}):
        (name,) = wrong
        with pytest.raises(InvalidArgument, match=name):
            CAVI(model).fit(Y, **wrong)
    with pytest.raises(InvalidArgument, match="epochs=3"):
        CAVI(model).fit(Y, epochs=3)
    with pytest.raises(InvalidArgument, match="model"):
        CAVI(3)
    with pytest.raises(InvalidArgument, match="callback"):
        CAVI(model).fit(Y, callbacks=3)


def test_callbacks_and_interruption():
    seen = []
    result = CAVI(model).fit(Y, callbacks=[lambda info: seen.append(info.loss) or len(seen) == 2])
    assert result.steps == 2
    assert seen == result.losses.tolist()
    assert not result.converged

    def interrupt(info):
        raise KeyboardInterrupt

    result = CAVI(model).fit(Y, callbacks=[interrupt])
    assert result.interrupted
    assert result.steps == 1


def test_a_guide_goes_on_and_the_store_is_left_alone():
    guide = AutoMeanField(model, families={"tau": Gamma(), "mu": Normal()})
    first = CAVI(model, guide).fit(Y, steps=1)
    second = CAVI(model, first.guide).fit(Y)
    assert second.elbos[0] >= first.elbos[-1]
    assert second.converged
    assert len(pyro.get_param_store()) == 0


def test_parameters_of_the_model_stay_where_they_are():
    def with_parameter(y):
        scale = pyro.param("scale", torch.tensor(2.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, scale), obs=y)

    with pytest.warns(KLModesWarning, match="'scale' stay.*EM"):
        result = CAVI(with_parameter).fit(torch.ones(3))

    assert float(result.params["scale"]) == 2
