"""A variational autoencoder as Pyro users write it: a network for the model, another for the guide.

    z_i ~ prior,   x_i ~ Bernoulli(logits = decoder(z_i))  or  Normal(decoder(z_i), noise),
    guide: z_i ~ Normal(*encoder(x_i)),                        i = 1..N

Latents are local: the plate of the data encloses all of them, so that every datum has importance
weights of its own. The prior is standard normal or a flow, with a density that is exact. Both
styles of minibatches are there: a batch as the argument, and all data with the indices of a batch.

The networks of two latents have a log likelihood by quadrature.

Source: Kingma and Welling (2014), "Auto-encoding variational Bayes"; Rezende, Mohamed and Wierstra
(2014), "Stochastic backpropagation and approximate inference in deep generative models". A learnt
flow as the prior: Chen et al. (2017), "Variational lossy autoencoder".
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from models import images
from models.networks import ConvolutionalDecoder, ConvolutionalEncoder, Decoder, Encoder
from models.training import Training

__all__ = [
    "VAE",
    "BernoulliPixels",
    "FlowPrior",
    "GaussianPixels",
    "NormalPrior",
    "convolutional_training",
    "flow_prior_training",
    "gaussian_training",
    "log_likelihood",
    "training",
    "two_latents_training",
]

SOURCE = "Kingma and Welling (2014); digits of Alpaydin and Kaynak (1998) from scikit-learn"


class NormalPrior(nn.Module):
    """Independent standard normals.

    Example:
        >>> NormalPrior(3)(torch.zeros(1)).event_shape
        torch.Size([3])
    """

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        """The prior of one datum, with dtype and device of a tensor."""
        return dist.Normal(like.new_zeros(self.latents), 1.0).to_event(1)


class FlowPrior(nn.Module):
    """Standard normals through affine couplings (Dinh, Sohl-Dickstein and Bengio, 2017).

    Every other coupling sees the latents in reversed order. A coupling is inverted in one pass, so
    the density of any value is exact and as cheap as a draw.

    Args:
        latents: Number of latents, at least two.
        couplings: Number of couplings.
        hidden: Width of the hidden layer of each.

    Raises:
        ValueError: If there are fewer than two latents: a coupling moves some given others.

    Example:
        >>> FlowPrior(3)(torch.zeros(1)).sample().shape
        torch.Size([3])
    """

    def __init__(self, latents: int, couplings: int = 4, hidden: int = 32) -> None:
        super().__init__()
        if latents < 2:
            raise ValueError(f"a flow of couplings needs at least 2 latents, got {latents}")
        self.latents = latents
        self.couplings = nn.ModuleList(
            transforms.affine_coupling(latents, [hidden]) for _ in range(couplings)
        )

    def forward(self, like: Tensor) -> dist.TorchDistribution:
        """The prior of one datum, with dtype and device of a tensor."""
        base = dist.Normal(like.new_zeros(self.latents), 1.0).to_event(1)
        reverse = torch.arange(self.latents, device=like.device).flip(0)
        parts = [part for c in self.couplings for part in (c, transforms.Permute(reverse))]
        return dist.TransformedDistribution(base, parts)


class BernoulliPixels(nn.Module):
    """Pixels are 0 or 1; the decoder gives their logits.

    Example:
        >>> BernoulliPixels().mean(torch.zeros(2))
        tensor([0.5000, 0.5000])
    """

    def forward(self, decoded: Tensor) -> dist.TorchDistribution:
        """The distribution of all pixels of an image."""
        return dist.Bernoulli(logits=decoded).to_event(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The mean of every pixel."""
        return decoded.sigmoid()


class GaussianPixels(nn.Module):
    """Pixels are real; the decoder gives their means, and one noise, learnt too, is common to all.

    Example:
        >>> GaussianPixels(0.5)(torch.zeros(2)).variance.detach()
        tensor([0.2500, 0.2500])
    """

    def __init__(self, noise: float = 0.3) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))

    def forward(self, decoded: Tensor) -> dist.TorchDistribution:
        """The distribution of all pixels of an image."""
        return dist.Normal(decoded, self.log_noise.exp()).to_event(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The mean of every pixel."""
        return decoded


class VAE(nn.Module):
    """Model and guide, and the four networks in them.

    Args:
        encoder: From ``(*batch, pixels)`` to mean and standard deviation, ``(*batch, latents)``.
        decoder: From ``(*batch, latents)`` to ``(*batch, pixels)``.
        prior: ``NormalPrior`` or ``FlowPrior``.
        pixels: ``BernoulliPixels`` or ``GaussianPixels``.

    Example:
        >>> vae = VAE(Encoder(64, 16, 2), Decoder(2, 16, 64), NormalPrior(2), BernoulliPixels())
        >>> trace = pyro.poutine.trace(vae.model).get_trace(torch.zeros(5, 64))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: NormalPrior | FlowPrior,
        pixels: BernoulliPixels | GaussianPixels,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior, self.pixels = encoder, decoder, prior, pixels

    def model(
        self,
        x: Tensor,  # (N, pixels)
        subsample: Tensor | None = None,  # (B,)
    ) -> None:
        """Latents ``z`` and an image ``x`` for every datum, in the plate ``data``.

        Args:
            x: A minibatch; or all data, where ``subsample`` says which of them are seen.
            subsample: Indices of a minibatch; None for all of ``x``.
        """
        pyro.module("decoder", self.decoder)
        pyro.module("prior", self.prior)
        pyro.module("pixels", self.pixels)
        with pyro.plate("data", len(x), subsample=subsample) as index:
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.pixels(self.decoder(z)), obs=x[index])

    def guide(
        self,
        x: Tensor,  # (N, pixels)
        subsample: Tensor | None = None,  # (B,)
    ) -> None:
        """Independent normals given the image. Arguments as for the model."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample=subsample) as index:
            loc, scale = self.encoder(x[index])
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @torch.no_grad()
    def samples(self, number: int) -> Tensor:  # (number, side, side)
        """Means of the pixels at draws from the prior."""
        like = next(self.parameters())
        z = self.prior(like).sample((number,))
        return _as_pictures(self.pixels.mean(self.decoder(z)))

    @torch.no_grad()
    def reconstructions(
        self,
        x: Tensor,  # (B, pixels)
    ) -> tuple[Tensor, Tensor]:  # (B, side, side) both
        """Images, and the means of their pixels at the means of their latents."""
        loc, _ = self.encoder(x)
        return _as_pictures(x), _as_pictures(self.pixels.mean(self.decoder(loc)))


def _as_pictures(
    x: Tensor,  # (B, pixels)
) -> Tensor:  # (B, side, side)
    side = math.isqrt(x.shape[-1])
    return x.reshape(-1, side, side).clamp(0.0, 1.0)


@torch.no_grad()
def log_likelihood(
    vae: VAE,
    x: Tensor,  # (N, pixels)
    *,
    end: float = 6.0,
    step: float = 0.05,
) -> Tensor:  # (N,)
    """``log p(x_i)`` of every image by the trapezoid rule over two latents.

    Args:
        vae: An autoencoder with two latents.
        x: Images.
        end: Latents lie between ``-end`` and ``end``. For a flow as the prior it has to be where
            that has its mass.
        step: Distance between the points of the rule. It has to be below the standard deviations of
            the posteriors, about; halve it and see.

    Raises:
        ValueError: If the number of latents is not two.

    Example:
        >>> vae = VAE(Encoder(64, 16, 2), Decoder(2, 16, 64), NormalPrior(2), BernoulliPixels())
        >>> log_likelihood(vae, torch.zeros(5, 64)).shape
        torch.Size([5])
    """
    if vae.prior.latents != 2:
        raise ValueError(f"quadrature is over 2 latents, got {vae.prior.latents}")
    axis = torch.linspace(-end, end, 2 * round(end / step) + 1, dtype=x.dtype)
    total = x.new_full((len(x),), -math.inf)
    for value in axis:  # a column of the grid at a time, to keep memory in bounds
        z = torch.stack([value.expand(len(axis)), axis], -1)
        log_joint = vae.prior(x).log_prob(z)[:, None]
        log_joint = log_joint + vae.pixels(vae.decoder(z)[:, None]).log_prob(x)
        total = torch.logaddexp(total, log_joint.logsumexp(0))
    return total + 2 * (axis[1] - axis[0]).log()


def training() -> Training:
    """Ten latents for binary digits of 8 by 8, fully connected.

    Example:
        >>> len(training().train), len(training().test)
        (1400, 397)
    """
    return _of_digits("VAE, digits", 10, NormalPrior(10), BernoulliPixels())


def gaussian_training() -> Training:
    """The same for digits with grey pixels, with normal noise.

    Example:
        >>> gaussian_training().likelihood
        'normal'
    """
    return _of_digits("VAE, grey digits", 10, NormalPrior(10), GaussianPixels())


def flow_prior_training() -> Training:
    """The same for binary digits with a flow as the prior of four latents.

    Example:
        >>> flow_prior_training().name
        'VAE with a flow prior, digits'
    """
    return _of_digits("VAE with a flow prior, digits", 4, FlowPrior(4), BernoulliPixels())


def two_latents_training() -> Training:
    """Two latents for binary digits; the log likelihood is there, by quadrature.

    Example:
        >>> two_latents_training().exact(torch.zeros(3, 64)).shape
        torch.Size([3])
    """
    return _of_digits("VAE of two latents, digits", 2, NormalPrior(2), BernoulliPixels())


def convolutional_training(num_train: int = 4000, num_test: int = 1000) -> Training:
    """Sixteen latents for simulated shapes of 28 by 28, convolutional.

    Example:
        >>> task = convolutional_training(num_train=20, num_test=10)
        >>> task.train[:][0].shape
        torch.Size([20, 784])
    """
    side, latents = images.SHAPE_SIDE, 16
    vae = VAE(
        ConvolutionalEncoder(side, 16, latents),
        ConvolutionalDecoder(latents, 16, side),
        NormalPrior(latents),
        BernoulliPixels(),
    )
    x = images.shapes(num_train + num_test)
    return _training("convolutional VAE, shapes", vae, x[:num_train], x[num_train:], epochs=10)


def _of_digits(
    name: str,
    latents: int,
    prior: NormalPrior | FlowPrior,
    pixels: BernoulliPixels | GaussianPixels,
) -> Training:
    size = images.DIGIT_SIDE**2
    vae = VAE(Encoder(size, 100, latents), Decoder(latents, 100, size), prior, pixels)
    (train, _), (test, _) = images.digits(binary=isinstance(pixels, BernoulliPixels))
    return _training(name, vae, train, test, epochs=100)


def _training(name: str, vae: VAE, train: Tensor, test: Tensor, epochs: int) -> Training:
    def exact(x: Tensor) -> Tensor:
        return log_likelihood(vae, x)

    return Training(
        name=name,
        model=vae.model,
        guide=vae.guide,
        train=TensorDataset(train),
        test=TensorDataset(test),
        batch_size=100,
        learning_rate=2e-3,
        epochs=epochs,
        likelihood="Bernoulli" if isinstance(vae.pixels, BernoulliPixels) else "normal",
        source=SOURCE,
        exact=exact if isinstance(vae.prior, NormalPrior) and vae.prior.latents == 2 else None,
        samples=vae.samples,
        reconstructions=vae.reconstructions,
    )
