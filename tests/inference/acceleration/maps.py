"""Affine maps whose fixed points, spectra and ascent are known, and Hasselblad's EM."""

import torch

from models import mixed_poisson


def affine(eigenvalues, *, power=2, seed=0):
    """x -> A x + b with symmetric A of these eigenvalues; its fixed point and eigenvectors.

    With the error e = x - fixed point the value is -e' (I - A)^power e, which rises along the
    map: for power 1 a log-likelihood as EM has it, for power 2 minus the squared residual.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(eigenvalues, dtype=torch.get_default_dtype())
    size = len(values)
    random = torch.randn(size, size, generator=generator, dtype=values.dtype)
    vectors = torch.linalg.qr(random)[0]
    matrix = vectors @ values.diag() @ vectors.T
    fixed_point = torch.randn(size, generator=generator, dtype=values.dtype)

    def step(x):
        error = x - fixed_point
        residual = error @ (matrix - torch.eye(size))
        value = (error * residual).sum(-1) if power == 1 else -residual.square().sum(-1)
        return x + residual, value

    return step, fixed_point, vectors


def raw(theta):
    return mixed_poisson.em_step(theta)


def unconstrained(free):
    after, value = mixed_poisson.em_step(mixed_poisson.constrained(free))
    return mixed_poisson.unconstrained(after), value


def larger_rate_first(theta):
    """The same mixture, with its components in the order of the published maximum."""
    weight, first, second = theta.unbind(-1)
    swapped = torch.stack([1 - weight, second, first], -1)
    return torch.where((first < second)[:, None], swapped, theta)
