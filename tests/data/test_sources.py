"""From the name of a data set to its format, its splits, and one of them."""

import pytest
from voc_folder import write_voc

from libra_keras import data
from libra_keras.data.sources import find_format, find_splits, is_voc, short_name, usual_split

GOOD = [[(5, 5, 40, 30)], [(10, 3, 30, 40)], [], [(1, 1, 64, 48)]]


def test_finds_format_and_splits_by_layout(tmp_path):
    voc = write_voc(tmp_path / "voc", train=GOOD)
    (voc / "ImageSets/Main/cat_train.txt").write_text("image_0 1")  # a class, not a split
    assert find_format(voc) == "voc"
    assert find_splits(voc) == ["train"]
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text("{}")
    assert find_format(tmp_path / "coco") == "coco"
    assert usual_split(tmp_path / "coco", "auto", "val") == "val2017"
    with pytest.raises(ValueError, match="it has val2017"):
        usual_split(tmp_path / "coco", "auto", "train")


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
    assert data.load("shapes", split, role).summary().startswith(expected)


def test_a_folder_is_read_by_its_path_or_its_name(tmp_path):
    folder = write_voc(tmp_path / "voc", train=GOOD)
    for where in (folder, str(folder)):
        assert data.load(where).summary().startswith("voc/train: 4 images")


@pytest.mark.parametrize(("form", "expected"), [("coco", "instances_<split>"), ("voc", "<split>/")])
def test_a_folder_without_a_split(tmp_path, form, expected):
    for role in ("train", "val"):
        with pytest.raises(
            ValueError, match=f"no split found in {tmp_path} .expected .*{expected}"
        ):
            usual_split(tmp_path, form, role)


def test_corners_are_of_vocs_form(tmp_path):
    folder = write_voc(tmp_path / "voc", train=GOOD)
    first = [data.load(folder, corners=c).examples[0].boxes.tolist() for c in ("pixels", "edges")]
    assert first == [[[4, 4, 40, 30]], [[5, 5, 40, 30]]]
    for where in ("shapes", "tfds:coco/2017"):
        with pytest.raises(ValueError, match=f"--corners is for folders .*{where}"):
            data.load(where, corners="edges")


def test_splits_of_tfds():
    assert find_splits("tfds:voc/2007") == ["train", "validation", "test"]
    assert usual_split("tfds:coco/2017", "auto", "train") == "train"
    assert usual_split("tfds:voc/2007", "auto", "val") == "validation"
    with pytest.raises(ValueError, match="`name` must be one of"):
        usual_split("tfds:mnist", "auto", "val")


def test_annotations_are_for_tfds():
    with pytest.raises(ValueError, match="--annotations is for data of TFDS"):
        data.load("shapes", "1", "val", annotations="a.json")


def test_data_in_vocs_form_are_known(tmp_path):
    folder = str(write_voc(tmp_path / "voc", val=[[(5, 5, 40, 30)]]))
    expected = {folder: True, "shapes": False, "tfds:voc/2012": True, "tfds:coco/2017": False}
    assert {where: is_voc(where) for where in expected} == expected
    assert is_voc(folder, "voc") and not is_voc(folder, "coco")


def test_splits_and_names_of_what_is_no_folder():
    assert find_splits("shapes") == ["train", "val"]
    names = {"tfds:coco/2017": "coco-2017", "data/my_photos": "my_photos", "shapes": "shapes"}
    assert {where: short_name(where) for where in names} == names
