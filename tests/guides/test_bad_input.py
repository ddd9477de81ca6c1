"""What cannot be right is refused, in the first call at the latest, naming the place and a way out.

Errors that concern one argument are raised where it is given; those that concern the model, in the
first call of the guide, before any training step.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import init_to_value
from pyro.optim import Adam

import pyro_klmodes as kl
from pyro_klmodes import guides
from pyro_klmodes.errors import InvalidArgument, ModelGuideMismatch, UnsupportedStructure
from pyro_klmodes.guides import site_families
from tests.guides.registry import GUIDES, JOINT, SITEWISE

every_guide = pytest.mark.parametrize("name", GUIDES)
joint_guide = pytest.mark.parametrize("name", JOINT)
sitewise_guide = pytest.mark.parametrize("name", SITEWISE)
without_mean_field = pytest.mark.parametrize(
    "name", [n for n in GUIDES if not n.startswith("mean_field")]
)

DATA = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64)


def one_normal():
    pyro.sample("a", dist.Normal(0.0, 1.0))


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


# -- which latents ---------------------------------------------------------------------------------


def nothing_latent():
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))


def all_enumerated():
    pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})


@every_guide
@pytest.mark.parametrize("empty", [nothing_latent, all_enumerated, lambda: None])
def test_a_model_without_latents(name, empty):
    with pytest.raises(
        UnsupportedStructure, match="no latent sites.*observed, enumerated or block"
    ):
        GUIDES[name](empty)()


def only_discrete():
    pyro.sample("c", dist.Bernoulli(0.5))


@without_mean_field
def test_only_discrete_latents(name):
    with pytest.raises(
        UnsupportedStructure, match="only discrete latents: site 'c'.*enumerate.*AutoMeanField"
    ):
        GUIDES[name](only_discrete)()


def discrete_among_continuous():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("c", dist.Poisson(a.exp()))


@without_mean_field
def test_a_discrete_latent_among_continuous_ones(name):
    with pytest.raises(UnsupportedStructure, match="discrete ones: site 'c'.*enumerate"):
        GUIDES[name](discrete_among_continuous)()


def test_a_discrete_latent_without_a_family():
    with pytest.raises(UnsupportedStructure, match="site 'c'.*no family lives on.*truncate it"):
        guides.AutoMeanField(discrete_among_continuous)()


def test_a_discrete_latent_marked_for_enumeration_is_left_to_the_loss():
    def mixed():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    assert set(guides.AutoFullRank(mixed)()) == {"a"}


# -- supports --------------------------------------------------------------------------------------


def on_a_sphere():
    pyro.sample("s", dist.ProjectedNormal(torch.ones(3)))


@every_guide
def test_a_support_without_a_transform(name):
    with pytest.raises(UnsupportedStructure, match="site 's' has the support Sphere.*Register one"):
        GUIDES[name](on_a_sphere)()


def support_of_a_latent():
    top = pyro.sample("top", dist.Exponential(1.0))
    pyro.sample("b", dist.Uniform(0.0, top))


@every_guide
def test_a_support_that_depends_on_another_latent(name):
    with pytest.raises(UnsupportedStructure, match="support of site 'b'.*rescale it in the model"):
        GUIDES[name](support_of_a_latent)()


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"b": site_families.Normal()}, "families names site 'b', which is no latent.*it has 'a'"),
        ({"a": site_families.Gamma()}, r"site 'a' has the support.*Gamma\(\).*choose Normal\(\)"),
        ({"a": "normal"}, "family of site 'a' is 'normal'; it must be one of .*site_families"),
        ({"a": site_families.Normal}, "family of site 'a' is <class.*must be one of"),
        (site_families.Normal(), r"families=Normal\(\) must be families by site"),
        ([site_families.Normal()], "families=.* must be families by site"),
    ],
)
def test_families_that_do_not_fit(families, message):
    with pytest.raises(InvalidArgument, match=message):
        guides.AutoMeanField(one_normal, families=families)()


# -- arguments -------------------------------------------------------------------------------------


@every_guide
@pytest.mark.parametrize("wrong", [None, 3, "model"])
def test_a_model_that_cannot_be_called(name, wrong):
    with pytest.raises(InvalidArgument, match=f"model={wrong!r} must be a Pyro model"):
        GUIDES[name](wrong)


@pytest.mark.parametrize("name", [n for n in GUIDES if n != "distribution"])
@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, "1", None, True, torch.tensor(1.0)])
def test_an_initial_scale_that_is_no_positive_number(name, wrong):
    with pytest.raises(InvalidArgument, match="init_scale=.* must be a positive finite number"):
        GUIDES[name](one_normal, init_scale=wrong)


@every_guide
def test_functions_that_cannot_be_called(name):
    with pytest.raises(InvalidArgument, match="init_loc_fn=3 must be a function of a site"):
        GUIDES[name](one_normal, init_loc_fn=3)
    with pytest.raises(InvalidArgument, match="create_plates=3 must be a function of the model's"):
        GUIDES[name](one_normal, create_plates=3)


@pytest.mark.parametrize("wrong", [0, -2, math.nan, math.inf, "4", None, True])
def test_degrees_of_freedom_that_are_no_positive_number(wrong):
    for make in (guides.AutoStudentT, guides.AutoMultivariateStudentT):
        with pytest.raises(InvalidArgument, match="df=.* must be a positive finite number; use "):
            make(one_normal, df=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_a_rank_that_is_no_positive_integer(wrong):
    with pytest.raises(InvalidArgument, match=f"rank={wrong!r} must be a positive integer"):
        guides.AutoLowRank(one_normal, rank=wrong)


def test_a_rank_above_the_number_of_coordinates():
    with pytest.raises(InvalidArgument, match="rank is 2, .*only 1 dimensions; use Full"):
        guides.AutoLowRank(one_normal, rank=2)()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_components": 0}, "num_components=0.*at least 1"),
        ({"num_components": 1.5}, "num_components=1.5 must be an integer"),
        ({"num_components": "2"}, "num_components='2' must be an integer"),
        ({"num_components": True}, "num_components=True must be an integer"),
        ({"scale": "full"}, r"scale='full' must be Diagonal\(\), LowRank\(rank\) or Full\(\)"),
        ({"scale": guides.Full}, r"scale=<class.*must be Diagonal\(\)"),
        ({"radial": "t"}, r"radial='t' must be Gaussian\(\) or StudentT\(df\)"),
        ({"start": "modes"}, r"start='modes' must be Spread\(\)"),
        ({"start": guides.Sobol}, r"start=<class.*must be Spread\(\)"),
        ({"start": lambda loc, c, scale: loc}, r"start returned .*shape \(1,\).*shape \(2, 1\)"),
        ({"draws": guides.Implicit}, r"draws=<class.*must be Stratified\(\) or Implicit\(\)"),
        ({"min_weight": "0"}, "min_weight='0' must be a number"),
        ({"min_weight": 0.5}, "min_weight is 0.5, but with 2 components.*less than 0.5"),
    ],
)
def test_arguments_of_a_mixture(wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        guides.AutoMixture(one_normal, **{"num_components": 2, **wrong})()


def test_the_scale_of_a_student_t_is_of_the_wrong_kind():
    with pytest.raises(InvalidArgument, match=r"scale='full' must be Diagonal\(\), LowRank"):
        guides.AutoMultivariateStudentT(one_normal, scale="full")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_a_number_of_samples_that_is_no_positive_integer(wrong):
    with pytest.raises(InvalidArgument, match=f"num_samples={wrong!r} must be a positive integer"):
        guides.AutoMeanField(one_normal).sample(wrong)


ONE_FOR_FOUR = dist.Normal(torch.zeros(4), 1.0).to_event(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (3, "distribution=3 must be a function of the initial location"),
        (ONE_FOR_FOUR, "distribution=Independent.* must be a function of the initial location"),
        (lambda loc: loc, "returned Tensor; it must return a distribution"),
        (lambda loc: dist.Normal(loc, 1.0), r"batch shape \(4,\).*\.to_event\(1\)"),
        (lambda loc: dist.Normal(loc[:3], 1.0).to_event(1), r"event shape \(3,\).*of length 4"),
        (lambda loc: dist.Normal(loc.expand(2, -1), 1.0).to_event(1), r"batch shape \(2,\)"),
        (lambda loc: dist.Poisson(loc.exp()).to_event(1), "which is discrete.*need a density"),
    ],
)
def test_a_distribution_that_is_none_over_the_latents(make, message):
    with pytest.raises(InvalidArgument, match=message):
        guides.AutoDistribution(model, make)(DATA)


# -- initial values --------------------------------------------------------------------------------


def positive(x):
    with pyro.plate("data", len(x)):
        pyro.sample("s", dist.Gamma(2.0, 1.0))


@every_guide
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([1.0, -1.0, 1.0]), r"outside of the support for site 's'.*shape \(3,\) in"),
        (torch.tensor([1.0, math.nan, 1.0]), "returned NaN or infinity for site 's'"),
        (torch.tensor([1.0, math.inf, 1.0]), "returned NaN or infinity for site 's'"),
        (torch.tensor([1.0, 0.0, 1.0]), "site 's' on the boundary .*init_to_feasible"),
        (torch.tensor(1.0), r"a tensor of shape \(\) for site 's'.*of shape \(3,\)"),
        (torch.ones(5), r"a tensor of shape \(5,\) for site 's'.*of shape \(3,\)"),
        (torch.ones(3, dtype=torch.long), "a tensor of torch.int64 for site 's'"),
        (1.0, "returned 1.0 for site 's'; it must return a tensor"),
        (None, "returned None for site 's'; it must return a tensor"),
    ],
)
def test_an_initial_value_that_is_no_point_of_the_support(name, value, message):
    guide = GUIDES[name](positive, init_loc_fn=init_to_value(values={"s": value}))
    with pytest.raises(InvalidArgument, match=message):
        guide(DATA)


@every_guide
def test_a_set_up_that_fails_is_tried_again(name):
    values = {"s": torch.tensor(-1.0)}
    guide = GUIDES[name](positive, init_loc_fn=init_to_value(values=values))
    with pytest.raises(InvalidArgument):
        guide(DATA)
    values["s"] = torch.ones(3)
    assert guide(DATA)["s"].shape == (3,)


# -- a structure that changes ----------------------------------------------------------------------


def coin():
    pyro.sample("a", dist.Normal(0.0, 1.0))
    if torch.rand(()) < 0.5:
        pyro.sample("b", dist.Normal(0.0, 1.0))


def latent_decides():
    if pyro.sample("a", dist.Normal(0.0, 1.0)) > 0:
        pyro.sample("b", dist.Normal(0.0, 1.0))


@every_guide
@pytest.mark.parametrize("dynamic", [coin, latent_decides])
@pytest.mark.parametrize("seed", range(3))
def test_a_site_that_comes_and_goes_at_random(name, dynamic, seed):
    pyro.set_rng_seed(seed)
    with pytest.raises(UnsupportedStructure, match="site 'b' comes and goes.*poutine.mask"):
        GUIDES[name](dynamic)()


def flagged(flag):
    pyro.sample("a", dist.Normal(0.0, 1.0))
    if flag:
        pyro.sample("b", dist.Normal(0.0, 1.0))


@every_guide
@pytest.mark.parametrize(("first", "what"), [(True, "gone"), (False, "new")])
def test_a_site_that_comes_and_goes_by_a_flag(name, first, what):
    guide = GUIDES[name](flagged)
    guide(first)
    with pytest.raises(UnsupportedStructure, match=f"site 'b' is {what}.*guide for each structure"):
        guide(not first)
    assert ("b" in guide(first)) is first  # and the guide still works


def by_the_data(x):
    pyro.sample("a", dist.Normal(0.0, 1.0))
    if x.sum() > 0:
        pyro.sample("b", dist.Normal(0.0, 1.0))


@every_guide
@pytest.mark.parametrize(
    ("first", "message"),
    [
        (DATA, "guide site 'b' is not in the model.*for some data only.*poutine.mask"),
        (-DATA, "model site 'b' is latent but not in the guide.*for some data only.*poutine.mask"),
    ],
)
def test_a_site_that_comes_and_goes_by_the_data(name, first, message):
    """The shape of the data is the same, so it is the loss that sees it."""
    svi = SVI(by_the_data, GUIDES[name](by_the_data), Adam({"lr": 0.01}), loss=kl.ReverseKL(2))
    svi.step(first)
    with pytest.raises(ModelGuideMismatch, match=message):
        svi.step(-first)


@every_guide
def test_another_number_of_data(name):
    svi = SVI(model, GUIDES[name](model), Adam({"lr": 0.01}), loss=Trace_ELBO())
    svi.step(DATA)
    with pytest.raises(
        UnsupportedStructure,
        match=r"site 'z' in plate 'data' has \(5,\).*for \(3,\).*AutoAmortized.*subsample=indices",
    ):
        svi.step(torch.zeros(5))


def vector(x):
    pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))


@every_guide
def test_another_event_shape(name):
    guide = GUIDES[name](vector)
    guide(torch.zeros(7, 3))
    with pytest.raises(
        UnsupportedStructure, match=r"site 'w' has event shape \(4,\).*with \(3,\).*new guide"
    ):
        guide(torch.zeros(7, 4))


def shape_at_random():
    pyro.sample("w", dist.Normal(torch.zeros(int(torch.randint(1, 5, ()))), 1.0).to_event(1))


@every_guide
def test_a_shape_that_changes_at_random(name):
    with pytest.raises(UnsupportedStructure, match="site 'w' changes its shape.*mask"):
        GUIDES[name](shape_at_random)()


# -- plates ----------------------------------------------------------------------------------------


def sequential(x):
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))


@every_guide
def test_a_sequential_plate(name):
    with pytest.raises(UnsupportedStructure, match="site 'z0' is in sequential plate 'data'.*with"):
        GUIDES[name](sequential)(DATA)


def minibatch(x):
    with pyro.plate("data", len(x), subsample_size=2) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])


@joint_guide
def test_a_joint_guide_of_a_minibatch(name):
    with pytest.raises(
        UnsupportedStructure, match="site 'z' in subsampled plate 'data'.*Use AutoMeanField"
    ):
        GUIDES[name](minibatch)(DATA)


@every_guide
@pytest.mark.parametrize("wrong", [None, 3, "data", [1], {"data": 3}])
def test_create_plates_returns_no_plates(name, wrong):
    guide = GUIDES[name](model, create_plates=lambda x: wrong)
    with pytest.raises(InvalidArgument, match="create_plates returned .*must return a pyro.plate"):
        guide(DATA)


@every_guide
@pytest.mark.parametrize(
    ("plate", "message"),
    [
        ({"size": 7}, "plate 'data' with size=7.*size=3"),
        ({"size": 3, "dim": -2}, "plate 'data' .*dim=-2; .*dim=-1. Give both the same"),
        ({"size": 3, "subsample_size": 2}, "'data' .*subsample_size=2.*subsample_size=3"),
    ],
)
def test_create_plates_returns_other_plates_than_the_models(name, plate, message):
    guide = GUIDES[name](model, create_plates=lambda x: pyro.plate("data", **plate))
    with pytest.raises(InvalidArgument, match=message):
        guide(DATA)


@every_guide
def test_first_called_inside_of_a_plate_that_takes_its_place(name):
    loss = Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, GUIDES[name](model), Adam({"lr": 0.01}), loss=loss)
    with pytest.raises(
        UnsupportedStructure,
        match="'num_particles_vectorized' of dim=-1.*own plate 'data'.*larger max_plate_nesting",
    ):
        svi.step(DATA)


@every_guide
def test_later_called_inside_of_a_plate_that_takes_its_place(name):
    guide = GUIDES[name](model)
    guide(DATA)
    message = 'plates "data" and "outer", collide at dim=-1'  # Pyro's
    if name in JOINT:
        message = "'outer' of dim=-1, which its own plates take up. Give that plate dim=-2"
    with pyro.plate("outer", 2, dim=-1), pytest.raises(ValueError, match=message):
        guide(DATA)


@every_guide
def test_too_small_a_nesting_for_our_losses(name):
    loss = kl.ReverseKL(2, max_plate_nesting=0)
    svi = SVI(model, GUIDES[name](model), Adam({"lr": 0.01}), loss=loss)
    with pytest.raises(InvalidArgument, match="max_plate_nesting=0.* Pass at least 1"):
        svi.step(DATA)


# -- values given to some sites --------------------------------------------------------------------


@joint_guide
def test_a_joint_guide_with_one_site_given(name):
    guide = poutine.condition(GUIDES[name](model), data={"mu": torch.tensor(0.5)})
    with pytest.raises(
        UnsupportedStructure, match="site 'mu' has been given a value, but 'z'.*Autoregressive"
    ):
        guide(DATA)


@sitewise_guide
def test_a_sitewise_guide_with_one_site_given(name):
    guide = GUIDES[name](model)
    drawn = poutine.condition(guide, data={"mu": torch.tensor(0.5)})(DATA)
    assert float(drawn["mu"]) == 0.5
    assert drawn["z"].shape == (3,)


@every_guide
def test_all_sites_given(name):
    values = {"mu": torch.tensor(0.5), "z": torch.ones(3)}
    guide = GUIDES[name](model)
    guide(DATA)
    trace = poutine.trace(poutine.condition(guide, data=values)).get_trace(DATA)
    torch.testing.assert_close(trace.log_prob_sum(), guide.log_prob(values, DATA))


def test_the_weights_of_a_mixture_before_the_first_call():
    with pytest.raises(UnsupportedStructure, match="no parameters yet: call the guide once"):
        guides.AutoMixture(model, 2).weights()
