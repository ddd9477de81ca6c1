"""What is loaded from the cache, and what is not. Nothing is compiled: any bytes will do."""

import json
import os

import pytest

from pyro_klmodes.engine.backends import store

KEY = "a" * 64


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "made.wrapper.so"
    path.write_bytes(b"machine code" * 1000)
    path.with_suffix(".json").write_text('{"nodes": []}')
    return path


@pytest.fixture
def kept(folder, library):
    folder.mkdir(mode=0o700)
    store.keep(folder, KEY, library)
    return store.find(folder, KEY)


def test_what_is_kept_is_found(kept, library, folder):
    assert kept.read_bytes() == library.read_bytes()
    assert kept.with_suffix(".json").read_text() == '{"nodes": []}'
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    assert not list(folder.glob("*.part"))


def test_what_is_not_kept_is_not_found(kept, folder):
    assert store.find(folder, "b" * 64) is None
    assert store.find(folder / "nowhere", KEY) is None


@pytest.mark.parametrize("suffix", [".so", ".json"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o620),
        lambda path: path.chmod(0o602),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (
            path.rename(path.with_suffix(".old")) and path.symlink_to(path.with_suffix(".old"))
        ),
    ],
    ids=["cut", "changed", "emptied", "gone", "group", "others", "folder", "link"],
)
def test_a_spoiled_file_is_as_if_it_were_not_there_and_is_replaced(
    kept, folder, library, suffix, spoil
):
    spoil(kept.with_suffix(suffix))
    assert store.find(folder, KEY) is None
    if not kept.with_suffix(suffix).is_dir():
        store.keep(folder, KEY, library)
        assert store.find(folder, KEY) == kept


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\udcff",
        json.dumps({"format": 1, "key": KEY}),
        json.dumps({"format": 1, "key": KEY, "digests": {}}),
        json.dumps({"format": 1, "key": KEY, "digests": {".so": "../../other"}}),
        json.dumps({"format": 1, "key": KEY, "digests": [".so"]}),
    ],
)
def test_a_manifest_that_says_nothing_of_use_is_ignored(kept, folder, content):
    (folder / f"{KEY}.json").write_bytes(content.encode(errors="surrogateescape"))
    assert store.find(folder, KEY) is None


@pytest.mark.parametrize("change", [{"format": 0}, {"key": "b" * 64}])
def test_a_manifest_of_something_else_is_ignored(kept, folder, change):
    path = folder / f"{KEY}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert store.find(folder, KEY) is None


def test_files_of_another_user_are_ignored(kept, folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert store.find(folder, KEY) is None


def test_of_two_that_keep_the_same_key_the_last_is_found(kept, folder, library):
    library.write_bytes(b"other code")
    store.keep(folder, KEY, library)
    found = store.find(folder, KEY)
    assert found != kept
    assert found.read_bytes() == b"other code"
    assert kept.exists()  # another process may be about to load it


def test_those_not_used_for_longest_make_room(folder, library):
    folder.mkdir(mode=0o700)
    keys = [letter * 64 for letter in "abcd"]
    size = library.stat().st_size
    for i, key in enumerate(keys[:3]):
        store.keep(folder, key, library)
        os.utime(store.find(folder, key), (1000 + i, 1000 + i))
    store.find(folder, keys[0])  # uses it
    store.keep(folder, keys[3], library, limit=3 * size)
    assert [store.find(folder, key) is not None for key in keys] == [True, False, True, True]
    assert len(list(folder.iterdir())) == 9
    store.keep(folder, keys[3], library, limit=0)
    assert [store.find(folder, key) is not None for key in keys] == [False, False, False, True]


def test_what_a_stopped_process_left_half_written_is_removed(folder, library):
    folder.mkdir(mode=0o700)
    old, new = folder / "old.part", folder / "new.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (1000, 1000))
    store.keep(folder, KEY, library)
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, library):
    store.keep(tmp_path / "nowhere", KEY, library)
    assert not (tmp_path / "nowhere").exists()
