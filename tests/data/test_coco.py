"""The reader of COCO's JSON."""

import math

import numpy as np
import pytest
from PIL import Image

from libra_keras import data


def row(**changes):
    base = {"id": 1, "image_id": 1, "category_id": 30, "bbox": [10, 5, 20, 10]}
    return {**base, "area": 200.0, "iscrowd": 0, **changes}


def test_reads_boxes_and_labels(write_coco):
    categories = [{"id": 30, "name": "cat"}, {"id": 7, "name": "dog"}]
    rows = [row(), row(id=2, image_id=3, category_id=7)]
    read = data.coco(write_coco(categories=categories, annotations=rows), "val")
    assert read.class_names == ("dog", "cat") and read.category_ids == (7, 30)
    assert [e.labels.tolist() for e in read.examples] == [[1], [], [0]]  # ids ascending
    np.testing.assert_array_equal(read.examples[0].boxes, [[10, 5, 30, 15]])
    assert read.name == "val" and len(read) == 3 and read.counts == {} and read.findings == []
    assert read.read_image(2)[0, 0, 2] == 3


@pytest.mark.parametrize("layout", ["annotations", "explicit"])
def test_layouts(write_coco, layout):
    folder = write_coco()
    json_file, images = folder / "instances_val.json", folder / "val"
    if layout == "explicit":
        read = data.coco(annotation_file=str(json_file), image_folder=str(images))
    else:
        (folder / "annotations").mkdir()
        json_file.rename(folder / "annotations" / json_file.name)
        (folder / "images").mkdir()
        images.rename(folder / "images" / "val")
        read = data.coco(folder, "val")
    assert len(read) == 3


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="instances_val.json"):
        data.coco(tmp_path, "val")
    with pytest.raises(ValueError, match="image_folder"):
        data.coco(annotation_file="a.json")


def test_crowds_are_ignored_but_kept_for_evaluation(write_coco):
    read = data.coco(write_coco(annotations=[row(), row(id=2, iscrowd=1)]), "val")
    assert read.examples[0].ignore.tolist() == [False, True] and read.examples[0].num_boxes == 1
    assert [a["iscrowd"] for a in read.annotations["annotations"]] == [0, 1]


def test_boxes_are_clipped_for_training_only(write_coco):
    read = data.coco(write_coco(annotations=[row(bbox=[50, 30, 20, 20])]), "val")
    np.testing.assert_array_equal(read.examples[0].boxes, [[50, 30, 60, 40]])
    assert read.annotations["annotations"][0]["bbox"] == [50, 30, 20, 20]
    assert read.counts == {"clipped_boxes": 1}


# The first two are COCO's own, of train2017 as it was published. The last lies on the border.
@pytest.mark.parametrize(
    "bbox", [[296.65, 388.33, 1.03, 0.0], [9.98, 188.56, 15.52, 0.0], [5, 5, 0, 9], [640, 5, 0, 9]]
)
def test_a_box_without_height_or_width_is_a_speck(write_coco, bbox):
    images = [{"id": 1, "file_name": "1.png", "height": 480, "width": 640}]
    folder = write_coco(images=images, annotations=[row(), row(id=918, bbox=bbox)])
    Image.new("RGB", (640, 480)).save(folder / "val/1.png")
    read = data.coco(folder, "val")
    np.testing.assert_array_equal(read.examples[0].boxes, [[10, 5, 30, 15]])
    assert read.counts == {"boxes_of_at_most_1_px": 1}
    # As of other specks, the evaluation has the JSON's own; here there is a warning besides.
    assert [a["id"] for a in read.annotations["annotations"]] == [1, 918]
    (finding,) = data.check_data(read)
    assert finding.is_warning and "annotation 918: empty box: " in str(finding)
    assert "has a side of 0 and is left out" in finding.message


def test_with_bad_boxes_dropped_those_without_a_side_stay_in_the_json(write_coco):
    rows = [row(), row(id=2, bbox=[5, 5, 0, 9]), row(id=3, bbox=[5, 5, -1, 9])]
    read = data.coco(write_coco(annotations=rows), "val", skip_bad=True)
    assert read.counts == {"boxes_of_at_most_1_px": 1, "dropped_boxes": 1}
    assert [a["id"] for a in read.annotations["annotations"]] == [1, 2]


def test_annotations_are_completed_for_pycocotools(write_coco):
    rows = [{"image_id": 1, "category_id": 30, "bbox": [1, 2, 3, 4]}] * 2
    read = data.coco(write_coco(annotations=rows), "val")
    assert [(a["id"], a["area"], a["iscrowd"]) for a in read.annotations["annotations"]] == [
        (1, 12.0, 0),
        (2, 12.0, 0),
    ]
    # An id of 0 stands for "unmatched" inside pycocotools.
    read = data.coco(write_coco(annotations=[row(id=0), row(id=5)]), "val")
    assert [a["id"] for a in read.annotations["annotations"]] == [1, 2]


# What of them are no boxes, tests/hostile/test_coco.py draws; here is what is said.
BAD_ROWS = [
    ({"bbox": [10, 5, 10, -1]}, r"degenerate box: bbox \[10, 5, 10, -1\] has a negative side"),
    ({"bbox": [70, 5, 0, 10]}, "box outside"),
    ({"bbox": [10, math.nan, 10, 10]}, r"not a number: its bbox is \[10, nan, 10, 10\]"),
    ({"bbox": [10, 5, 10]}, r"not a number: its bbox is \[10, 5, 10\], not four numbers"),
    ({"bbox": ...}, 'not a number: it has no "bbox"'),
    ({"bbox": [-20, 5, 10, 10]}, r"box outside: bbox \[-20, 5, 10, 10\] lies outside the 60x40"),
    ({"image_id": "1"}, "image id: there is no image with id '1'"),
    ({"image_id": ...}, 'image id: it has no "image_id"'),
    ({"category_id": "30"}, "class: category id '30' is not one"),
    ({"category_id": ...}, 'class: it has no "category_id"'),
    ({"area": -9}, "not a number: its area is -9, not a number of pixels"),
    ({"iscrowd": "0"}, "not a number: its iscrowd is '0'"),
]


@pytest.mark.parametrize(("change", "kind"), BAD_ROWS)
def test_bad_boxes_are_named_or_dropped(write_coco, change, kind):
    bad = {key: v for key, v in row(id=5, **change).items() if v is not ...}
    folder = write_coco(annotations=[row(id=4), bad])
    with pytest.raises(ValueError, match=f"annotation 5: {kind}") as error:
        data.coco(folder, "val")
    assert ("1.png" in str(error.value)) != kind.startswith("image id")
    read = data.coco(folder, "val", skip_bad=True)
    assert read.counts == {"dropped_boxes": 1}
    assert [f.kind for f in read.findings] == [kind.split(":")[0]]
    assert sum(example.num_boxes for example in read.examples) == 1
    assert [a["id"] for a in read.annotations["annotations"]] == [4]


BAD_IMAGES = [
    ({"id": "abc"}, r"image id: images\[1\]: its id, 'abc'"),
    ({"id": ...}, r"entry: images\[1\]: it has no id: {'file_name': '2.png'"),
    ({"file_name": None}, r"missing file: images\[1\]: the file_name of image 2, None"),
    ({"height": math.nan}, r"image size: images\[1\]: the height of 2\.png, nan"),
]


@pytest.mark.parametrize(("change", "message"), BAD_IMAGES)
def test_bad_entries_of_images_are_named_or_dropped(write_coco, change, message):
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (1, 2, 3)]
    images[1] = {key: v for key, v in (images[1] | change).items() if v is not ...}
    folder = write_coco(images=images)
    with pytest.raises(ValueError, match=f"instances_val.json: {message}"):
        data.coco(folder, "val")
    read = data.coco(folder, "val", skip_bad=True)
    assert [example.image_id for example in read.examples] == [1, 3]
    assert read.counts["dropped_images"] == 1
    # Boxes of an image that is known, and dropped, go with it; the others have no image.
    assert ("dropped_boxes" in read.counts) == ("id" in change)
    assert [i["id"] for i in read.annotations["images"]] == [1, 3]
    assert [a["image_id"] for a in read.annotations["annotations"]] == [1, 3]


def test_null_is_absent(write_coco):
    images = [{"id": 1, "file_name": "1.png", "height": 40, "width": None}]
    rows = [row(area=None, iscrowd=None, ignore=None)]
    read = data.coco(write_coco(images=images, annotations=rows), "val")
    assert (read.examples[0].height, read.examples[0].width) == (40, 60)
    (kept,) = read.annotations["annotations"]
    assert (kept["area"], kept["iscrowd"]) == (200.0, 0)


def test_duplicate_image_ids(write_coco):
    images = [
        {"id": 1, "file_name": f"{name}.png", "height": 40, "width": 60} for name in ("1", "2")
    ]
    folder = write_coco(images=images, annotations=[row()])
    with pytest.raises(ValueError, match=r"2\.png: image id: id 1 is also the id of .*1\.png"):
        data.coco(folder, "val")
    read = data.coco(folder, "val", skip_bad=True)
    assert read.counts == {"dropped_images": 1}
    assert [image["file_name"] for image in read.annotations["images"]] == ["1.png"]
    assert [example.num_boxes for example in read.examples] == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "instances_val.json cannot be read: Expecting"),
        ("[]", r"Received: \[\]"),
        ('{"images": [], "annotations": {}}', "annotations.*categories"),
        (
            '{"images": [' + "[" * 10**5,
            "instances_val.json cannot be read: it is nested too deeply",
        ),
    ],
)
def test_a_file_that_is_not_cocos(write_coco, text, message):
    folder = write_coco()
    (folder / "instances_val.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        data.coco(folder, "val", skip_bad=True)


def test_bad_files(write_coco):
    folder = write_coco(num_images=4)
    (folder / "val/1.png").unlink()
    (folder / "val/2.png").write_bytes(b"nothing")
    Image.new("RGB", (40, 60)).save(folder / "val/3.png")
    with pytest.raises(ValueError) as error:
        data.coco(folder, "val")
    for text in ("1.png: missing file", "2.png: unreadable file", "3.png: image size"):
        assert text in str(error.value)
    read = data.coco(folder, "val", skip_bad=True)
    assert [example.image_id for example in read.examples] == [4]
    assert [a["image_id"] for a in read.annotations["annotations"]] == [4]
    assert len(data.coco(folder, "val", check_files=False)) == 4


def test_sizes_that_are_not_annotated_come_from_the_files_in_any_case(write_coco):
    images = [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)]
    images[1] |= {"height": None, "width": 0}
    folder = write_coco(num_images=2, images=images)
    read = data.coco(folder, "val", check_files=False)
    assert [(e.height, e.width, e.num_boxes) for e in read.examples] == [(40, 60, 1)] * 2
    (folder / "val/1.png").unlink()
    with pytest.raises(
        ValueError, match="1.png: image size: neither the annotation nor the file has height and"
    ):
        data.coco(folder, "val", check_files=False)
    read = data.coco(folder, "val", skip_bad=True, check_files=False)
    assert [e.image_id for e in read.examples] == [2] and read.counts == {"dropped_images": 1}


def test_the_error_lists_ten_and_counts_all(write_coco):
    rows = [row(id=i, bbox=[1, 1, -1, 5]) for i in range(1, 31)]
    with pytest.raises(ValueError, match=r"30 in total: 30 x degenerate box") as error:
        data.coco(write_coco(annotations=rows), "val")
    assert str(error.value).count("annotation ") == 10


def test_coco_photographs(photographs):
    read = data.coco(photographs("coco_mini"), "train2017")
    assert len(read) == 85 and read.num_classes == 80
    assert read.class_names[0] == "person" and read.category_ids[-1] == 90
    crowds = sum(int(example.ignore.sum()) for example in read.examples)
    assert crowds == 6 and sum(len(example.boxes) for example in read.examples) == 764
    assert sum(example.num_boxes == 0 for example in read.examples) >= 1
