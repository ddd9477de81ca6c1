"""Every guide of the package by name: a new one is a line here."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch

from pyro_klmodes import guides
from pyro_klmodes.guides.site_families import NormalMixture


def laplace(loc):
    scale = pyro.param("laplace_scale", torch.full_like(loc, 0.7))
    return dist.Laplace(pyro.param("laplace_loc", loc), scale.abs()).to_event(1)


class MixtureField(guides.AutoMeanField):
    """A mixture at every site."""

    def _create_parameters(self):
        self.families = {name: NormalMixture(3) for name in self.latents}
        super()._create_parameters()


#: one density over all latents
JOINT = {
    "full_rank": guides.AutoFullRank,
    "low_rank": partial(guides.AutoLowRank, rank=1),
    "multivariate_t": partial(guides.AutoMultivariateStudentT, df=5.0),
    "mixture": partial(guides.AutoMixture, num_components=3),
    "mixture_t_full": partial(
        guides.AutoMixture,
        num_components=2,
        scale=guides.Full(),
        radial=guides.StudentT(5.0),
        draws=guides.Implicit(),
    ),
    "flow": partial(
        guides.AutoFlow, architecture=guides.Autoregressive(guides.Affine(), transforms=1)
    ),
    "flow_t": partial(
        guides.AutoFlow,
        architecture=guides.Autoregressive(guides.Spline(bins=3), transforms=1),
        base=guides.StudentTBase(5.0),
    ),
    "distribution": partial(guides.AutoDistribution, distribution=laplace),
}
#: one site after the other
SITEWISE = {
    "mean_field": guides.AutoMeanField,
    "mean_field_mixture": MixtureField,
    "autoregressive": guides.AutoAutoregressive,
    "hierarchical": partial(guides.AutoHierarchical, tails=guides.Gaussian()),
    "student_t": partial(guides.AutoStudentT, df=5.0),
    "student_t_learned": partial(guides.AutoStudentT, df=5.0, learn_df=True),
}
GUIDES = {**JOINT, **SITEWISE}
