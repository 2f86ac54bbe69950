"""Opening what a run, a conversion, or Keras has written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from libra_keras import data, runs
from libra_keras.runs.inputs import named_after
from libra_keras.runs.run import own_data


def test_run_folder_and_saved_model_are_the_same_detector(run_folder):
    rebuilt, saved = runs.open(run_folder).model, runs.open(run_folder / "model.keras").model
    assert rebuilt.to_json() == saved.to_json()
    for mine, other in zip(rebuilt.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_best_weights_of_a_keras_file_are_refused(run_folder):
    with pytest.raises(ValueError, match="one set of weights"):
        runs.open(run_folder / "model.keras", "best")


def test_a_run_tells_its_numbers_and_its_config(run_folder):
    run = runs.open(str(run_folder))
    assert run.metrics == json.loads((run_folder / "metrics.json").read_text())["metrics"]
    assert (run.config.schedule.batch, run.config.run.folder) == (2, str(run_folder))
    assert runs.resolve(run.config) == run.config
    assert run.is_finished
    alone = runs.open(run_folder / "model.keras")
    assert (alone.metrics, alone.config, alone.is_finished) == (None, None, False)


def test_weights_that_were_kept_have_names(run_folder, tmp_path):
    for name, own in [("model.json", "model.json"), ("last.weights.h5", "kept-0.5.weights.h5")]:
        (tmp_path / own).symlink_to(run_folder / name)
    kept = runs.open(tmp_path, "kept-0.5").model
    for mine, last in zip(kept.weights, runs.open(run_folder).model.weights, strict=True):
        np.testing.assert_array_equal(mine, last)
    with pytest.raises(ValueError, match="there is no .*kept-0.75.weights.h5"):
        runs.open(tmp_path, "kept-0.75")


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no .*model.json"):
        runs.open(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="a PyTorch checkpoint; convert it first"):
        runs.open(tmp_path / "a.pth")


def test_a_run_that_was_measured_on_other_data_is_not_explained_by_those_of_its_config():
    own = runs.TrainConfig(data=runs.DataConfig("shapes", val_split="2"))
    told = {"val": data.shapes("val", 2).summary()}
    run = SimpleNamespace(config=own, folder="mine", model=None, record=lambda name: told)
    assert len(own_data(run)) == 2
    told["val"] = "photos/test: 87 images, 1137 boxes, 3 classes (1 box left out)"
    with pytest.raises(ValueError, match="it was measured on photos/test: 87.*libra-keras report"):
        own_data(run)


def test_a_config_that_is_read_for_one_split_keeps_its_name():
    scenes, own = data.shapes(2), runs.TrainConfig(data=runs.DataConfig("shapes"))
    assert named_after(own, scenes, None) == named_after(own, None, scenes) == own
    assert named_after(own, scenes, scenes).data.source == "shapes-train"
