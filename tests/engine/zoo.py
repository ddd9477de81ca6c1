"""Every loss that is one function, every guide and every model of the repository, for lifting."""

import warnings
from functools import partial

import pyro
import torch
from pyro import poutine
from pyro.infer import autoguide

from models import (
    banana,
    bayesian_linear_regression,
    bimodal,
    conjugate_normal,
    correlated_gaussian,
    deep_markov,
    discrete_noisy_or,
    eight_modes,
    eight_schools,
    funnel,
    gaussian_pair,
    heavy_tail,
    hierarchical_radon,
    ising_denoise,
    linear_vae,
    logistic_regression,
    mixture_small,
    nonlinear_latent,
)
from pyro_klmodes import IWAE, ForwardKL, ReverseKL, estimators
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.lift import lift
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.reference import eager_gradient
from pyro_klmodes.engine.verify import difference
from pyro_klmodes.errors import KLModesError
from pyro_klmodes.inference.modules import Modules, called_modules
from pyro_klmodes.inference.step import plain_parameters
from pyro_klmodes.tracing.runs import Pair
from tests.guides import registry
from tests.registry import LOSSES as ALL

ESTIMATORS = {
    "reverse_kl_doubly": lambda: ReverseKL(4, estimator=estimators.doubly),
    "reverse_kl_score": lambda: ReverseKL(4, estimator=estimators.score),
    "reverse_kl_gdreg": lambda: ReverseKL(4, estimator=estimators.gdreg),
    "iwae_outer": lambda: IWAE(2, num_outer=2),
    "reverse_kl_beta": lambda: ReverseKL(4, beta=0.5),
    "forward_kl_broad": lambda: ForwardKL(4, defensive=0.1),
}
LOSSES = {
    **{name: make for name, make in ALL.items() if make().why_not_static() is None},
    **ESTIMATORS,
}
GUIDES = {
    **{f"our_{name}": make for name, make in registry.GUIDES.items()},
    "auto_normal": autoguide.AutoNormal,
    "auto_diagonal": autoguide.AutoDiagonalNormal,
    "auto_full": autoguide.AutoMultivariateNormal,
    "auto_low_rank": partial(autoguide.AutoLowRankMultivariateNormal, rank=1),
    "auto_iaf": partial(autoguide.AutoIAFNormal, hidden_dim=[40]),
    "auto_delta": autoguide.AutoDelta,
    "auto_messenger": autoguide.AutoNormalMessenger,
    "auto_structured": autoguide.AutoStructured,
    "auto_gaussian": autoguide.AutoGaussian,
    "own": None,
}
MODELS = {
    "banana": banana.problem,
    "regression": partial(bayesian_linear_regression.problem, columns=2),
    "semi_conjugate": partial(bayesian_linear_regression.semi_conjugate_problem, columns=2),
    "bimodal": bimodal.problem,
    "bimodal_mixture": bimodal.mixture_problem,
    "conjugate_normal": conjugate_normal.problem,
    "conjugate_minibatch": partial(conjugate_normal.problem, subsample_size=5),
    "hierarchical_normal": conjugate_normal.hierarchical_problem,
    "correlated_gaussian": partial(correlated_gaussian.problem, dimension=3),
    "deep_markov": partial(deep_markov.linear_problem, num_data=3, steps=3),
    "noisy_or": discrete_noisy_or.problem,
    "eight_modes": eight_modes.problem,
    "eight_schools": eight_schools.problem,
    "eight_schools_non_centred": eight_schools.non_centred_problem,
    "funnel": partial(funnel.problem, dimension=3),
    "gaussian_pair": gaussian_pair.problem,
    "heavy_tail": partial(heavy_tail.problem, dimension=2),
    "cauchy": heavy_tail.cauchy_problem,
    "tail_nuisance": heavy_tail.tail_nuisance_problem,
    "radon_minibatch": partial(hierarchical_radon.problem, subsample_size=20),
    "ising": ising_denoise.problem,
    "linear_vae": partial(linear_vae.problem, num_data=9),
    "logistic_minibatch": partial(logistic_regression.problem, subsample_size=20),
    "mixture": mixture_small.problem,
    "nonlinear_latent": partial(nonlinear_latent.problem, num_data=10),
}
SEED = 5


class NoPair(Exception):
    """A combination that eager code refuses too, or a model without such a guide."""


def pair_of(guide, model):
    """Model, guide and arguments."""
    case = MODELS[model]()
    if guide == "own":
        if case.guide is None:
            raise NoPair("no guide of its own")
        return Pair(case.model, case.guide, case.args, case.kwargs)
    hidden = poutine.block(case.model, hide=list(case.summed_out))
    return Pair(case.model, GUIDES[guide](hidden), case.args, case.kwargs)


def shake(leaves):
    """Move parameters away from where they begin."""
    torch.manual_seed(SEED + 1)
    with torch.no_grad():
        for leaf in leaves.values():
            leaf.add_(0.05 * torch.randn_like(leaf))
            leaf.grad = None


def distance(loss, guide, model):
    """How far loss and gradients of the graph are from those of eager code, relatively.

    Raises:
        CannotLift: with the cause.
        NoPair: if eager code does not go there.
    """
    pyro.clear_param_store()
    torch.manual_seed(SEED)
    minimised = LOSSES[loss]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pair = pair_of(guide, model)
            with called_modules() as called:
                minimised.loss_and_grads(pair.model, pair.guide, *pair.args, **pair.kwargs)
        except (
            KLModesError,
            NotImplementedError,
            ValueError,
            RuntimeError,
            AttributeError,
        ) as error:
            raise NoPair(f"{type(error).__name__}: {error}") from error
        store = dict(pyro.get_param_store().named_parameters())
        leaves = {**store, **plain_parameters(pair.model, pair.guide, store)}
        modules = Modules(pair.model, pair.guide)
        modules.add_called(called)
        shake(leaves)
        parameters = Parameters(leaves, modules.roots())
        torch.manual_seed(SEED)
        value, expected = eager_gradient(pair, minimised, parameters, minimised.step)
        after = torch.get_rng_state()
        lifted = lift(pair, minimised, parameters)
    torch.manual_seed(SEED)
    settings = lifted.settings(minimised, minimised.step)[0]
    with torch.no_grad():
        got, *found = lifted.graph(*parameters.leaves, settings, *lifted.arguments.tensors)
    if not torch.equal(after, torch.get_rng_state()):
        raise CannotLift("the generator is in another state")
    pairs = zip(expected, lifted.gradients(found), strict=True)
    return max([difference(value, got, 0.0), *(difference(a, b, 1e-6) for a, b in pairs)])
