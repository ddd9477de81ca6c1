"""A Gaussian with any covariance over all latents."""

from __future__ import annotations

from torch import Tensor

from pyro_klmodes.guides.joint.elliptical import Elliptical
from pyro_klmodes.guides.joint.scales import Full
from pyro_klmodes.guides.joint_guide import JointGuide

__all__ = ["AutoFullRank"]


class AutoFullRank(JointGuide):
    r"""Gaussian with a full covariance over all latents, :math:`u = \mu + L \epsilon`.

    D (D + 3) / 2 parameters for D coordinates; a step costs O(D^2) per draw. Each latent stands at
    its own site with its Gaussian conditional given the sites before it.

    Args:
        model: a Pyro model with continuous latents and no subsampled plate around them.
        init_loc_fn: initial value by site.
        init_scale: initial standard deviation in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        UnsupportedStructure: in the first call, naming the site: no continuous latents, a support
            without a transform, a subsampled plate, a site that comes and goes.

    Source: Kucukelbir, Tran, Ranganath, Gelman and Blei (2017).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     pyro.sample("sigma", dist.LogNormal(mu, 1.0))
        >>> guide = AutoFullRank(model)
        >>> sorted(guide())
        ['mu', 'sigma']
        >>> guide.log_prob({"mu": torch.zeros(()), "sigma": torch.ones(())}).shape
        torch.Size([])
    """

    def _family(
        self,
        loc: Tensor,  # (D,)
    ) -> Elliptical:
        return Elliptical(loc, init_scale=self.init_scale, scale=Full())
