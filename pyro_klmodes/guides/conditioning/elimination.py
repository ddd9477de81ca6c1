"""Which earlier sites the posterior of a site depends on, all later ones being unknown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["parents_in_order"]


def parents_in_order(
    neighbours: Mapping[str, Collection[str]],
    order: Sequence[str],
) -> dict[str, set[str]]:
    """The parents that each site needs for a product of conditionals to hold the posterior.

    The posterior is a Markov random field. Sites are taken out of it from the last to the first:
    the parents of a site are the neighbours it has left, and, when it is gone, these depend on each
    other directly. Sites that are not drawn (enumerated ones) are taken out before all others.

    Args:
        neighbours: of every unobserved site, those that share a factor with it.
        order: the sites that are drawn.

    Returns:
        For every site of ``order`` the earlier ones it depends on. A site that ``neighbours`` does
        not have may depend on all others.

    Source: Webb, Golinski, Zinkov, Siddharth, Rainforth, Teh and Wood (2018).

    Example:
        >>> parents_in_order({"a": {"c"}, "b": {"c"}, "c": {"a", "b"}}, ["a", "b", "c"])
        {'a': set(), 'b': {'a'}, 'c': {...}}
    """
    graph = _symmetric(neighbours, order)
    hidden = [name for name in graph if name not in order]
    parents = {}
    for name in [*hidden, *reversed(order)]:
        parents[name] = graph.pop(name)
        for parent in parents[name]:
            graph[parent] |= parents[name]
            graph[parent] -= {parent, name}
    return {name: parents[name] for name in order}


def _symmetric(
    neighbours: Mapping[str, Collection[str]], order: Sequence[str]
) -> dict[str, set[str]]:
    names = {*neighbours, *order}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for other in names & set(neighbours.get(name, names)) - {name}:
            graph[name].add(other)
            graph[other].add(name)
    return graph
