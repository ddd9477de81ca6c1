"""``to_arviz``: inference data of anything that has been inferred."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import torch
from pyro.infer.mcmc.api import AbstractMCMC

from pyro_klmodes.conversion.arrays import Arrays
from pyro_klmodes.conversion.axes import Axes
from pyro_klmodes.conversion.drawn import of_chains, of_guide, scope_of
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Variable, build, write_in_chunks
from pyro_klmodes.posteriors import Chains, as_posterior

__all__ = ["GROUPS", "from_pyro_mcmc", "to_arviz"]

#: the groups that inference data can have
GROUPS = (
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
    "constant_data",
)


def to_arviz(
    source: Any,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 4000,
    seed: int = 0,
    resample: Literal["none", "psis"] = "none",
    groups: Collection[str] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    path: str | Path | None = None,
) -> Any:
    r"""ArviZ inference data of a fit, a guide, a Pyro SVI or Markov chains.

    A guide gives one chain of ``num_samples`` draws, MCMC the chains it has. The groups:

    - ``posterior``: latent sites in the constrained space, ``pyro.deterministic`` sites, and for
      each draw one exact draw of the enumerated sites given all others and the data.
    - ``posterior_predictive``: the observed sites drawn anew at every draw of the posterior,
      enumerated sites included.
    - ``prior``, ``prior_predictive``: draws from the model alone; ``pyro.factor`` is ignored.
    - ``log_likelihood``: of every datum, without ``poutine.scale`` and subsampling factors,
      enumerated sites summed out. Masked-out elements are no data: a site that has some comes with
      the others on one axis ``<site>_datum``, whose labels are their positions in the site.
    - ``sample_stats``: ``log_p``, ``log_q`` and ``log_weight = log_p - log_q`` of every draw of a
      guide; ``lp`` and the sampler's statistics (``diverging``) of chains.
    - ``observed_data`` (NaN where masked out); ``constant_data``: the other tensors that the model
      is called with, ``khat`` of every cell if the guide has local plates, and
      ``<site>_probabilities``, p(c = k | data) of enumerated sites averaged over the draws.

    The axes are named by the model's plates, as far as no variable has the same name.
    The attributes hold loss, guide, seed of the fit, versions, and the k-hat of the draws.

    A plate that draws its minibatches (``subsample_size``) is visited until every element was seen:
    global latents are drawn once and held fixed, local ones are drawn given them, and log-weights
    are those of the full data. The guide must have parameters for all data, or be amortised.

    Args:
        source: what ``fit`` returned; a pair (model, guide); a ``pyro.infer.SVI``; or a
            ``pyro.infer.MCMC`` that has run.
        args: positional arguments of model and guide, if ``source`` does not know them or saw a
            minibatch.
        kwargs: keyword arguments likewise.
        num_samples: draws of a guide.
        seed: of all random numbers. The posterior does not depend on which groups are made.
        resample: "psis" repeats draws in proportion to their Pareto-smoothed weights, with
            replacement, as many as there were; see ``weights.resampled``. Then there is no
            ``log_q``: the draws stand for the posterior, not for the guide.
        groups: which groups to make, all by default. A group that the model does not have, for
            instance because a site cannot be sampled, is left out with a warning by default and an
            error if it was named here.
        coords: labels for the entries of named axes.
        dims: for a variable the names of its axes, without chains and draws.
        path: a NetCDF file to write block by block, with one block in memory; for ``arviz
            .from_netcdf`` or ``pyro_klmodes.inference_data.read``. ``resample`` needs the draws of
            all latent sites in memory.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x); with ``path`` the path.

    Raises:
        InvalidArgument: for arguments that do not fit each other: a minibatch where the full data
            are needed, data of another size than the guide's, names of axes that clash, NaN draws,
            weights that are all zero.
        ModelGuideMismatch, UnsupportedStructure: as training would.

    Warns:
        KLModesWarning: if a guide has no density: no ``log_p`` and ``log_q``, no k-hat.

    Source:
        Layout of the groups: ArviZ's InferenceData schema. Enumerated sites: Obermeyer et al.
        (2019). Pareto-smoothed weights: Vehtari et al. (2024).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("school", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> def guide(y):
        ...     pyro.sample("mu", dist.Normal(0.5, 0.5))
        >>> data = to_arviz((model, guide), args=(torch.zeros(3),), num_samples=100,
        ...                 coords={"school": ["a", "b", "c"]})
        >>> dict(data.log_likelihood["y"].sizes)
        {'chain': 1, 'draw': 100, 'school': 3}
    """
    posterior = as_posterior(source, args=args, kwargs=kwargs)
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise InvalidArgument(f"num_samples={num_samples!r} must be a positive integer.")
    if resample not in ("none", "psis"):
        raise InvalidArgument(f"resample={resample!r} must be 'none' or 'psis'.")
    wanted = _wanted(groups)
    axes = Axes(dims, coords)
    with scope_of(posterior), torch.no_grad():
        drawn = (
            of_chains(posterior, resample)
            if isinstance(posterior, Chains)
            else of_guide(posterior, num_samples, seed, resample, keep=path is None)
        )
        extra, found = drawn.summary(wanted)
        attributes = {
            **posterior.attributes,
            "inference_library": "pyro-ppl",
            "inference_library_version": pyro.__version__,
            "num_samples": drawn.count,
            "draw_seed": seed,
            "resample": resample,
            **found,
        }
        arrays = Arrays(drawn.at, wanted, seed, lenient=groups is None, extra=extra)
        chunks = (axes.name(arrays.of(block), block.chains) for block in drawn.blocks)
        if path is None:
            joined = _joined(chunks)
            return build(joined, coords=axes.coords, attributes=attributes)
        first = next(chunks)  # decides on names
        write_in_chunks(path, _again(first, chunks), coords=axes.coords, attributes=attributes)
        return Path(path)


def from_pyro_mcmc(
    mcmc: AbstractMCMC,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    groups: Collection[str] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    path: str | Path | None = None,
) -> Any:
    """ArviZ inference data of Markov chains, for all versions of ArviZ; see ``to_arviz``.

    Raises:
        InvalidArgument: if ``mcmc`` is no ``pyro.infer.MCMC`` that has run, and as ``to_arviz``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro.infer import MCMC, NUTS
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> mcmc = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
        >>> mcmc.run()
        >>> dict(from_pyro_mcmc(mcmc).posterior.sizes)
        {'chain': 1, 'draw': 5}
    """
    if not isinstance(mcmc, AbstractMCMC):
        raise InvalidArgument(
            f"mcmc is of type {type(mcmc).__name__}; pass a pyro.infer.MCMC that has run."
        )
    return to_arviz(
        mcmc,
        args=args,
        kwargs=kwargs,
        seed=seed,
        groups=groups,
        coords=coords,
        dims=dims,
        path=path,
    )


def _wanted(groups: Collection[str] | None) -> frozenset[str]:
    if groups is None:
        return frozenset(GROUPS)
    names = [groups] if isinstance(groups, str) else list(groups)
    for name in names:
        if name not in GROUPS:
            raise InvalidArgument(f"there is no group '{name}'; these are: {', '.join(GROUPS)}.")
    return frozenset(names)


def _joined(
    chunks: Iterable[dict[str, dict[str, Variable]]],
) -> dict[str, dict[str, Variable]]:
    """All blocks in one, draws after draws."""
    parts: dict[tuple[str, str], list[Variable]] = {}
    for chunk in chunks:
        for group, content in chunk.items():
            for name, variable in content.items():
                parts.setdefault((group, name), []).append(variable)
    joined: dict[str, dict[str, Variable]] = {}
    for (group, name), found in parts.items():
        values = [variable.values for variable in found]
        whole = values[0] if len(values) == 1 else np.concatenate(values, axis=1)
        joined.setdefault(group, {})[name] = Variable(whole, found[0].dims)
    return joined


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
