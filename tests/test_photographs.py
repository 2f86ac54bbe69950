"""The command line on real photographs, for a few steps; needs `LIBRA_KERAS_DATA`."""

import json

import pytest

from libra_keras.cli import main

SHORT = (
    "--short-side 96 --long-side 128 --batch 2 --epochs 1 --steps 2 --warmup-steps 1 "
    "--learning-rate 1e-4"
).split()
RESNET = "--model libra_faster_rcnn_resnet50 --backbone-weights none".split()


@pytest.mark.slow
def test_eighty_classes_of_coco(photographs, tmp_path, capsys):
    folder, run = photographs("coco_mini"), tmp_path / "run"
    assert main(["train", str(folder), *SHORT, "--skip-bad", "--to", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["images"] == 91 and metrics["trained_steps"] == 2
    assert metrics["metrics"]["AP"] >= 0
    assert len(json.loads((run / "config.json").read_text())["class_names"]) == 80
    photo = sorted((folder / "val2017").glob("*.jpg"))[0]
    found = tmp_path / "found"
    assert main(["predict", str(run), str(photo), "--to", str(found), "--score", "0.0"]) == 0
    assert list(found.glob("*.png")) or list(found.glob("*.jpg"))


@pytest.mark.slow
def test_voc_photographs(photographs, tmp_path):
    folder, run = photographs("bccd"), tmp_path / "run"
    data = [str(folder), "--format", "voc", "--train-split", "trainval", "--val-split", "test"]
    assert main(["train", *data, *SHORT, *RESNET, "--to", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text())["images"] == 72
