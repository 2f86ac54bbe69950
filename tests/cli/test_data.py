"""Data of TensorFlow Datasets in the command, and Pascal VOC's AP beside COCO's numbers."""

import json

import numpy as np
import pytest
from data.test_tfds import as_dataset, voc_records
from PIL import Image
from voc_folder import write_voc

from libra_keras.cli import main
from libra_keras.evaluation import VOC_METRICS


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


@pytest.mark.slow
def test_train_and_evaluate_on_tfds(tmp_path, capsys, eagerly):
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
