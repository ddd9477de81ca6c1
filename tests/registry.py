"""Every loss and every objective, by name: a new one is a line here."""

import math

from pyro_klmodes import (
    CUBO,
    IWAE,
    FDivergence,
    ForwardKL,
    Renyi,
    ReverseKL,
    TailAdaptive,
    Thermodynamic,
    objectives,
)
from pyro_klmodes.losses import ScoreClimbing
from pyro_klmodes.objectives import f_functions, weightings

K = 8

LOSSES = {
    "reverse_kl": lambda **kw: ReverseKL(K, **kw),
    "iwae": lambda **kw: IWAE(K, **kw),
    "renyi_half": lambda **kw: Renyi(0.5, K, **kw),
    "renyi_two": lambda **kw: Renyi(2.0, K, **kw),
    "cubo": lambda **kw: CUBO(2, K, **kw),
    "forward_kl": lambda **kw: ForwardKL(K, **kw),
    "forward_kl_psis": lambda **kw: ForwardKL(32, "psis", **kw),
    "forward_kl_tempered": lambda **kw: ForwardKL(K, "tempered", **kw),
    "forward_kl_defensive": lambda **kw: ForwardKL(K, defensive=0.2, **kw),
    "score_climbing": lambda **kw: ScoreClimbing(K, **kw),
    "score_climbing_independence": lambda **kw: ScoreClimbing(K, "independence", **kw),
    "f_jensen_shannon": lambda **kw: FDivergence(f_functions.jensen_shannon, K, **kw),
    "f_hellinger": lambda **kw: FDivergence(f_functions.hellinger, K, **kw),
    "f_chi_square": lambda **kw: FDivergence(f_functions.chi_square, K, **kw),
    "f_total_variation": lambda **kw: FDivergence(f_functions.total_variation, K, **kw),
    "tail_adaptive": lambda **kw: TailAdaptive(K, **kw),
    "thermodynamic_left": lambda **kw: Thermodynamic(4, K, **kw),
    "thermodynamic_right": lambda **kw: Thermodynamic(4, K, bound="right", **kw),
}

OBJECTIVES = {
    "reverse_kl": objectives.ReverseKL,
    "iwae": lambda: objectives.PowerMean(0.0),
    "renyi_half": lambda: objectives.PowerMean(0.5),
    "renyi_one": lambda: objectives.PowerMean(1.0),
    "renyi_two": lambda: objectives.PowerMean(2.0),
    "renyi_minus_one": lambda: objectives.PowerMean(-1.0),
    "vr_max": lambda: objectives.PowerMean(-math.inf),
    "vr_min": lambda: objectives.PowerMean(math.inf),
    "cubo": lambda: objectives.PowerMean(-1.0, sign=1),
    "forward_kl": objectives.ForwardKL,
    "forward_kl_psis": lambda: objectives.ForwardKL(weightings.pareto_smoothed),
    "forward_kl_tempered": lambda: objectives.ForwardKL(weightings.tempered),
    "f_forward_kl": lambda: objectives.FDivergence(f_functions.forward_kl),
    "f_reverse_kl": lambda: objectives.FDivergence(f_functions.reverse_kl),
    "f_chi_square": lambda: objectives.FDivergence(f_functions.chi_square),
    "f_hellinger": lambda: objectives.FDivergence(f_functions.hellinger),
    "f_jensen_shannon": lambda: objectives.FDivergence(f_functions.jensen_shannon),
    "f_alpha": lambda: objectives.FDivergence(f_functions.alpha_divergence(0.3)),
    "f_total_variation": lambda: objectives.FDivergence(f_functions.total_variation),
    "tail_adaptive": objectives.TailAdaptive,
    "thermodynamic_left": lambda: objectives.Thermodynamic((0.0, 0.2, 0.6, 1.0)),
    "thermodynamic_right": lambda: objectives.Thermodynamic((0.0, 0.2, 0.6, 1.0), "right"),
}
