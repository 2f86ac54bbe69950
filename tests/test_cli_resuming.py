"""Which run goes on, which begins anew, and what is refused; nothing is trained here."""

import argparse
import contextlib

import pytest

from libra_keras.cli import main, parser, resuming
from libra_keras.cli.train import resolve
from libra_keras.training.run import RunFolder

FIRST = ["shapes", "--epochs", "3"]
RECORD = {"train": "shapes/train: 9 images", "steps_per_epoch": 4, "class_names": ["cat"]}


def parsed(*arguments):
    return resolve(parser().parse_args(["train", *arguments]))


def unfinished(path, *arguments):
    """A folder as a run leaves it that is killed after six batches."""
    folder = RunFolder.create(path)
    folder.write_config({"settings": resuming.settings(parsed(*arguments)), **RECORD})
    folder.checkpoints.state_file.write_text('{"batches": 6}')
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_command_goes_on(here):
    unfinished("mine", *FIRST)
    with resuming.opened(parsed(*FIRST, "--to", "mine", "--save-every", "7")) as place:
        assert place.goes_on and place.batches == 6


def test_another_setting_is_named(here, capsys):
    unfinished("mine", *FIRST)
    assert main(["train", "shapes", "--epochs", "4", "--seed", "1", "--to", "mine"]) == 1
    err = capsys.readouterr().err
    assert "unfinished run with other settings: --epochs 3 there, 4 here, --seed 0 there, 1" in err
    assert "--overwrite" in err
    with resuming.opened(parsed("shapes", "--to", "mine", "--overwrite")) as place:
        assert not place.goes_on and place.batches == 0


def test_a_command_with_overwrite_goes_on_with_its_own_run(here):
    """As a scheduler repeats it; any other command begins anew."""
    command = [*FIRST, "--to", "mine", "--overwrite"]
    unfinished("mine", *FIRST, "--to", "mine")
    with resuming.opened(parsed(*command)) as place:
        assert not place.goes_on
        RunFolder.create("mine", overwrite=True)
    unfinished("mine", *command)
    with resuming.opened(parsed(*command)) as place:
        assert place.goes_on and place.batches == 6
    with resuming.opened(parsed(*command, "--seed", "1")) as place:
        assert not place.goes_on
    with resuming.opened(parsed(*FIRST, "--to", "mine")) as place:
        assert place.goes_on


@pytest.mark.parametrize("name", ["train", "steps_per_epoch", "class_names"])
def test_other_data_are_refused(here, name):
    unfinished("mine", *FIRST)
    with resuming.opened(parsed(*FIRST, "--to", "mine")) as place:
        with pytest.raises(ValueError, match=f"cannot go on: its {name} was"):
            place.prepare({**RECORD, name: "another"}, model=None)


def test_without_to_the_newest_equal_run_goes_on(here):
    unfinished("runs/libra_faster_rcnn_small-shapes-1", *FIRST)
    unfinished("runs/libra_faster_rcnn_small-shapes-2", *FIRST)
    unfinished("runs/libra_faster_rcnn_small-shapes-10", "shapes", "--epochs", "9")
    with resuming.opened(parsed(*FIRST)) as place:
        assert place.folder.path.name.endswith("-2")
        with resuming.opened(parsed(*FIRST)) as other:  # the same command in another window
            assert other.folder.path.name.endswith("-1")
    with resuming.opened(parsed("shapes", "--epochs", "5")) as place:
        assert place.folder is None and not place.goes_on
        assert resuming._next_folder(place.options).name.endswith("-11")


def test_a_folder_that_is_in_use_is_refused(here):
    unfinished("mine", *FIRST)
    with resuming.opened(parsed(*FIRST, "--to", "mine")):
        with pytest.raises(ValueError, match="Another process is training in mine"):
            with resuming.opened(parsed(*FIRST, "--to", "mine")):
                pass
        with pytest.raises(ValueError, match="Another process"):
            RunFolder.create("mine", overwrite=True)
    assert (here / "mine" / "config.json").exists()


def test_a_complete_run_is_kept(here, capsys):
    folder = unfinished("mine", *FIRST)
    (folder.path / "log.csv").write_text("epoch\n")
    folder.checkpoints.clear()
    assert main(["train", *FIRST, "--to", "mine"]) == 1
    assert "mine is not empty. Choose another with --to" in capsys.readouterr().err


def test_overwrite_keeps_what_no_run_has_written(tmp_path):
    folder = RunFolder.create(tmp_path)
    folder.write_config({})
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="holds photos, which no run has written"):
        RunFolder.create(tmp_path, overwrite=True)
    assert {left.name for left in tmp_path.iterdir()} == {"photos", "config.json", "checkpoints"}


@pytest.mark.parametrize("begun", [[], ["config.json"], ["config.json", "log.csv"]])
def test_weights_of_others_are_never_replaced(here, begun):
    theirs = here / "mine" / "checkpoints" / "epoch=3.ckpt"
    theirs.parent.mkdir(parents=True)
    for file in (theirs, *(here / "mine" / name for name in begun)):
        file.write_text("weights")
    with pytest.raises(ValueError, match="mine is not empty"):
        RunFolder.create("mine")
    with pytest.raises(ValueError, match="checkpoints/epoch=3.ckpt, which no|no config.json"):
        RunFolder.create("mine", overwrite=True)
    assert theirs.read_text() == "weights"


@pytest.mark.parametrize("left", [[], ["config.json"], ["config.json", ".unfinished.model.json"]])
def test_a_run_that_had_hardly_begun_begins_anew(here, left):
    folder = RunFolder.create("mine")
    (folder.checkpoints.folder / ".unfinished.step-0.weights.h5").write_text("half")
    for name in left:
        (folder.path / name).write_text("")
    with resuming.opened(parsed(*FIRST, "--to", "mine")) as place:
        assert not place.goes_on
    RunFolder.create("mine")
    assert not any(folder.checkpoints.folder.iterdir())


def test_settings_of_an_earlier_version_are_equal_where_they_were_not_known():
    assert not resuming.differences({"epochs": 2}, {"epochs": 2, "a_new_one": 5})


def test_damaged_state(here, capsys):
    unfinished("mine", *FIRST).checkpoints.state_file.write_text("{")
    assert main(["train", *FIRST, "--to", "mine"]) == 1
    assert "state.json is damaged" in capsys.readouterr().err


def test_errors_that_are_not_about_the_disk_pass(here):
    folder = argparse.Namespace(path=here)
    with pytest.raises(KeyError, match="no boxes"), resuming.disk_explained(folder):
        raise KeyError("no boxes")
    with contextlib.suppress(OSError), resuming.disk_explained(folder):
        raise PermissionError("Permission denied: photo.jpg")
