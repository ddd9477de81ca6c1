"""Where a gradient would arrive, found by looking at the graph instead of computing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

__all__ = ["reaches_beyond"]


def reaches_beyond(
    tensors: Iterable[Tensor],
    leaves: Collection[Tensor],
) -> bool:
    """Whether gradients of some tensors would arrive at any leaf of the graph but the given ones.

    Example:
        >>> import torch
        >>> z, theta = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> reaches_beyond([z.exp()], [z]), reaches_beyond([z * theta], [z])
        (False, True)
    """
    given = {id(leaf) for leaf in leaves}
    queue = [get_gradient_edge(t).node for t in tensors if t.requires_grad]
    seen = set(queue)
    while queue:
        node = queue.pop()
        leaf = getattr(node, "variable", None)  # of the nodes that end the graph
        if leaf is not None and id(leaf) not in given:
            return True
        new = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= new
        queue.extend(new)
    return False
