"""Every problem of ``models/``, by name: a new one is a line here for the common tests."""

from models import (
    banana,
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
    linear_vae,
    logistic_regression,
    mixture_small,
)

FACTORIES = {
    "eight_schools": eight_schools.problem,
    "eight_schools_non_centred": eight_schools.non_centred_problem,
    "bimodal": bimodal.problem,
    "bimodal_mixture": bimodal.mixture_problem,
    "conjugate_normal": conjugate_normal.problem,
    "hierarchical_normal": conjugate_normal.hierarchical_problem,
    "gaussian_pair": gaussian_pair.problem,
    "noisy_or": discrete_noisy_or.problem,
    "mixture_small": mixture_small.problem,
    "funnel": funnel.problem,
    "banana": banana.problem,
    "banana_strong": banana.strong_problem,
    "eight_modes": eight_modes.problem,
    "student_t": heavy_tail.problem,
    "cauchy": heavy_tail.cauchy_problem,
    "tail_nuisance": heavy_tail.tail_nuisance_problem,
    "correlated_gaussian": correlated_gaussian.problem,
    "hierarchical_radon": hierarchical_radon.problem,
    "logistic_regression": logistic_regression.problem,
    "linear_vae": linear_vae.problem,
    "linear_deep_markov": deep_markov.linear_problem,
}

# Latents of every datum, dozens to hundreds in all: for encoders, too many for a joint guide.
FOR_ENCODERS = frozenset({"linear_vae", "linear_deep_markov"})
