"""What somebody does to EM who has a model and has not read its source."""

import io
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from pyro_klmodes.errors import InvalidArgument, NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.inference.em import (
    EM,
    CoordinateAscent,
    KMeansPlusPlus,
    MonteCarlo,
    StepSizes,
    Variational,
)
from pyro_klmodes.inference.late_progress import late_progress

X = torch.tensor([-2.1, -1.7, -0.3, 0.2, 1.9, 2.2, 3.4, 2.8, -1.1, 0.7])


def mixture(x):
    weights = pyro.param("weights", torch.tensor([0.4, 0.6]), constraints.simplex)
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def tutorial(x):
    """Pyro's tutorial on mixtures: everything has a prior."""
    weights = pyro.sample("weights", dist.Dirichlet(2 * torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[z], scale), obs=x)


def chain(x, *, lengths):
    transition = pyro.param(
        "transition", torch.tensor([[0.8, 0.2], [0.3, 0.7]]), constraints.simplex
    )
    state = torch.tensor(0)
    with pyro.plate("series", len(x), dim=-1):
        for t in pyro.markov(range(x.shape[1])):
            with pyro.poutine.mask(mask=t < lengths):
                state = pyro.sample(f"s_{t}", dist.Categorical(transition[state]))
                pyro.sample(f"x_{t}", dist.Normal(state * 2.0, 1.0), obs=x[:, t])


def latent_normals(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def interrupting_at(step):
    def callback(progress):
        if progress.evaluation == step:
            raise KeyboardInterrupt

    return callback


def posterior(result, x):
    """Bayes' theorem at the fitted parameters."""
    joint = (
        result.params["weights"] * dist.Normal(result.params["loc"], 1.0).log_prob(x[:, None]).exp()
    )
    return joint / joint.sum(1, keepdim=True)


def test_responsibilities_are_those_of_bayes_for_the_data_and_for_new_ones():
    result = EM(mixture, starts=3).fit(X)
    torch.testing.assert_close(result.responsibilities()["z"], posterior(result, X))
    new = torch.tensor([-10.0, 0.3, 20.0])
    torch.testing.assert_close(result.responsibilities(new)["z"], posterior(result, new))


def test_responsibilities_of_a_masked_chain_agree_with_its_draws():
    x, lengths = X.reshape(2, 5), torch.tensor([5, 3])
    result = EM(chain).fit(x, lengths=lengths, steps=3)
    found = result.responsibilities()
    n = 40_000
    drawn = result.sample(n)
    for t in range(5):
        table = found[f"s_{t}"]
        assert table.shape == (2, 2)
        share = drawn[f"s_{t}"].double().mean(0)
        inside = t < lengths
        error = 4 * (0.25 / n) ** 0.5  # four standard errors at most
        assert ((share - table[:, 1]).abs()[inside] < error).all()
        assert (table[~inside] == 0).all()


def test_responsibilities_where_there_are_none():
    result = EM(latent_normals, e_step=CoordinateAscent()).fit(X, steps=3)
    with pytest.raises(UnsupportedStructure, match="no discrete latent"):
        result.responsibilities()


def test_many_draws_of_a_result_are_made_at_once():
    result = EM(mixture).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of particles run one after the other
        log_w = result.log_weights(500)
    assert log_w.shape == (500, len(X))
    torch.testing.assert_close(log_w.sum(1), torch.full((500,), result.log_likelihood))


def test_points_without_a_plate_and_without_a_closed_form():
    start = EM(tutorial, points=["weights", "scale", "locs"], starts=2)
    result = start.fit(X)
    assert result.converged
    assert "scale" in result.optimised
    assert result.params["scale"].shape == ()
    assert result.restarts.history[0].max() < result.log_likelihood - 0.1


@pytest.mark.parametrize("online", [None, StepSizes()])
def test_ctrl_c_returns_what_was_fitted_so_far(online):
    batches = {"batches": X.split(5)} if online else {}
    args = () if online else (X,)
    result = EM(mixture, online=online).fit(*args, callback=interrupting_at(3), **batches)
    assert result.interrupted
    assert result.steps == 4
    assert online or "interrupted" in repr(result)
    assert len(pyro.get_param_store()) == 0
    whole = EM(mixture, online=online).fit(*args, callback=lambda p: p.evaluation == 3, **batches)
    torch.testing.assert_close(result.params, whole.params)
    torch.testing.assert_close(result.losses, whole.losses)


def test_ctrl_c_before_anything_is_fitted_is_what_it_is_elsewhere():
    def model(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EM(model).fit(X)


def test_a_callback_that_raises_leaves_the_store_clean():
    def callback(progress):
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        EM(mixture).fit(X, callback=callback)
    assert len(pyro.get_param_store()) == 0


def test_online_em_tells_its_callback_of_every_batch():
    seen = []
    EM(mixture, online=StepSizes()).fit(batches=X.split(5), epochs=3, callback=seen.append)
    assert [p.evaluation for p in seen] == list(range(6))


def test_single_precision_converges_for_data_that_are_large():
    # before it had arrived by its rounding error, it went on to the last step
    torch.set_default_dtype(torch.float32)
    try:

        def model(x):
            loc = pyro.param("loc", torch.tensor([4000.0, 6000.0]))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Categorical(torch.ones(2) / 2))
                pyro.sample("x", dist.Normal(loc[z], 1000.0), obs=x)

        result = EM(model).fit(batches=(1000 * X.float() + 5000).split(5), steps=300)
        assert result.converged
        assert result.steps < 300
    finally:
        torch.set_default_dtype(torch.float64)


def test_the_result_says_what_it_is():
    words = repr(EM(mixture, starts=2).fit(X))
    assert "converged" in words
    assert "starts=2" in words
    assert "closed_form=['weights', 'loc']" in words
    assert "not converged" in repr(EM(mixture).fit(X, steps=2))


def test_results_can_be_saved():
    result = EM(mixture).fit(X)
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    torch.testing.assert_close(again.responsibilities(), result.responsibilities())


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: EM(mixture).fit(), InvalidArgument, "missing a required argument"),
        (lambda: EM(mixture).fit(X, num_steps=3), InvalidArgument, "pass steps= instead"),
        (lambda: EM(mixture).fit(X, callbacks=[print]), InvalidArgument, "callback="),
        (lambda: EM(mixture).fit(X, epochs=3), InvalidArgument, "Pass steps="),
        (
            lambda: EM(mixture, online=StepSizes()).fit(batches=X.split(5), steps=3),
            InvalidArgument,
            "by epochs=",
        ),
        (lambda: EM(mixture).fit(X, seed=1.5), InvalidArgument, "seed=1.5"),
        (lambda: EM(mixture).fit(X, tolerance="small"), InvalidArgument, "tolerance='small'"),
        (lambda: EM(mixture).fit(X, progress=2), InvalidArgument, "progress=2"),
        (lambda: EM(mixture).fit(X[:0]), InvalidArgument, "argument 0 is empty"),
        (lambda: EM(mixture).fit(X[:, None]), InvalidArgument, r"shape \(10, 1\)"),
        (lambda: EM(mixture).fit(X / 0), NonFiniteLoss, "observed site 'x' are infinite"),
        (lambda: EM(mixture, starts="kmeans"), InvalidArgument, "KMeansPlusPlus"),
        (lambda: EM(mixture, starts=KMeansPlusPlus), InvalidArgument, "the class KMeansPlusPlus"),
        (lambda: EM(mixture, starts={}), InvalidArgument, "starts={}"),
        (lambda: EM(mixture, starts={"loc": 1.0}).fit(X), InvalidArgument, r"shape \(R, 2\)"),
        (lambda: EM(mixture, optimizer=torch.optim.LBFGS), InvalidArgument, r"LBFGS\(\)"),
        (lambda: EM(mixture, online=True), InvalidArgument, r"StepSizes\(\)"),
        (lambda: EM(mixture, points=None), InvalidArgument, "points is None"),
        (lambda: EM(AutoNormal), InvalidArgument, "make an object"),
        (lambda: MonteCarlo(AutoNormal), InvalidArgument, "make an object"),
        (lambda: Variational(3), InvalidArgument, "guide is 3"),
        (lambda: EM(mixture, points=["data"]).fit(X), InvalidArgument, r"it has \['z'\]"),
    ],
)
def test_messages_name_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_double_data_in_single_precision():
    x = X.double()
    torch.set_default_dtype(torch.float32)
    try:
        with pytest.raises(InvalidArgument, match="observed site 'x' are torch.float64"):
            EM(mixture).fit(x)
    finally:
        torch.set_default_dtype(torch.float64)


def test_the_bar_is_late_and_on_standard_error(capsys):
    with late_progress(5, show=True) as advance:
        advance("at once")
    with late_progress(5, show=False, wait=0.0) as advance:
        advance("hidden")
    assert capsys.readouterr() == ("", "")
    with late_progress(5, show=True, wait=0.0) as advance:
        advance("log-likelihood -3")
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/5 log-likelihood -3" in err
