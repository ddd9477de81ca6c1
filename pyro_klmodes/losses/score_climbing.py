"""ScoreClimbing: maximum likelihood of the guide on chains, without the bias of few draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import fixed
from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.objectives import GivenWeights, Objective
from pyro_klmodes.objectives.markov_kernels import (
    Kernel,
    conditional_importance,
    independence,
)
from pyro_klmodes.tracing.chain_run import ChainRun, sample_on_chains
from pyro_klmodes.tracing.chains import Chains, ForeignChains
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample

__all__ = ["ScoreClimbing"]

_KERNELS: dict[str, Kernel] = {
    "cis": conditional_importance,
    "independence": independence,
}


class ScoreClimbing(DivergenceLoss):
    r"""Forward KL without the bias of few particles, by Markov chains that last from step to step.

    Every cell (element of the local plates; the whole, if there are none) has a chain. In each step
    its state is particle 0, the other S - 1 are drawn from the guide, and all are weighed at the
    current parameters, :math:`w = p / q`. A Markov kernel turns these into weights
    :math:`\omega_k` and the next state, and

    .. math:: \nabla_\phi = -\sum_k \omega_k \nabla_\phi \log q(z_k), \qquad
        \nabla_\theta = -\sum_k \omega_k \nabla_\theta \log p(x, z_k).

    - ``"cis"``: Markovian score climbing with conditional importance sampling. :math:`\omega` are
      the self-normalised weights, by which the next state is drawn.
    - ``"independence"``: joint stochastic approximation, a Metropolis independence sampler through
      the S - 1 draws, accepted with probability :math:`\min(1, w'/w)`. :math:`\omega` are the
      shares of its steps.

    A chain that stands at a draw from the posterior has one as its next state, for every S, so that
    both gradients are then unbiased: of :math:`KL(p \| q)`, where ``ForwardKL`` leads elsewhere at
    small S, and of the log-evidence itself (Fisher's identity), where it raises a bound. For
    discrete guides and for all others whose density is known at given values.

    What is left is *adaptation bias*. The kernel changes with the parameters, and a chain needs
    several visits to forget where it stood. Learning rates that do not fall, rare visits and chains
    that hardly move make it large: for a skew normal of log standard deviation .22, four particles
    at the constant rate 0.1 end at .06, and those of ``ForwardKL`` at .13. (With ``"cis"`` a
    chain's first step is that of ``ForwardKL``.) ``renewal`` and ``ages`` tell how fast chains
    move, and ``frozen_gradient`` whether the end of a fit is where the gradient vanishes: it goes
    on with the chains while the parameters stand still. Let learning rates fall, and take more
    particles where few cells move or weights have heavy tails.

    Chains are kept by index: subsample with ``pyro.plate("data", N, subsample=index)`` or
    ``subsample_size``. Evaluation (``loss``, ``draws``) leaves them alone, and does without them on
    other data than theirs.

    To tell whether a cell still holds the data of its chain, a sum over what the model *observes*
    in it is compared: the values of all observed sites in the local plates that no mask takes out.
    Covariates and other arguments are not, because they may differ from step to step on purpose
    (dropout, augmentation), and their rows need not be those of the plate. Rows in another order
    are noticed by their observed values; where these are all equal, or none are in the local
    plates, they are not, and every chain goes on with the covariates of another datum. Shuffle by
    ``subsample=index``, never the arguments.

    Args:
        num_particles: S, at least 2, with the state.
        kernel: "cis" or "independence".
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for an unknown kernel or S < 2; at a step, if the observed values of a
            plate that is not subsampled have changed, or ``subsample`` holds no indices.
        UnsupportedStructure: at a step, for latents both inside and outside of a subsampled plate,
            a guide that is random beyond the latents, or scales on some of its sites.
        NoDensity: at a step, if the guide has no density at given values.

    Source: Naesseth, Lindsten and Blei (2020), "Markovian score climbing: variational inference
    with KL(p||q)"; Ou and Song (2020), "Joint stochastic approximation".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.5))
        >>> loss = ScoreClimbing(num_particles=4)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), loss)
        >>> values = [svi.step() for _ in range(300)]
        >>> abs(pyro.param("loc").item() - 1.0) < 0.3, 0 <= loss.renewal <= 1, int(loss.ages) >= 0
        (True, True, True)
    """

    def __init__(
        self,
        num_particles: int = 16,
        kernel: Literal["cis", "independence"] = "cis",
        *,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if kernel not in _KERNELS:
            raise InvalidArgument(f"kernel={kernel!r} must be one of {sorted(_KERNELS)}.")
        super().__init__(
            objectives.ForwardKL(),
            num_particles=num_particles,
            estimator=fixed,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
        self.kernel = kernel
        self._chains: Chains | None = None

    @property
    def renewal(self) -> float:
        """Share of the last step's cells whose chain moved to another particle; NaN before it."""
        return math.nan if self._chains is None else self._chains.renewal

    @property
    def ages(self) -> Tensor:  # (*local), of the full data
        """Steps since each chain moved, 0 if it did in the last; -1 where it has not begun.

        Empty before the first step.
        """
        if self._chains is None:
            return torch.empty(0, dtype=torch.long)
        return self._chains.ages(self.step - 1)

    def reset(self) -> None:
        """Begin anew, with no chains."""
        super().reset()
        self._chains = None

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and where all chains stand."""
        chains = None if self._chains is None else self._chains.state_dict()
        return {**super().state_dict(), "chains": chains}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the chains of a saved state."""
        super().load_state_dict(state)
        chains = state["chains"]
        self._chains = None if chains is None else Chains.from_state(chains)

    def why_not_static(self) -> str | None:
        """Chains go on from where the last step has left them."""
        return "every step goes on with the chains of the last one"

    def _differentiable(self, pair: Pair) -> Tensor:
        runs: list[ChainRun] = []

        def draw(layout: Layout) -> Draws:
            self._cut(pair, layout)
            runs.append(sample_on_chains(pair, layout, self.num_particles, self._chains))
            return runs[-1].draws

        draws, layout = self._with_layout(pair, draw)
        transition = _KERNELS[self.kernel](draws.log_w)
        loss = self._estimator(layout).loss(GivenWeights(transition.weights), draws)
        self._check_finite(loss, draws)
        self._advance(runs[-1], transition.chosen)
        self.step += 1
        return loss

    def _advance(
        self,
        run: ChainRun,
        index: Tensor,  # (*local)
    ) -> None:
        if self._chains is None:
            self._chains = Chains.begin(run.draws, run.sites, run.sizes)
        self._chains.advance(run.draws, index, run.sites, run.observed, run.visit, self.step)

    def _draws(self, pair: Pair, layout: Layout, cut: Cut) -> Draws:
        """For evaluation, which does not move the chains."""
        try:
            run = sample_on_chains(pair, layout, self.num_particles, self._chains, strict=True)
        except ForeignChains:  # other data, held out perhaps
            return sample(pair, layout, self.num_particles, Cut.DRAWS)
        return run.draws

    def _objective(self, draws: Draws) -> Objective:
        return GivenWeights(_KERNELS[self.kernel](draws.log_w).weights)
