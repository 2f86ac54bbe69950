"""`libra-keras train` and `check-data`: what they write, and say when something is wrong."""

import csv
import json
import os

import keras
import numpy as np
import pytest
from cli.test_use import GOOD
from eager import without_graphs
from voc_folder import truncate, write_voc

from libra_keras import runs
from libra_keras.cli import main
from libra_keras.evaluation import METRICS
from libra_keras.runs import precision
from libra_keras.runs.defaults import family
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.resumable import ResumableFit

VERBS = ("train", "evaluate", "predict", "export", "check-data", "models")
TINY = "--batch 2 --steps 2 --epochs 2 --short-side 64 --long-side 96 --eval-every 0".split()
SHAPES = "shapes --train-split 6 --val-split 3".split()
BAD = [*GOOD, [(30, 5, 20, 30)]]  # xmax < xmin in image_4


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"libra-keras {verb} " in capsys.readouterr().out.split("examples:")[1]


def test_neither_layout_nor_folder(tmp_path, capsys):
    assert main(["check-data", str(tmp_path)]) == 1
    assert "no data found in" in capsys.readouterr().err
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
    assert os.path.isabs(config["settings"]["started_in"])
    defaults = family("libra_faster_rcnn_small").schedule
    assert config["settings"]["learning_rate"] == defaults.learning_rate * 2 / defaults.batch
    assert config["steps_per_epoch"] == 2
    assert config["input_policy"]["long_side"] == 96
    assert config["versions"]["keras"] == keras.__version__
    assert config["class_names"] == ["cat"]


def test_metrics_say_what_they_are(run_folder):
    record = json.loads((run_folder / "metrics.json").read_text())
    assert record["weights"] == "last"
    assert (record["trained_steps"], record["images"]) == (4, 2)
    assert record["stopped_early"] is False
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


def test_run_folder_in_use_is_refused(run_folder, capsys):
    assert main(["train", *SHAPES, *TINY, "--to", str(run_folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["mistyped"], "existing folder"),
        ([*SHAPES, "--frozen-stages", "1"], "require a model of the resnet family"),
    ],
)
def test_overwrite_keeps_the_old_run_if_data_or_model_are_wrong(tmp_path, capsys, wrong, message):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({})
    (folder.path / "log.csv").write_text("")
    assert main(["train", *wrong, *TINY, "--to", str(folder.path), "--overwrite"]) == 1
    assert message in capsys.readouterr().err
    assert (folder.path / "log.csv").exists()


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


def test_too_many_damaged_images_stop_the_training_by_name(tmp_path, capsys, eagerly):
    voc = write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", train=GOOD[:2] * 3, val=GOOD[:1])
    names = truncate(voc, 0, 1, 2, 3)
    assert main(["train", str(voc), *TINY, "--to", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert "libra-keras train: Too many images are damaged:" in err
    assert sum(name in err for name in names) >= 2
    assert "Traceback" not in err


def test_ctrl_c_keeps_weights(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResumableFit, "fit", interrupted)
    monkeypatch.setattr(
        precision, "advice", lambda policy, _, use, machine: f"{use} in {policy} is slow"
    )
    assert main(["train", *SHAPES, *TINY, "--to", str(tmp_path / "run")]) == 130
    err = capsys.readouterr().err
    assert "training in float32 is slow\n" in err  # said at the start, where no precision is given
    assert "Interrupted. The run is saved at epoch 1, step 0; the same command continues" in err
    assert runs.open(tmp_path / "run").model.num_classes == 6


@pytest.mark.slow
def test_a_run_with_all_options(tmp_path, capsys, monkeypatch):
    """What is measured, printed, and saved is the averages; another run can start from it."""
    data = "shapes --train-split 8 --val-split 4".split()
    sizes = "--batch 2 --steps 4 --epochs 2 --short-side 64 --long-side 96".split()
    updates = "--accumulate 2 --ema 0.25 --backbone-rate 0.1 --warmup-steps 0".split()
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(precision, "automatic", lambda machine: "mixed_bfloat16")
    half = ("--precision", "auto")
    assert main(["train", *data, *sizes, *updates, *half, "--to", str(first)]) == 0
    printed = capsys.readouterr().out
    assert "--precision auto: mixed_bfloat16\n" in printed
    assert "an update every 2 steps, learning rate 0.002 ->" in printed  # 2 x 2 of 4 images
    assert "averaged weights of the last step" in printed
    metrics = json.loads((first / "metrics.json").read_text())
    config = json.loads((first / "config.json").read_text())
    assert metrics["averaged"] and config["dtype_policy"] == "mixed_bfloat16"
    assert config["settings"]["precision"] == "mixed_bfloat16"
    assert config["config"]["model"]["precision"] == "mixed_bfloat16"
    last, whole = runs.open(first).model, runs.open(first / "model.keras").model
    for ours, expected in zip(last.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, expected)))
    init = ["--init", str(first), "--freeze", "backbone,neck", "--precision", "float32"]
    with without_graphs():
        assert main(["train", *data, *sizes, *init, "--to", str(second)]) == 0
    again = runs.open(second).model
    assert again.dtype_policy.name == "float32"
    moved = {
        part: any(
            (keras.ops.convert_to_numpy(new) != keras.ops.convert_to_numpy(old)).any()
            for old, new in zip(getattr(last, part).weights, getattr(again, part).weights,
                                strict=True)
        )
        for part in ("backbone", "rpn", "box_head")
    }  # fmt: skip
    assert moved == {"backbone": False, "rpn": True, "box_head": True}
