"""`check-data`, and what `train` says before it builds anything, on data with nothing in them."""

import json

import pytest
from PIL import Image
from voc_folder import write_voc

from libra_keras import data
from libra_keras.cli import main
from libra_keras.runs import DataConfig
from libra_keras.runs.inputs import load, load_both

BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [6, 6, 30, 30], "area": 900, "iscrowd": 0}
FRACTIONS = {"bbox": [0.1, 0.1, 0.5, 0.5]}
LEFT = "no boxes: none is left to learn from: 1 of 1 boxes are"
# What is wrong with the only box, the data in whole, or the folder; and what is said of it.
NOTHING = [
    (FRACTIONS, {}, f"{LEFT} at most 1 px wide or high. All coordinates are in 0..1: fractions"),
    ({"iscrowd": 1}, {}, f"{LEFT} crowds"),
    ({}, {"annotations": []}, "no boxes: none is left to learn from: there is none on its images"),
    ({}, {"annotations": [], "images": []}, "no images: there is none in it"),
]


def write_coco(folder, box, changes, splits=("train", "val")):
    for split in splits:
        (folder / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / split / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
            "annotations": [{**BOX, **box}],
            "categories": [{"id": 1, "name": "cat"}],
            **changes,
        }
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("box", "changes", "said"), NOTHING)
def test_data_with_nothing_to_learn_from(tmp_path, capsys, box, changes, said):
    folder = write_coco(tmp_path / "data", box, changes)
    assert main(["check-data", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert printed.count(said) == 2 and "2 finding(s)." in printed
    first = printed.splitlines()[2]
    assert first.startswith(f"  instances_train.json: {said}")
    run = tmp_path / "run"
    assert main(["train", str(folder), "--to", str(run)]) == 1
    assert first in capsys.readouterr().err and not run.exists()
    with pytest.raises(ValueError, match=said.split(":")[0]):  # data that are given
        load_both(DataConfig(), data.coco(folder, "train"), data.shapes(1))


def test_bad_boxes_that_are_all_dropped(tmp_path, capsys):
    folder = write_coco(tmp_path, {"bbox": [6, 6, -3, 3]}, {})
    assert main(["train", str(folder), "--skip-bad"]) == 1
    assert f"{LEFT} bad and were dropped" in capsys.readouterr().err


def test_data_without_a_box_may_be_measured_on_and_proposed_for(tmp_path, capsys):
    folder = write_coco(tmp_path, FRACTIONS, {}, splits=["val"])
    assert len(load(DataConfig(str(folder)), "val", "val")) == 1
    printed = capsys.readouterr().out
    assert LEFT in printed and "/val are meaningless." in printed
    load_both(DataConfig(), data.shapes(3), data.shapes("val", 20).subset([19]))
    printed = capsys.readouterr().out
    assert "shapes/val: no boxes: none is left" in printed
    assert "Numbers measured on shapes/val are meaningless." in printed


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_a_folder_without_a_split(tmp_path, capsys, form):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_annotations.createml.json").write_text("[]")
    for verb in ("check-data", "train"):
        assert main([verb, str(tmp_path), "--format", form]) == 1
        printed = capsys.readouterr()
        assert f"no data found in {tmp_path}, which contains the folders train/" in printed.err
        assert "findings" not in printed.out


def test_an_empty_list(tmp_path, capsys):
    folder = write_voc(tmp_path / "voc", train=[[(5, 5, 40, 30)]], val=[])
    assert main(["check-data", str(folder)]) == 1
    assert "voc/val: no images: there is none in it\n1 finding(s)." in capsys.readouterr().out


def test_images_of_two_splits_are_a_warning(tmp_path, capsys):
    box = [(5, 5, 40, 30)]
    folder = write_voc(tmp_path / "voc", train=[box, box], val=[box], test=[box])
    (folder / "ImageSets/Main/trainval.txt").write_text("image_0\nimage_1\nimage_2")
    assert main(["check-data", str(folder)]) == 0
    assert "No findings." in capsys.readouterr().out
    (folder / "ImageSets/Main/test.txt").write_text("image_1\nimage_3")
    assert main(["check-data", str(folder)]) == 0
    out = capsys.readouterr().out
    for split in ("train", "trainval"):
        shared = "1 of the 2 images of voc/test are also in"
        assert f"warning: {shared} voc/{split}, such as image_1.png\n" in out
    assert out.endswith("0 finding(s) and 2 warning(s).\n")


def test_corners_are_decided_or_said(tmp_path, capsys):
    folder = write_voc(tmp_path / "voc", train=[[(5, 5, 40, 30)]])
    file = folder / "Annotations/image_0.xml"
    mark = "<path>a</path><source><database>Unknown</database></source><size>"
    file.write_text(file.read_text().replace("<size>", mark))
    assert main(["check-data", str(folder)]) == 0
    assert "1 classes (corners: edges (LabelImg))\nNo findings." in capsys.readouterr().out
    assert main(["check-data", str(folder), "--corners", "pixels"]) == 0
    assert "1 classes\nNo findings." in capsys.readouterr().out
    for corners, first in (("auto", 5), ("pixels", 4)):
        read = load(DataConfig(str(folder), corners=corners), "train", "train")
        assert read.examples[0].boxes.tolist() == [[first, first, 40, 30]]
    assert main(["train", "shapes", "--corners", "edges"]) == 1
    assert "--corners only applies to folders in VOC format" in capsys.readouterr().err


def test_augmented_images_are_drawn(tmp_path, capsys):
    folder = write_coco(tmp_path / "data", {}, {})
    file = tmp_path / "pictures" / "seen.png"
    sizes = ["--short-side", "64", "--long-side", "96", "--short-sides", "32,64"]
    command = ["check-data", str(folder), "--show", str(file), "--quarter-turns", *sizes]
    for _ in range(2):  # the second time in the place of the first
        assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"{file}: images of data/train as a model sees them in training" in printed
    with Image.open(file) as picture:  # four by four, each of 64 x 96 or turned or smaller
        assert picture.width <= 4 * 96 + 3 * 8 and picture.width >= 4 * 64 and picture.mode == "RGB"
    for place in ("data/seen.png", "seen", "data"):  # among the photos, no picture, a folder
        assert main([*command, "--show", str(tmp_path / place)]) == 1
        err = capsys.readouterr().err
        assert "--show must" in err and not (tmp_path / "data/seen.png").exists()
    Image.new("RGB", (64, 64)).save(file)
    assert main(command) == 1
    assert "seen.png is no picture of an earlier --show" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_most_pixels_of_an_image_are_an_option(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards
    folder = write_coco(tmp_path / "data", {}, {}, splits=["train"])
    for number, status in (("4094", 1), ("4096", 0)):
        assert main(["check-data", str(folder), "--max-pixels", number]) == status
        said = "(4096 pixels) exceeds limit of 4094 pixels; --max-pixels N allows more"
        assert (said in capsys.readouterr().out) == bool(status)
