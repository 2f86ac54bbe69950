"""Data of TensorFlow Datasets in the command, and Pascal VOC's AP beside COCO's numbers."""

import argparse
import json

import numpy as np
import pytest
from data.test_tfds import as_dataset, voc_records
from voc_folder import write_voc

from libra_keras.cli import main
from libra_keras.cli.datasets import find_splits, load_data, usual_split, wants_voc
from libra_keras.cli.report import metric_lines
from libra_keras.evaluation import VOC_METRICS


@pytest.mark.parametrize(
    ("split", "role", "expected"),
    [
        ("3", "train", "shapes/train: 3 images"),
        ("3", "val", "shapes/val: 3 images"),  # no scene to learn from is measured on
        ("train", "val", "shapes/train: 2000 images"),
        (None, "val", "shapes/val: 500 images"),
    ],
)
def test_a_number_of_scenes_has_the_role_asked_for(split, role, expected):
    options = argparse.Namespace(data="shapes", format="auto", skip_bad=False)
    assert load_data(options, split, role).summary().startswith(expected)


def test_splits_of_tfds():
    assert find_splits("tfds:voc/2007") == ["train", "validation", "test"]
    assert usual_split("tfds:coco/2017", "auto", "train") == "train"
    assert usual_split("tfds:voc/2007", "auto", "val") == "validation"
    with pytest.raises(ValueError, match="`name` must be one of"):
        usual_split("tfds:mnist", "auto", "val")


def test_data_in_vocs_form_have_its_ap(tmp_path):
    folder = str(write_voc(tmp_path / "voc", val=[[(5, 5, 40, 30)]]))
    expected = {folder: True, "shapes": False, "tfds:voc/2012": True, "tfds:coco/2017": False}
    for data, is_voc in expected.items():
        options = argparse.Namespace(data=data, format="auto", voc=False)
        assert wants_voc(options) == is_voc
        assert wants_voc(argparse.Namespace(data=data, format="auto", voc=True))


def test_lines_of_voc():
    metrics = {"AP": 0.5, "AP/cat": 0.5, "VOC_AP50_07": 0.75, "VOC_AP50_area": 0.8}
    metrics |= {"VOC_AP50_07/cat": float("nan"), "VOC_AP50_area/cat": 0.8}
    assert metric_lines(metrics).splitlines() == [
        "AP 0.500",
        "VOC_AP50_07 0.750  VOC_AP50_area 0.800",
        "  AP of cat  0.500  VOC_AP50_07 -  VOC_AP50_area 0.800",
    ]


def test_a_run_on_a_voc_folder_has_it(run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())["metrics"]
    for name in VOC_METRICS:
        assert metrics[name] == metrics[f"{name}/cat"] and 0 <= metrics[name] <= 1


def test_nothing_to_measure_on_is_said_before_training(tmp_path, capsys):
    folder = write_voc(tmp_path / "voc", train=[[(5, 5, 40, 30)]] * 2, val=[])
    run = tmp_path / "run"
    arguments = ["--train-split", "train", "--val-split", "val", "--to", str(run)]
    assert main(["train", str(folder), *arguments]) == 1
    assert "There are no images to measure on: voc/val: 0 images" in capsys.readouterr().err
    assert not run.exists()


def test_annotations_are_for_tfds():
    options = argparse.Namespace(data="shapes", format="auto", annotations="a.json")
    with pytest.raises(ValueError, match="--annotations is for data of TFDS"):
        load_data(options, "1", "val")


@pytest.mark.slow
def test_train_and_evaluate_on_tfds(tmp_path, capsys):
    """Three images: one has a difficult object, one none at all."""
    library = pytest.importorskip("tensorflow_datasets", reason="needs libra-keras[tfds]")
    run, numbers = tmp_path / "run", tmp_path / "numbers.json"
    sizes = "--batch 1 --epochs 1 --short-side 64 --long-side 64".split()
    with library.testing.mock_data(as_dataset_fn=as_dataset(voc_records)):
        assert main(["train", "tfds:voc/2007", *sizes, "--to", str(run)]) == 0
        assert main(["evaluate", str(run), "tfds:voc/2007", "--to", str(numbers)]) == 0
    assert "voc/2007/validation: 3 images, 3 boxes" in capsys.readouterr().out
    trained = json.loads((run / "metrics.json").read_text())["metrics"]
    measured = json.loads(numbers.read_text())["metrics"]
    for name in ("AP", *VOC_METRICS):
        np.testing.assert_allclose(measured[name], trained[name], atol=1e-6)


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path, capsys):
    from PIL import Image

    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": boxes,
    }
    (tmp_path / "annotations").mkdir()
    for split in ("test", "train", "val"):
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content))
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (30, 20)).save(tmp_path / split / "a.png")
    assert main(["check-data", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "test: Expected a folder of images" in printed and "1 finding(s)." in printed
    assert "train: 1 images, 1 boxes" in printed and "val: 1 images, 1 boxes" in printed
    assert main(["check-data", str(tmp_path), "--split", "test"]) == 1
    assert "Expected a folder of images" in capsys.readouterr().err
