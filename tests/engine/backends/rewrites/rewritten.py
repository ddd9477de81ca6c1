"""What tests of rewrites share."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.backends.arrange import arrange
from pyro_klmodes.engine.backends.rewrites import rewrite
from pyro_klmodes.engine.graphs.clean import clean
from tests.engine.graphs.made import calls

__all__ = ["rewritten"]


def rewritten(function, *examples):
    """The operations of a function of tensors before and after, with values compared."""
    graph = clean(make_fx(lambda *x: (function(*x) + 1,))(*examples), examples)
    arranged = arrange(graph, list(examples), {})
    before = calls(arranged.graph)
    graph = rewrite(arranged, list(examples)).graph
    graph.graph.lint()
    (found,) = graph(*examples)
    torch.testing.assert_close(
        found, function(*examples) + 1, rtol=1e-13, atol=1e-13, equal_nan=True
    )
    return before, calls(graph)
