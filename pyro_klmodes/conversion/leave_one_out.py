"""``loo``: leave-one-out cross-validation of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_klmodes import inference_data
from pyro_klmodes.conversion.convert import to_arviz
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import dataset, group_names

__all__ = ["loo"]


def loo(
    source_or_data: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
    name: str | None = None,
    corrected: bool | None = None,
) -> Any:
    r"""PSIS-LOO with the correction for draws that are not from the exact posterior.

    Draws of a guide q are weighed by p(theta | y) / q(theta) on top of the 1 / p(y_i | theta) of
    leave-one-out, and the products are Pareto-smoothed for each datum.

    Args:
        source_or_data: whatever ``to_arviz`` takes, or what it returned.
        args: positional arguments of model and guide, as in ``to_arviz``.
        kwargs: keyword arguments likewise.
        num_samples: draws of a guide.
        seed: of the draws.
        name: which observed site, if there are several.
        corrected: whether to correct. By default if the draws are those of a guide; chains and
            resampled draws stand for the posterior as they are.

    Returns:
        ArviZ's ``ELPDData`` with pointwise values, for ``arviz.compare``; see
        ``pyro_klmodes.inference_data.elpd_numbers``.

    Raises:
        InvalidArgument: if the correction is asked for, or needed, and there is no ``log_q``:
            the guide has no density.

    Source:
        Vehtari, Gelman and Gabry (2017); the correction: Magnusson, Andersen, Jonasson and Vehtari
        (2019).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> def guide(y):
        ...     pyro.sample("mu", dist.Normal(0.0, 0.6))
        >>> found = loo((model, guide), args=(torch.tensor([-1.0, 0.0, 1.0]),))
        >>> round(inference_data.elpd_numbers(found).elpd, 1)
        -4.5
    """
    if hasattr(source_or_data, "attrs") and hasattr(source_or_data, "groups"):  # inference data
        data = source_or_data
    else:
        data = to_arviz(
            source_or_data,
            args=args,
            kwargs=kwargs,
            num_samples=num_samples,
            seed=seed,
            groups=("posterior", "log_likelihood", "sample_stats"),
        )
    reason = data.attrs.get("log_weights")
    if reason and corrected is not False:
        raise InvalidArgument(
            f"the correction needs the density of the guide, but {reason}. Take a guide that has "
            "one (AutoNormal), or corrected=False, which takes the guide for the posterior."
        )
    if corrected and not _has_densities(data):
        raise InvalidArgument(
            "these draws have no log_q to correct with: they are of MCMC, or were resampled, and "
            "stand for the posterior as they are. Leave corrected out."
        )
    return inference_data.loo(data, name=name, corrected=corrected is not False)


def _has_densities(data: Any) -> bool:
    if "sample_stats" not in group_names(data):
        return False
    held = dataset(data, "sample_stats")
    return "log_p" in held and "log_q" in held
