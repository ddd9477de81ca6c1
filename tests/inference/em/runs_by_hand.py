"""A model run at values of its parameters with its discrete latents enumerated, by hand."""

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger

from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.parameters import ParameterInfo


def run_of(model, *args, nesting=1, points=()):
    """``run(values)``: distribution and value of every scored site."""

    def run(values):
        given = {n: v for n, v in values.items() if n in points}
        fixed = {n: v for n, v in values.items() if n not in points}
        with poutine.block(), poutine.trace() as tracer:
            inside = poutine.condition(poutine.substitute(model, data=fixed), data=given)
            with EnumMessenger(first_available_dim=-1 - nesting):
                inside(*args)
        nodes = tracer.get_trace().nodes
        return {
            n: (s["fn"], s["value"])
            for n, s in nodes.items()
            if s["type"] == "sample" and not poutine.util.site_is_subsample(s)
        }

    return run


def parameters_by_hand(model, *args, points=None):
    """What the model's ``pyro.param`` say, and the supports of latents that are maximised."""
    with poutine.block(), poutine.trace() as tracer, EnumMessenger(first_available_dim=-9):
        model(*args)
    nodes = tracer.get_trace().nodes
    store = pyro.get_param_store()
    found = {
        n: ParameterInfo(
            s["value"].detach(), store._constraints.get(n, torch.distributions.constraints.real)
        )
        for n, s in nodes.items()
        if s["type"] == "param"
    }
    for name in points or ():
        site = nodes[name]
        found[name] = ParameterInfo(site["value"].detach(), site["fn"].support, point=True)
    return found


def random_factors(run, values, starts=3, scale=1.0, mask=None):
    """Every site with random posterior weights."""
    factors = {}
    for name, (fn, value) in run(values).items():
        shape = fn.log_prob(value).shape
        weight = scale * torch.rand(starts, *shape)
        if mask is not None and len(shape) and shape[-1] == len(mask):
            weight = weight * mask
        factors[name] = Factor(name, fn, value, weight)
    return factors


def expected_log_joint(run, values, factors, start):
    """Q at values without the dimension of starts."""
    total = 0.0
    for name, (fn, value) in run(values).items():
        total = total + (factors[name].weight[start] * fn.log_prob(value)).sum()
    return total
