import math

import pytest
import torch
from torch.distributions import Chi2, MultivariateNormal, Normal, StudentT

from pyro_klmodes.diagnostics import khat
from pyro_klmodes.errors import InvalidArgument

INF = math.inf


def assert_within_spreads(found, expected, *, bias=0.0):
    """The mean over the repetitions (cells) is the law, up to a bias and four standard errors."""
    error = 4 * found.spread.mean() / math.sqrt(found.value.numel())
    assert abs(found.value.mean() - expected) < bias + error


class TestLaws:
    def test_normal_pairs_of_equal_mean(self):
        """k = 1 - lambda_min(Sigma_p^-1 Sigma_q), in three dimensions.

        Averages of 50 repetitions; the shape seen by 20,000 draws differs by up to 0.05 (it is
        0.03 too small for k = 0.5).
        """
        scale = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.9, 0.0], [-0.3, 0.2, 0.8]])
        posterior = MultivariateNormal(torch.zeros(3), scale_tril=scale)
        for smallest in (0.8, 0.5):
            # a guide whose covariance has these eigenvalues next to the posterior's
            guide = MultivariateNormal(
                torch.zeros(3),
                scale_tril=scale @ torch.tensor([smallest, 1.0, 1.0]).sqrt().diag(),
            )
            eigenvalues = torch.linalg.eigvals(posterior.precision_matrix @ guide.covariance_matrix)
            law = 1 - float(eigenvalues.real.min())
            assert law == pytest.approx(1 - smallest)
            x = guide.sample((20_000, 50))
            found = khat(posterior.log_prob(x) - guide.log_prob(x))
            assert_within_spreads(found, law, bias=0.05)

    def test_student_t_on_student_t(self):
        """k = 1 - nu_p / nu_q; four laws in one call."""
        nu_q = torch.tensor([2.0, 2.0, 2.0, 4.0]).unsqueeze(1)
        law = torch.tensor([0.25, 0.5, 0.75, 0.5])
        nu_p = nu_q * (1 - law.unsqueeze(1))
        x = StudentT(nu_q.expand(4, 50)).sample((20_000,))
        found = khat(StudentT(nu_p).log_prob(x) - StudentT(nu_q).log_prob(x))
        error = 4 * found.spread.mean(1) / math.sqrt(50)
        assert ((found.value.mean(1) - law).abs() < 0.02 + error).all()

    def test_a_guide_with_wider_tails_has_bounded_weights(self):
        x = StudentT(2.0).sample((4000, 20))
        found = khat(Normal(0.0, 1.0).log_prob(x) - StudentT(2.0).log_prob(x))
        assert (found.value < 0.0).all()
        assert (found.minimum_draws == 10).all()

    def test_equicorrelated_normals_with_the_mean_field_guide(self):
        """k = 1 - lambda_min of the precision, scaled to unit diagonal: 0.5, 0.8, 0.95, 0.99.

        In the eigenbasis of that matrix the log-weight is half a sum of (1 - lambda_i) u_i^2 with
        standard normal u. k-hat approaches the index from below: with 20,000 draws its mean is
        short of it by 0.02 at least, and by no more than one spread.
        """
        dims = (2, 5, 20, 100)
        laws = torch.tensor([0.5, 0.8, 0.95, 0.99])
        cells = []
        for dim, law in zip(dims, laws.tolist(), strict=True):
            covariance = torch.full((dim, dim), 0.5) + 0.5 * torch.eye(dim)
            precision = torch.linalg.inv(covariance)
            eigenvalues = torch.linalg.eigvalsh(precision / precision[0, 0])
            assert 1 - float(eigenvalues[0]) == pytest.approx(law)
            assert float(eigenvalues[1]) == pytest.approx(float(eigenvalues[-1]))
            alone = (1 - eigenvalues[0]) * Chi2(1.0).sample((20_000, 50))
            others = (1 - eigenvalues[-1]) * Chi2(dim - 1.0).sample((20_000, 50))
            cells.append((alone + others) / 2)
        found = khat(torch.stack(cells, dim=1))
        shortfall = laws - found.value.mean(1)
        spread = found.spread.mean(1)
        assert (shortfall < spread * (1 + 4 / math.sqrt(50))).all()
        assert (shortfall[1:] > 0.02).all()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("family", ["normal", "student"])
def test_the_spread_is_that_of_repetitions(shape, family):
    """200 repetitions know a standard deviation to 5 %; 15 % and three of those are allowed."""
    if family == "normal":
        guide, posterior = Normal(0.0, math.sqrt(1 - shape)), Normal(0.0, 1.0)
    else:
        guide, posterior = StudentT(2.0), StudentT(2.0 * (1 - shape))
    x = guide.sample((4000, 200))
    found = khat(posterior.log_prob(x) - guide.log_prob(x))
    assert found.value.std() / found.spread.mean() == pytest.approx(1.0, abs=0.30)


class TestMinimumDraws:
    def test_formula(self):
        found = khat(2 * torch.randn(1000, 50))
        assert found.num_draws == 1000
        assert found.limit == pytest.approx(2 / 3)
        below = found.value < 1
        expected = 10 ** (1 / (1 - found.value[below]))
        assert below.sum() > 10
        torch.testing.assert_close(found.minimum_draws[below], expected)
        assert (found.minimum_draws[~below] == INF).all()

    def test_the_limit_is_where_the_draws_suffice(self):
        # 10^(1/(1 - k)) = S exactly where k = 1 - 1/log10 S
        found = khat(2 * torch.randn(1000, 200))
        assert ((found.minimum_draws <= 1000) == (found.value <= found.limit)).all()

    def test_no_tail(self):
        found = khat(torch.zeros(100, 2))
        for tensor in (found.value, found.spread, found.minimum_draws):
            assert tensor.tolist() == [INF, INF]


class TestBadInput:
    @pytest.mark.parametrize(
        ("log_w", "message"),
        [
            (torch.zeros(1, 3), "fewer than two draws"),
            (torch.tensor(1.0), "fewer than two draws"),
            (torch.tensor([0.0, math.nan]), "1 of 2 entries of log_w are NaN or"),
            (torch.tensor([0.0, INF]), "1 of 2 entries of log_w are NaN or"),
            (torch.full((5, 2), -INF), "all weights of a cell are zero"),
        ],
    )
    def test_is_refused(self, log_w, message):
        with pytest.raises(InvalidArgument, match=message):
            khat(log_w)
