"""What the two directions are, what they charge for, and who wins by which yardstick."""

from __future__ import annotations

import heapq
import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from claims.grid import GRID, kl, log_normal, log_two_modes, mean_and_sd, minimise
from models import gaussian_pair


def both_ways(sd: float, shift: float) -> tuple[float, float]:
    """KL(p‖q) and KL(q‖p) of p = N(0, 1) and q = N(shift, sd²), in closed form."""
    p = Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    q = Normal(*torch.tensor([shift, sd], dtype=torch.float64))
    return float(kl_divergence(p, q)), float(kl_divergence(q, p))


def huffman_lengths(probabilities: list[float]) -> list[int]:
    """Bits per symbol of the best prefix code for these probabilities (Huffman, 1952)."""
    heap = [(p, [i]) for i, p in enumerate(probabilities)]
    lengths = [0] * len(probabilities)
    heapq.heapify(heap)
    while len(heap) > 1:
        (p, these), (q, those) = heapq.heappop(heap), heapq.heappop(heap)
        for i in these + those:
            lengths[i] += 1
        heapq.heappush(heap, (p + q, these + those))
    return lengths


def excess_bits(p: list[float], q: list[float]) -> tuple[float, float]:
    """Bits per symbol that q's code wastes on messages from p, and KL(p‖q) in bits."""
    own, other = huffman_lengths(p), huffman_lengths(q)
    wasted = sum(p_i * (b - a) for p_i, a, b in zip(p, own, other, strict=True))
    return wasted, sum(p_i * math.log2(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))


def penalties(separation: float = 6.0) -> dict[str, float]:
    """What each direction charges a guide on the left mode only, and one as wide as the target."""
    log_p = log_two_modes(GRID, separation)
    narrow = log_normal(GRID, -separation / 2, 1.0)
    wide = log_normal(GRID, *mean_and_sd(log_p))
    valley = GRID.abs() < 1
    return {
        "forward, of the narrow guide": float(kl(log_p, narrow)),
        "reverse, of the narrow guide": float(kl(narrow, log_p)),
        "forward, of the wide guide": float(kl(log_p, wide)),
        "reverse, of the wide guide": float(kl(wide, log_p)),
        "mass in the valley, target": float(torch.trapezoid((log_p.exp() * valley), GRID)),
        "mass in the valley, wide guide": float(torch.trapezoid((wide.exp() * valley), GRID)),
        "mass in the valley, narrow guide": float(torch.trapezoid((narrow.exp() * valley), GRID)),
        "mass on the right, target": float(torch.trapezoid((log_p.exp() * (GRID > 0)), GRID)),
        "mass on the right, wide guide": float(torch.trapezoid((wide.exp() * (GRID > 0)), GRID)),
        "mass on the right, narrow guide": float(
            torch.trapezoid((narrow.exp() * (GRID > 0)), GRID)
        ),
    }


def with_a_full_covariance(correlation: float = 0.9) -> dict[str, Tensor]:
    """Covariances of the best normals of both directions for a correlated pair, full and diagonal.

    Started at the identity; parameters are a Cholesky factor, its diagonal by logarithms.
    """
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    target = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)

    def guide(x: Tensor) -> MultivariateNormal:
        below = x[2] if len(x) == 3 else torch.zeros_like(x[0])
        rows = [
            torch.stack([x[0].exp(), torch.zeros_like(below)]),
            torch.stack([below, x[1].exp()]),
        ]
        return MultivariateNormal(
            torch.zeros(2, dtype=x.dtype), scale_tril=torch.stack(rows), validate_args=False
        )

    found = {}
    for size, family in ((2, "diagonal"), (3, "full")):
        reverse = minimise(lambda x: kl_divergence(guide(x), target), [0.0] * size)
        forward = minimise(lambda x: kl_divergence(target, guide(x)), [0.0] * size)
        found[f"{family}, reverse"] = guide(reverse).covariance_matrix
        found[f"{family}, forward"] = guide(forward).covariance_matrix
    return found


def by_each_yardstick(correlation: float = 0.9) -> Tensor:
    """The best mean-field normals of three divergences (rows), by all three (columns).

    Reverse KL, forward KL and the Rényi divergence of order 2, log E_q[(p/q)²] / 2, of the pair
    with this correlation. Along an eigenvector the target has variance l and the guide v.
    """
    target = torch.tensor([1 + correlation, 1 - correlation], dtype=torch.float64)
    rows = []
    for alpha in (1.0, 0.0, -1.0):
        v = gaussian_pair.mean_field_sd_ratio(alpha, correlation) ** 2
        ratio = v / target
        reverse = float((ratio - 1 - ratio.log()).sum() / 2)
        forward = float((1 / ratio - 1 + ratio.log()).sum() / 2)
        precision = 2 / target - 1 / v  # of p²/q, which has no finite integral if this is negative
        finite = bool((precision > 0).all())
        square = -(target.log() - math.log(v) / 2 + precision.log() / 2).sum() if finite else None
        rows.append([reverse, forward, math.inf if square is None else float(square) / 2])
    return torch.tensor(rows, dtype=torch.float64)
