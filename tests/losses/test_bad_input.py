"""What cannot be right is refused at the first call, naming site or argument and the way out."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms
from pyro.distributions.testing.rejection_gamma import RejectionStandardGamma
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGaussian,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    AutoStructured,
)

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    draws,
    estimators,
    log_density,
)
from pyro_klmodes.errors import (
    IncompatibleEstimator,
    InvalidArgument,
    KLModesError,
    KLModesWarning,
    ModelGuideMismatch,
    NoDensity,
    NonFiniteLoss,
    UnsupportedStructure,
)

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
EVERY = [ReverseKL(2), ForwardKL(2), IWAE(2), CUBO(2, 2), TailAdaptive(2)]
every_loss = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)


def model(x=X):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a + b.sum(-1), 1.0), obs=x)


def guide(x=X):
    pyro.sample("a", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))
    pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))


# Sites


@every_loss
def test_a_guide_that_misses_a_latent(loss):
    with pytest.raises(ModelGuideMismatch, match="model site 'b' is latent but not in the guide"):
        loss.loss_and_grads(model, poutine.block(guide, hide=["b"]))


@every_loss
def test_a_guide_with_a_latent_too_many(loss):
    def extra():
        guide()
        pyro.sample("c", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ModelGuideMismatch, match="guide site 'c' is not in the model.*is_auxiliary"
    ):
        loss.loss_and_grads(model, extra)


def test_a_guide_that_samples_what_is_observed():
    observed = poutine.condition(model, {"a": torch.tensor(0.0)})
    with pytest.raises(ModelGuideMismatch, match="guide site 'a' is observed in the model"):
        IWAE(2).loss(observed, guide)


def test_a_model_without_sites():
    with pytest.raises(ModelGuideMismatch, match="model has no sample site"):
        IWAE(2).loss(lambda: None, lambda: None)


@every_loss
@pytest.mark.parametrize("shape", [(3,), (1,), ()])
def test_shapes_that_differ_name_the_site(loss, shape):
    def wrong():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))

    with pytest.raises(ModelGuideMismatch, match="'b' has shape .* in the guide and .2,. in the m"):
        loss.loss_and_grads(model, wrong)


def test_a_batch_dimension_without_a_plate():
    def undeclared():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(UnsupportedStructure, match="guide site 'z' has a batch dimension that no"):
        IWAE(2).loss(undeclared, undeclared)


# Plates


def subsampled(size=2):
    with pyro.plate("data", 4, subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])


@every_loss
def test_a_guide_that_does_not_share_the_minibatch(loss):
    def other_name():
        with pyro.plate("other", 2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def no_total_size():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    for guide_alone in (other_name, no_total_size):
        with pytest.raises(ModelGuideMismatch, match="site 'z' is in subsampled plate 'data'"):
            loss.loss_and_grads(subsampled, guide_alone)


@every_loss
@pytest.mark.parametrize("auto", [True, False])
def test_a_guide_that_draws_its_own_indices(loss, auto):
    index = torch.tensor([3, 1])

    def given(index):
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    def drawing(index):
        with pyro.plate("data", 4, subsample_size=2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def attempts():
        own = AutoNormal(given) if auto else drawing
        for _ in range(20):  # one draw in twelve is right by chance
            loss.loss_and_grads(given, own, index)

    with pytest.raises(UnsupportedStructure, match="plate 'data': it was given .*create_plates"):
        attempts()


def test_the_way_out_for_autoguides_works():
    def given(index):
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[index])

    auto = AutoNormal(given, create_plates=lambda index: pyro.plate("data", 4, subsample=index))
    svi = SVI(given, auto, pyro.optim.Adam({"lr": 0.1}), loss=IWAE(3))
    for index in (torch.tensor([3, 1]), torch.tensor([0, 2])):
        assert math.isfinite(svi.step(index))


@pytest.mark.parametrize(
    "loss",
    [ForwardKL(2), CUBO(2, 2), TailAdaptive(2), IWAE(2, estimator=estimators.score)],
    ids=lambda loss: type(loss).__name__,
)
def test_a_subsampled_plate_around_some_latents_only(loss):
    def partly(x=X):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4, subsample_size=2) as index:
            z = pyro.sample("z", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def partly_guide(x=X):
        pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4, subsample_size=2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(UnsupportedStructure, match="plate 'data' does not enclose latent site 'a'"):
        loss.loss_and_grads(partly, partly_guide)


def test_plates_nested_in_another_order():
    def rows_first():
        with pyro.plate("rows", 3), pyro.plate("columns", 3):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def columns_first():
        with pyro.plate("columns", 3), pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(ModelGuideMismatch, match=r"'z': plate '.*' has dim=-\d in the guide"):
        IWAE(2).loss(rows_first, columns_first)


@pytest.mark.parametrize(
    "vector",
    [
        AutoDiagonalNormal,
        AutoMultivariateNormal,
        partial(AutoIAFNormal, hidden_dim=[6]),
        AutoStructured,
        AutoGaussian,
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_autoguides_with_one_vector_for_a_minibatch(vector, wrapped):
    fresh = vector(subsampled)
    if wrapped:
        fresh = poutine.scale(fresh, scale=1.0)
    with pytest.raises(
        UnsupportedStructure, match="minibatch of plate 'data', so site 'z'.*AutoNor"
    ):
        ReverseKL(2).loss_and_grads(subsampled, fresh)


# Estimators


def discrete_model():
    z = pyro.sample("z", dist.Bernoulli(0.4))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.7))


def discrete_guide():
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.2))))


@pytest.mark.parametrize("estimator", [estimators.pathwise, estimators.doubly], ids=repr)
@pytest.mark.parametrize("loss_of", [ReverseKL, IWAE])
def test_a_discrete_guide_has_no_path(loss_of, estimator):
    loss = loss_of(2, estimator=estimator)
    with pytest.raises(IncompatibleEstimator, match="guide site 'z' is not reparameterised.*score"):
        loss.loss_and_grads(discrete_model, discrete_guide)


def test_a_rejection_sampler_is_not_reparameterised_alone():
    def gamma_model():
        pyro.sample("z", dist.Gamma(torch.tensor(2.0), torch.tensor(1.0)))

    def rejecting():
        shape = pyro.param("shape", torch.tensor(1.5))
        pyro.sample("z", RejectionStandardGamma(shape))

    with pytest.raises(IncompatibleEstimator, match="guide site 'z' is not reparameterised"):
        IWAE(2, estimator=estimators.pathwise).loss_and_grads(gamma_model, rejecting)
    IWAE(2).loss_and_grads(gamma_model, rejecting)
    assert pyro.get_param_store()._params["shape"].grad != 0.0


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (ForwardKL(4, estimator=estimators.pathwise), "ForwardKL is not the expectation"),
        (TailAdaptive(4, estimator=estimators.pathwise), "TailAdaptive is not the expectation"),
        (IWAE(4, estimator=estimators.fixed), "PowerMean moves the draws"),
        (ReverseKL(4, estimator=estimators.fixed), "ReverseKL moves the draws"),
        (Renyi(math.inf, 4, estimator=estimators.doubly), "follows one particle only"),
        (ForwardKL(30, "psis", estimator=estimators.doubly), "weights='snis'"),
    ],
)
def test_an_estimator_that_does_not_fit_the_objective(loss, message):
    with pytest.raises(IncompatibleEstimator, match=message):
        loss.loss_and_grads(model, guide)


@pytest.mark.parametrize("estimator", ["pathwise", None, estimators.Pathwise, 3])
def test_an_estimator_of_another_type(estimator):
    with pytest.raises(InvalidArgument, match="estimator=.* is not one of pyro_klmodes.estimators"):
        IWAE(4, estimator=estimator)


@pytest.mark.parametrize(
    "make",
    [
        AutoStructured,
        lambda m: AutoNormalizingFlow(m, partial(transforms.iterated, 1, transforms.planar)),
    ],
    ids=["AutoStructured", "planar flow"],
)
def test_forward_kl_needs_a_density(make):
    with pytest.raises(NoDensity, match="ForwardKL with fixed: guide .* (has no|no inverse)"):
        ForwardKL(4).loss_and_grads(model, make(model))


# Arguments


@pytest.mark.parametrize("count", [0, -1, 2.0, 1.5, "4", None, True, math.nan])
@pytest.mark.parametrize(
    "make", [ReverseKL, ForwardKL, IWAE, partial(Renyi, 0.5), partial(CUBO, 2)]
)
def test_counts_are_positive_integers(make, count):
    with pytest.raises(InvalidArgument, match="num_particles=.* must be a positive integer"):
        make(num_particles=count)


@pytest.mark.parametrize("count", [0, -1, 2.0, None, True])
def test_counts_of_outer_particles_and_draws_are_positive_integers(count):
    with pytest.raises(InvalidArgument, match="num_outer=.* must be a positive integer"):
        IWAE(4, num_outer=count)
    with pytest.raises(InvalidArgument, match="num_particles=.* must be a positive integer"):
        draws(model, guide, num_particles=count)


@pytest.mark.parametrize(
    "make",
    [
        ForwardKL,
        TailAdaptive,
        partial(CUBO, 2),
        partial(FDivergence, torch.expm1),
        partial(Thermodynamic, 2, bound="right"),
    ],
)
def test_one_particle_is_not_enough(make):
    with pytest.raises(InvalidArgument, match="num_particles=1: .* needs at least 2"):
        make(num_particles=1)


@pytest.mark.parametrize("alpha", ["0.5", None, math.nan, True, 1j, torch.tensor(0.5)])
def test_alpha_is_a_number(alpha):
    with pytest.raises(InvalidArgument, match="alpha=.* must be a number"):
        Renyi(alpha)


def test_a_negative_alpha_is_probably_not_meant():
    with pytest.warns(KLModesWarning, match=r"upper bound.*CUBO\(order=2\)"):
        Renyi(-1.0)


@pytest.mark.parametrize("order", ["2", None, 1, 0.5, -1, math.nan, math.inf, True])
def test_the_order_of_cubo_is_above_one(order):
    with pytest.raises(InvalidArgument, match="order=.* must be a number above 1"):
        CUBO(order)


@pytest.mark.parametrize("weights", ["SNIS", None, 1])
def test_the_weights_of_forward_kl_have_names(weights):
    with pytest.raises(InvalidArgument, match=r"weights=.*\['psis', 'snis', 'tempered'\]"):
        ForwardKL(4, weights=weights)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2, "0.1", None, math.nan, True])
def test_the_defensive_share_is_a_share(share):
    with pytest.raises(InvalidArgument, match="defensive=.* must be a share"):
        ForwardKL(4, defensive=share)


@pytest.mark.parametrize("beta", [0.0, -1.5, 1, "x", None, math.nan])
def test_beta_is_in_its_interval(beta):
    with pytest.raises(InvalidArgument, match="beta=.* must be a number in"):
        TailAdaptive(4, beta=beta)


@pytest.mark.parametrize(
    "partition", [0, -2, True, [0.0, 0.5], [0.1, 1.0], [0.0, 0.6, 0.5, 1.0], []]
)
def test_a_partition_increases_from_zero_to_one(partition):
    with pytest.raises(InvalidArgument, match="partition="):
        Thermodynamic(partition)


@pytest.mark.parametrize("f", [None, 3, lambda t: t.sum(), lambda t: 1.0, lambda t: 1 / t])
def test_f_is_an_elementwise_function(f):
    with pytest.raises(InvalidArgument, match="f"):
        FDivergence(f)


@pytest.mark.parametrize("depth", [-1, 1.5, "2", True])
def test_max_plate_nesting_is_a_count(depth):
    with pytest.raises(InvalidArgument, match="max_plate_nesting="):
        IWAE(2, max_plate_nesting=depth)


def test_defensive_draws_have_no_path():
    with pytest.raises(
        InvalidArgument, match="defensive=0.1 with doubly: draws from the prior.*estimators"
    ):
        ForwardKL(4, defensive=0.1, estimator=estimators.doubly).loss_and_grads(model, guide)


# What the user's code does


@every_loss
def test_nan_in_the_data(loss):
    x = X.clone()
    x[2] = math.nan
    with pytest.raises(
        NonFiniteLoss, match="1 of 4 values of model site 'x' .*nothing was updated"
    ):
        loss.loss_and_grads(model, guide, x)


@every_loss
@pytest.mark.parametrize("first", [True, False])
def test_errors_of_the_model_are_its_own(loss, first):
    """At the first call and at a later one, unchanged and of their own class."""

    class OutOfDataError(LookupError):
        pass

    def failing(exhausted):
        model()
        if exhausted:
            raise OutOfDataError("no more data")

    if not first:
        loss.loss_and_grads(failing, lambda _: guide(), False)
    with pytest.raises(OutOfDataError, match="no more data") as caught:
        loss.loss_and_grads(failing, lambda _: guide(), True)
    assert not isinstance(caught.value, KLModesError)


@every_loss
def test_nothing_is_registered_or_moved_by_a_refusal(loss):
    svi = SVI(model, poutine.block(guide, hide=["b"]), pyro.optim.Adam({"lr": 0.1}), loss=loss)
    with pytest.raises(ModelGuideMismatch, match="'b'"):
        svi.step()
    assert pyro.param("loc").item() == pytest.approx(0.3)


def test_pyro_losses_are_not_touched():
    """The same pair still works with Pyro's own loss after ours has seen it."""
    before = Trace_ELBO(num_particles=2)
    IWAE(2).loss(model, guide)
    log_density(guide, {"a": torch.zeros(()), "b": torch.zeros(2)})
    assert math.isfinite(before.loss(model, guide))
