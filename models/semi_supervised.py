"""Digits of which a few have labels: a discrete latent that is observed for some of the data.

    y_i ~ Categorical(1/10),   z_i ~ Normal(0, I),   x_i ~ Bernoulli(decoder(y_i, z_i))
    guide: y_i ~ Categorical(classifier(x_i)) where not known,  z_i ~ Normal(encoder(x_i, y_i))

Where a label is known it takes the place of the draw (``obs_mask``), in one batch with data whose
labels are not. The bound alone would never show the classifier a known label, so that its
log-probability is added for those (the factor ``label``), as in equation 9 of the paper.

With two latents everything is known: a sum over labels of integrals over the plane.

Source: Kingma, Rezende, Mohamed and Welling (2014), "Semi-supervised learning with deep generative
models", the model M2.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from models import images
from models.networks import Decoder, Encoder
from models.training import Training

__all__ = ["CLASSES", "SemiSupervised", "data", "log_likelihood", "training"]

CLASSES = 10
LABELLED = 100  # of the 1400 digits to learn from: the first ten of each class

SOURCE = "Kingma et al. (2014); digits of Alpaydin and Kaynak (1998) from scikit-learn"


class SemiSupervised(nn.Module):
    """Model and guide.

    Args:
        pixels: Number of pixels.
        hidden: Width of all hidden layers.
        latents: Number of latents besides the label.
        label_weight: What the log-probability of known labels counts for in training.

    Example:
        >>> ssl = SemiSupervised(64, 16, 2)
        >>> x, y, known = (part[:5] for part in data()[0])
        >>> pyro.poutine.trace(ssl.guide).get_trace(x, y, known).nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(self, pixels: int, hidden: int, latents: int, label_weight: float = 10.0) -> None:
        super().__init__()
        self.latents, self.label_weight = latents, label_weight
        self.decoder = Decoder(CLASSES + latents, hidden, pixels)
        self.encoder = Encoder(pixels + CLASSES, hidden, latents)
        self.classifier = Decoder(pixels, hidden, CLASSES)

    def model(
        self,
        x: Tensor,  # (N, pixels)
        y: Tensor,  # (N,)
        known: Tensor,  # (N,)
    ) -> None:
        """Label ``y``, latents ``z`` and image ``x`` of every datum, in the plate ``data``.

        Args:
            x: Images.
            y: Labels from 0 to 9; what stands where they are not known does not matter.
            known: Whether they are.
        """
        pyro.module("decoder", self.decoder)
        pyro.module("classifier", self.classifier)
        y = y.where(known, 0)  # a site's values have to be possible, also those that are masked
        with pyro.plate("data", len(x)):
            uniform = x.new_zeros(CLASSES)
            label = pyro.sample("y", dist.Categorical(logits=uniform), obs=y, obs_mask=known)
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            logits = self.decoder(_joined(z, label))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
            log_label = dist.Categorical(logits=self.classifier(x)).log_prob(y)
            pyro.factor("label", self.label_weight * log_label.where(known, 0.0))

    def guide(
        self,
        x: Tensor,  # (N, pixels)
        y: Tensor,  # (N,)
        known: Tensor,  # (N,)
    ) -> None:
        """The label of a datum is drawn where it is not known, then its latents."""
        pyro.module("classifier", self.classifier)
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            label = dist.Categorical(logits=self.classifier(x))
            # The name that Pyro gives to the draws of a site with an obs_mask.
            drawn = pyro.sample("y_unobserved", label.mask(~known))
            loc, scale = self.encoder(_joined(x, y.where(known, drawn)))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @torch.no_grad()
    def accuracy(
        self,
        x: Tensor,  # (N, pixels)
        y: Tensor,  # (N,)
    ) -> float:
        """The share of images that the classifier gives their label."""
        return float((self.classifier(x).argmax(-1) == y).to(x.dtype).mean())

    @torch.no_grad()
    def samples(self, number: int) -> Tensor:  # (number, 8, 8)
        """Means of the pixels at draws from the prior, with labels 0, 1, ..., 9, 0, 1, ..."""
        like = next(self.parameters())
        z = torch.randn(number, self.latents, dtype=like.dtype)
        logits = self.decoder(_joined(z, torch.arange(number) % CLASSES))
        return logits.sigmoid().reshape(number, images.DIGIT_SIDE, images.DIGIT_SIDE)

    @torch.no_grad()
    def reconstructions(
        self,
        x: Tensor,  # (B, 64)
        y: Tensor,  # (B,)
        known: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # (B, 8, 8) both
        """Images, and the means of their pixels at the likeliest label and the means of z."""
        label = y.where(known, self.classifier(x).argmax(-1))
        loc, _ = self.encoder(_joined(x, label))
        shape = (len(x), images.DIGIT_SIDE, images.DIGIT_SIDE)
        return x.reshape(shape), self.decoder(_joined(loc, label)).sigmoid().reshape(shape)


def _joined(
    features: Tensor,  # (*batch, features)
    label: Tensor,  # (*batch)
) -> Tensor:  # (*batch, features + 10)
    one_hot = nn.functional.one_hot(label, CLASSES).to(features.dtype)
    batch = torch.broadcast_shapes(features.shape[:-1], one_hot.shape[:-1])
    return torch.cat([features.expand(*batch, -1), one_hot.expand(*batch, -1)], -1)


def data() -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and whether these are known, to learn from and to test with.

    Example:
        >>> (x, y, known), (x_test, y_test, known_test) = data()
        >>> int(known.sum()), torch.bincount(y[known]), int(known_test.sum())
        (100, tensor([10, 10, 10, 10, 10, 10, 10, 10, 10, 10]), 0)
    """
    (x, y), (x_test, y_test) = images.digits()
    # The number of a datum among those of its class.
    place = (nn.functional.one_hot(y, CLASSES).cumsum(0) - 1).gather(1, y[:, None])[:, 0]
    known = place < LABELLED // CLASSES
    return (x, y, known), (x_test, y_test, torch.zeros_like(y_test, dtype=torch.bool))


@torch.no_grad()
def log_likelihood(
    ssl: SemiSupervised,
    x: Tensor,  # (N, pixels)
    *,
    end: float = 6.0,
    step: float = 0.1,
) -> Tensor:  # (N, 10)
    """``log p(x_i, y)`` of every image with every label, by the trapezoid rule over two latents.

    Raises:
        ValueError: If the number of latents is not two.

    Example:
        >>> log_likelihood(SemiSupervised(64, 16, 2), torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """
    if ssl.latents != 2:
        raise ValueError(f"quadrature is over 2 latents, got {ssl.latents}")
    axis = torch.linspace(-end, end, 2 * round(end / step) + 1, dtype=x.dtype)
    z = torch.cartesian_prod(axis, axis)
    log_prior = dist.Normal(x.new_zeros(2), 1.0).to_event(1).log_prob(z) - math.log(CLASSES)
    columns = []
    for label in range(CLASSES):
        logits = ssl.decoder(_joined(z, torch.full((len(z),), label)))
        # log p(x | z) of binary pixels is linear in x
        log_p = x @ logits.T - nn.functional.softplus(logits).sum(-1) + log_prior
        columns.append(log_p.logsumexp(-1) + 2 * (axis[1] - axis[0]).log())
    return torch.stack(columns, -1)


def training() -> Training:
    """Ten latents besides the label, and 100 labels for 1400 digits.

    Example:
        >>> task = training()
        >>> [part.shape for part in task.train[:3]]
        [torch.Size([3, 64]), torch.Size([3]), torch.Size([3])]
    """
    ssl = SemiSupervised(images.DIGIT_SIDE**2, 100, 10)
    train, test = data()
    return Training(
        name="semi-supervised digits",
        model=ssl.model,
        guide=ssl.guide,
        train=TensorDataset(*train),
        test=TensorDataset(*test),
        batch_size=100,
        learning_rate=2e-3,
        epochs=100,
        likelihood="Bernoulli",
        source=SOURCE,
        samples=ssl.samples,
        reconstructions=ssl.reconstructions,
    )
