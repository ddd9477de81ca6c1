"""Which parameters are behind what has no closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.em.moments.arguments import everything_in
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.uses import Seen, same

__all__ = ["Run", "blamed", "refuse_coming_and_going"]

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
