"""What looks at a finished inference says which arguments are missing, and what to write."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import collapse, compare, diagnose, loo, to_arviz
from pyro_klmodes.errors import InvalidArgument

X = torch.tensor([-1.0, 0.5, 2.0])


def positional(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def by_name(*, n, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", n):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def needs_its_default(y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def svi(model, *args, **kwargs):
    made = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    made.step(*args, **kwargs)
    return made


@pytest.mark.parametrize("look", [diagnose, to_arviz, loo, collapse])
def test_a_model_that_needs_arguments_is_told_of(look):
    message = (
        r"the model takes \(x, y=None\) and got no arguments: missing a required argument: 'x'\. "
        r"Give what model and guide are called with, as args=\(x, y\)\."
    )
    with pytest.raises(InvalidArgument, match=message):
        look(svi(positional, X, X))


def test_a_comparison_tells_of_it_and_goes_on():
    fits = {"svi": svi(positional, X, X), "other": svi(needs_its_default, X)}
    found = compare(fits, kwargs={"y": X}, num_samples=100)
    (failure,) = found.failures
    assert failure.label == "svi"
    assert failure.message.startswith(
        "InvalidArgument: the model takes (x, y=None) and got kwargs ['y']: missing a required"
    )
    assert [fit.label for fit in found.fits] == ["other"]


def test_keywords_are_told_of_by_name():
    made = svi(by_name, n=3, y=X)
    with pytest.raises(InvalidArgument, match=r"takes \(\*, n, y\).*kwargs={'n': n, 'y': y}\.$"):
        diagnose(made, kwargs={"n": 3})
    assert diagnose(made, kwargs={"n": 3, "y": X}, num_starts=0).num_draws == 4000


def test_too_many_arguments_are_told_of():
    with pytest.raises(InvalidArgument, match=r"got args of length 3: too many .* args=\(x, y\)"):
        diagnose(svi(positional, X, X), args=(X, X, X))


def test_a_default_that_the_model_cannot_do_without_is_told_of():
    with pytest.raises(
        InvalidArgument, match=r"as args=\(y,\)\. .*\(TypeError: object of type 'No"
    ):
        diagnose(svi(needs_its_default, X))


def test_the_guide_is_told_of_where_it_takes_others():
    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(InvalidArgument, match=r"the guide takes \(x\) and got args of length 2"):
        diagnose((positional, guide), args=(X, X))


def test_chains_whose_arguments_are_not_known_say_so():
    chains = MCMC(NUTS(positional), num_samples=5, warmup_steps=5, disable_progbar=True)
    chains.run(X, X)
    with pytest.raises(
        InvalidArgument, match=r"the model takes \(x, y=None\) and got no arguments"
    ):
        to_arviz(chains, args=())
