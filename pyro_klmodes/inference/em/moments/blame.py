"""Which parameters are behind what has no closed form."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.moments.arguments import everything_in
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.uses import Seen, Use, same

__all__ = ["Run", "blamed", "refuse_coming_and_going", "unseen"]

#: runs the model at constrained values: ``{site: (fn, value)}`` of all that is scored
Run = Callable[[Mapping[str, Tensor]], Mapping[str, Seen]]


def refuse_coming_and_going(runs: Sequence[Mapping[str, Seen]]) -> None:
    """Refuse a model that has other sites at other values.

    Raises:
        UnsupportedStructure: naming a site.
    """
    for other in runs[1:]:
        for name in sorted(set(runs[0]) ^ set(other)):
            raise UnsupportedStructure(
                f"site '{name}' comes and goes with the values of the parameters. Sample it "
                "always, and mask it where it is not used (poutine.mask)."
            )


def blamed(
    run: Run,
    first: Mapping[str, Seen],
    entries: Entries,
    wrong: Mapping[str, str],
) -> dict[str, str]:  # {parameter: reason}
    """Move one parameter at a time, and see which sites move.

    Args:
        run: the model.
        first: what it gives at the first probe.
        entries: of the parameters.
        wrong: why a site has no closed form.
    """
    reasons: dict[str, str] = {}
    if not wrong:
        return reasons
    unexplained = set(wrong)
    for name in entries.parameters:
        moved = run({**entries.probes[0], name: entries.probes[1][name]})
        for site, reason in wrong.items():
            if not same(everything_in(first[site]), everything_in(moved[site])):
                reasons.setdefault(name, reason)
                unexplained.discard(site)
    for site in unexplained:  # moved by several together, or by chance
        for name in entries.parameters:
            reasons.setdefault(name, wrong[site])
    return reasons


def unseen(
    uses: Sequence[Use],
    entries: Entries,
    moved: Mapping[str, Collection[str]],
    reasons: dict[str, str],
) -> None:
    """Find sites that are computed from a parameter without being seen to select it.

    Where ``relu(x - 3)`` is zero, as at all probes, it moves with x at other values.

    Args:
        uses: what sites were seen to select.
        entries: of the parameters.
        moved: the parameters that sites are computed from.
        reasons: why parameters have no closed form; others are added.
    """
    seen: dict[str, set[str]] = {}
    for use in uses:
        seen[use.site] = set().union(*(entries.owners(m) for m in use.maps.values()))
    for site, names in moved.items():
        hidden = sorted(n for n in set(names) - seen.get(site, set()) if entries.is_free(n))
        for name in names if hidden and not set(hidden) <= set(reasons) else ():
            reasons.setdefault(
                name,
                f"site '{site}' depends on {', '.join(map(repr, hidden))} at some values only",
            )
