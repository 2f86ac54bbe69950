"""Data sets of `supervision`."""

import warnings

import numpy as np
import pytest
from PIL import Image

from libra_keras import data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for OpenCV
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")


@pytest.fixture
def dataset(tmp_path):
    """What it reads of a folder in YOLO's form: an image of 60 x 40 with two boxes, one without."""
    for name, text in (("a", "1 0.5 0.5 0.2 0.4\n0 0.25 0.25 0.5 0.5"), ("b", "")):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (60, 40)).save(tmp_path / f"images/{name}.png")
        (tmp_path / f"labels/{name}.txt").write_text(text)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]")
    return supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml")
    )


def test_it_becomes_the_same_data_set(dataset, tmp_path):
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: images")
    own, read = data.yolo(tmp_path), data.from_supervision(dataset, "pets")
    assert read.summary() == "pets: 2 images, 2 boxes, 2 classes"
    by_name = {str(example.file): example for example in read.examples}
    for example in own.examples:
        other = by_name[str(example.file)]
        np.testing.assert_allclose(other.boxes, example.boxes, atol=1e-4)
        assert other.labels.tolist() == example.labels.tolist()
        assert (other.width, other.height) == (60, 40)
    assert data.check_data(read) == []


def test_detections_come_back_as_they_went():
    found = {
        "boxes": np.float32([[1, 2, 30, 20], [5, 5, 9, 9]]),
        "scores": np.float32([0.9, 0.4]),
        "labels": np.int32([1, 0]),
        "names": ["dog", "cat"],
    }
    theirs = data.to_supervision(found)
    assert theirs.data["class_name"].tolist() == ["dog", "cat"]
    for own, expected in ((theirs, found), (theirs[theirs.confidence > 2], None)):
        back = data.detections_from_supervision(own)
        for key in found:
            wanted = found[key] if expected else found[key][:0]
            np.testing.assert_array_equal(back[key], wanted)
    nameless = supervision.Detections(found["boxes"], class_id=np.array([1, 0]))
    back = data.detections_from_supervision(nameless)
    assert back["names"] == ["1", "0"] and back["scores"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="must have `class_id`. Received: 2"):
        data.detections_from_supervision(supervision.Detections(found["boxes"]))


def test_bad_boxes_are_found(dataset):
    boxes = next(each for each in dataset.annotations.values() if len(each))
    boxes.xyxy[1] = [9, 1, 2, 9]
    with pytest.raises(ValueError, match=r"a.png, box 1: degenerate box: \[9. 1. 2. 9.\] has"):
        data.from_supervision(dataset)
    boxes.class_id = None
    with pytest.raises(ValueError, match="a.png: its 2 boxes have no class_id"):
        data.from_supervision(dataset)
