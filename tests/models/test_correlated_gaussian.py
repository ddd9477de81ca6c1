"""Equally correlated normals: the covariance, and the mean-field answers by linear algebra."""

import math

import pytest
import torch

from models import correlated_gaussian

CASES = [(2, 0.9), (5, 0.5), (20, 0.5), (4, -0.3)]


@pytest.mark.parametrize(("dimension", "correlation"), CASES)
def test_covariance_has_the_two_known_eigenvalues(dimension, correlation):
    matrix = correlated_gaussian.covariance(dimension, correlation)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    known = [1 - correlation] * (dimension - 1) + [1 + (dimension - 1) * correlation]
    torch.testing.assert_close(eigenvalues, torch.tensor(sorted(known)))
    assert (matrix.diagonal() == 1).all()


@pytest.mark.parametrize(("dimension", "correlation"), CASES)
def test_mean_field_answers_agree_with_linear_algebra(dimension, correlation):
    matrix = correlated_gaussian.covariance(dimension, correlation)
    precision = torch.linalg.inv(matrix).diagonal()
    sd = correlated_gaussian.mean_field_sd(dimension, correlation)
    torch.testing.assert_close(precision.rsqrt(), torch.full((dimension,), sd))

    ratio = torch.linalg.eigvals(torch.linalg.solve(matrix, torch.diag(1 / precision))).real
    khat = correlated_gaussian.mean_field_khat(dimension, correlation)
    assert khat == pytest.approx(1 - ratio.min().item())


def test_independent_coordinates_need_no_more_than_a_mean_field():
    assert correlated_gaussian.mean_field_sd(7, 0.0) == 1
    assert correlated_gaussian.mean_field_khat(7, 0.0) == 0


def test_tail_index_goes_to_one_with_the_dimension():
    # At a correlation of one half it is 1 - 1/d, as the module says.
    for dimension in (2, 10, 1000):
        khat = correlated_gaussian.mean_field_khat(dimension, 0.5)
        assert khat == pytest.approx(1 - 1 / dimension)


@pytest.mark.parametrize("correlation", [1.0, -0.5, -1.0, math.nan])
def test_correlations_out_of_range_are_refused(correlation):
    with pytest.raises(ValueError, match="correlation must lie strictly between"):
        correlated_gaussian.problem(3, correlation)


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension must be at least 2, got 1"):
        correlated_gaussian.problem(1)
