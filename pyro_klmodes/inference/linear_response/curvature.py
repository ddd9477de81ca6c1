"""Minus the Hessian of the ELBO in white coordinates, as a function of vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_klmodes.errors import NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.inference.linear_response.layout import Layout

__all__ = ["Curvature"]


class Curvature:
    """``H v`` for the negative Hessian H of the ELBO at the fit.

    The model is run once; every product is a run backwards through the gradient.

    Args:
        elbo: a twice differentiable function of the parameters of all sites.
        layout: of the coordinates.

    Raises:
        UnsupportedStructure: if torch has no second derivative of something in the model.
        NonFiniteLoss: if a derivative is not finite, naming the site.
    """

    def __init__(
        self, elbo: Callable[[dict[str, dict[str, Tensor]]], Tensor], layout: Layout
    ) -> None:
        self.layout, sites = layout, layout.sites
        self.pinned = layout.join({n: s.pinned.to(s.start) for n, s in sites.items()}).bool()
        some = next(iter(sites.values())).start
        self._at = some.new_zeros(len(self.pinned), requires_grad=True)
        with torch.enable_grad():
            parts = layout.split(self._at)
            value = elbo({n: s.params(parts[n]) for n, s in sites.items()})
            (self._slope,) = torch.autograd.grad(value, self._at, create_graph=True)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.pinned)

    @property
    def gradient(self) -> Tensor:  # (P,)
        """Of the ELBO."""
        return self._slope.detach().masked_fill(self.pinned, 0.0)

    def __call__(
        self,
        v: Tensor,  # (P,)
    ) -> Tensor:  # (P,)
        """``H v``, the identity for numbers that are pinned."""
        try:
            (found,) = torch.autograd.grad(self._slope, self._at, v, retain_graph=True)
        except (RuntimeError, NotImplementedError) as error:
            raise UnsupportedStructure(
                "linear response needs second derivatives of the log-probabilities, and torch "
                f"has none for something in the model: {error}"
            ) from error
        found = torch.where(self.pinned, v, -found)
        if not bool(found.isfinite().all()):
            parts = self.layout.split(found)
            bad = next(name for name, part in parts.items() if not bool(part.isfinite().all()))
            raise NonFiniteLoss(
                f"second derivatives of the ELBO in the parameters of site '{bad}' are not finite. "
                "Does the model have a kink or a pole at a value that stands for the site?"
            )
        return found

    def zeros(self) -> Tensor:  # (P,)
        """A vector to start from."""
        return torch.zeros_like(self._slope).detach()
