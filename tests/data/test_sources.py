"""From the name of a data set to its layout, its splits, and one of them."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from voc_folder import write_voc

from libra_keras import data
from libra_keras.data.sources import find_layout, is_voc, short_name, usual_split

GOOD = [[(5, 5, 40, 30)], [(10, 3, 30, 40)], [], [(1, 1, 64, 48)]]


def write_coco(folder, *splits, images=4, file="annotations/instances_{}.json"):
    """Writes the JSON of `images` images without boxes for each split."""
    for split in splits:
        entries = [{"id": i, "file_name": f"{i}.png"} for i in range(1, images + 1)]
        content = {"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        path = folder / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_usual_splits_in_any_case(tmp_path):
    voc = write_voc(tmp_path / "voc", train=GOOD)
    (voc / "ImageSets/Main/cat_train.txt").write_text("image_0 1")  # a class, not a split
    assert str(find_layout(voc)) == "Pascal VOC: train"
    coco = find_layout(write_coco(tmp_path / "coco", "Train", "val2017", "Test"))
    assert str(coco) == "COCO: Train, val2017, Test"
    assert usual_split(coco, "coco", "train") == "Train"  # as projects of CVAT call it
    assert usual_split(coco, "coco", "val") == "val2017"
    with pytest.raises(
        ValueError, match="name a split of voc with --split, or --val-split .* has train"
    ):
        usual_split(find_layout(voc), "voc", "val")  # nobody measures on `train` unasked


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


def test_a_folder_is_read_by_its_path_or_its_name(tmp_path, monkeypatch):
    folder = write_voc(tmp_path / "voc", train=GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in (folder, str(folder), "~/voc"):
        assert data.load(where).summary().startswith("voc/train: 4 images")
    with pytest.raises(ValueError, match="voc has no split 'test'. It is Pascal VOC: train"):
        data.load(folder, "test")


@pytest.mark.parametrize("form", ["auto", "coco", "voc"])
def test_a_folder_of_no_layout(tmp_path, form):
    """What was found, and what would be read."""
    (tmp_path / "pictures").mkdir()
    for name in ("a.json", "b.json", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError) as told:
        data.load(tmp_path, form=form)
    message = str(told.value)
    assert "2 .json (a.json, b.json), 1 .txt (notes.txt), the folders pictures/" in message
    assert ("voc: Annotations/*.xml" in message) == (form != "coco")
    assert ("coco: annotations/instances_<split>.json" in message) == (form != "voc")
    assert "--annotations" in message and "--images" in message


def test_forms_that_are_not_read(tmp_path):
    with pytest.raises(ValueError, match="must be auto or one of coco, voc, yolo, cvat, csv"):
        data.load(tmp_path, form="pascal")
    (tmp_path / "a.xml").touch()
    with pytest.raises(ValueError, match="in VOC format must be a folder of files"):
        data.load(tmp_path, form="voc", annotations=tmp_path / "a.xml")


def test_two_layouts_that_fit(tmp_path):
    folder = write_voc(write_coco(tmp_path / "both", "train"), train=GOOD)
    message = "COCO: train; and Pascal VOC: train. Choose with --format coco or voc"
    with pytest.raises(ValueError, match=message):
        data.load(folder)
    assert data.load(folder, form="voc").summary().startswith("both/train: 4 images")
    write_coco(folder, "all", file="result.json")
    with pytest.raises(ValueError, match="Label Studio COCO: all. Choose with --annotations FILE"):
        data.load(folder, form="coco")


def test_annotations_and_images_elsewhere(tmp_path):
    voc = write_voc(tmp_path / "voc", train=GOOD)
    pictures = shutil.move(voc / "JPEGImages", tmp_path / "train")
    assert len(data.load(voc, images=tmp_path / "{split}")) == 4
    for number in range(1, 5):
        (pictures / f"image_{number - 1}.png").rename(pictures / f"{number}.png")
    labels = write_coco(tmp_path / "labels", "first", "second", file="{}_boxes.json")
    pattern = str(labels / "{split}_boxes.json")
    assert str(find_layout(tmp_path, annotations=pattern)) == "COCO: first, second"
    read = data.load(tmp_path, "second", annotations=pattern, images=pictures)
    assert len(read) == 4 and read.examples[0].file == pictures / "1.png"
    one = data.load(labels / "first_boxes.json", images=pictures)  # DATA is a file
    assert one.summary().startswith("labels/first_boxes: 4 images")
    for option, given in (("annotations", "none.json"), ("images", "none")):
        with pytest.raises(ValueError, match=f"--{option} must name an existing f.*{given}"):
            data.load(tmp_path, **{"annotations": labels / "first_boxes.json", option: given})


def test_a_file_of_cvat_for_each_split(tmp_path):
    """Without subsets it is the split that its name says; its images lie in DATA."""
    image = '<annotations><image name="{}.png" width="64" height="48" {}/></annotations>'
    for number, split in enumerate(("train", "val")):
        (tmp_path / f"{split}.xml").write_text(image.format(f"image_{number}", ""))
    voc = write_voc(tmp_path / "voc", train=GOOD)
    shutil.move(voc / "JPEGImages", voc / "images")
    options = {"annotations": tmp_path / "{split}.xml", "class_names": ("cat",)}
    for role, name in (("train", "image_0.png"), ("val", "image_1.png")):
        (example,) = data.load(voc, role=role, **options).examples
        assert example.file == voc / "images" / name
    two = '<annotations><image subset="a"/><image subset="b"/></annotations>'
    (tmp_path / "val.xml").write_text(two)
    with pytest.raises(ValueError, match="val.xml has splits of its own, CVAT XML: a, b"):
        data.load(voc, **options)


def test_a_part_of_one_split_to_measure_on(tmp_path):
    """Who goes where depends on the name alone: more images move none of those before them."""
    folder = write_voc(tmp_path / "voc", default=[[(5, 5, 40, 30)]] * 20)
    rare = folder / "Annotations/image_1.xml"  # to measure on, see below
    rare.write_text(rare.read_text().replace("<name>cat<", "<name>rare<"))
    parts = {role: data.load(folder, role=role, val_fraction=0.3) for role in ("train", "val")}
    names = {role: {e.file.name for e in part.examples} for role, part in parts.items()}
    assert len(names["train"]) + len(names["val"]) == 20 and not names["train"] & names["val"]
    # SHA-256 of "JPEGImages/image_0.png" begins with 0xdf32: 0.872, of image_1 with 0x187c: 0.096.
    assert "image_0.png" in names["train"] and "image_1.png" in names["val"]
    assert "have no box to learn from: 'rare'" in str(parts["train"].findings[-1])
    assert parts["val"].summary().startswith("voc/default/val: ")
    assert "val part of 20 images, --val-fraction 0.3" in parts["val"].summary()
    more = write_voc(tmp_path / "more", default=[[(5, 5, 40, 30)]] * 40)
    more = {e.file.name for e in data.load(more, role="val", val_fraction=0.3).examples}
    assert names["val"] == {name for name in more if name in names["train"] | names["val"]}
    spelled = data.load(f"{folder}/../voc", role="val", val_fraction=0.3)
    assert {e.file.name for e in spelled.examples} == names["val"]
    coco = write_coco(tmp_path / "coco", "all", images=20)
    file, images = coco / "annotations/instances_all.json", coco / "images"
    images.mkdir()
    for number in range(1, 21):
        Image.new("RGB", (64, 48)).save(images / f"{number}.png")
    named = {"annotations": file}, {"images": images}
    spellings = [(coco, {}), (file, {}), *((coco, more) for more in named)]
    parts = [data.load(p, role="val", val_fraction=0.3, **more) for p, more in spellings]
    chosen = [[example.image_id for example in part.examples] for part in parts]
    assert chosen[0] and all(ids == chosen[0] for ids in chosen)
    assert parts[0].name == parts[1].name == "coco/all/val"
    for fraction in (0, 1, 20):
        with pytest.raises(ValueError, match="--val-fraction must be between 0 and 1"):
            data.load(folder, val_fraction=fraction)
    with pytest.raises(ValueError, match="leaves none of the 20 images of voc/default to measure"):
        data.load(folder, role="val", val_fraction=1e-9)
    with pytest.raises(ValueError, match="divides the only split.* has train, val"):
        data.load("shapes", val_fraction=0.2)


def test_copies_of_a_photograph_are_not_divided(tmp_path):
    """Roboflow writes augmented ones, `<name>.rf.<hash>.jpg`."""
    folder = write_voc(tmp_path / "voc", default=[[(5, 5, 40, 30)]] * 30)
    hashes = (hashlib.md5(bytes([number])).hexdigest() for number in range(30))
    for number, code in enumerate(hashes):
        for part, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
            old = folder / part / f"image_{number}.{suffix}"
            old.rename(folder / part / f"dog{number // 3}_jpg.rf.{code}.{suffix}")
    shutil.rmtree(folder / "ImageSets")
    parts = (data.load(folder, role=role, val_fraction=0.4) for role in ("train", "val"))
    train, val = ({e.file.name.partition(".")[0] for e in part.examples} for part in parts)
    assert train and val and not train & val


def test_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(write_voc(tmp_path / "voc", train=GOOD).parent))
    assert is_voc("~/voc") and is_voc(Path("~/voc")) and not is_voc("~/other")
    assert str(find_layout("~/voc")) == "Pascal VOC: train"


def test_two_files_of_one_split_are_a_choice(tmp_path):
    folder = write_coco(tmp_path, "train", file="instances_{}.json")
    assert find_layout(folder).splits.keys() == {"train"}
    write_coco(folder, "train")
    with pytest.raises(ValueError, match="two files are of one split: .*Choose one with --anno"):
        find_layout(folder)


def test_options_are_of_their_forms(tmp_path):
    folder = write_voc(tmp_path / "voc", train=GOOD)
    first = [data.load(folder, corners=c).examples[0].boxes.tolist() for c in ("pixels", "edges")]
    assert first == [[[4, 4, 40, 30]], [[5, 5, 40, 30]]]
    named = data.load(folder, class_names=("dog", "cat"))
    assert named.examples[0].labels.tolist() == [1]
    for where in ("shapes", "tfds:coco/2017"):
        with pytest.raises(ValueError, match=f"--corners only applies to folders .*{where}"):
            data.load(where, corners="edges")
        with pytest.raises(ValueError, match=f"--classes only applies to folders .*{where}"):
            data.load(where, class_names=("cat",))
    with pytest.raises(ValueError, match="--annotations only applies to data in files"):
        data.load("shapes", "1", "val", annotations="a.json")


def test_splits_of_tfds():
    voc, coco = (find_layout(f"tfds:{name}") for name in ("voc/2007", "coco/2017"))
    assert list(voc.splits) == ["train", "validation", "test"]
    assert usual_split(coco, "coco", "train") == "train"
    assert usual_split(voc, "voc", "val") == "validation"
    with pytest.raises(ValueError, match="`name` must be one of"):
        find_layout("tfds:mnist")


def test_data_in_vocs_form_are_known(tmp_path):
    folder = str(write_voc(tmp_path / "voc", val=[[(5, 5, 40, 30)]]))
    expected = {folder: True, "shapes": False, "tfds:voc/2012": True, "tfds:coco/2017": False}
    assert {where: is_voc(where) for where in expected} == expected


def test_names_for_runs():
    names = {"tfds:coco/2017": "coco-2017", "data/my_photos": "my_photos", "shapes": "shapes"}
    assert {where: short_name(where) for where in names} == names


def test_images_outside_are_read_where_that_is_allowed(tmp_path):
    folder = write_coco(tmp_path / "coco", "train", images=1)
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    content["images"][0]["file_name"] = "../../elsewhere.png"
    (folder / "annotations/instances_train.json").write_text(json.dumps(content))
    (folder / "train").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "elsewhere.png")
    with pytest.raises(ValueError, match="train.json: file outside: image 1: .* --allow-outside"):
        data.load(folder, "train")
    assert len(data.load(folder, "train", allow_outside=True)) == 1
    refused = "--allow-outside only applies to folders. Received: DATA 'shapes'"
    with pytest.raises(ValueError, match=refused):
        data.load("shapes", allow_outside=True)
