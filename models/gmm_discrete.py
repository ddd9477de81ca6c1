"""A mixture of twenty normals with weights to learn: the benchmark of reweighted wake-sleep.

    k_i ~ Categorical(softmax(logits / 2)),   x_i ~ Normal(10 k_i, 5),   k = 0..19
    guide: k_i ~ Categorical(logits = network(x_i)),                     i = 1..N

Data have weights proportional to k + 5, and there are always fresh ones. Logits start at the
opposite, 2 (19 - k): components to the right, which are the heavy ones, begin with hardly any
weight, and a guide that follows the model does not propose them. The latent is discrete, so a
gradient along its path does not exist. Posterior and likelihood are a sum over twenty components.

Source: Le, Kosiorek, Siddharth, Teh and Wood (2020), "Revisiting reweighted wake-sleep for models
with stochastic control flow".
"""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

from models.training import Training

__all__ = [
    "COMPONENTS",
    "FreshData",
    "Mixture",
    "data",
    "guide_error",
    "log_joint",
    "log_likelihood",
    "training",
    "true_weights",
    "weights_error",
]

COMPONENTS = 20
SPACING, SD = 10.0, 5.0
HIDDEN = 16
NUM_TEST = 1000
SEED = 2020

SOURCE = "Le, Kosiorek, Siddharth, Teh and Wood (2020)"


def true_weights() -> Tensor:  # (20,)
    """The weights of the data.

    Example:
        >>> round(float(true_weights()[0]), 4), round(float(true_weights()[-1]), 4)
        (0.0172, 0.0828)
    """
    weights = torch.arange(COMPONENTS, dtype=torch.get_default_dtype()) + 5
    return weights / weights.sum()


def data(number: int, generator: torch.Generator | None = None) -> Tensor:  # (number,)
    """Draws from the mixture with its true weights, by torch's own generator if none is given.

    Example:
        >>> data(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5])
    """
    weights = true_weights()
    k = torch.multinomial(weights, number, replacement=True, generator=generator)
    noise = torch.randn(number, generator=generator, dtype=weights.dtype)
    return SPACING * k + SD * noise


class FreshData(IterableDataset[tuple[Tensor, ...]]):
    """Batches of data that nobody has seen before, by torch's own generator.

    Its items are batches already: ``DataLoader(FreshData(), batch_size=None)``.

    Example:
        >>> batches = FreshData(batch_size=100, batches=3)
        >>> [x.shape for x, in batches], len(batches)
        ([torch.Size([100]), torch.Size([100]), torch.Size([100])], 3)
    """

    def __init__(self, batch_size: int = 100, batches: int = 100) -> None:
        self.batch_size, self.batches = batch_size, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for _ in range(self.batches):
            yield (data(self.batch_size),)


class Mixture(nn.Module):
    """Model and guide.

    Example:
        >>> mixture = Mixture()
        >>> float(mixture.weights()[0]) > 0.6
        True
    """

    def __init__(self) -> None:
        super().__init__()
        start = 2.0 * torch.arange(COMPONENTS).flip(0)
        self.mixture = nn.ParameterDict({"logits": nn.Parameter(start)})
        self.encoder = nn.Sequential(
            *(nn.Linear(1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()),
            nn.Linear(HIDDEN, COMPONENTS),
        )

    def model(
        self,
        x: Tensor,  # (N,)
    ) -> None:
        """A component ``k`` and a number ``x`` for every datum, in the plate ``data``."""
        pyro.module("mixture", self.mixture)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=0.5 * self.mixture["logits"]))
            pyro.sample("x", dist.Normal(SPACING * k, SD), obs=x)

    def guide(
        self,
        x: Tensor,  # (N,)
    ) -> None:
        """A network of two hidden layers."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=self.encoder(x[:, None])))

    @torch.no_grad()
    def weights(self) -> Tensor:  # (20,)
        """The weights of the model as they are now."""
        return (0.5 * self.mixture["logits"]).softmax(0)


def log_joint(
    weights: Tensor,  # (20,)
    x: Tensor,  # (N,)
) -> Tensor:  # (N, 20)
    """``log p(k, x_i)`` for every component, with given weights."""
    centres = SPACING * torch.arange(COMPONENTS, dtype=x.dtype)
    return weights.log() + dist.Normal(centres, SD).log_prob(x[:, None])


def log_likelihood(
    mixture: Mixture,
    x: Tensor,  # (N,)
) -> Tensor:  # (N,)
    """``log p(x_i)`` under the model as it is now.

    Example:
        >>> log_likelihood(Mixture(), torch.zeros(2)).shape
        torch.Size([2])
    """
    return log_joint(mixture.weights(), x).logsumexp(-1)


def weights_error(mixture: Mixture) -> float:
    """Distance (of length 2) between the model's weights and the true ones.

    Example:
        >>> 0.6 < weights_error(Mixture()) < 0.7
        True
    """
    return float((mixture.weights() - true_weights()).norm())


@torch.no_grad()
def guide_error(
    mixture: Mixture,
    x: Tensor,  # (N,)
) -> float:
    """Distance between the guide's probabilities and the true posterior's, averaged over data.

    Example:
        >>> guide_error(Mixture(), data(100)) > 0.5
        True
    """
    posterior = log_joint(true_weights(), x).softmax(-1)
    guide = mixture.encoder(x[:, None]).softmax(-1)
    return float((guide - posterior).norm(dim=-1).mean())


def training() -> Training:
    """Fresh data in batches of 100, and 1000 data that stay the same to test with.

    Example:
        >>> task = training()
        >>> task.exact(*task.test[:]).shape
        torch.Size([1000])
    """
    mixture = Mixture()
    test = data(NUM_TEST, torch.Generator().manual_seed(SEED))

    def exact(x: Tensor) -> Tensor:
        return log_likelihood(mixture, x)

    return Training(
        name="mixture of 20",
        model=mixture.model,
        guide=mixture.guide,
        train=FreshData(),
        test=TensorDataset(test),
        batch_size=100,
        learning_rate=3e-3,
        epochs=80,
        likelihood="normal",
        source=SOURCE,
        exact=exact,
    )
