"""What an earlier run wrote into a folder goes, and nothing else does."""

import hashlib
import json

import pytest

from pyro_klmodes.comparison import Comparison
from pyro_klmodes.tables import MANIFEST, remove_earlier, written
from tests.comparison.made_up import fitted


def wrote(folder, **texts):
    for name, text in texts.items():
        (folder / name).write_text(text)
    written(folder, texts)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_what_was_written_goes_and_what_was_not_stays(tmp_path):
    (tmp_path / "mine").write_text("of the user")
    wrote(tmp_path, one="1")
    wrote(tmp_path, two="2")
    remove_earlier(tmp_path)

    assert names(tmp_path) == {"mine"}


def test_what_somebody_has_changed_stays(tmp_path):
    wrote(tmp_path, one="1", two="2")
    (tmp_path / "one").write_text("edited by hand")
    remove_earlier(tmp_path)

    assert names(tmp_path) == {"one"}
    assert (tmp_path / "one").read_text() == "edited by hand"


def test_what_is_written_again_is_ours_again(tmp_path):
    wrote(tmp_path, one="1")
    wrote(tmp_path, one="2")
    remove_earlier(tmp_path)

    assert names(tmp_path) == set()


def test_what_was_moved_away_or_made_a_folder_or_a_link_is_left_alone(tmp_path):
    wrote(tmp_path, gone="1", place="2", link="3")
    (tmp_path / "gone").unlink()
    (tmp_path / "place").unlink()
    (tmp_path / "place").mkdir()
    (tmp_path / "link").rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    remove_earlier(tmp_path)

    assert names(tmp_path) == {"place", "link", "elsewhere"}


def test_nothing_outside_of_the_folder_is_touched(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("far away")
    digest = hashlib.sha256(b"far away").hexdigest()
    (inside / MANIFEST).write_text(json.dumps({"../outside": digest, str(outside): digest}))
    remove_earlier(inside)

    assert outside.read_text() == "far away"


@pytest.mark.parametrize("text", ["", "not json", "[1]", '{"mine": 3}'])
def test_a_list_that_is_none_of_ours_removes_nothing(tmp_path, text):
    (tmp_path / "mine").write_text("of the user")
    (tmp_path / MANIFEST).write_text(text)
    remove_earlier(tmp_path)

    assert "mine" in names(tmp_path)


def test_saving_twice_leaves_what_saving_the_second_alone_does(tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    Comparison((fitted("a"), fitted("b"))).save(both)
    second = Comparison((fitted("c"),))
    second.save(both)
    second.save(alone)

    assert names(both) == names(alone)
    assert {"c.nc", "index.html", "fits.csv", MANIFEST} <= names(both)
