"""What is replaced is replaced whole: errors and Ctrl-C leave what was there."""

import os

import pytest

from libra_keras.files.atomic import disk_error, link, replacing, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make_folder(path, name):
    path.mkdir()
    (path / name).write_text(name)


def test_a_folder_is_replaced_with_all_it_holds(tmp_path):
    make_folder(tmp_path / "model", "old")
    with replacing(tmp_path / "model") as unfinished:
        make_folder(unfinished, "new")
        assert names(tmp_path / "model") == ["old"]  # until the end
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_one(tmp_path, error):
    make_folder(tmp_path / "model", "old")
    (tmp_path / "note.txt").write_text("old")
    with pytest.raises(error), replacing(tmp_path / "model") as unfinished:
        make_folder(unfinished, "half")
        raise error
    with pytest.raises(error), replacing(tmp_path / "note.txt") as unfinished:
        unfinished.write_text("half")
        raise error
    assert names(tmp_path) == ["model", "note.txt"]
    assert names(tmp_path / "model") == ["old"]
    assert (tmp_path / "note.txt").read_text() == "old"


def test_a_block_that_makes_nothing_is_an_error_and_keeps_the_old_one(tmp_path):
    make_folder(tmp_path / "model", "old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "model"):
        pass
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    make_folder(tmp_path / "photos", "precious")
    with pytest.raises(OSError):
        write_json(tmp_path / "photos", {})
    assert names(tmp_path) == ["photos"]
    assert names(tmp_path / "photos") == ["precious"]


def test_leftovers_of_a_killed_process_do_not_get_in(tmp_path):
    make_folder(tmp_path / ".unfinished.model", "leftover")
    with replacing(tmp_path / "model") as unfinished:
        make_folder(unfinished, "new")
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "made" / "numbers.json", {"AP": 0.5})
    with pytest.raises(ValueError):
        write_json(tmp_path / "made" / "numbers.json", {"AP": float("-inf")})
    assert names(tmp_path / "made") == ["numbers.json"]
    assert "0.5" in (tmp_path / "made" / "numbers.json").read_text()


@pytest.mark.parametrize("is_linked", [True, False])
def test_a_second_name_or_a_copy(tmp_path, monkeypatch, is_linked):
    def refuse(source, path):
        raise OSError

    if not is_linked:  # as a file system without such names does
        monkeypatch.setattr(os, "link", refuse)
    source, path = tmp_path / "step-20.weights.h5", tmp_path / "last.weights.h5"
    source.write_text("weights")
    path.write_text("old")
    link(source, path)
    assert path.read_text() == "weights"
    assert path.samefile(source) == is_linked


def test_why_a_disk_takes_no_more_is_told_from_what_libraries_quote():
    error = RuntimeError("write failed: errno = 28, 'No space left on device', buf = 0x1")
    assert disk_error(error) == "No space left on device"
    assert disk_error(RuntimeError("write failed")) is None
