"""Every guide of the package by name: a new one is a line here."""

from functools import partial

import pyro
import pyro.distributions as dist
import torch

from pyro_klmodes import guides
from pyro_klmodes.guides.site_families import NormalMixture
from pyro_klmodes.guides.site_families.supports import is_positive
from pyro_klmodes.guides.site_families.unconstrained import is_real


def laplace(loc):
    scale = pyro.param("laplace_scale", torch.full_like(loc, 0.7))
    return dist.Laplace(pyro.param("laplace_loc", loc), scale.abs()).to_event(1)


class MixtureField(guides.AutoMeanField):
    """A mixture at every site."""

    def _create_parameters(self):
        self.families = {name: NormalMixture(3) for name in self.latents}
        super()._create_parameters()


def chain(latents):
    """Sites of which each is in all plates of those before it."""
    found = []
    for latent in sorted(latents, key=lambda x: len(x.plates)):
        if not found or set(found[-1].plates) <= set(latent.plates):
            found.append(latent)
    return tuple(latent.name for latent in found)


class NormalBlock(guides.AutoBlocks):
    """One normal over real sites in nested plates."""

    def __init__(self, model, **kwargs):
        super().__init__(model, [], **kwargs)

    def _members(self):
        return chain(x for x in self.latents.values() if is_real(x.support))

    def _create_parameters(self):
        members = self._members()
        self._asked = (members,) if len(members) > 1 else ()
        super()._create_parameters()


class NormalGammaBlock(NormalBlock):
    """Numbers in units of a precision, in nested plates."""

    def _members(self):
        latents = list(self.latents.values())
        taus = [i for i, x in enumerate(latents) if is_positive(x.support) and not x.event_shape]
        if not taus:
            return ()
        # Pyro's mean-field loss asks for the order of the model
        after = [x for x in latents[taus[0] :] if is_real(x.support) and not x.event_shape]
        return chain([latents[taus[0]], *after])


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
    "mean_field_normal_block": NormalBlock,
    "mean_field_normal_gamma_block": NormalGammaBlock,
    "autoregressive": guides.AutoAutoregressive,
    "hierarchical": partial(guides.AutoHierarchical, tails=guides.Gaussian()),
    "student_t": partial(guides.AutoStudentT, df=5.0),
    "student_t_learned": partial(guides.AutoStudentT, df=5.0, learn_df=True),
}
GUIDES = {**JOINT, **SITEWISE}
