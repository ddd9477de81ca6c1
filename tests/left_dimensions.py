"""Whether a model takes latent values with dimensions of their own to the left of all plates."""

import itertools

import pyro
import torch
from pyro import poutine


def log_joint(model, args, kwargs, values, nesting):
    """``log p`` of all sites at given values, all but the dimensions left of the plates summed."""
    conditioned = poutine.condition(model, data=values)
    trace = poutine.trace(conditioned).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    total = torch.zeros(())
    for site in trace.nodes.values():
        if "log_prob" in site:
            found = site["log_prob"]
            padded = found.reshape((1,) * (nesting - found.dim()) + found.shape)
            total = total + padded.sum(tuple(range(-nesting, 0)) if nesting else ())
    return total


def check_left_dimensions(model, args, *, nesting, kwargs=None, seed=0):
    """Every latent gets draws in a dimension of its own; a loop must give the same table."""
    kwargs = kwargs or {}
    pyro.set_rng_seed(seed)
    runs = [poutine.trace(model).get_trace(*args, **kwargs) for _ in range(3)]
    names = [
        name
        for name in runs[0].stochastic_nodes
        if type(runs[0].nodes[name]["fn"]).__name__ != "_Subsample"
    ]
    assert names
    counts = [2 + i % 2 for i in range(len(names))]
    draws, laid_out = {}, {}
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        site = runs[0].nodes[name]
        draws[name] = torch.stack([run.nodes[name]["value"] for run in runs[:count]])
        event = draws[name].dim() - 1 - len(site["fn"].batch_shape)
        assert event == site["fn"].event_dim
        shape = [count] + [1] * (len(names) - 1 - i)
        shape += [1] * (nesting - len(site["fn"].batch_shape))
        laid_out[name] = draws[name].reshape(*shape, *draws[name].shape[1:])

    together = log_joint(model, args, kwargs, laid_out, nesting)

    assert together.shape == tuple(counts)
    for which in itertools.product(*(range(c) for c in counts)):
        one = {name: draws[name][k] for name, k in zip(names, which, strict=True)}
        alone = log_joint(model, args, kwargs, one, nesting)
        torch.testing.assert_close(together[which], alone, rtol=1e-10, atol=1e-10)
