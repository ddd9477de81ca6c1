"""``check`` reports what a loss will see and what was hardly meant, and raises for the rest."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, AutoStructured

from models import conjugate_normal, eight_schools
from pyro_klmodes import CUBO, IWAE, ForwardKL, ReverseKL, check, estimators
from pyro_klmodes.errors import (
    IncompatibleEstimator,
    InvalidArgument,
    KLModesWarning,
    ModelGuideMismatch,
    NoDensity,
    UnsupportedStructure,
)
from pyro_klmodes.guides import AutoFullRank

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)


def local_model():
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)


def local_guide():
    with pyro.plate("data", 4):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(4)), 0.7))


def site(report, name):
    (found,) = [s for s in report.sites if s.name == name]
    return found


def test_sites_plates_scales_and_granularity_of_a_minibatch():
    case = conjugate_normal.problem(subsample_size=5)
    report = check(case.model, case.guide, *case.args, **case.kwargs, loss=IWAE(4))
    z, x = site(report, "z"), site(report, "x")
    assert (z.role, z.plates, z.scale, z.gradient) == ("latent", ("data",), 4.0, "path")
    assert (x.role, x.plates, x.scale, x.gradient) == ("observed", ("data",), 4.0, "")
    assert report.granularity == ("data",)
    assert report.vectorised
    assert report.problems == ()


def test_discrete_auxiliary_and_summed_out_sites_have_their_roles():
    def model():
        b = pyro.sample("b", dist.Bernoulli(0.3))
        with pyro.plate("data", 4):
            probs = torch.tensor([0.5, 0.5])
            c = pyro.sample("c", dist.Categorical(probs), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(b + c, 1.0), obs=X)

    def guide():
        pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("b", dist.Bernoulli(0.5))

    report = check(model, guide, loss=ReverseKL(2))
    assert (site(report, "u").role, site(report, "u").gradient) == ("auxiliary", "path")
    assert (site(report, "b").role, site(report, "b").gradient) == ("latent", "score")
    assert (site(report, "c").role, site(report, "c").gradient) == ("summed out", "")
    assert report.granularity == ()


@pytest.mark.parametrize(
    ("loss", "estimator"),
    [
        (IWAE(2), "mixed"),
        (ForwardKL(4), "fixed"),
        (IWAE(2, estimator=estimators.doubly), "doubly"),
        (None, ""),
    ],
)
def test_the_estimator_is_named(loss, estimator):
    assert check(local_model, local_guide, loss=loss).estimator == estimator


def test_a_scale_inside_of_a_divergence_is_a_problem():
    def annealed():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    (problem,) = check(annealed, local_guide, loss=IWAE(4)).problems
    assert problem.startswith("model site 'x' has a poutine.scale that other sites do not share")
    assert check(annealed, local_guide, loss=ReverseKL(4)).problems == ()
    both = [poutine.scale(f, scale=0.5) for f in (local_model, local_guide)]
    report = check(*both, loss=IWAE(4))
    assert report.problems == ()
    assert site(report, "x").scale == 0.5


def test_parameters_shared_through_the_store_are_a_problem():
    first, second = AutoNormal(local_model), AutoNormal(local_model)
    assert check(local_model, first, loss=IWAE(4)).problems == ()
    (problem,) = check(local_model, second, loss=IWAE(4)).problems
    assert "parameter 'AutoNormal.locs.z' is shared through the param store" in problem
    pyro.clear_param_store()
    assert check(local_model, first, loss=IWAE(4)).problems == ()


def test_a_guide_without_a_density_is_an_error_only_where_it_is_needed():
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    structured = AutoStructured(model)
    report = check(model, structured, loss=ReverseKL(2))
    (remark,) = report.remarks
    assert "forward KL, doubly and score estimators cannot be used: guide AutoStruct" in remark
    assert report.problems == ()
    with pytest.raises(NoDensity, match="ForwardKL with fixed: guide AutoStructured"):
        check(model, structured, loss=ForwardKL(4))


def test_a_joint_weight_that_the_guide_makes_is_a_problem():
    guide = AutoDiagonalNormal(local_model)
    report = check(local_model, guide, loss=ForwardKL(4))
    assert (report.granularity, report.remarks) == ((), ())
    assert report.problems == (
        "latent sites in plate(s) ['data'] share one joint weight, as '_AutoDiagonalNormal_latent' "
        "of the guide lies outside. Its variance grows with the size of the plates. Use a guide "
        "with a site in the plate for every latent, or ReverseKL.",
    )
    assert check(local_model, guide, loss=ReverseKL(4)).problems == ()
    (problem,) = check(local_model, AutoFullRank(local_model), loss=ForwardKL(4)).problems
    assert "share one joint weight, as the guide draws their elements together." in problem


def test_a_joint_weight_that_the_model_has_is_a_remark():
    case = eight_schools.problem()
    for make in (AutoNormal, AutoDiagonalNormal):
        report = check(case.model, make(case.model), *case.args, loss=ForwardKL(4), **case.kwargs)
        assert (report.granularity, report.problems) == ((), ())
        assert report.remarks == (
            "latent sites in plate(s) ['schools'] share one joint weight, as no plate holds all "
            "latents: 'mu', 'tau' lie outside. Its variance grows with the size of the plates: "
            "with many elements prefer ReverseKL.",
        )
    assert check(case.model, AutoNormal(case.model), *case.args, loss=ReverseKL()).remarks == ()


def test_data_that_join_the_latents_of_a_plate_are_a_remark():
    def regression():
        with pyro.plate("features", 3):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(w.sum(-1, keepdim=True), 1.0), obs=X)

    report = check(regression, AutoNormal(regression), loss=ForwardKL(4))
    assert report.problems == ()
    (remark,) = report.remarks
    assert "in plate(s) ['features'] share one joint weight, as 'x' outside may depend" in remark


def test_latents_that_are_summed_out_have_no_weight_to_share():
    def mixture():
        locs = pyro.sample("locs", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        with pyro.plate("data", 4):
            probs = torch.tensor([0.5, 0.5])
            c = pyro.sample("c", dist.Categorical(probs), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(locs[..., c], 1.0), obs=X.float())

    guide = AutoNormal(poutine.block(mixture, hide=["c"]))
    report = check(mixture, guide, loss=ForwardKL(4))
    assert (report.granularity, report.problems, report.remarks) == ((), (), ())


def test_a_joint_weight_over_a_sequential_plate_is_a_problem():
    def model():
        for i in pyro.plate("data", 2):
            pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))

    (problem,) = check(model, model, loss=IWAE(4)).problems
    assert "sequential plate(s) ['data']" in problem


def test_a_nested_bound_is_reported_as_local():
    case = conjugate_normal.hierarchical_problem(subsample_size=5)
    report = check(case.model, case.exact_guide, *case.args, **case.kwargs, loss=IWAE(4))
    assert report.granularity == ("data",)
    assert site(report, "mu").scale == 1.0
    assert site(report, "z").scale == 4.0


def test_particles_in_a_loop_are_reported():
    def branching():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z if z > 0 else -z, 1.0), obs=torch.ones(()))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.warns(KLModesWarning, match="one after the other"):
        report = check(branching, guide, loss=IWAE(4))
    assert not report.vectorised


def test_the_report_is_printed(capsys):
    check(local_model, local_guide, loss=IWAE(4))
    shown = " ".join(capsys.readouterr().out.split())
    assert "one per particle and element of data" in shown
    assert "share one run; estimator mixed" in shown
    check(local_model, AutoDiagonalNormal(local_model), loss=ForwardKL(4))
    shown = " ".join(capsys.readouterr().out.split())
    assert "one joint weight per particle" in shown
    assert "problem: latent sites in plate(s) ['data']" in shown
    case = eight_schools.problem()
    check(case.model, AutoNormal(case.model), *case.args, loss=IWAE(4))
    shown = " ".join(capsys.readouterr().out.split())
    assert "remark: latent sites in plate(s) ['schools']" in shown
    assert "problem" not in shown


def coin():
    pyro.sample("c", dist.Bernoulli(0.3))


def enumerated_coin():
    pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})


def test_what_no_loss_accepts_is_an_error():
    with pytest.raises(ModelGuideMismatch, match="model site 'z' is latent but not in the guide"):
        check(local_model, lambda: None)
    with pytest.raises(UnsupportedStructure, match="guide site 'c' is marked for enumeration"):
        check(coin, enumerated_coin)


def test_what_the_loss_does_not_accept_is_an_error():
    case = conjugate_normal.hierarchical_problem(subsample_size=5)
    arguments = (case.model, case.exact_guide, *case.args)
    with pytest.raises(UnsupportedStructure, match="plate 'data' does not enclose .*'mu'"):
        check(*arguments, **case.kwargs, loss=CUBO(2, 4))
    assert check(*arguments, **case.kwargs, loss=ReverseKL()).vectorised
    with pytest.raises(IncompatibleEstimator, match="ForwardKL is not the expectation"):
        check(local_model, local_guide, loss=ForwardKL(4, estimator=estimators.pathwise))
    with pytest.raises(InvalidArgument, match="not one of this package's losses"):
        check(local_model, local_guide, loss=Trace_ELBO())


def test_a_loss_that_was_used_before_is_looked_at_anew():
    case = conjugate_normal.hierarchical_problem()
    loss = IWAE(3)
    loss.loss(case.model, case.exact_guide, *case.args)
    minibatch = check(case.model, case.exact_guide, *case.args, subsample_size=5, loss=loss)
    assert minibatch.granularity == ("data",)
    full = check(case.model, case.exact_guide, *case.args, loss=loss)
    assert full.granularity == ()
