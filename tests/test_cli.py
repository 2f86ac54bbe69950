"""The command: each verb on tiny data, what it writes, and what it says when something is wrong."""

import csv
import json

import keras
import numpy as np
import pytest
from voc_folder import truncate, write_voc

from libra_keras import models
from libra_keras.cli import fitting, main, parser
from libra_keras.cli.building import build_model, build_optimizer
from libra_keras.cli.datasets import find_format, find_splits, usual_split
from libra_keras.cli.defaults import DEFAULTS, drop_fractions
from libra_keras.cli.runs import load_detector
from libra_keras.cli.train import resolve
from libra_keras.data import shapes
from libra_keras.evaluation import METRICS
from libra_keras.training import StopOnNonFinite
from libra_keras.training.resumable import ResumableFit
from libra_keras.training.run import RunFolder

VERBS = ("train", "evaluate", "predict", "export", "check-data")
TINY = "--batch 2 --steps 2 --epochs 2 --short-side 64 --long-side 96 --eval-every 0".split()
SHAPES = "shapes --train-split 6 --val-split 3".split()


def parsed(*arguments):
    return resolve(parser().parse_args(["train", *arguments]))


GOOD = [[(5, 5, 40, 30)], [(10, 3, 30, 40)], [], [(1, 1, 64, 48)]]
BAD = [*GOOD, [(30, 5, 20, 30)]]  # xmax < xmin in image_4


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"libra-keras {verb} " in capsys.readouterr().out.split("examples:")[1]


def test_every_constructor_can_be_trained():
    assert sorted(DEFAULTS) == models.list()


def test_defaults_depend_on_the_model_and_rates_scale_with_the_batch():
    small, large = parsed(), parsed("--model", "faster_rcnn_resnet50", "--batch", "8")
    assert small.backbone_weights == "none"
    # 0.02 for 16 images, as the reference says
    assert large.learning_rate == pytest.approx(0.01)
    assert large.backbone_weights == "imagenet"


def test_drops_are_fractions_of_the_run():
    options = parsed("--epochs", "6", "--drops", "8/12,11/12", "--learning-rate", "0.005")
    schedule = build_optimizer(options, steps_per_epoch=73)._learning_rate
    assert schedule.drops == [292, 401]  # of 438 steps
    assert build_optimizer(parsed("--drops", "none"), 10)._learning_rate.drops == []


@pytest.mark.parametrize("text", ["2", "0", "a,b", "1/0"])
def test_drops_out_of_range_are_refused(text):
    with pytest.raises(ValueError, match="--drops"):
        drop_fractions(text)


def test_backbone_options_reach_the_backbone():
    options = parsed(
        *"--model libra_faster_rcnn_resnet50 --backbone-weights none --backbone-style caffe "
        "--no-train-affine --frozen-stages 1 --short-side 288 --long-side 384".split()
    )
    model = build_model(options, shapes(1))
    backbone = model.backbone.get_config()
    assert (backbone["style"], backbone["train_affine"], backbone["frozen_stages"]) == (
        "caffe",
        False,
        1,
    )
    assert model.normalization.channel_order == "bgr"
    assert model.input_policy.bucket_size(480, 640) == (288, 384)


def test_backbone_options_of_a_small_model_are_refused():
    with pytest.raises(ValueError, match="--frozen-stages need a model of the resnet family"):
        build_model(parsed("--frozen-stages", "1"), shapes(1))


def test_finds_format_and_splits_by_layout(tmp_path):
    voc = write_voc(tmp_path / "voc", train=GOOD)
    (voc / "ImageSets/Main/cat_train.txt").write_text("image_0 1")  # a class, not a split
    assert find_format(voc) == "voc"
    assert find_splits(voc) == ["train"]
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text("{}")
    assert find_format(tmp_path / "coco") == "coco"
    assert usual_split(tmp_path / "coco", "auto", "val") == "val2017"
    with pytest.raises(ValueError, match="it has val2017"):
        usual_split(tmp_path / "coco", "auto", "train")


def test_neither_layout_nor_folder(tmp_path, capsys):
    assert main(["check-data", str(tmp_path)]) == 1
    assert "neither a COCO folder" in capsys.readouterr().err
    assert main(["check-data", str(tmp_path / "missing")]) == 1
    assert "existing folder" in capsys.readouterr().err


def test_check_data(tmp_path, capsys):
    assert main(["check-data", str(write_voc(tmp_path / "good", train=GOOD))]) == 0
    assert "No findings." in capsys.readouterr().out
    bad = write_voc(tmp_path / "bad", train=BAD)
    truncate(bad, 1)
    assert main(["check-data", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "image_4.png, box 0: degenerate box" in out
    assert "image_1.png: damaged image" in out
    assert "2 finding(s)." in out


def test_train_refuses_bad_data_by_file_and_box(tmp_path, capsys):
    bad = write_voc(tmp_path / "bad", train=BAD)
    to = tmp_path / "run"
    arguments = ["train", str(bad), "--val-split", "train", *TINY, "--to", str(to)]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "image_4.png, box 0: degenerate box" in err and "--skip-bad" in err
    assert not to.exists()  # nothing is in the way of the next attempt


def test_run_folder_is_complete(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    expected = {
        "config.json", "model.json", "log.csv", "steps.csv", "last.weights.h5",
        "best.weights.h5", "model.keras", "metrics.json", "detections.png",
    }  # fmt: skip
    assert expected <= names
    assert not any(name.startswith(".unfinished") for name in names)


def test_config_repeats_the_run(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    assert config["settings"]["seed"] == 0
    defaults = DEFAULTS["libra_faster_rcnn_small"]
    assert config["settings"]["learning_rate"] == defaults.learning_rate * 2 / defaults.batch
    assert config["steps_per_epoch"] == 2
    assert config["input_policy"]["long_side"] == 96
    assert config["versions"]["keras"] == keras.__version__
    assert config["class_names"] == ["cat"]


def test_metrics_say_what_they_are(run_folder):
    record = json.loads((run_folder / "metrics.json").read_text())
    assert record["weights"] == "last"
    assert (record["trained_steps"], record["images"]) == (4, 2)
    assert set(METRICS) <= set(record["metrics"])
    assert "AP/cat" in record["metrics"]


def test_metrics_name_damaged_images(run_folder):
    """Images 1 and 5 are cut in half; one of either kind is tolerated."""
    damaged = json.loads((run_folder / "metrics.json").read_text())["damaged_images"]
    for purpose, name in {"training": "image_1.jpg", "evaluation": "image_5.jpg"}.items():
        assert damaged[purpose]["count"] == 1
        assert [file.endswith(name) for file in damaged[purpose]["files"]] == [True]


def test_logs(run_folder):
    epochs = list(csv.DictReader((run_folder / "log.csv").open()))
    assert len(epochs) == 2
    assert epochs[0]["val_AP"] == "nan"  # evaluated at the end only
    assert 0 <= float(epochs[1]["val_AP"]) <= 1
    steps = list(csv.DictReader((run_folder / "steps.csv").open()))
    parts = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
    total = sum(float(steps[0][part]) for part in parts)
    assert total == pytest.approx(float(steps[0]["loss"]), rel=1e-3)


def test_run_folder_and_saved_model_are_the_same_detector(run_folder):
    rebuilt, saved = load_detector(run_folder), load_detector(run_folder / "model.keras")
    assert rebuilt.to_json() == saved.to_json()
    for mine, other in zip(rebuilt.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_best_weights_of_a_keras_file_are_refused(run_folder):
    with pytest.raises(ValueError, match="one set of weights"):
        load_detector(run_folder / "model.keras", "best")


def test_run_folder_in_use_is_refused(run_folder, tmp_path, capsys):
    assert main(["train", *SHAPES, *TINY, "--to", str(run_folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no config.json"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def earlier_run(path):
    folder = RunFolder.create(path)
    folder.write_config({})
    (folder.path / "log.csv").write_text("")
    return folder.path


def test_overwrite_replaces_a_run(tmp_path):
    path = earlier_run(tmp_path / "run")
    RunFolder.create(path, overwrite=True)
    assert [left.name for left in path.iterdir()] == ["checkpoints"]
    assert not any((path / "checkpoints").iterdir())
    assert [left.name for left in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["mistyped"], "existing folder"),
        ([*SHAPES, "--frozen-stages", "1"], "need a model of the resnet family"),
    ],
)
def test_overwrite_keeps_the_old_run_if_data_or_model_are_wrong(tmp_path, capsys, wrong, message):
    path = earlier_run(tmp_path / "run")
    assert main(["train", *wrong, *TINY, "--to", str(path), "--overwrite"]) == 1
    assert message in capsys.readouterr().err
    assert (path / "log.csv").exists()


def test_a_run_that_does_not_start_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "mistyped"]) == 1
    assert not any(tmp_path.iterdir())


def test_failed_training_is_an_error(tmp_path, capsys, monkeypatch):
    def failing(run, model, batches):
        guard = run.callbacks[0]
        assert len(guard.batch_names(epoch=1, step=1)) == 2  # files of a batch of two
        guard.failure = "a gradient is not finite"

    monkeypatch.setattr(ResumableFit, "fit", failing)
    assert main(["train", *SHAPES, *TINY, "--to", str(tmp_path / "run")]) == 1
    assert str(tmp_path / "run" / "last.weights.h5") in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_nothing_is_evaluated_once_training_has_failed(tmp_path):
    guard = StopOnNonFinite()
    guard.failure = "a gradient is not finite"
    best = tmp_path / "best.weights.h5"
    evaluation = fitting.GuardedEvaluation(guard, shapes(1), best_weights=best)
    evaluation.fills_logs, logs = True, {}
    evaluation.on_epoch_end(0, logs)  # without a model: evaluating would raise
    assert len(logs) == 12 and all(np.isnan(value) for value in logs.values())
    assert not best.exists()


@pytest.mark.filterwarnings("ignore:Even though")  # tf.data stays a graph, as TensorFlow tells
def test_too_many_damaged_images_stop_the_training_by_name(tmp_path, capsys):
    import tensorflow as tf

    voc = write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", train=GOOD[:2] * 3, val=GOOD[:1])
    names = truncate(voc, 0, 1, 2, 3)
    tf.config.run_functions_eagerly(True)  # the first batch fails; a graph would be for nothing
    try:
        assert main(["train", str(voc), *TINY, "--to", str(tmp_path / "run")]) == 1
    finally:
        tf.config.run_functions_eagerly(False)
    err = capsys.readouterr().err
    assert "libra-keras train: Too many images are damaged:" in err
    assert sum(name in err for name in names) >= 2
    assert "Traceback" not in err


@pytest.mark.slow
def test_non_finite_loss_stops_names_files_and_keeps_weights(tmp_path, capsys):
    wild = "--learning-rate 1e30 --warmup-steps 0 --clip-norm 0 --drops none".split()
    folder = tmp_path / "run"
    assert main(["train", *SHAPES, *TINY, *wild, "--steps", "3", "--to", str(folder)]) == 1
    err = capsys.readouterr().err
    assert "shapes-train-" in err
    assert str(folder / "last.weights.h5") in err
    weights = load_detector(folder).get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)


def test_ctrl_c_keeps_weights(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResumableFit, "fit", interrupted)
    assert main(["train", *SHAPES, *TINY, "--to", str(tmp_path / "run")]) == 130
    err = capsys.readouterr().err
    assert "Interrupted. The run is saved at epoch 1, step 0; the same command goes on" in err
    assert load_detector(tmp_path / "run").num_classes == 6
