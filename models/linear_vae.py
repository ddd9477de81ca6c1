"""A linear autoencoder, where everything is known: probabilistic principal components.

    z_i ~ Normal(0, I_k),   x_i ~ Normal(W z_i + b, noise^2 I_d),   i = 1..N
    guide: z_i ~ Normal(V x_i + c, diag(scale^2))

Let the data have the mean m and a covariance (over N, not N - 1) with eigenvalues
``l_1 > ... > l_d`` and eigenvectors ``u_j``. For a given noise variance s the likelihood is largest
at ``W = [u_j sqrt(max(l_j - s, 0))]_{j <= k}, b = m`` (Tipping and Bishop, 1999). Columns of W are
orthogonal, so the posterior has a diagonal covariance and the guide contains it:
``V = [u_j sqrt(l_j - s) / l_j]^T``, ``scale_j^2 = s / l_j``, or the prior where ``l_j <= s``. There
the evidence lower bound is the log likelihood, and no local optimum of it is one of the bound
alone (Lucas, Tucker, Grosse and Norouzi, 2019): latents that are not used, as many as eigenvalues
not above the noise, are the model's wish and no fault of the divergence.

The data are made so that their covariance has the wanted eigenvalues exactly.

Source: Tipping and Bishop (1999), "Probabilistic principal component analysis"; Lucas, Tucker,
Grosse and Norouzi (2019), "Don't blame the ELBO! A linear VAE perspective on posterior collapse".
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import ndtri
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from models.networks import LinearNormal
from models.problem import Moments, Problem
from models.training import Training

__all__ = [
    "EIGENVALUES",
    "LinearVAE",
    "active",
    "data",
    "elbo",
    "log_likelihood",
    "max_log_likelihood",
    "problem",
    "training",
]

EIGENVALUES = (8.0, 5.0, 3.0, 2.0, 1.2, 0.7, 0.4, 0.2)
LATENTS = 6
NOISE = 1.0  # its square lies between the fifth and the sixth eigenvalue
SEED = 1999

SOURCE = "made up for this file, after Tipping and Bishop (1999) and Lucas et al. (2019)"


def data(num_data: int = 200, seed: int = SEED) -> Tensor:
    """Points, (N, 8), with a mean that is not zero and ``EIGENVALUES`` as those of the covariance.

    Raises:
        ValueError: If there are too few points to have a covariance of full rank.

    Example:
        >>> x = data(50)
        >>> torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
        tensor([8.0000, 5.0000, 3.0000, 2.0000, 1.2000, 0.7000, 0.4000, 0.2000])
    """
    size = len(EIGENVALUES)
    if num_data <= size:
        raise ValueError(f"num_data must be at least {size + 1}, got {num_data}")
    generator = np.random.Generator(np.random.PCG64(seed))
    points = ndtri(generator.random((num_data, size)))
    white, _ = np.linalg.qr(points - points.mean(0))
    turned, _ = np.linalg.qr(ndtri(generator.random((size, size))))
    # A column of `white` has length one and mean zero.
    x = math.sqrt(num_data) * white * np.sqrt(EIGENVALUES) @ turned + np.linspace(-1, 1, size)
    return torch.as_tensor(x, dtype=torch.get_default_dtype())


class LinearVAE(nn.Module):
    """Model and guide with one linear layer each.

    Args:
        size: Dimension d of a datum.
        latents: Number k of latents.
        noise: Standard deviation of the noise.
        learn_noise: Whether the noise is learnt.

    Example:
        >>> vae = LinearVAE(8, 3)
        >>> pyro.poutine.trace(vae.model).get_trace(data()).nodes["z"]["value"].shape
        torch.Size([200, 3])
    """

    def __init__(
        self, size: int, latents: int, noise: float = NOISE, *, learn_noise: bool = False
    ) -> None:
        super().__init__()
        self.decoder = LinearNormal(
            latents, size, scale=noise, common=True, learn_scale=learn_noise
        )
        self.encoder = LinearNormal(size, latents)

    def model(
        self,
        x: Tensor,  # (N, d)
        subsample_size: int | None = None,
        subsample: Tensor | None = None,
    ) -> None:
        """Latents ``z`` and a point ``x`` for every datum, in the plate ``data``."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x), subsample_size, subsample) as index:
            prior = dist.Normal(x.new_zeros(self.decoder.linear.in_features), 1.0).to_event(1)
            loc, noise = self.decoder(pyro.sample("z", prior))
            pyro.sample("x", dist.Normal(loc, noise).to_event(1), obs=x[index])

    def guide(
        self,
        x: Tensor,  # (N, d)
        subsample_size: int | None = None,
        subsample: Tensor | None = None,
    ) -> None:
        """Normals around a linear function of the datum, with one scale for all data."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample_size, subsample) as index:
            loc, scale = self.encoder(x[index])
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @torch.no_grad()
    def set_to_optimum(
        self,
        x: Tensor,  # (N, d)
    ) -> LinearVAE:
        """Put both networks at the closed form, with the best noise where noise is learnt."""
        mean, eigenvalues, vectors = _principal(x)
        decoder, encoder = self.decoder.linear, self.encoder.linear
        k = decoder.in_features
        if self.decoder.log_scale.requires_grad:
            # The most likely noise is what no latent is left for, on average.
            self.decoder.log_scale.copy_(eigenvalues[k:].mean().log() / 2)
        noise = (2 * self.decoder.log_scale).exp()
        excess = (eigenvalues[:k] - noise).clamp(min=0.0)
        decoder.weight.copy_(vectors[:, :k] * excess.sqrt())
        decoder.bias.copy_(mean)
        encoder.weight.copy_((vectors[:, :k] * (excess.sqrt() / (excess + noise))).T)
        encoder.bias.copy_(-encoder.weight @ mean)
        self.encoder.log_scale.copy_((noise / (excess + noise)).log() / 2)
        return self


def _principal(
    x: Tensor,  # (N, d)
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, eigenvalues of the covariance from the largest on, and eigenvectors as columns."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return mean, values.flip(0), vectors.flip(1)


def active(
    x: Tensor,  # (N, d)
    latents: int,
    noise: float,
) -> int:
    """The number of latents that are used at the optimum: of eigenvalues above the noise.

    Example:
        >>> active(data(), latents=6, noise=1.0)
        5
    """
    _, eigenvalues, _ = _principal(x)
    return int((eigenvalues[:latents] > noise**2).sum())


def max_log_likelihood(
    x: Tensor,  # (N, d)
    latents: int,
    noise: float,
) -> float:
    """The largest log likelihood of all data over W and b, for a given noise, in closed form.

    Example:
        >>> round(max_log_likelihood(data(), latents=6, noise=1.0), 2)
        -2666.6
    """
    _, eigenvalues, _ = _principal(x.double())
    model = eigenvalues.new_full(eigenvalues.shape, noise**2)
    model[:latents] = torch.maximum(eigenvalues[:latents], model[:latents])
    log_det = (2 * math.pi * model).log().sum()
    return float(-0.5 * len(x) * (log_det + (eigenvalues / model).sum()))


def log_likelihood(
    vae: LinearVAE,
    x: Tensor,  # (N, d)
) -> Tensor:  # (N,)
    """``log p(x_i) = log Normal(x_i; b, W W^T + noise^2 I)`` at the present parameters.

    Example:
        >>> x = data()
        >>> vae = LinearVAE(8, 6).set_to_optimum(x)
        >>> abs(log_likelihood(vae, x).sum().item() / max_log_likelihood(x, 6, 1.0) - 1) < 1e-5
        True
    """
    linear, noise = vae.decoder.linear, (2 * vae.decoder.log_scale).exp()
    covariance = linear.weight @ linear.weight.T + noise * torch.eye(x.shape[-1], dtype=x.dtype)
    return dist.MultivariateNormal(linear.bias, covariance).log_prob(x)


def elbo(
    vae: LinearVAE,
    x: Tensor,  # (N, d)
) -> Tensor:
    """The evidence lower bound of all data at the present parameters, without any draws.

    Example:
        >>> x = data()
        >>> vae = LinearVAE(8, 6)
        >>> bool(elbo(vae, x) < log_likelihood(vae, x).sum())
        True
    """
    loc, scale = vae.encoder(x)
    shown, noise = vae.decoder(loc)
    spread = (vae.decoder.linear.weight**2 @ scale**2).sum()
    squares = ((x - shown) ** 2).sum(-1) + spread
    log_p = -0.5 * squares / noise**2 - 0.5 * x.shape[-1] * (2 * math.pi * noise**2).log()
    variance = scale**2
    kl = 0.5 * (loc**2 + variance - 1 - variance.log()).sum(-1)
    return (log_p - kl).sum()


def problem(num_data: int = 40, subsample_size: int | None = None) -> Problem:
    """The latents of all data given the most likely linear decoder, or minibatches of them.

    Reference and evidence are those of all data.

    Example:
        >>> case = problem()
        >>> case.reference["z"].mean.shape, round(case.log_evidence, 2)
        (torch.Size([40, 6]), -533.32)
    """
    x = data(num_data)
    best = LinearVAE(x.shape[-1], LATENTS).set_to_optimum(x)
    # The model is what is given: it has no parameters left.
    best.decoder.requires_grad_(requires_grad=False).eval()
    with torch.no_grad():
        mean, sd = best.encoder(x)
    return Problem(
        name="linear VAE",
        model=best.model,
        args=(x,),
        kwargs={"subsample_size": subsample_size},
        guide=LinearVAE(x.shape[-1], LATENTS).guide,
        exact_guide=best.guide,
        reference={"z": Moments(mean, sd.expand(mean.shape).clone())},
        log_evidence=max_log_likelihood(x, LATENTS, NOISE),
        how="closed form",
        source=SOURCE,
        guides=("AutoNormal",),
    )


def training(num_data: int = 1000) -> Training:
    """Six latents, of which five are of use. As many data are held out as are learnt from.

    Example:
        >>> task = training()
        >>> task.exact(task.test[:][0]).shape
        torch.Size([1000])
    """
    x = data(2 * num_data)
    train, test = x[:num_data], x[num_data:]
    vae = LinearVAE(train.shape[-1], LATENTS)

    def exact(x: Tensor) -> Tensor:
        with torch.no_grad():
            return log_likelihood(vae, x)

    return Training(
        name="linear VAE",
        model=vae.model,
        guide=vae.guide,
        train=TensorDataset(train),
        test=TensorDataset(test),
        batch_size=100,
        learning_rate=1e-2,
        epochs=50,
        likelihood="normal",
        source=SOURCE,
        exact=exact,
    )
