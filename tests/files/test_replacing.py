"""Nothing is replaced but what the same writer has written."""

import os

import pytest

from libra_keras.files.replacing import (
    Kind,
    check_replaceable,
    check_replaceable_files,
    check_writable,
    check_writable_file,
    foreign_entries,
)

RUN = Kind(
    "run",
    "config.json",
    ("config.json", "log.csv", "tensorboard/", "checkpoints/lock", "checkpoints/step-*.weights.h5"),
)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")


def test_nothing_and_an_empty_folder_may_be_written(tmp_path):
    check_replaceable(tmp_path / "new", RUN)
    check_replaceable(str(tmp_path), RUN, overwrite=True)


def test_one_of_its_kind_may_be_replaced_if_that_is_asked_for(tmp_path):
    make(
        tmp_path,
        *("config.json", "log.csv", "tensorboard/any/thing", ".unfinished.log.csv"),
        *("checkpoints/step-20.weights.h5", "checkpoints/.unfinished.step-40.weights.h5"),
    )
    with pytest.raises(ValueError, match="is not empty. Choose another with --to, or replace an e"):
        check_replaceable(tmp_path, RUN)
    check_replaceable(tmp_path, RUN, overwrite=True)


@pytest.mark.parametrize(
    "foreign",
    [
        "cat.jpg",
        "config.json.bak",
        "checkpoints/epoch=3.ckpt",
        "checkpoints/more/lock",
        "log.csv.d/a",
    ],
)
def test_what_others_have_written_stays(tmp_path, foreign):
    make(tmp_path, "config.json", foreign)
    named = "checkpoints/more" if "more" in foreign else foreign.removesuffix("/a")
    with pytest.raises(ValueError, match=f"holds {named}, which no run has written"):
        check_replaceable(tmp_path, RUN, overwrite=True)


@pytest.mark.parametrize("swapped", ["log.csv/numbers", "tensorboard"])
def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path, swapped):
    make(tmp_path, "config.json", swapped)
    assert foreign_entries(tmp_path, RUN) == [swapped.split("/")[0]]


def test_without_the_marker_nothing_is_replaced(tmp_path):
    make(tmp_path, "log.csv")
    with pytest.raises(ValueError, match=r"something other than an earlier run \(no config.json\)"):
        check_replaceable(tmp_path, RUN, overwrite=True)


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    make(tmp_path, "runs")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="runs is a file; a folder is needed for the run"):
            check_replaceable(tmp_path / "runs", RUN, overwrite)


def test_a_message_names_a_few(tmp_path):
    make(tmp_path, "config.json", *"dcba")
    with pytest.raises(ValueError, match="holds a, b, c, which no run"):
        check_replaceable(tmp_path, RUN, overwrite=True)


def test_files_have_the_same_rule(tmp_path):
    own, theirs, new = (tmp_path / name for name in ("own", "theirs", "new"))
    make(tmp_path, "own", "theirs")

    def check(*paths, overwrite=True):
        check_replaceable_files(paths, "note of ours", lambda path: path.name == "own", overwrite)

    check(new, overwrite=False)
    check(new, own)
    with pytest.raises(ValueError, match="own exists already. Choose another"):
        check(new, own, overwrite=False)
    with pytest.raises(ValueError, match="theirs is no note of ours, and is not overwritten"):
        check(new, own, theirs)
    own.unlink()
    own.mkdir()
    with pytest.raises(ValueError, match="own, .*theirs is no note of ours"):
        check(own, theirs)


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    make(tmp_path, "file")
    check_writable(tmp_path / "a" / "b")
    check_writable_file(tmp_path / "a" / "b.json")
    with pytest.raises(ValueError, match="The run folder .*new cannot be written to: .*file is a "):
        check_writable(tmp_path / "file" / "new", "The run folder")
    with pytest.raises(ValueError, match="--to .*a.json cannot be written to: .*file is a file"):
        check_writable_file(tmp_path / "file" / "a.json")
    with pytest.raises(ValueError, match="--to must be a file. Received: the folder"):
        check_writable_file(tmp_path)
    check_writable_file(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    with pytest.raises(ValueError, match=f"cannot be written to: {tmp_path.resolve()} is read-on"):
        check_writable(tmp_path / "new" / "er")
    with pytest.raises(ValueError, match=f"cannot be written to: {tmp_path.resolve()} is read-on"):
        check_writable_file(tmp_path / "file")
