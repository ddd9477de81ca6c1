"""A loss is an objective, an estimator and a number of particles, dressed as a Pyro ELBO."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from pyro_klmodes.errors import (
    IncompatibleEstimator,
    InvalidArgument,
    KLModesWarning,
    NoDensity,
    NonFiniteLoss,
)
from pyro_klmodes.estimators import Auto, Estimator, Mixed, Pathwise
from pyro_klmodes.losses.checks import check_count, is_count
from pyro_klmodes.objectives import Objective, Stratified
from pyro_klmodes.tracing.density import why_unscored
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout, LayoutCache
from pyro_klmodes.tracing.nested import sample_nested
from pyro_klmodes.tracing.over_particles import NotMapped
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample
from pyro_klmodes.tracing.survey import survey
from pyro_klmodes.weights import effective_sample_size

__all__ = ["DivergenceLoss", "on_draws"]


class DivergenceLoss(ELBO):
    """Base of all losses: a strict drop-in for Pyro's.

    Works wherever Pyro takes an ``ELBO``: ``SVI(model, guide, optim, loss=...)`` (``loss`` and
    ``loss_and_grads`` return one float), ``loss(model, guide)`` as an ``nn.Module``, and
    ``differentiable_loss`` in loops of one's own. Every call looks at the same minibatch for all
    particles. What outlives a call is the number of gradients taken so far (``step``), by which
    schedules go, and a weak cache of what was found out about the pair.

    Args:
        objective: the divergence.
        num_particles: K, draws per estimate.
        num_outer: M, independent estimates that are averaged; K times M draws in all.
        estimator: one of ``pyro_klmodes.estimators``.
        max_plate_nesting: depth of the deepest plate; found by running the pair if None.
        vectorize_particles: whether all particles share one run of model and guide. A pair that
            does not broadcast, as one with ``a[county]``, has its guide run once and its model
            mapped over the draws with ``torch.func.vmap``, in which it sees the shapes of one
            particle. One that cannot be mapped either, as one with a branch on a latent value, is
            run particle by particle, with a warning that says why.

    Raises:
        InvalidArgument: for numbers that are not positive integers, or too few particles.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        num_particles: int,
        num_outer: int = 1,
        estimator: Estimator | Auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        check_count("num_particles", num_particles)
        check_count("num_outer", num_outer)
        if max_plate_nesting is not None and not is_count(max_plate_nesting, least=0):
            raise InvalidArgument(
                f"max_plate_nesting={max_plate_nesting!r} must be a non-negative integer, or None "
                "to find it out."
            )
        if num_particles < objective.min_particles:
            raise InvalidArgument(
                f"num_particles={num_particles}: {type(self).__name__} needs at least "
                f"{objective.min_particles}, because with fewer its gradient is zero in "
                "expectation or runs away from the posterior. Try num_particles=32."
            )
        if not isinstance(estimator, Estimator | Auto):
            raise InvalidArgument(
                f"estimator={estimator!r} is not one of pyro_klmodes.estimators (auto, pathwise, "
                "doubly, gdreg, score, fixed)."
            )
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        self.objective = objective
        self.estimator = estimator
        self.num_outer = num_outer
        # Pyro's own attribute counts the particle plate and is overwritten when it is guessed.
        self.plate_nesting = max_plate_nesting
        self.step = 0
        self._layouts = LayoutCache()
        self._dialled: Mapping[str, Tensor] = {}

    def reset(self) -> None:
        """Begin anew: forget what earlier gradients left behind. ``fit`` does so."""
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to go on later as if nothing had happened: numbers and tensors."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = int(state["step"])

    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """The value of the loss on fresh draws, without gradients."""
        pair = Pair(model, guide, args, kwargs)

        def draw(layout: Layout) -> Draws:
            self._cut(pair, layout)
            return self._draws(pair, layout, Cut.DRAWS)

        with torch.no_grad():
            draws, layout = self._with_layout(pair, draw)
            value = self._value(draws, layout)
        self._check_finite(value, draws)
        return float(value)

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """The value of the loss; gradients are added to the parameters' ``.grad``."""
        loss = self._differentiable(Pair(model, guide, args, kwargs))
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return float(loss.detach())

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Scalar whose value is the loss and whose gradient is the estimator's."""
        return self._differentiable(Pair(model, guide, args, kwargs))

    def draws(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Draws:
        """The draws and log-weights that the loss would see, without gradients."""
        pair = Pair(model, guide, args, kwargs)
        with torch.no_grad():
            draws, _ = self._with_layout(pair, lambda at: self._draws(pair, at, Cut.DRAWS))
        return draws

    def effective_share(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Effective sample size of fresh weights over K, averaged over cells."""
        draws = self.draws(model, guide, *args, **kwargs)
        log_w = draws.log_w
        if draws.log_share is not None:
            share = draws.log_share
            log_w = log_w + share.reshape(share.shape + (1,) * (log_w.dim() - share.dim()))
        return float(effective_sample_size(log_w).mean()) / log_w.shape[0]

    def resolve(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[Layout, Estimator]:
        """The structure of a pair and the estimator it gets, or the reason why there is none.

        Raises:
            IncompatibleEstimator, ModelGuideMismatch, NoDensity, UnsupportedStructure: as training
                would.
        """
        pair = Pair(model, guide, args, kwargs)
        self._layouts.forget(model, guide)  # it may have been found with other arguments
        layout = self._layout(pair)
        self._cut(pair, layout)
        return layout, self._estimator(layout)

    def why_not_static(self) -> str | None:
        """Why a step is not one function of parameters, data and draws; None if it is.

        Such a function can be written down once and compiled.
        """
        return None

    def dials(self, step: int) -> dict[str, float]:
        """The numbers in the loss that change from step to step, by name: values of schedules."""
        return {}

    def static_loss(self, pair: Pair, dials: Mapping[str, Tensor]) -> Tensor:
        """The differentiable loss of a pair that was run before, without any look at values.

        Args:
            pair: model, guide and arguments.
            dials: scalars in the place of the numbers that change.
        """
        layout = replace(self._layout(pair), settled=True)
        before, self._dialled = self._dialled, dials
        try:
            return self._surrogate(self._draws(pair, layout, self._cut(pair, layout)), layout)
        finally:
            self._dialled = before

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} works on draws, not on single traces.")

    def _differentiable(self, pair: Pair) -> Tensor:
        draws, layout = self._with_layout(
            pair, lambda at: self._draws(pair, at, self._cut(pair, at))
        )
        loss = self._surrogate(draws, layout)
        self._check_finite(loss, draws)
        self.step += 1
        return loss

    def _value(self, draws: Draws, layout: Layout) -> Tensor:
        """Scalar: the loss alone."""
        return self._estimator(layout).value(self._objective(draws), draws)

    def _surrogate(self, draws: Draws, layout: Layout) -> Tensor:
        """Scalar: its value is the loss, its gradient the estimate."""
        return self._estimator(layout).loss(self._objective(draws), draws)

    def _needs_sites(self, layout: Layout) -> bool:
        """Whether draws must tell the densities of every latent site."""
        return self._estimator(layout).needs_sites

    def _with_layout(self, pair: Pair, draw: Callable[[Layout], Draws]) -> tuple[Draws, Layout]:
        """Draw with the layout of an earlier call, or with a new one where that does not fit."""
        layout = self._layouts.get(pair.model, pair.guide)
        if layout is not None:
            before = torch.get_rng_state()
            try:
                return draw(layout), layout
            except Exception as error:  # arguments of another structure, or the model's own error
                torch.set_rng_state(before)
                if not isinstance(error, NotMapped) and not self._has_changed(pair, layout):
                    raise
                self._layouts.forget(pair.model, pair.guide)
        layout = self._layout(pair)
        return draw(layout), layout

    def _has_changed(self, pair: Pair, layout: Layout) -> bool:
        """Whether a pair has another structure than it had; whatever else is wrong is wrong."""
        now = survey(pair, vectorise=False, max_plate_nesting=self.plate_nesting)
        return now.structure != layout.structure

    def _draws(self, pair: Pair, layout: Layout, cut: Cut) -> Draws:
        if layout.partial_plates and self._can_nest(layout):
            return sample_nested(pair, layout, self.num_particles, self.num_outer)
        return sample(
            pair,
            layout,
            self.num_particles,
            cut,
            linear=self.objective.linear,
            outer=self.num_outer,
            stratified=self._estimator(layout).takes_strata(self.objective),
            by_site=self._needs_sites(layout),
            sites=self._estimator(layout).needs_model_sites,
        )

    def _objective(self, draws: Draws) -> Objective:
        """The objective, on draws that may have shares of their own."""
        return on_draws(self.objective, draws)

    def _can_nest(self, layout: Layout) -> bool:
        """Whether weights of local latents may be nested in expectations over global ones."""
        pathwise = isinstance(self._estimator(layout), Mixed | Pathwise)
        bound = self.objective.lower_bound and not self.objective.linear
        return bound and pathwise and not layout.unreparameterised

    def _layout(self, pair: Pair) -> Layout:
        layout = self._layouts.get(pair.model, pair.guide)
        if layout is None:
            layout = survey(
                pair, vectorise=self.vectorize_particles, max_plate_nesting=self.plate_nesting
            )
            self._layouts.put(pair.model, pair.guide, layout)
        return layout

    def _estimator(self, layout: Layout) -> Estimator:
        if isinstance(self.estimator, Auto):
            return self.estimator.resolve(self.objective, layout)
        return self.estimator

    def _cut(self, pair: Pair, layout: Layout) -> Cut:
        """Where draws are cut, after refusing guides that the estimator cannot serve."""
        estimator = self._estimator(layout)
        cut = estimator.cut(self.objective, layout)
        if self.num_particles < estimator.min_particles:
            raise IncompatibleEstimator(
                f"num_particles={self.num_particles}: {estimator!r} needs at least "
                f"{estimator.min_particles}, because the gradient of fewer is zero in expectation."
            )
        if estimator.needs_density:
            self._require_density(pair, layout)
        return cut

    def _require_density(self, pair: Pair, layout: Layout) -> None:
        """Refuse a guide that has no density at given values; found out once."""
        if layout.unscored == "":
            layout.unscored = why_unscored(pair)
        if layout.unscored is not None:
            estimator = self._estimator(layout)
            raise NoDensity(f"{type(self).__name__} with {estimator!r}: {layout.unscored}")

    def _check_finite(self, loss: Tensor, draws: Draws) -> None:
        """NaN is an error that names its site, infinity a warning."""
        value = float(loss.detach())
        if math.isnan(value):
            raise NonFiniteLoss(
                f"{type(self).__name__} is nan: {draws.describe_nonfinite()}. Check "
                "the data and the parameters of that site; nothing was updated."
            )
        if math.isinf(value):
            warnings.warn(
                f"{type(self).__name__} is infinite: {draws.describe_nonfinite()}. "
                f"{_about_zero_weights(draws)}",
                KLModesWarning,
                stacklevel=4,
            )


def on_draws(objective: Objective, draws: Draws) -> Objective:
    """An objective, on draws that may have shares of their own."""
    return objective if draws.log_share is None else Stratified(objective, draws.log_share)


def _about_zero_weights(draws: Draws) -> str:
    if bool((draws.log_w == -math.inf).all(0).any()):
        return "Every particle of some cell has weight zero; that cell gives no gradient."
    return (
        "Some particles have weight zero, which makes this divergence infinite. Keep the guide "
        "inside the support of the model, or use a loss that allows them: ForwardKL or IWAE."
    )
