"""Groups, axes, coordinates and attributes, and what is refused."""

import numpy as np
import pytest

from pyro_klmodes import inference_data
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Variable, build, dataset, group_names


def everything():
    return {
        "posterior": {
            "mu": Variable(np.arange(10.0).reshape(2, 5)),
            "theta": Variable(np.arange(30.0).reshape(2, 5, 3), ("school",)),
            "corr": Variable(np.arange(40.0).reshape(2, 5, 2, 2)),
        },
        "posterior_predictive": {"y": Variable(np.arange(30).reshape(2, 5, 3), ("school",))},
        "prior": {"mu": Variable(np.zeros((1, 7)))},
        "prior_predictive": {"y": Variable(np.zeros((1, 7, 3)), ("school",))},
        "log_likelihood": {"y": Variable(-np.ones((2, 5, 3)), ("school",))},
        "sample_stats": {"diverging": Variable(np.arange(10).reshape(2, 5) == 3)},
        "observed_data": {"y": Variable(np.array([1, 0, 4]), ("school",))},
        "constant_data": {"x": Variable(np.array([True, False, True]), ("school",))},
    }


def test_every_group_has_its_axes_and_types():
    data = build(everything(), coords={"school": ["a", "b", "c"]})

    assert set(group_names(data)) == set(everything())
    posterior = dataset(data, "posterior")
    assert posterior["mu"].dims == ("chain", "draw")
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert posterior["corr"].dims == ("chain", "draw", "corr_dim_0", "corr_dim_1")
    assert list(posterior["school"].values) == ["a", "b", "c"]
    assert list(posterior["draw"].values) == [0, 1, 2, 3, 4]
    assert dict(dataset(data, "prior").sizes) == {"chain": 1, "draw": 7}
    assert dataset(data, "observed_data")["y"].dims == ("school",)
    for group, content in everything().items():
        for name, variable in content.items():
            stored = dataset(data, group)[name].values
            assert stored.dtype == variable.values.dtype
            np.testing.assert_array_equal(stored, variable.values)


def test_groups_without_variables_are_left_out():
    data = build({"posterior": {"mu": Variable(np.zeros((1, 4)))}, "observed_data": {}})

    assert group_names(data) == ("posterior",)


def test_attributes_become_what_netcdf_can_store():
    given = {
        "text": "forward_kl",
        "none": None,
        "flag": True,
        "count": np.int64(3),
        "k_hat": np.float32(0.25),
        "nested": {"torch": "2", "shape": (1, 2)},
        "array": np.array([1.0, 2.0]),
        "other": {"kind": int},
    }
    data = build({"posterior": {"mu": Variable(np.zeros((1, 4)))}}, attributes=given)

    expected = {
        "text": "forward_kl",
        "none": "",
        "flag": "true",
        "count": 3,
        "k_hat": 0.25,
        "nested": '{"torch": "2", "shape": [1, 2]}',
        "array": "[1.0, 2.0]",
        "other": '{"kind": "<class \'int\'>"}',
    }
    assert dict(data.attrs) == expected
    assert dict(data["posterior"].attrs) == expected


def test_chains_with_sampler_statistics():
    draws = np.arange(24.0).reshape(2, 4, 3)
    diverging = np.array([[False, True, False, False], [False, False, False, True]])

    data = inference_data.from_chains(
        {"theta": draws}, {"diverging": diverging}, dimensions={"theta": ("school",)}
    )

    np.testing.assert_array_equal(dataset(data, "posterior")["theta"].values, draws)
    assert dataset(data, "posterior")["theta"].dims == ("chain", "draw", "school")
    np.testing.assert_array_equal(dataset(data, "sample_stats")["diverging"].values, diverging)


def test_one_chain_of_draws_with_log_weights_summed_over_cells():
    log_p = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    log_q = np.array([[0.5, 0.5], [1.0, 1.0], [2.0, 3.0]])

    data = inference_data.from_draws({"z": np.arange(6.0).reshape(3, 2)}, log_p, log_q)

    assert dataset(data, "posterior")["z"].shape == (1, 3, 2)
    statistics = dataset(data, "sample_stats")
    np.testing.assert_array_equal(statistics["log_p"].values, [[3.0, 7.0, 11.0]])
    np.testing.assert_array_equal(statistics["log_q"].values, [[1.0, 2.0, 5.0]])
    np.testing.assert_array_equal(statistics["log_weight"].values, [[2.0, 5.0, 6.0]])


ONE, THREE = np.zeros((1, 4)), np.zeros((1, 4, 3))


@pytest.mark.parametrize(
    ("groups", "coords", "message"),
    [
        ({}, {}, "no variable at all"),
        ({"posteriors": {"mu": Variable(ONE)}}, {}, "no group 'posteriors'"),
        ({"posterior": {"a/b": Variable(ONE)}}, {}, "variable 'a/b'.*rename"),
        ({"posterior": {"mu": Variable(np.array([["x"]]))}}, {}, "variable 'mu'.*<U1"),
        ({"posterior": {"mu": Variable(1j * ONE)}}, {}, "variable 'mu'.*complex"),
        ({"posterior": {"mu": Variable(np.zeros(4))}}, {}, r"\(4,\).*values\[None\]"),
        ({"posterior": {"mu": Variable(np.zeros((1, 0)))}}, {}, r"\(1, 0\).*at least one"),
        ({"posterior": {"z": Variable(THREE, ("a", "b"))}}, {}, "1 axes.*dims name 2"),
        ({"posterior": {"z": Variable(THREE, ("draw",))}}, {}, "'draw'"),
        ({"posterior": {"z": Variable(np.zeros((1, 4, 3, 3)), ("a", "a"))}}, {}, "differ"),
        (
            {"posterior": {"z": Variable(THREE, ("mu",)), "mu": Variable(ONE)}},
            {},
            "'z'.*axis named 'mu'.*variable 'mu'",
        ),
        (
            {"posterior": {"draw": Variable(ONE)}},
            {},
            "axis named 'draw'.*variable 'draw'",
        ),
        (
            {
                "posterior": {"z": Variable(THREE, ("school",))},
                "observed_data": {"y": Variable(np.zeros(5), ("school",))},
            },
            {},
            "'school' has 3 entries in variable 'z'.*5 in variable 'y'",
        ),
        (
            {
                "posterior": {"z": Variable(THREE)},
                "sample_stats": {"d": Variable(np.zeros((1, 5)))},
            },
            {},
            "'draw' has 4 entries in variable 'z'.*5 in variable 'd'",
        ),
        (
            {"posterior": {"z": Variable(THREE, ("school",))}},
            {"school": ["a", "b"]},
            "2 labels for axis 'school', which has 3 entries in variable 'z'",
        ),
        (
            {"posterior": {"z": Variable(THREE, ("school",))}},
            {"shool": ["a", "b", "c"]},
            "'shool', but the named axes are: school",
        ),
    ],
)
def test_contradictions_are_refused_by_name(groups, coords, message):
    with pytest.raises(InvalidArgument, match=message):
        build(groups, coords=coords)
