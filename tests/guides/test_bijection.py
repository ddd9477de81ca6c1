"""Every bijection against automatic differentiation, on every support of torch and Pyro."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch.distributions.transforms import CorrCholeskyTransform, StickBreakingTransform

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.bijection import bijection_to


def everything(y):
    return y.flatten()


def all_but_last(y):
    return y[..., :-1].flatten()


def triangle(y):
    return y[..., *torch.tril_indices(*y.shape[-2:])].flatten()


def strict_triangle(y):
    return y[..., *torch.tril_indices(*y.shape[-2:], offset=-1)].flatten()


# support, event shape of a value, the coordinates of a value that the density is over
SUPPORTS = {
    "real": (constraints.real, (), everything),
    "real_vector": (constraints.real_vector, (3,), everything),
    "positive": (constraints.positive, (), everything),
    "nonnegative": (constraints.nonnegative, (), everything),
    "softplus_positive": (constraints.softplus_positive, (), everything),
    "greater_than": (constraints.greater_than(2.0), (), everything),
    "greater_than_eq": (constraints.greater_than_eq(-2.0), (), everything),
    "less_than": (constraints.less_than(3.0), (), everything),
    "unit_interval": (constraints.unit_interval, (), everything),
    "interval": (constraints.interval(-2.0, 5.0), (), everything),
    "interval_tensor": (
        constraints.interval(torch.tensor([-2.0, 0.0]), torch.tensor([5.0, 2.0])),
        (2,),
        everything,
    ),
    "half_open_interval": (constraints.half_open_interval(0.0, 4.0), (), everything),
    "independent_positive": (constraints.independent(constraints.positive, 2), (2, 3), everything),
    "simplex": (constraints.simplex, (4,), all_but_last),
    "independent_simplex": (constraints.independent(constraints.simplex, 1), (2, 3), all_but_last),
    "ordered_vector": (constraints.ordered_vector, (4,), everything),
    "positive_ordered_vector": (constraints.positive_ordered_vector, (4,), everything),
    "lower_cholesky": (constraints.lower_cholesky, (3, 3), triangle),
    "softplus_lower_cholesky": (constraints.softplus_lower_cholesky, (3, 3), triangle),
    "positive_definite": (constraints.positive_definite, (3, 3), triangle),
    "positive_semidefinite": (constraints.positive_semidefinite, (2, 2), triangle),
    "matrix_of_size_one": (constraints.positive_definite, (1, 1), triangle),
    "corr_cholesky": (constraints.corr_cholesky, (4, 4), strict_triangle),
    "corr_matrix": (constraints.corr_matrix, (4, 4), strict_triangle),
    "corr_of_size_two": (constraints.corr_cholesky, (2, 2), strict_triangle),
    "cat": (
        constraints.cat(
            [constraints.independent(constraints.positive, 1), constraints.real_vector], -1, [2, 1]
        ),
        (3,),
        everything,
    ),
    "stack": (constraints.stack([constraints.positive, constraints.real], -1), (2,), everything),
    "stack_of_vectors": (
        constraints.stack(
            [constraints.real_vector, constraints.independent(constraints.unit_interval, 1)], -2
        ),
        (2, 3),
        everything,
    ),
    "mixture": (
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Gamma(torch.ones(2), torch.ones(2))
        ).support,
        (),
        everything,
    ),
}


def unconstrained(transform, event_shape, batch=(), dtype=torch.float64, scale=1.0):
    shape = transform.inverse_shape(torch.Size((*batch, *event_shape)))
    return scale * torch.randn(shape, dtype=dtype)


def log_det(transform, x, y, batch_dim):
    value = transform.log_abs_det_jacobian(x, y)
    return value.flatten(batch_dim).sum(-1) if value.dim() > batch_dim else value


@pytest.mark.parametrize("name", SUPPORTS)
def test_log_determinant_is_that_of_the_jacobian(name):
    support, event_shape, coordinates = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = unconstrained(transform, event_shape)
    jacobian = torch.autograd.functional.jacobian(lambda u: coordinates(transform(u)), x)
    jacobian = jacobian.reshape(x.numel(), x.numel())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_det(transform, x, transform(x), 0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SUPPORTS)
def test_round_trip_shapes_and_gradients(name, dtype):
    support, event_shape, _ = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = unconstrained(transform, event_shape, (5, 3), dtype).requires_grad_()
    y = transform(x)
    assert y.shape == (5, 3, *event_shape) == transform.forward_shape(x.shape)
    assert y.dtype == dtype or "tensor" in name  # bounds given as tensors have a dtype of their own
    assert support.check(y).all()
    torch.testing.assert_close(
        transform.inv(y), x.to(y.dtype), rtol=2e-3 if dtype == torch.float32 else 1e-9, atol=1e-4
    )
    ld = log_det(transform, x, y, 2)
    assert ld.shape == (5, 3)
    # the batch is a batch: the log-determinant of one row is that row's
    torch.testing.assert_close(ld[4, 2], log_det(transform, x[4, 2], y[4, 2], 0))
    (gradient,) = torch.autograd.grad(ld.sum() + y.sum(), x)
    assert gradient.isfinite().all()


def test_half_lines_from_zero_are_exponentials_and_keep_their_codomain():
    for support in (constraints.positive, constraints.nonnegative):
        assert repr(bijection_to(support, "x").codomain) == "GreaterThan(lower_bound=0.0)"


@pytest.mark.parametrize("name", SUPPORTS)
def test_copies_and_pickles(name):
    support, event_shape, _ = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = unconstrained(transform, event_shape, (2,))
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        torch.testing.assert_close(other(x), transform(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "torchs"),
    [("corr_cholesky", CorrCholeskyTransform()), ("simplex", StickBreakingTransform())],
)
def test_the_stable_forms_are_the_same_map_as_torchs(name, torchs):
    support, event_shape, _ = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = unconstrained(torchs, event_shape, (100,))
    y = torchs(x)
    torch.testing.assert_close(transform(x), y)
    torch.testing.assert_close(
        transform.log_abs_det_jacobian(x, y), torchs.log_abs_det_jacobian(x, y)
    )


@pytest.mark.parametrize("scale", [3.0, 10.0])
@pytest.mark.parametrize("name", ["corr_cholesky", "corr_matrix", "simplex"])
def test_far_out_in_single_precision_nothing_is_lost(name, scale):
    """torch's own forms give nan or -inf in up to 90 % of these draws."""
    support, _, _ = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = (scale * torch.randn(1000, 15, dtype=torch.float32)).requires_grad_()
    y = transform(x)
    ld = transform.log_abs_det_jacobian(x, y)
    (gradient,) = torch.autograd.grad(ld.sum(), x)
    assert ld.isfinite().all()
    assert gradient.isfinite().all()
    exact = transform.log_abs_det_jacobian(x.double(), transform(x.double()))
    torch.testing.assert_close(ld, exact.float(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["corr_cholesky", "simplex"])
def test_the_inverse_is_accurate_near_the_boundary(name):
    support, _, _ = SUPPORTS[name]
    transform = bijection_to(support, "x")
    x = 3 * torch.randn(1000, 15, dtype=torch.float32)
    torch.testing.assert_close(transform.inv(transform(x)), x, rtol=1e-4, atol=1e-4)


REFUSED = {
    "boolean": (constraints.boolean, "discrete"),
    "integer_interval": (constraints.integer_interval(0, 3), "discrete"),
    "nonnegative_integer": (constraints.nonnegative_integer, "discrete"),
    "integer": (constraints.integer, "discrete"),
    "one_hot": (constraints.one_hot, "discrete"),
    "multinomial": (constraints.multinomial(3), "discrete"),
    "independent_boolean": (constraints.independent(constraints.boolean, 1), "discrete"),
    "sphere": (constraints.sphere, "no bijection"),
    "dependent": (constraints.dependent, "no bijection"),
    "square": (constraints.square, "no bijection"),
    "symmetric": (constraints.symmetric, "no bijection"),
    "lower_triangular": (constraints.lower_triangular, "no bijection"),
    "unit_lower_cholesky": (constraints.unit_lower_cholesky, "no bijection"),
    "cat_from_the_left": (constraints.cat([constraints.real], 0, [2]), "from the left"),
    "cat_of_simplex": (constraints.cat([constraints.simplex], -1, [3]), "elementwise"),
    "stack_across_batches": (
        constraints.stack([constraints.real_vector, constraints.real_vector], -1),
        "dim = -n - 1",
    ),
    "mixture_of_intervals": (
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Uniform(torch.zeros(2), torch.tensor([1.0, 2.0]))
        ).support,
        "mixture",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_support_without_bijection_is_refused_by_name(name):
    support, reason = REFUSED[name]
    with pytest.raises(UnsupportedStructure, match=f"site 'theta'.*{reason}"):
        bijection_to(support, "theta")


def test_the_table_covers_every_constraint_of_torch_and_pyro():
    tested = {type(support) for support, *_ in (*SUPPORTS.values(), *REFUSED.values())}
    for name in constraints.__all__:
        constraint = getattr(constraints, name)
        kind = constraint if isinstance(constraint, type) else type(constraint)
        if kind in (constraints.Constraint, constraints.dependent_property, type(lambda: 0)):
            continue
        assert kind in tested, name
