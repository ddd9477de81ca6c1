"""WakeSleep: the model learns from data, the guide from data or from dreams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import fixed
from pyro_klmodes.estimators.base import model_part, value_of, with_gradient
from pyro_klmodes.losses.base import DivergenceLoss, on_draws
from pyro_klmodes.losses.checks import check_count, checked_broad, checked_share
from pyro_klmodes.losses.schedules import Schedule, checked_schedule, value_at
from pyro_klmodes.tracing.binding import Bind
from pyro_klmodes.tracing.defensive import sample_defensively
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.sleep import Rebind, sleep_log_density
from pyro_klmodes.tracing.sleep_checks import check_binding

__all__ = ["WakeSleep"]

_FORWARD = objectives.ForwardKL()
_BOUNDS = {"iwae": objectives.PowerMean(0.0), "elbo": objectives.PowerMean(1.0)}


class WakeSleep(DivergenceLoss):
    r"""A weighted sum of three phases, each of which trains one side of the pair:

    .. math::
        \text{wake-}\theta:&\; -\log \tfrac1K \sum_k w_k
            && \quad \text{the model, by the bound of K draws} \\
        \text{wake-}\phi:&\; -\sum_k \bar w_k \log q_\phi(z_k | x)
            && \quad \text{the guide, by weighted draws given data} \\
        \text{sleep-}\phi:&\; -\log q_\phi(z | x),\; (z, x) \sim p_\theta
            && \quad \text{the guide, by dreams of the model}

    The default is wake-sleep: wake-theta and sleep-phi. With ``wake_phi=1, sleep_phi=0`` it is
    reweighted wake-sleep, the gradient of ``ForwardKL``; with both, their mixture. Sleep minimises
    :math:`E_{p(x)} KL(p(z|x) \| q(z|x))` exactly and without importance weights, but on data of the
    model as it is, which need not look like the real ones: early in training the guide learns the
    posterior of another world. Wake-phi has no such bias and that of its K weights instead.

    In a local plate the weights are per datum; minibatches count for all data. Sleep simulates with
    the plates and the minibatch of the call, gives the guide the simulated data in the place of the
    observed ones, and evaluates it at the simulated latents. Elements that a mask takes out stay as
    they are observed. ``poutine.scale`` on latent sites has no part in a dream. A parameter that
    model and guide share is trained by the phases of both.

    Args:
        num_particles: K of wake-theta, and of wake-phi if that has no number of its own.
        wake_theta: weight of the phase, a number or a function of the step; zero leaves it out.
        wake_phi: weight likewise.
        sleep_phi: weight likewise.
        num_phi_particles: K of wake-phi, at least 2, with draws of its own; None to share those of
            wake-theta.
        num_simulations: dreams per step, each of as many data as the call has.
        bound: what wake-theta raises: "iwae" or "elbo".
        defensive: in ``[0, 1)``; the share of wake-phi's particles that are drawn from a broad
            distribution, see ``ForwardKL``.
        broad: a guide for it; None for the model's prior.
        bind: position or name of the argument that holds the data, by observed site, where it is
            not found by itself; or a function ``bind(data, *args, **kwargs)`` that returns the
            arguments of a call with other data as ``(args, kwargs)``, for guides that read them in
            more than one form: a series and the same backwards, say.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Attributes:
        parts: the value of every phase in the last call, by name; without those of weight zero.

    Raises:
        InvalidArgument: for numbers out of range. At the first step of sleep: if the data are not
            among the arguments, or transformed between argument and site, or if the guide ignores
            them, so that it would learn the prior.
        UnsupportedStructure: in sleep, where the model that is simulated would be another one than
            that of inference, or the guide would see real data: for ``pyro.factor``,
            ``poutine.scale`` on data, distributions that read the data (teacher forcing),
            minibatches with repeated elements or with latents outside of their plate.
        NoDensity: at the first step, if the guide has no density at given values.

    Source: Hinton, Dayan, Frey and Neal (1995); Bornschein and Bengio (2015); Le, Kosiorek,
    Siddharth, Teh and Wood (2020).

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     slope = pyro.param("slope", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(slope * x, 0.5 ** 0.5))
        >>> loss = WakeSleep(num_particles=8)
        >>> isinstance(loss.loss_and_grads(model, guide, torch.randn(100)), float)
        True
        >>> sorted(loss.parts)
        ['sleep_phi', 'wake_theta']
    """

    def __init__(
        self,
        num_particles: int = 16,
        *,
        wake_theta: Schedule = 1.0,
        wake_phi: Schedule = 0.0,
        sleep_phi: Schedule = 1.0,
        num_phi_particles: int | None = None,
        num_simulations: int = 1,
        bound: Literal["iwae", "elbo"] = "iwae",
        defensive: float = 0.0,
        broad: Callable[..., Any] | None = None,
        bind: Bind | Rebind | None = None,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if bound not in _BOUNDS:
            raise InvalidArgument(f"bound={bound!r} must be one of {sorted(_BOUNDS)}.")
        super().__init__(
            _BOUNDS[bound],
            num_particles=num_particles,
            estimator=fixed,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
        self.phases = {
            "wake_theta": checked_schedule("wake_theta", wake_theta),
            "wake_phi": checked_schedule("wake_phi", wake_phi),
            "sleep_phi": checked_schedule("sleep_phi", sleep_phi),
        }
        self.num_phi_particles = num_particles if num_phi_particles is None else num_phi_particles
        check_count("num_phi_particles", self.num_phi_particles)
        if self.num_phi_particles < 2 and wake_phi != 0.0:
            raise InvalidArgument(
                f"num_phi_particles={self.num_phi_particles}: wake-phi needs at least 2, because "
                "the weight of a single particle is always one. Try num_phi_particles=16."
            )
        check_count("num_simulations", num_simulations)
        self.num_simulations = num_simulations
        self.defensive = checked_share("defensive", defensive)
        self.broad = checked_broad(broad, self.defensive)
        # draws of its own where they differ from those of wake-theta in number or in origin
        self.shares_draws = num_phi_particles is None and self.defensive == 0.0
        if bind is not None and not isinstance(bind, Mapping) and not callable(bind):
            raise InvalidArgument(f"bind={bind!r} must be a mapping from site to argument.")
        self.bind: Bind | Rebind = {} if bind is None else bind
        self.parts: dict[str, float] = {}

    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """The weighted sum of the phases on fresh draws, without gradients."""
        with torch.no_grad():
            return float(self._sum_of_phases(Pair(model, guide, args, kwargs)))

    def why_not_static(self) -> str | None:
        """Dreams are runs of the model of their own kind, and weights may be schedules."""
        return "wake-sleep has phases whose weights may change from step to step"

    def _differentiable(self, pair: Pair) -> Tensor:
        total = self._sum_of_phases(pair)
        self.step += 1
        return total

    def _sum_of_phases(self, pair: Pair) -> Tensor:
        weights = {
            name: weight
            for name, schedule in self.phases.items()
            if (weight := value_at(schedule, self.step, name)) > 0
        }
        if not weights:
            raise InvalidArgument(
                f"WakeSleep: all phases have weight zero at step {self.step}; give one of "
                f"{', '.join(self.phases)} a positive weight."
            )
        parts: dict[str, Tensor] = {}
        if "wake_theta" in weights or "wake_phi" in weights:
            parts = self._wake(pair, weights)
        if "sleep_phi" in weights:
            parts["sleep_phi"] = self._sleep(pair)
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        terms = [weights[name] * part for name, part in parts.items()]
        return sum(terms[1:], start=terms[0])

    def _wake(self, pair: Pair, weights: Mapping[str, float]) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        draws: Draws | None = None
        if "wake_theta" in weights:
            alone = "wake_phi" not in weights or not self.shares_draws
            draws = self._wake_draws(pair, linear=self.objective.linear and alone)
            bound = on_draws(self.objective, draws)
            parts["wake_theta"] = with_gradient(value_of(bound, draws), model_part(bound, draws))
            self._check_finite(parts["wake_theta"], draws)
        if "wake_phi" in weights:
            if draws is None or not self.shares_draws:
                draws = self._phi_draws(pair)
            parts["wake_phi"] = fixed.guide_loss(on_draws(_FORWARD, draws), draws)
            self._check_finite(parts["wake_phi"], draws)
        return parts

    def _sleep(self, pair: Pair) -> Tensor:
        layout = self._layout(pair)
        self._require_density(pair, layout)
        if not layout.reads_data:
            check_binding(pair, self.bind)
            layout.reads_data = True
        dreams = [sleep_log_density(pair, self.bind) for _ in range(self.num_simulations)]
        return -torch.stack(dreams).mean()

    def _wake_draws(self, pair: Pair, *, linear: bool) -> Draws:
        def draw(layout: Layout) -> Draws:
            return sample(
                pair,
                layout,
                self.num_particles,
                self._cut(pair, layout),
                linear=linear,
                stratified=True,
            )

        return self._with_layout(pair, draw)[0]

    def _phi_draws(self, pair: Pair) -> Draws:
        def draw(layout: Layout) -> Draws:
            cut, count = self._cut(pair, layout), self.num_phi_particles
            if self.defensive > 0:
                return sample_defensively(pair, layout, count, self.defensive, broad=self.broad)
            return sample(pair, layout, count, cut, stratified=True)

        return self._with_layout(pair, draw)[0]

    def _cut(self, pair: Pair, layout: Layout) -> Cut:
        """Draws are constants in every phase."""
        self._require_density(pair, layout)
        return Cut.DRAWS
