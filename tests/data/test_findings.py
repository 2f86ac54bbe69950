"""Whether there is anything to learn from, in the data of every reader; damaged images."""

import dataclasses

import numpy as np
import pytest

from libra_keras import data
from libra_keras.data.findings import DamageLog, TooManyDamagedImages, nothing_to_learn

LEFT = "no boxes: none is left to learn from"


def rows(**changes):
    base = {"category_id": 30, "bbox": [10, 5, 20, 10], "area": 200, "iscrowd": 0}
    return [{"id": i, "image_id": i, **base, **changes} for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"annotations": rows(bbox=[0.1, 0.1, 0.5, 0.5])},
            f"{LEFT}: 3 of 3 boxes are at most 1 px wide or high. All coordinates are in 0..1: "
            "fractions of the image?",
        ),
        ({"annotations": rows(iscrowd=1)}, f"{LEFT}: 3 of 3 boxes are crowds"),
        ({"annotations": rows(ignore=1)}, f"{LEFT}: 3 of 3 boxes are ignored"),
        (
            {"annotations": [*rows(iscrowd=1)[:2], {**rows(bbox=[9, 9, 1, 1])[2]}]},
            f"{LEFT}: 1 of 3 boxes are at most 1 px wide or high, 2 of 3 boxes are crowds",
        ),
        ({"annotations": rows(bbox=[9, 9, -1, 5])}, f"{LEFT}: 3 of 3 boxes are bad and were dropp"),
        ({"annotations": []}, f"{LEFT}: there is none on its images"),
        ({"annotations": [], "images": []}, "no images: there is none in it"),
    ],
)
def test_cocos_form(write_coco, content, message):
    read = data.coco(write_coco(**content), "val", skip_bad=True)
    assert str(nothing_to_learn(read)).startswith(f"instances_val.json: {message}")
    first = data.check_annotations(read)[0]
    assert first == nothing_to_learn(read) == read.findings[0] and not first.is_warning


def test_all_images_are_dropped(write_coco):
    folder = write_coco()
    for file in folder.glob("val/*"):
        file.unlink()
    read = data.coco(folder, "val", skip_bad=True)
    assert str(nothing_to_learn(read)) == "instances_val.json: no images: all 3 were dropped"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [[("cat", 0, (0.1, 0.2, 0.5, 0.75))]],
            "1 of 1 boxes are at most 1 px wide or high. All c",
        ),
        ([[("cat", 1, (1, 1, 9, 9))] * 2], "2 of 2 boxes are difficult"),
        ([[], []], "there is none on its images"),
    ],
)
@pytest.mark.parametrize("corners", ["pixels", "edges"])
def test_vocs_form(write_voc, images, message, corners):
    read = data.voc(write_voc(images), "val", corners=corners)
    assert f"/val: {LEFT}: {message}" in str(nothing_to_learn(read))


def test_an_empty_list_of_vocs_form(write_voc):
    folder = write_voc([[("cat", 0, (1, 1, 9, 9))]])
    (folder / "ImageSets/Main/val.txt").write_text("\n")
    (finding,) = data.check_data(data.voc(folder, "val"))
    assert finding.kind == "no images" and not finding.is_warning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.array([[0.1, 0.1, 0.5, 0.9]], "float32")}, "1 of 1 boxes are at most 1 px"),
        ({"ignore": np.array([True])}, "1 of 1 boxes are ignored"),
    ],
)
def test_data_that_no_reader_has_made(files, changes, message):
    read = files([(60, 40)])
    assert nothing_to_learn(read) is None
    changed = [dataclasses.replace(read.examples[0], **changes)]
    changed = dataclasses.replace(read, examples=changed)
    assert f"files: {LEFT}: {message}" in str(nothing_to_learn(changed))
    assert ("fractions" in str(nothing_to_learn(changed))) == ("boxes" in changes)
    assert nothing_to_learn(read.subset([])).kind == "no images"


def test_classes_without_a_box_are_a_warning(write_coco):
    names = "cat", "dog", "elk"
    categories = [{"id": 30 + i, "name": name} for i, name in enumerate(names)]
    read = data.coco(write_coco(categories=categories), "val")
    assert read.class_names == names
    (finding,) = data.check_data(read)
    assert finding.is_warning and str(finding) == (
        "instances_val.json: empty class: 2 of 3 classes have no box to learn from: 'dog', 'elk'"
    )


def test_each_damaged_file_is_named_once_when_it_is_seen(caplog):
    log = DamageLog(num_images=300)
    for name in ("a", "b", "a"):
        log.add(f"{name}.jpg", f"why {name}")
    assert caplog.messages == ["Damaged image: a.jpg: why a", "Damaged image: b.jpg: why b"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_one_damaged_image_never_stops():
    log = DamageLog(num_images=20)
    log.add("a", "why")  # 5 %
    with pytest.raises(TooManyDamagedImages, match="2 of 20"):
        log.add("b", "why")


def test_damage_limit_is_a_share_of_all_images():
    log = DamageLog(num_images=300)
    for name in ("a", "b", "b", "c"):  # 3 of 300 is 1 %, not more
        log.add(name, "why")
    assert list(log.files) == ["a", "b", "c"]
    with pytest.raises(TooManyDamagedImages, match="4 of 300"):
        log.add("d", "why")
