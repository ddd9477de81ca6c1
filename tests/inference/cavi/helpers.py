"""Coordinate ascent step by step, for comparison with closed forms."""

from contextlib import contextmanager

import pyro

from pyro_klmodes.inference.cavi import CAVI


@contextmanager
def prepared(model, guide=None, *args, seed=0):
    """The sweeps of a fit, in a store of their own."""
    pyro.set_rng_seed(seed)
    with pyro.get_param_store().scope():
        yield CAVI(model, guide).prepare(*args)


def assert_monotone(result):
    """The ELBO never falls by more than rounding, and it rises at all."""
    slack = 1e-10 * (1 + result.elbos.abs().max())
    assert bool((result.elbos.diff() >= -slack).all()), result.elbos
