"""Files bring everything back, whole or written chunk by chunk in bounded memory."""

import importlib.util
import tracemalloc

import numpy as np
import pytest

from pyro_klmodes import inference_data
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import (
    StreamWriter,
    Variable,
    build,
    dataset,
    group_names,
    read,
    write,
    write_in_chunks,
)
from pyro_klmodes.inference_data.versions import az


def groups(num_draws, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "posterior": {
            "mu": Variable(rng.normal(size=(2, num_draws)).astype(np.float32)),
            "theta": Variable(rng.normal(size=(2, num_draws, 3)), ("school",)),
            "component": Variable(rng.integers(0, 4, size=(2, num_draws))),
        },
        "sample_stats": {"diverging": Variable(rng.random((2, num_draws)) < 0.3)},
    }


OBSERVED = {"observed_data": {"y": Variable(np.array([1, 0, 4]), ("school",))}}
COORDS = {"school": ["Choate", "Deerfield", "St. Paul's"]}


def assert_same(back, data):
    assert set(group_names(back)) == set(group_names(data))
    for group in group_names(data):
        expected, found = dataset(data, group), dataset(back, group)
        assert set(found.variables) == set(expected.variables)
        for name, variable in expected.variables.items():
            assert found[name].dims == variable.dims
            np.testing.assert_array_equal(found[name].values, variable.values)
            if variable.dtype.kind != "U":  # text comes back as Python strings
                assert found[name].dtype == variable.dtype
    assert dict(back.attrs) == dict(data.attrs)


def test_a_file_brings_everything_back(tmp_path):
    attributes = {"loss": "forward_kl", "log_evidence": None, "flag": False, "seed": 3}
    data = build(groups(7) | OBSERVED, coords=COORDS, attributes=attributes)

    write(data, tmp_path / "fit.nc")

    assert_same(read(tmp_path / "fit.nc"), data)


def test_arviz_reads_the_file_itself(tmp_path):
    data = build(groups(7) | OBSERVED, coords=COORDS, attributes={"loss": "forward_kl"})
    write(data, tmp_path / "fit.nc")

    assert_same(az.from_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf"), data)


def test_a_file_that_was_read_can_be_replaced(tmp_path):
    write(build(groups(7)), tmp_path / "fit.nc")
    data = read(tmp_path / "fit.nc")

    write(data, tmp_path / "fit.nc")

    assert_same(read(tmp_path / "fit.nc"), data)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.nc"):
        read(tmp_path / "none.nc")


def test_zarr_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ImportError, match="pip install zarr"):
        write(build(groups(7)), tmp_path / "fit.zarr")


def test_chunks_are_one_file_in_the_end(tmp_path):
    chunks = [groups(5, seed=1), groups(1, seed=2), groups(9, seed=3)]
    chunks[0] |= OBSERVED

    write_in_chunks(tmp_path / "fit.nc", chunks, coords=COORDS, attributes={"seed": 1})

    joined = {
        group: {
            name: Variable(
                np.concatenate([chunk[group][name].values for chunk in chunks], axis=1),
                variable.dims,
            )
            for name, variable in content.items()
        }
        for group, content in groups(1).items()
    }
    data = build(joined | OBSERVED, coords=COORDS, attributes={"seed": 1})
    assert_same(read(tmp_path / "fit.nc"), data)
    assert_same(az.from_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf"), data)


def test_the_file_is_whole_after_every_chunk(tmp_path):
    writer = StreamWriter(tmp_path / "fit.nc")
    for count in (1, 2, 3):
        writer.append(groups(4, seed=count))

        sizes = dataset(read(tmp_path / "fit.nc"), "posterior").sizes
        assert sizes["draw"] == 4 * count


def test_a_chunk_that_does_not_fit_is_refused_and_leaves_the_file_alone(tmp_path):
    writer = StreamWriter(tmp_path / "fit.nc")
    writer.append(groups(4) | OBSERVED)
    before = (tmp_path / "fit.nc").read_bytes()
    fewer, wider, other_type, new = groups(4), groups(4), groups(4), groups(4)
    del fewer["posterior"]["mu"]
    wider["posterior"]["theta"] = Variable(np.zeros((2, 4, 2)), ("school",))
    other_type["posterior"]["component"] = Variable(np.zeros((2, 4)))
    new["prior"] = {"mu": Variable(np.zeros((2, 4)))}

    for chunk, message in (
        (fewer, "'mu' of group 'posterior' is None"),
        (wider, r"'theta' of group 'posterior'.*\(2, 2\).*\(2, 3\)"),
        (other_type, "'component' of group 'posterior'.*float64.*int64"),
        (new, "groups .*'prior'"),
        (groups(4) | OBSERVED, "groups .*'observed_data'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            writer.append(chunk)
    assert (tmp_path / "fit.nc").read_bytes() == before


def test_no_chunk_and_zarr_are_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="nothing to write"):
        write_in_chunks(tmp_path / "fit.nc", [])
    with pytest.raises(InvalidArgument, match=r"\.nc"):
        StreamWriter(tmp_path / "fit.zarr")


def peak_of(path, num_chunks):
    """Most bytes that numpy and Python held while this many chunks of 0.8 MB were written."""
    chunk_of = np.random.default_rng(0)
    tracemalloc.start()
    write_in_chunks(
        path,
        (
            {"posterior": {"z": Variable(chunk_of.normal(size=(1, 1000, 100)))}}
            for _ in range(num_chunks)
        ),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_chunks(tmp_path):
    peak_of(tmp_path / "first.nc", 2)  # what h5netcdf sets up once

    few, many = peak_of(tmp_path / "few.nc", 3), peak_of(tmp_path / "many.nc", 30)

    assert (tmp_path / "many.nc").stat().st_size > 24e6
    assert few > 0.8e6
    assert many < few + 0.2e6  # a quarter of one chunk, where 27 more were written
    assert inference_data.dataset(read(tmp_path / "many.nc"), "posterior").sizes["draw"] == 30_000
