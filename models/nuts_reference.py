"""Long NUTS runs: how they are made, stored and read.

    python -m models.nuts_reference hierarchical_radon

runs Pyro's NUTS on ``models.hierarchical_radon.model`` with ``models.hierarchical_radon.data()``,
in double precision, and writes ``models/nuts/hierarchical_radon.json``: mean and standard
deviation of every latent number, the Monte Carlo error of both, effective sample size and r-hat.
The chains run one after the other and take minutes.

Sources: Hoffman and Gelman (2014), "The No-U-Turn sampler"; Vehtari, Gelman, Simpson, Carpenter
and Buerkner (2021), "Rank-normalization, folding, and localization", for ESS and r-hat.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

__all__ = ["NutsRun", "NutsSite", "run_nuts", "stored_run", "summarise"]

FOLDER = Path(__file__).parent / "nuts"


@dataclass(frozen=True)
class NutsSite:
    """What a run says about one site; every field has the shape of the site.

    Attributes:
        mean: Posterior mean.
        sd: Posterior standard deviation.
        mean_error: Monte Carlo standard error of the mean.
        sd_error: Monte Carlo standard error of the standard deviation.
        ess: Effective sample size for the mean; above the number of draws if they alternate.
        rhat: Rank-normalised split r-hat.
    """

    mean: Tensor
    sd: Tensor
    mean_error: Tensor
    sd_error: Tensor
    ess: Tensor
    rhat: Tensor


@dataclass(frozen=True)
class NutsRun:
    """A run: how it was made and what it says.

    Attributes:
        settings: Chains, draws, warm-up, seed, target acceptance, divergences and versions.
        sites: A summary per latent site.
    """

    settings: Mapping[str, Any]
    sites: Mapping[str, NutsSite]


def summarise(
    draws: Tensor,  # (chains, draws, *site)
) -> NutsSite:
    """Moments with their Monte Carlo errors, by ArviZ.

    Example:
        >>> round(float(summarise(torch.randn(4, 1000)).mean_error), 2)
        0.02
    """
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its next version when it is imported: show it, but do not fail.
        warnings.simplefilter("default", FutureWarning)
        import arviz

    chains = arviz.convert_to_dataset({"site": draws.double().numpy()})

    def diagnostic(values: Any) -> Tensor:
        return torch.as_tensor(values["site"].values).to(draws)

    return NutsSite(
        mean=draws.mean((0, 1)),
        sd=draws.flatten(0, 1).std(0),
        mean_error=diagnostic(arviz.mcse(chains, method="mean")),
        sd_error=diagnostic(arviz.mcse(chains, method="sd")),
        ess=diagnostic(arviz.ess(chains, method="mean")),
        rhat=diagnostic(arviz.rhat(chains)),
    )


def run_nuts(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    chains: int = 4,
    draws: int = 2000,
    warmup: int = 500,
    seed: int = 0,
    target_accept: float = 0.8,
) -> NutsRun:
    """Run NUTS, one chain after the other, and summarise the draws.

    Args:
        model: A Pyro model with continuous latents.
        args: Its arguments.
        chains: Number of chains.
        draws: Draws kept in each chain.
        warmup: Adaptation steps before them.
        seed: Seed of the first chain; the next chains count up from it.
        target_accept: The acceptance probability the step size is adapted to.
    """
    per_chain = []
    divergences = 0
    for chain in range(chains):
        pyro.set_rng_seed(seed + chain)
        kernel = NUTS(model, target_accept_prob=target_accept)
        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
        mcmc.run(*args)
        per_chain.append(mcmc.get_samples())
        divergences += sum(len(places) for places in mcmc.diagnostics()["divergences"].values())
    settings = {
        "chains": chains,
        "draws": draws,
        "warmup": warmup,
        "seed": seed,
        "target_accept": target_accept,
        "divergences": divergences,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
    }
    sites = {
        name: summarise(torch.stack([samples[name] for samples in per_chain]))
        for name in per_chain[0]
    }
    return NutsRun(settings, sites)


def store(run: NutsRun, name: str) -> None:
    """Write a run to ``models/nuts/<name>.json``, to seven digits."""

    def rounded(values: Any) -> Any:
        if isinstance(values, list):
            return [rounded(value) for value in values]
        return float(f"{values:.7g}")

    sites = {
        site: {field: rounded(value.tolist()) for field, value in asdict(summary).items()}
        for site, summary in run.sites.items()
    }
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"settings": run.settings, "sites": sites}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def stored_run(name: str) -> NutsRun:
    """Read a run that was stored, in the default dtype at the time of the call.

    Args:
        name: Name of the model's module in ``models``.

    Raises:
        FileNotFoundError: If there is no run of this name.

    Example:
        >>> stored_run("hierarchical_radon").settings["chains"]
        4
    """
    content = json.loads((FOLDER / f"{name}.json").read_text())
    dtype = torch.get_default_dtype()
    sites = {
        site: NutsSite(**{field: torch.tensor(v, dtype=dtype) for field, v in summary.items()})
        for site, summary in content["sites"].items()
    }
    return NutsRun(content["settings"], sites)


def main() -> None:
    """Run and store the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="+", help="modules in models/ with model and data()")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for name in parser.parse_args().names:
        module = importlib.import_module(f"models.{name}")
        start = time.perf_counter()
        run = run_nuts(module.model, module.data())
        store(run, name)
        ess = min(float(site.ess.min()) for site in run.sites.values())
        rhat = max(float(site.rhat.max()) for site in run.sites.values())
        minutes = (time.perf_counter() - start) / 60
        print(
            f"{name}: {minutes:.1f} min, smallest ESS {ess:.0f}, largest r-hat {rhat:.4f}, "
            f"{run.settings['divergences']} divergences"
        )


if __name__ == "__main__":
    main()
