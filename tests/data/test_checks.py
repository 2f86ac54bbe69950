"""Checks of data sets that are already read."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from libra_keras import data
from libra_keras.data import checks


def test_sound_data_have_no_findings(files):
    assert data.check_annotations(files([(60, 40)] * 3)) == []
    assert data.check_data(files([(60, 40)] * 3)) == []


def test_each_kind_is_found_and_named(files):
    read = files([(60, 40)] * 4)
    boxes = np.array([[5, 5, 5, 9], [np.inf, 0, 5, 5], [60, 0, 70, 9], [1, 1, 9, 9]], "float32")
    bad = dataclasses.replace(
        read.examples[1],
        boxes=boxes,
        labels=np.array([0, 0, 0, 2], "int32"),
        ignore=np.zeros(4, bool),
    )
    twice = dataclasses.replace(read.examples[3], image_id=1)
    read = dataclasses.replace(read, examples=[*read.examples[:1], bad, read.examples[2], twice])
    found = data.check_annotations(read)
    assert [(finding.kind, finding.box) for finding in found] == [
        ("image id", None),
        ("degenerate box", 0),
        ("not a number", 1),
        ("box outside", 2),
        ("class", 3),
    ]
    where, message = str(found[1]).split(": ", 1)
    assert where.endswith("001.png, box 0")
    assert message == "degenerate box: (5, 5, 5, 9) has x2 <= x1 or y2 <= y1"
    assert "label 2 is not one of 0..1" in found[4].message


def test_progress_is_shown(files, capsys):
    data.check_data(files([(60, 40)] * 2), verbose=1)
    assert "2/2" in capsys.readouterr().out


def test_rotation_is_a_warning(files):
    read = files([(60, 40)])
    exif = Image.Exif()
    exif[checks.ORIENTATION_TAG] = 6
    path = read.examples[0].file.with_suffix(".jpg")
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    read.examples[0] = dataclasses.replace(read.examples[0], file=path)
    (finding,) = data.check_annotations(read)
    assert finding.kind == "rotation" and finding.is_warning
    assert "save the images rotated" in finding.message


def test_an_image_that_is_named_twice(write_coco):
    folder = write_coco()
    file = folder / "instances_val.json"
    content = json.loads(file.read_text())
    content["images"][2]["file_name"] = "./1.png"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1.png: duplicate image: .* id 3, and with the id 1"):
        data.coco(folder, "val")
    read = data.coco(folder, "val", skip_bad=True)
    assert [example.image_id for example in read.examples] == [1, 2]
    assert read.counts == {"dropped_images": 1}


def test_findings_of_the_reader_are_kept_once(write_coco):
    folder = write_coco()
    (folder / "val/1.png").unlink()
    read = data.coco(folder, "val", skip_bad=True)
    assert [finding.kind for finding in data.check_data(read)] == ["missing file"]


def test_headers_are_read_once(write_coco, monkeypatch):
    opened, read_header = [], checks._read_header
    monkeypatch.setattr(checks, "_read_header", lambda f: (opened.append(f), read_header(f))[1])
    folder = write_coco(num_images=3)
    Image.new("RGB", (10, 10)).save(folder / "val/2.png")
    read = data.coco(folder, "val", skip_bad=True)
    assert [finding.kind for finding in data.check_data(read)] == ["image size"]
    assert len(opened) == 3
    read = data.coco(folder, "val", check_files=False)
    assert [f.kind for f in data.check_annotations(read)] == ["image size"] and len(opened) == 6


def test_photographs(photographs):
    assert data.check_data(data.voc(photographs("bccd"), "test")) == []


def test_a_size_that_exif_swaps_is_explained(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    example = SimpleNamespace(file=tmp_path / "a.jpg", height=60, width=40)
    ((_, finding),) = checks.header_findings([example], checks.read_headers([example]))
    assert finding.kind == "image size" and "EXIF orientation 6 rotates it" in finding.message
    example.width = 41
    ((_, finding),) = checks.header_findings([example], checks.read_headers([example]))
    assert "EXIF" not in finding.message


def test_images_with_more_objects_than_are_given_out_are_a_warning():
    read = data.shapes(2)
    example = read.examples[0]
    for count, said in ((100, []), (101, ["1 of 2 images have more than 100 (maximum: 101)"])):
        many = dataclasses.replace(
            example,
            boxes=np.tile(np.float32([1, 1, 9, 9]), (count, 1)),
            labels=np.zeros(count, "int32"),
            ignore=np.zeros(count, bool),
        )
        found = data.check_data(dataclasses.replace(read, examples=[many, read.examples[1]]))
        assert [finding.message.split(":", 1)[0] for finding in found] == [
            words.split(":", 1)[0] for words in said
        ]
        assert all(
            finding.is_warning and words in str(finding)
            for finding, words in zip(found, said, strict=True)
        )
