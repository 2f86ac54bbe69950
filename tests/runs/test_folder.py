"""What the folder of a run may replace."""

import pytest

from libra_keras.runs.folder import RunFolder


@pytest.fixture
def earlier_run(tmp_path):
    """The path of one that is complete."""
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({})
    for name in ("log.csv", "kept-0.5.weights.h5"):
        (folder.path / name).write_text("")
    return folder.path


def test_overwrite_replaces_a_run(earlier_run):
    RunFolder.create(earlier_run, overwrite=True)
    assert [left.name for left in earlier_run.iterdir()] == ["checkpoints"]
    assert not any((earlier_run / "checkpoints").iterdir())
    assert [left.name for left in earlier_run.parent.iterdir()] == ["run"]


def test_overwrite_keeps_what_is_no_run(tmp_path):
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no config.json"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_overwrite_keeps_what_no_run_has_written(tmp_path):
    folder = RunFolder.create(tmp_path)
    folder.write_config({})
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="holds photos, which no run has written"):
        RunFolder.create(tmp_path, overwrite=True)
    assert {left.name for left in tmp_path.iterdir()} == {"photos", "config.json", "checkpoints"}


@pytest.mark.parametrize("begun", [[], ["config.json"], ["config.json", "log.csv"]])
def test_weights_of_others_are_never_replaced(tmp_path, monkeypatch, begun):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "mine" / "checkpoints" / "epoch=3.ckpt"
    theirs.parent.mkdir(parents=True)
    for file in (theirs, *(tmp_path / "mine" / name for name in begun)):
        file.write_text("weights")
    with pytest.raises(ValueError, match="mine is not empty"):
        RunFolder.create("mine")
    with pytest.raises(ValueError, match="checkpoints/epoch=3.ckpt, which no|no config.json"):
        RunFolder.create("mine", overwrite=True)
    assert theirs.read_text() == "weights"
