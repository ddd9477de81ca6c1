"""Heavy tails: a Student-t target with three degrees of freedom."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy import stats

from choices.fitting import fitted
from pyro_klmodes import ForwardKL, ReverseKL, draws
from pyro_klmodes.guides import AutoStudentT
from pyro_klmodes.weights import pareto_khat

__all__ = ["DEGREES", "FORWARD_SD", "LEVEL", "exact_quantile", "fits", "k_of_fixed"]

DEGREES, LEVEL = 3.0, 0.999
#: of the normal that forward KL has for its exact optimum
FORWARD_SD = (DEGREES / (DEGREES - 2)) ** 0.5
AT_ZERO = init_to_value(values={"z": torch.tensor(0.0)})


def model() -> None:
    pyro.sample("z", dist.StudentT(DEGREES, 0.0, 1.0))


def exact_quantile() -> float:
    return float(stats.t.ppf(LEVEL, DEGREES))


def fits(steps: int) -> dict[str, object]:
    """Fitted distributions, as those of scipy."""
    found: dict[str, object] = {}
    for name, loss in (("reverse KL", ReverseKL(500)), ("forward KL", ForwardKL(500))):
        guide = AutoNormal(model, init_loc_fn=AT_ZERO, init_scale=2.0)
        params = fitted(model, guide, loss, steps=steps).params
        loc, scale = (float(params[f"AutoNormal.{part}.z"]) for part in ("locs", "scales"))
        found[f"normal, {name}"] = stats.norm(loc, scale)
    guide = AutoStudentT(model, df=10.0, learn_df=True, init_loc_fn=AT_ZERO, init_scale=2.0)
    params = fitted(model, guide, ForwardKL(500), steps=steps).params
    parts = [float(params[f"AutoStudentT.{part}.z"]) for part in ("dfs", "locs", "scales")]
    found["Student-t, forward KL"] = stats.t(*parts)
    return found


def k_of_fixed(degrees: float, number: int) -> float:
    """k-hat of a t guide that fits but for its degrees of freedom; exactly 1 - 3 / degrees."""
    guide = AutoStudentT(model, df=degrees, init_loc_fn=AT_ZERO)
    guide()
    return float(pareto_khat(draws(model, guide, num_particles=number).log_w))
