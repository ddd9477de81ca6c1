import os
from pathlib import Path

import pytest

from pyro_klmodes.engine.backends.folders import cache_folder, private_folder


@pytest.fixture
def no_wish(monkeypatch, tmp_path):
    for name in ("PYRO_KLMODES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_folder_is_in_the_users_cache(no_wish, monkeypatch):
    assert cache_folder() == no_wish / "home" / ".cache" / "pyro_klmodes" / "engine"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == no_wish / "home" / ".cache" / "pyro_klmodes" / "engine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_wish / "xdg"))
    assert cache_folder() == no_wish / "xdg" / "pyro_klmodes" / "engine"
    monkeypatch.setenv("PYRO_KLMODES_CACHE", str(no_wish / "named"))
    assert cache_folder() == no_wish / "named"
    assert cache_folder(no_wish / "argument") == no_wish / "argument"


def test_a_new_folder_is_for_the_user_alone(no_wish):
    assert cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, mode):
    tmp_path.chmod(mode)
    assert private_folder(tmp_path) is None
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path) == tmp_path


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert private_folder(tmp_path) is None


def test_a_link_is_not_used(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert private_folder(tmp_path / "link") is None


def test_a_folder_that_cannot_be_made_or_written_to_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert private_folder(tmp_path / "file") is None
    assert private_folder(tmp_path / "file" / "below") is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert private_folder(tmp_path) is None


def test_a_user_without_home_has_no_folder(no_wish, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None
