"""Opening what a run, a conversion, or Keras has written."""

import json

import numpy as np
import pytest

from libra_keras import runs


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
    alone = runs.open(run_folder / "model.keras")
    assert (alone.metrics, alone.config) == (None, None)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no .*model.json"):
        runs.open(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="a checkpoint of PyTorch; convert it first"):
        runs.open(tmp_path / "a.pth")
