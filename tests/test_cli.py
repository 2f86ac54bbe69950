"""The command: each verb on tiny data, what it writes, and what it says when something is wrong."""

import csv
import inspect
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from libra_keras import models
from libra_keras.cli import fitting, main, parser
from libra_keras.cli.building import build_model, build_optimizer
from libra_keras.cli.datasets import find_format, find_splits, usual_split
from libra_keras.cli.defaults import DEFAULTS, drop_fractions
from libra_keras.cli.runs import load_detector
from libra_keras.cli.train import resolve
from libra_keras.data import shapes
from libra_keras.evaluation import METRICS
from libra_keras.training.run import RunFolder

VERBS = ("train", "evaluate", "predict", "export", "check-data")
TINY = "--batch 2 --steps 2 --epochs 2 --short-side 96 --long-side 96 --eval-every 0".split()
SHAPES = "shapes --train-split 6 --val-split 3".split()


def parsed(*arguments):
    return resolve(parser().parse_args(["train", *arguments]))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of four steps that all tests share."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *SHAPES, *TINY, "--to", str(folder)]) == 0
    return folder


def write_voc(folder, boxes, size=(64, 48)):
    """A VOC folder with one image per list of boxes, all of them in the split "train"."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for i, corners in enumerate(boxes):
        Image.new("RGB", size, (i, 90, 200)).save(folder / f"JPEGImages/image_{i}.png")
        objects = "".join(
            "<object><name>cat</name><bndbox>"
            + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))  # noqa: B905
            + "</bndbox></object>"
            for box in corners
        )
        (folder / f"Annotations/image_{i}.xml").write_text(
            f"<annotation><filename>image_{i}.png</filename><size><width>{size[0]}</width>"
            f"<height>{size[1]}</height></size>{objects}</annotation>"
        )
    names = "\n".join(f"image_{i}" for i in range(len(boxes)))
    (folder / "ImageSets/Main/train.txt").write_text(names)
    return folder


GOOD = [[(5, 5, 40, 30)], [(10, 3, 30, 40)], [], [(1, 1, 64, 48)]]
BAD = [*GOOD, [(30, 5, 20, 30)]]  # xmax < xmin in image_4


# --- help and options ---


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"libra-keras {verb} " in capsys.readouterr().out.split("examples:")[1]


def test_every_constructor_can_be_trained():
    constructors = [name for name in models.__all__ if inspect.isfunction(getattr(models, name))]
    assert sorted(DEFAULTS) == sorted(constructors)


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


# --- data ---


def test_finds_format_and_splits_by_layout(tmp_path):
    voc = write_voc(tmp_path / "voc", GOOD)
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
    assert main(["check-data", str(write_voc(tmp_path / "good", GOOD))]) == 0
    assert "No findings." in capsys.readouterr().out
    bad = write_voc(tmp_path / "bad", BAD)
    damaged = bad / "JPEGImages/image_1.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])  # the header is whole
    assert main(["check-data", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "image_4.png, box 0: degenerate box" in out
    assert "image_1.png: damaged image" in out
    assert "2 finding(s)." in out


def test_train_refuses_bad_data_by_file_and_box(tmp_path, capsys):
    bad = write_voc(tmp_path / "bad", BAD)
    to = tmp_path / "run"
    arguments = ["train", str(bad), "--val-split", "train", *TINY, "--to", str(to)]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "image_4.png, box 0: degenerate box" in err and "--skip-bad" in err
    assert not any(to.iterdir())  # nothing is in the way of the next attempt


# --- train ---


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
    assert (
        config["settings"]["learning_rate"] == DEFAULTS["libra_faster_rcnn_small"].learning_rate / 4
    )
    assert config["steps_per_epoch"] == 2
    assert config["input_policy"]["short_side"] == 96
    assert config["versions"]["keras"] == keras.__version__
    assert len(config["class_names"]) == 6


def test_metrics_say_what_they_are(run_folder):
    record = json.loads((run_folder / "metrics.json").read_text())
    assert record["weights"] == "last"
    assert (record["trained_steps"], record["images"]) == (4, 3)
    assert set(METRICS) <= set(record["metrics"])
    assert sum(name.startswith("AP/") for name in record["metrics"]) == 6


def test_logs(run_folder):
    epochs = list(csv.DictReader((run_folder / "log.csv").open()))
    assert len(epochs) == 2
    assert epochs[0]["val_AP"] == "nan"  # evaluated at the end only
    assert 0 <= float(epochs[1]["val_AP"]) <= 1
    steps = list(csv.DictReader((run_folder / "steps.csv").open()))
    parts = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
    total = sum(float(steps[0][part]) for part in parts)
    assert total == pytest.approx(float(steps[0]["loss"]), rel=1e-3)


def test_weights_and_saved_model_detect_the_same(run_folder):
    batch = {"images": np.stack([np.resize(shapes(1).read_image(0), (96, 96, 3))])}
    rebuilt = load_detector(run_folder).predict_on_batch(batch)
    saved = keras.saving.load_model(run_folder / "model.keras").predict_on_batch(batch)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(rebuilt[name], saved[name])


def test_run_folder_in_use_is_refused(run_folder, tmp_path, capsys):
    assert main(["train", *SHAPES, *TINY, "--to", str(run_folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no config.json"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_overwrite_replaces_a_run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({})
    (folder.path / "old.txt").write_text("")
    RunFolder.create(folder.path, overwrite=True)
    assert not any(folder.path.iterdir())


def test_failed_training_is_an_error(tmp_path, capsys, monkeypatch):
    def failing(model, batches, steps, epochs, callbacks, verbose):
        guard = callbacks[0]
        assert len(guard.batch_names(epoch=1, step=1)) == 2  # files of a batch of two
        guard.failure = "a gradient is not finite"

    monkeypatch.setattr(fitting, "_fit", failing)
    assert main(["train", *SHAPES, *TINY, "--to", str(tmp_path / "run")]) == 1
    assert str(tmp_path / "run" / "last.weights.h5") in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


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

    monkeypatch.setattr(fitting, "_fit", interrupted)
    assert main(["train", *SHAPES, *TINY, "--to", str(tmp_path / "run")]) == 130
    assert "Interrupted. The weights are in" in capsys.readouterr().err
    assert load_detector(tmp_path / "run").num_classes == 6


# --- evaluate, predict, export ---


def test_evaluate_repeats_the_numbers_of_the_run(run_folder, tmp_path, capsys):
    to = tmp_path / "numbers.json"
    arguments = ["evaluate", str(run_folder), "shapes", "--split", "3", "--batch", "2"]
    assert main([*arguments, "--proposals", "--to", str(to)]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in METRICS)
    numbers = json.loads(to.read_text())["metrics"]
    record = json.loads((run_folder / "metrics.json").read_text())["metrics"]
    assert numbers["AP"] == pytest.approx(record["AP"], abs=1e-6)
    assert 0 <= numbers["AR@100"] <= numbers["AR@1000"] <= 1


def test_evaluate_refuses_other_classes(run_folder, tmp_path, capsys):
    voc = write_voc(tmp_path / "voc", GOOD)
    assert main(["evaluate", str(run_folder), str(voc), "--split", "train"]) == 1
    assert "['cat']" in capsys.readouterr().err


def test_evaluate_refuses_what_is_no_run(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "shapes"]) == 1
    assert "model.json" in capsys.readouterr().err


def test_predict_writes_pictures_and_numbers(run_folder, tmp_path, capsys):
    photo = tmp_path / "scene.png"
    Image.fromarray(shapes(1).read_image(0)).save(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    to = tmp_path / "found"
    arguments = [str(photo), str(broken), "--to", str(to), "--score", "0"]
    assert main(["predict", str(run_folder / "model.keras"), *arguments]) == 1
    assert "broken.png: not read" in capsys.readouterr().err
    rows = json.loads((to / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["scene.png"]
    assert Image.open(to / "scene.png").size == (320, 320)
    for found in rows[0]["detections"]:
        assert 0 <= found["box"][0] < found["box"][2] <= 320 + 1e-3
        assert found["name"] in shapes(1).class_names


def test_export_verb_hands_the_detector_on(run_folder, tmp_path, capsys, monkeypatch):
    """The export itself has its own tests; here a graph would only be traced once more."""
    given = {}

    def export(model, path, overwrite):
        given.update(model=model, path=path, overwrite=overwrite)

    monkeypatch.setattr("libra_keras.export.saved_model.export_saved_model", export)
    assert main(["export", str(run_folder), "--to", str(tmp_path / "out"), "--overwrite"]) == 0
    assert given["model"].class_names == list(shapes(1).class_names)
    assert (given["path"], given["overwrite"]) == (str(tmp_path / "out"), True)
    assert "serving_default" in capsys.readouterr().out


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "libra_keras", "check-data", "shapes", "--split", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "No findings." in done.stdout
