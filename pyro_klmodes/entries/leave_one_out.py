"""Leave-one-out of one fit, or why there is none."""

from __future__ import annotations

from typing import Any

from pyro_klmodes import inference_data
from pyro_klmodes.conversion import loo
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Elpd
from pyro_klmodes.inference_data.versions import tolerating

__all__ = ["leave_one_out"]


def leave_one_out(data: Any) -> tuple[Elpd | None, str]:
    """The leave-one-out estimate of inference data, or None and a reason.

    With one observed site the data are its elements. With several nobody can say what one datum
    is, not even if they are of one size: they need not be about the same things.

    Returns:
        The estimate with an empty string, or None with why there is none.
    """
    groups = inference_data.group_names(data)
    if "log_likelihood" not in groups:
        return None, "the model has no observed site with a log-likelihood per datum"
    names = list(map(str, inference_data.dataset(data, "log_likelihood").data_vars))
    if len(names) > 1:
        return None, f"the model observes several sites ({', '.join(names)}); take one by loo(...)"
    values = inference_data.dataset(data, "log_likelihood")[names[0]]
    if values.size == values.sizes["chain"] * values.sizes["draw"]:
        return None, f"site {names[0]} is one datum, and leaving it out leaves none"
    try:
        with tolerating("Pareto"):  # that some k are too high is in the numbers
            return inference_data.elpd_numbers(loo(data)), ""
    except InvalidArgument as error:
        return None, " ".join(str(error).split())
