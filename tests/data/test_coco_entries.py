"""Which categories of COCO's JSON are classes."""

import json

import pytest
from PIL import Image

from libra_keras import data

# As Roboflow writes them: the project, then its classes.
FRUITS = [
    {"id": 0, "name": "fruits", "supercategory": "none"},
    {"id": 1, "name": "apple", "supercategory": "fruits"},
    {"id": 2, "name": "plum", "supercategory": "fruits"},
]


def write_json(file, used, categories=FRUITS):
    """Writes a JSON of one image beside it, with a box of each category that is used."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(file.parent / "a.png")
    boxes = [
        {"id": i, "image_id": 1, "category_id": category, "bbox": [9, 9, 20, 20]}
        for i, category in enumerate(used, 1)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return file


def read_json(file):
    return data.coco(annotation_file=file, image_folder=file.parent)


def test_the_group_of_all_classes_is_none(tmp_path):
    read = read_json(write_json(tmp_path / "train/_annotations.coco.json", [1, 2]))
    assert read.class_names == ("apple", "plum") and read.category_ids == (1, 2)
    assert [entry["id"] for entry in read.annotations["categories"]] == [1, 2]
    assert read.examples[0].labels.tolist() == [0, 1] and read.counts == {}
    (finding,) = data.check_data(read)
    assert finding.is_warning and finding.message == (
        "category 0, 'fruits', is left out: it has no box in any split, and is the supercategory "
        "of 'apple', 'plum'"
    )


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("annotations/instances_train.json", "annotations/instances_val.json"),
        ("train.json", "val.json"),
    ],
)
@pytest.mark.parametrize("used", [[2], [0, 1]])
def test_all_splits_have_the_same_classes(tmp_path, train, val, used):
    """A plum in val alone, or a fruit that is no more than that."""
    files = write_json(tmp_path / train, [1]), write_json(tmp_path / val, used)
    expected = ("fruits", "apple", "plum") if 0 in used else ("apple", "plum")
    assert [read_json(file).class_names for file in files] == [expected] * 2


def test_another_file_that_is_no_split_changes_nothing(tmp_path):
    file = write_json(tmp_path / "mine.json", [1, 2])
    (tmp_path / "other.json").write_text("[1]")
    assert read_json(file).class_names == ("apple", "plum")


@pytest.mark.parametrize(
    "person",
    [
        {"id": 0, "name": "person", "supercategory": "person"},  # COCO's own
        {"id": 0, "name": "person", "supercategory": "none"},
        {"id": 0, "name": "person"},
    ],
)
def test_other_classes_without_a_box_are_kept(tmp_path, person):
    read = read_json(write_json(tmp_path / "a.json", [1], [person, {"id": 1, "name": "cat"}]))
    assert read.class_names == ("person", "cat")
    assert [finding.kind for finding in read.findings] == ["empty class"]


def test_a_project_of_the_name_of_its_class(tmp_path):
    cats = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cat"},
    ]
    assert read_json(write_json(tmp_path / "a.json", [1], cats)).category_ids == (1,)


def test_categories_of_mixed_types(write_coco):
    folder = write_coco(categories=[{"id": 30, "name": "cat"}, {"id": "7", "name": "dog"}])
    with pytest.raises(ValueError, match=r"category: categories\[1\] \('dog'\): its id, '7'"):
        data.coco(folder, "val")
    assert data.coco(folder, "val", skip_bad=True).class_names == ("cat",)


@pytest.mark.parametrize("ids", [(7, 30), (30, 7)])
def test_categories_of_one_name(write_coco, ids):
    # The boxes are of category 30: it stays, wherever the file has it.
    folder = write_coco(categories=[{"id": i, "name": "cat"} for i in ids])
    with pytest.raises(ValueError, match="category 7: its name, 'cat', is also that of 30"):
        data.coco(folder, "val")
    read = data.coco(folder, "val", skip_bad=True)
    assert read.category_ids == (30,) and read.counts == {}
    assert read.annotations["categories"] == [{"id": 30, "name": "cat"}]


def test_a_category_without_a_name(write_coco):
    folder = write_coco(categories=[{"id": 30, "name": ""}, {"id": 7, "name": "dog"}])
    with pytest.raises(ValueError, match="category 30: its name is ''"):
        data.coco(folder, "val")
    read = data.coco(folder, "val", skip_bad=True)
    assert read.class_names == ("dog",) and read.counts == {"dropped_boxes": 3}
    assert read.annotations["categories"] == [{"id": 7, "name": "dog"}]
