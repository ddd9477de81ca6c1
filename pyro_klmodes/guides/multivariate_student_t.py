"""A multivariate Student-t over all latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import init_to_median
from torch import Tensor

from pyro_klmodes.guides.arguments import SCALES, check_kind
from pyro_klmodes.guides.joint.elliptical import Elliptical
from pyro_klmodes.guides.joint.radial import StudentT
from pyro_klmodes.guides.joint.scales import Full, ScaleStructure
from pyro_klmodes.guides.joint_guide import JointGuide

__all__ = ["AutoMultivariateStudentT"]

_FULL = Full()


class AutoMultivariateStudentT(JointGuide):
    r"""Multivariate Student-t, :math:`u = \mu + \sqrt{\nu / \chi^2_\nu}\, A \epsilon`.

    All coordinates share one chi-square variable: heavy tails that come together. As a proposal
    for importance weights it keeps them bounded where the posterior's tails are no heavier than
    its own, which a Gaussian does for Gaussian tails only: on tails of :math:`\nu_p` degrees of
    freedom the k-hat of the weights tends to :math:`1 - \nu_p / \nu_q` in one dimension.

    Args:
        model: a Pyro model with continuous latents and no subsampled plate around them.
        df: degrees of freedom, initial if they are learned.
        learn_df: whether they are a parameter. Reverse KL hardly feels the tails; learn them with
            a mass-covering loss.
        scale: ``Diagonal()``, ``LowRank(rank)`` or ``Full()``.
        init_loc_fn: initial value by site.
        init_scale: initial scale in unconstrained space.
        create_plates: a function of the model's arguments that returns plates.

    Raises:
        InvalidArgument: if ``df`` is not a positive number.
        UnsupportedStructure: in the first call, as for ``AutoFullRank``.

    Source: Kotz and Nadarajah (2004); Domke and Sheldon (2018) for its use in importance-weighted
    inference.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import init_to_feasible
        >>> def model():
        ...     pyro.sample("z", dist.Cauchy(torch.zeros(2), 1.0).to_event(1))
        >>> guide = AutoMultivariateStudentT(model, df=1.0, init_loc_fn=init_to_feasible)
        >>> guide.quantiles([0.5, 0.75])["z"]
        tensor([[0., 0.],
                [1., 1.]])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        df: float = 4.0,
        learn_df: bool = False,
        scale: ScaleStructure = _FULL,
        init_loc_fn: Callable[[Any], Tensor] = init_to_median,
        init_scale: float = 1.0,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates
        )
        self.radial = StudentT(df, learn_df=learn_df)
        check_kind("scale", scale, ScaleStructure, SCALES)
        self.scale = scale

    def _family(
        self,
        loc: Tensor,  # (D,)
    ) -> Elliptical:
        return Elliptical(loc, init_scale=self.init_scale, scale=self.scale, radial=self.radial)
