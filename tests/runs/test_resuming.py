"""Which run goes on, which begins anew, and what is refused; nothing is trained here."""

import contextlib
import itertools
import os
import signal
from pathlib import Path

import pytest
from configs import given, resolved

from libra_keras.cli import main
from libra_keras.devices import Devices
from libra_keras.runs import precision, resuming, stopping
from libra_keras.runs.config import settings
from libra_keras.runs.defaults import with_defaults
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.states import check_like

FIRST = ["shapes", "--epochs", "3"]
RECORD = {"train": "shapes/train: 9 images", "steps_per_epoch": 4, "class_names": ["cat"]}


def unfinished(path, *arguments):
    """A folder as a run leaves it that is killed after six batches."""
    folder = RunFolder.create(path)
    own = {**settings(resolved(*arguments)), "started_in": os.getcwd()}
    folder.write_config({"settings": own, **RECORD})
    folder.checkpoints.state_file.write_text('{"batches": 6}')
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_command_goes_on(here):
    unfinished("mine", *FIRST)
    with resuming.opened(resolved(*FIRST, "--to", "mine", "--save-every", "7")) as folder:
        assert folder.goes_on and folder.batches == 6


def test_another_setting_is_named(here, capsys):
    unfinished("mine", *FIRST)
    assert main(["train", "shapes", "--epochs", "4", "--seed", "1", "--to", "mine"]) == 1
    err = capsys.readouterr().err
    assert "unfinished run with other settings: --epochs 3 there, 4 here, --seed 0 there, 1" in err
    assert "--overwrite" in err
    with resuming.opened(resolved("shapes", "--to", "mine", "--overwrite")) as folder:
        assert not folder.goes_on and folder.batches == 0


@pytest.mark.parametrize("began_with", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("here_it_is", ["float32", "mixed_bfloat16"])
def test_a_run_keeps_what_auto_was_on_another_machine(
    here, capsys, monkeypatch, began_with, here_it_is
):
    monkeypatch.setattr(precision, "automatic", lambda _: here_it_is)
    config = with_defaults(given(*FIRST, "--to", "mine", "--precision", "auto"))
    with resuming.opened(config) as folder:
        assert resuming.settled(config, folder, Devices()).model.precision == here_it_is
    unfinished("mine", *FIRST, "--precision", began_with)
    with resuming.opened(config) as folder:
        assert folder.goes_on
        assert resuming.settled(config, folder, Devices()).model.precision == began_with
    said = f"--precision auto: {here_it_is}\n--precision auto: {began_with}, as before\n"
    assert capsys.readouterr().out == said


def test_auto_is_no_precision_that_it_cannot_have_been(here, capsys):
    for began_with in ([], ["--precision", "mixed_float16"]):
        unfinished("mine", *FIRST, *began_with)
        assert main(["train", *FIRST, "--to", "mine", "--precision", "auto"]) == 1
        named = began_with[1] if began_with else None
        assert f"--precision {named} there, auto here" in capsys.readouterr().err
        RunFolder("mine").checkpoints.clear()
        (here / "mine" / "config.json").unlink()


def test_a_command_with_overwrite_goes_on_with_its_own_run(here):
    """As a scheduler repeats it; any other command begins anew."""
    command = [*FIRST, "--to", "mine", "--overwrite"]
    unfinished("mine", *FIRST, "--to", "mine")
    with resuming.opened(resolved(*command)) as folder:
        assert not folder.goes_on
        RunFolder.create("mine", overwrite=True)
    unfinished("mine", *command)
    with resuming.opened(resolved(*command)) as folder:
        assert folder.goes_on and folder.batches == 6
    with resuming.opened(resolved(*command, "--seed", "1")) as folder:
        assert not folder.goes_on
    with resuming.opened(resolved(*FIRST, "--to", "mine")) as folder:
        assert folder.goes_on


@pytest.mark.parametrize("name", ["train", "steps_per_epoch", "class_names"])
def test_other_data_are_refused(here, name):
    unfinished("mine", *FIRST)
    with resuming.opened(resolved(*FIRST, "--to", "mine")) as folder:
        with pytest.raises(ValueError, match=f"cannot continue: its {name} was"):
            resuming.check_record(folder, {**RECORD, name: "another"})
        resuming.check_record(folder, RECORD)


def test_without_to_the_newest_equal_run_goes_on(here):
    unfinished("runs/libra_faster_rcnn_small-shapes-1", *FIRST)
    unfinished("runs/libra_faster_rcnn_small-shapes-2", *FIRST)
    unfinished("runs/libra_faster_rcnn_small-shapes-10", "shapes", "--epochs", "9")
    with resuming.opened(resolved(*FIRST)) as folder:
        assert folder.path.name.endswith("-2")
        with resuming.opened(resolved(*FIRST)) as other:  # the same command in another window
            assert other.path.name.endswith("-1")
    with resuming.opened(resolved("shapes", "--epochs", "5")) as folder:
        assert folder.path.name.endswith("-11") and not folder.goes_on
        assert not folder.path.exists()


def test_a_path_may_be_spelled_in_another_way(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    spellings = ["my_photos", "my_photos/", "./my_photos", str(here / "my_photos"), "~/my_photos"]
    for i, (first, later) in enumerate(itertools.permutations(spellings, 2)):
        name = f"runs/libra_faster_rcnn_small-my_photos-{i + 1}"
        options = ["--seed", str(i), "--proposals-file"]
        unfinished(name, first, *options, first)
        config = resolved(later, *options, later)
        with resuming.opened(config) as folder:
            assert folder.goes_on and str(folder.path) == name
            # Damaged files are noted by their paths: none is counted twice.
            assert resuming.settled(config, folder, Devices()).data.source == first
        named = config.replace(run={"folder": name})
        with resuming.opened(named) as folder:
            assert folder.goes_on
    for words in (["./shapes", "shapes"], ["./tfds:voc/2007", "tfds:voc/2007"]):
        assert resuming.differences(*({"data": word, "started_in": str(here)} for word in words))


def test_a_relative_path_belongs_to_the_folder_in_which_the_run_began(here, monkeypatch):
    to = ["--to", str(here / "mine")]
    own = unfinished("mine", "my_photos")
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    for data, goes_on in [
        ("../my_photos", True),
        (str(here / "my_photos"), True),
        ("my_photos", True),  # the same command, if of a copy
        ("./my_photos", False),
        (str(here / "other" / "my_photos"), False),
    ]:
        with contextlib.nullcontext() if goes_on else pytest.raises(ValueError, match="DATA my_"):
            with resuming.opened(resolved(data, *to)) as folder:
                assert folder.goes_on
                assert resuming.settled(resolved(data), folder, Devices()).data.source == data
    # One of an earlier version may have begun anywhere.
    RunFolder(here / "mine").write_config({"settings": settings(resolved("my_photos")), **RECORD})
    monkeypatch.chdir(here)
    with resuming.opened(resolved("my_photos", *to)) as folder:
        assert folder.goes_on and folder.path == here / own.path
    with pytest.raises(ValueError, match="DATA my_photos there"):
        with resuming.opened(resolved(str(here / "my_photos"), *to)):
            pass


def test_a_number_that_was_taken_meanwhile_is_not_used(here, monkeypatch):
    monkeypatch.setattr(RunFolder, "write_architecture", lambda *_: None)
    with resuming.opened(resolved(*FIRST)) as folder:
        assert folder.path.name.endswith("-1")
        unfinished("runs/libra_faster_rcnn_small-shapes-1", *FIRST)
        monkeypatch.setattr(type(folder.checkpoints), "check_space", lambda *_: None)
        folder.begin(RECORD, model=None)
        assert folder.path.name.endswith("-2") and (folder.path / "config.json").exists()
        assert folder.checkpoints.folder.parent == folder.path
        with pytest.raises(ValueError, match="Another process is training in .*-2"):
            RunFolder(folder.path).hold()
    RunFolder(folder.path).hold()


def test_a_folder_that_is_in_use_is_refused(here):
    unfinished("mine", *FIRST)
    with resuming.opened(resolved(*FIRST, "--to", "mine")):
        with pytest.raises(ValueError, match="Another process is training in mine"):
            with resuming.opened(resolved(*FIRST, "--to", "mine")):
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


def test_a_finished_run_says_how_it_goes_further(here, capsys):
    folder = unfinished("mine", *FIRST)
    folder.write_json("metrics.json", {})
    folder.checkpoints.clear()
    assert main(["train", "shapes", "--epochs", "9", "--to", "mine"]) == 1
    assert "a finished run; to train on from its weights, use --init mine" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("left", [[], ["config.json"], ["config.json", ".unfinished.model.json"]])
def test_a_run_that_had_hardly_begun_begins_anew(here, left):
    folder = RunFolder.create("mine")
    (folder.checkpoints.folder / ".unfinished.step-0.weights.h5").write_text("half")
    for name in left:
        (folder.path / name).write_text("")
    with resuming.opened(resolved(*FIRST, "--to", "mine")) as found:
        assert not found.goes_on
    RunFolder.create("mine")
    assert not any(folder.checkpoints.folder.iterdir())


def test_settings_of_an_earlier_version_are_equal_where_they_were_not_known():
    assert not resuming.differences({"epochs": 2}, {"epochs": 2, "a_new_one": 5})
    replaced = {"epochs": 2, "box_loss": "l1", "neck": None, "average_last": 0.25}
    assert resuming.differences({"epochs": 2}, replaced) == ["box_loss", "average_last"]
    assert not resuming.differences({}, replaced)  # where there is no run


def test_an_augmentation_is_another_run(here, capsys):
    recorded = settings(resolved(*FIRST))
    earlier = {name: value for name, value in recorded.items() if name != "augment"}
    RunFolder.create("mine").checkpoints.state_file.write_text('{"batches": 6}')
    RunFolder("mine").write_config({"settings": earlier, **RECORD})
    with resuming.opened(resolved(*FIRST, "--to", "mine")) as folder:
        assert folder.goes_on
    sizes = ["--augment", "strong", "--short-sides", "256,320", "--to", "mine"]
    assert main(["train", *FIRST, *sizes]) == 1
    err = capsys.readouterr().err
    assert "--short-sides  there, 256,320 here, --augment none there, strong here" in err


def test_damaged_state(here, capsys):
    unfinished("mine", *FIRST).checkpoints.state_file.write_text("{")
    assert main(["train", *FIRST, "--to", "mine"]) == 1
    assert "state.json cannot be read" in capsys.readouterr().err


def test_what_is_noted_anew_is_no_part_of_a_state():
    """Batches that are read ahead find a damaged file before the state is given back."""
    check_like({"a.jpg": "cut"}, {"b.jpg": "cut"}, "damaged")
    with pytest.raises(ValueError, match="damaged.a.jpg must be like 'cut'. Received: 3"):
        check_like({"a.jpg": 3}, {"a.jpg": "cut"}, "damaged")


def test_a_damaged_config_is_replaced_where_that_is_asked_for(here):
    unfinished("mine", *FIRST)
    Path("mine/config.json").write_text("")
    with resuming.opened(resolved(*FIRST, "--to", "mine", "--overwrite")) as folder:
        assert not folder.goes_on


@pytest.mark.parametrize("later", [0.1, 2.0])
def test_one_event_may_be_told_twice(monkeypatch, later):
    """A shell and the system both tell of a terminal that is closed."""
    now = iter([10.0, 10.0 + later])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(now))
    signals = stopping.StopSignals()
    signals.held = True
    signals._receive(signal.SIGHUP, None)
    is_one = later < stopping.ONE_EVENT
    with contextlib.nullcontext() if is_one else pytest.raises(stopping.Stopped):
        signals._receive(signal.SIGHUP, None)
    with pytest.raises(stopping.Stopped):
        signals.release()
