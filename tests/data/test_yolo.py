"""The reader of YOLO's form: lines, label files, and the paths in a YAML."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from libra_keras import data
from libra_keras.data.yolo import find, from_place

NAMES = "names: [cat, dog]\n"


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes text files, and 60 x 40 images where there is no text."""

    def write(files, top="pets"):
        for name, text in files.items():
            file = tmp_path / top / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                Image.new("RGB", (60, 40)).save(file)
            else:
                file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / top

    return write


@pytest.fixture
def labels(folder):
    """Returns a function that writes a data set of one image with such labels."""

    def write(text, yaml=""):
        files = {"images/a.png": None, "labels/a.txt": text}
        return folder({**files, "data.yaml": f"train: images\n{NAMES}{yaml}"})

    return write


def test_boxes_are_fractions_of_the_image(labels):
    read = data.yolo(labels("1 0.5 0.5 0.2 0.4\n\n0.0 .1 .1 .1 .1"))
    # 60 x 40: centers (30, 20) and (6, 4), sides 12 x 16 and 6 x 4.
    np.testing.assert_allclose(read.examples[0].boxes, [[24, 12, 36, 28], [3, 2, 9, 6]], atol=1e-5)
    assert read.examples[0].labels.tolist() == [1, 0] and read.class_names == ("cat", "dog")
    assert (read.examples[0].image_id, read.examples[0].width) == (1, 60)
    assert read.annotations["annotations"][0]["category_id"] == 2
    assert read.headers_checked and data.check_annotations(read) == read.findings == []


def test_a_polygon_becomes_the_box_around_it(labels):
    read = data.yolo(labels("0 .1 .2 .5 .1 .4 .6 .2 .5"))
    np.testing.assert_allclose(read.examples[0].boxes, [[6, 4, 30, 24]], atol=1e-5)
    assert "1 polygons as boxes" in read.summary()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 .5 .5 .2", "entry: '0 .5 .5 .2': 4 numbers"),
        ("0 .1 .1 .2 .2 .3 .3", "entry: .*: 7 numbers"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "entry: .*: 8 numbers"),
        ("0 .5 .5 .2 x", "not a number: '0 .5 .5 .2 x': its field 5 is not a number"),
        ("0 .5 .5 .2 nan", "not a number: .*its field 5 is not a number"),
        ("2 .5 .5 .2 .2", "class: .*: class 2 is not one of 0..1"),
        ("-1 .5 .5 .2 .2", "class: .*: class -1 is"),
        ("0.5 .5 .5 .2 .2", "class: .*: class 0.5 is"),
        ("0 .5 .5 1.02 .2", "box outside: .*fractions"),
        ("0 -.02 .5 .1 .2", "box outside: .*fractions"),
        ("0 30 20 12 16", "box outside: .*fractions"),
    ],
)
def test_a_bad_line_is_named_or_dropped(labels, line, problem):
    where = labels(f"0 .5 .5 .2 .2\n{line}\n")
    with pytest.raises(ValueError, match=rf"1 thing\(s\)[\s\S]*labels/a.txt, line 2: {problem}"):
        data.yolo(where)
    read = data.yolo(where, skip_bad=True)
    assert read.counts == {"dropped_boxes": 1} and read.examples[0].num_boxes == 1


def test_rounding_is_clipped_and_counted(labels):
    # The right edge is at 0.5 + 1.008 / 2 = 1.004, 60.24 px.
    read = data.yolo(labels("0 .5 .5 1.008 .5"))
    np.testing.assert_allclose(read.examples[0].boxes, [[0, 10, 60, 30]], atol=1e-4)
    assert read.counts == {"clipped_boxes": 1}


def test_findings_of_boxes_show_their_line(labels):
    read = data.yolo(labels("0 .5 .5 .2 .2\n1 .5 .5 0 .2"))
    assert [str(f).split("a.png, ")[1] for f in read.findings if f.kind == "empty box"] == [
        "line 2: empty box: 1 .5 .5 0 .2 has a side of 0 and is left out, like all of at most 1 px"
    ]
    with pytest.raises(ValueError, match=r"a\.png, line 1: degenerate box: 0 .5 .5 -.01 .2 has"):
        data.yolo(labels("0 .5 .5 -.01 .2"))


def test_a_sixth_number_is_a_confidence(labels):
    read = data.yolo(labels("0 .5 .5 .2 .2\n1 .5 .5 .2 .2 .9\n1 .4 .5 .2 .2 .8"))
    assert read.examples[0].num_boxes == 3
    (finding,) = read.findings
    assert finding.is_warning and "are these predictions?" in finding.message
    assert finding.message.startswith("2 lines") and finding.box == "line 2"


def test_points_of_a_pose_are_left_out(labels):
    read = data.yolo(labels("0 .5 .5 .2 .4 .1 .1 2 .2 .2 0\n", yaml="kpt_shape: [2, 3]\n"))
    np.testing.assert_allclose(read.examples[0].boxes, [[24, 12, 36, 28]], atol=1e-5)


def test_equal_lines_are_one_box(labels):
    read = data.yolo(labels("0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 0.50 .5 .2 .2"))
    assert read.examples[0].labels.tolist() == [0, 1] and read.counts == {"duplicate_lines": 1}


def test_images_and_label_files_without_each_other(folder):
    files = {"data.yaml": f"train: images\n{NAMES}", "labels/d/b.txt": "", "labels/a.txt": "1 1"}
    files |= {"labels/n.txt": "\xff".encode("latin-1"), "labels/classes.txt": "cat"}
    files |= dict.fromkeys(["images/c.png", "images/d/b.png", "images/n.png", "images/._c.png"])
    with pytest.raises(ValueError, match=r"2 thing\(s\)") as error:
        data.yolo(folder(files))
    assert "labels/a.txt: missing file: it is a label file" in str(error.value)
    assert "labels/n.txt: unreadable file: 'utf-8'" in str(error.value)
    read = data.yolo(folder(files), skip_bad=True)
    assert [example.file.name for example in read.examples] == ["c.png", "b.png"]
    assert read.counts == {"dropped_images": 2, "images_without_a_label_file": 1}


def test_missing_and_broken_images(folder):
    files = {"data.yaml": f"train: train.txt\n{NAMES}", "train.txt": "images/a.png\nimages/b.png"}
    with pytest.raises(ValueError) as error:
        data.yolo(folder({**files, "images/b.png": b"no image"}))
    assert "a.png: missing file" in str(error.value)
    assert "b.png: unreadable file" in str(error.value)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/x",
        "train: ./images/x/",
        "path: /of/another/machine\ntrain: images\\x",
        "path: ../elsewhere\ntrain: ../images/x",
        "path: images\ntrain: x",
        "path: .\ntrain: [images/y, images/x]",
        "train: lists/train.txt",
        "path: null\ntrain: {folder}/images/x",
    ],
)
def test_paths_of_a_yaml(folder, yaml):
    lines = "images/x/a.png\n\n./images/x/b.png\ndata/images/x/c.png\n"
    files = {f"images/x/{name}.png": None for name in "abc"}
    files |= {"images/y/d.png": None, "lists/train.txt": lines, "labels/x/b.txt": "0 .5 .5 .2 .2"}
    where = folder(files)
    (where / "data.yaml").write_text(yaml.format(folder=where) + f"\ntest: no/such\n{NAMES}")
    assert list(find(where).splits) == ["train"]  # the other leads nowhere, and is not needed
    names = [example.file.name for example in data.yolo(where).examples]
    assert names == ["a.png", "b.png", "c.png"] + ["d.png"] * ("[" in yaml)
    read = data.yolo(where / "data.yaml")
    assert [example.num_boxes for example in read.examples[:3]] == [0, 1, 0]


def test_a_path_that_leads_nowhere(folder):
    where = folder({"data.yaml": f"path: of/others\nval: ../val/images\n{NAMES}"})
    with pytest.raises(FileNotFoundError) as error:
        data.yolo(where, "val")
    assert f"{where}/data.yaml: val: '../val/images' does not exist" in str(error.value)
    assert f"{where}/of/val/images, {where.parent}/val/images, " in str(error.value)
    assert str(error.value).endswith(f"{where}/val/images")
    with pytest.raises(ValueError, match="no split 'train'. It is Ultralytics YOLO: val"):
        data.yolo(where)


def test_an_export_above_another_is_not_read_in_its_place(folder):
    """Roboflow's paths go up once too often, where an archive unpacked before may lie."""
    yaml = f"train: ../train/images\nroboflow: {{}}\n{NAMES}"
    where = folder({"train/images/own.png": None, "data.yaml": yaml})
    (where.parent / "train/images").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(where.parent / "train/images/other.png")
    assert [example.file.name for example in data.yolo(where).examples] == ["own.png"]


def test_a_list_in_the_current_folder(folder, monkeypatch):
    files = {"data.yaml": f"train: train.txt\n{NAMES}", "images/a.png": None}
    monkeypatch.chdir(folder({**files, "train.txt": "\n./images/a.png\n", "labels/a.txt": ""}))
    read = data.yolo(".")
    assert len(read) == 1 and read.counts == {}


def test_a_list_leads_to_the_data_set_only(folder):
    folder({"secret.png": None}, top="other")
    files = {"data.yaml": f"train: train.txt\n{NAMES}", "images/a.png": None}
    lines = "../other/secret.png\n/etc/a.png\nimages/a.png\n./images/a.png\n"
    where = folder({**files, "train.txt": lines})
    with pytest.raises(ValueError) as error:
        data.yolo(where)
    assert "train.txt: file outside: line 1: '../other/secret.png' leads out" in str(error.value)
    assert "line 2: '/etc/a.png' leads out of" in str(error.value)
    assert "a.png: duplicate image: line 4: it is also listed in line 3" in str(error.value)
    allowed = data.yolo(where, skip_bad=True, allow_outside=True)
    assert [example.file.name for example in allowed.examples] == ["secret.png", "a.png"]
    # A YAML may name any folder, which is then one of the data set.
    (where / "data.yaml").write_text(f"path: {where.parent}\ntrain: pets/train.txt\n{NAMES}")
    read = data.yolo(where, skip_bad=True)
    assert [example.file.name for example in read.examples] == ["secret.png", "a.png"]


def test_names_of_classes(folder):
    files = {"images/a.png": None, "labels/a.txt": "1 .5 .5 .2 .2"}

    def names(yaml, class_names=None):
        where = folder({**files, "data.yaml": f"train: images\n{yaml}"})
        return data.yolo(where, class_names=class_names).class_names

    assert names("names:\n  1: no\n  0: 1.0\nnc: 2") == ("1.0", "no")  # no numbers, no booleans
    assert names("names: [a, b]", ["cat", "dog"]) == ("cat", "dog")
    for yaml in ("", "names: cat", "names: {0: a, 2: b}", "names: [a, [b]]", "names: []"):
        with pytest.raises(ValueError, match=r"data.yaml: expected `names`.*--classes"):
            names(yaml)
    with pytest.raises(ValueError, match="data.yaml: nc is '3', but there are 2 names"):
        names(f"nc: 3\n{NAMES}")
    with pytest.raises(ValueError, match="data.yaml: names of classes must differ"):
        names("names: [a, a]")


def test_a_yaml_of_something_else(folder):
    assert find(folder({"data.yaml": "a: 1\nval: {b: 2}\n"})) is None
    assert find(folder({"data.yaml": "- a\n"})) is None
    with pytest.raises(ValueError, match=r"pets/data.yaml cannot be read: .*line 2"):
        find(folder({"data.yaml": "train: a\n\tval: b"}))
    # Lists of lists, 9 ** 9 of them if they were written out.
    nines = [", ".join([f"*a{i}"] * 9) for i in range(9)]
    bomb = "".join(f"a{i}: &a{i} [{each}]\n" for i, each in enumerate(nines, 1))
    where = folder({"data.yaml": f"a0: &a0 [x]\n{bomb}names: *a9\ntrain: .\nnc: *a9"})
    with pytest.raises(ValueError, match="expected `names`"):
        data.yolo(where)


def test_images_in_another_folder(folder):
    # CVAT exports labels without their images; those of both splits lie in one folder.
    photos = folder(dict.fromkeys(["a.png", "d/b.png", "c.png"]), top="photos")
    files = {"labels/train/a.txt": "0 .5 .5 .2 .2", "labels/train/d/b.txt": ""}
    yaml = f"train: images/train\nval: val.txt\n{NAMES}"
    where = folder({**files, "data.yaml": yaml, "val.txt": "data/images/val/c.png"})
    for split, names in (("train", ["a.png", "b.png"]), ("val", ["c.png"])):
        place = dataclasses.replace(find(where).splits[split], images=(photos,))
        read = from_place(place, split)
        assert [example.file.name for example in read.examples] == names
    assert read.counts == {"images_without_a_label_file": 1}
    place = dataclasses.replace(find(where).splits["train"], images=(photos,))
    assert from_place(place, "train").counts == {"images_left_out_for_want_of_a_label_file": 1}


def test_other_layouts(folder):
    with pytest.raises(FileNotFoundError, match="Expected a YOLO data set: data.yaml or"):
        data.yolo(folder({"images/a.png": None}))
    files = {"classes.txt": "cat\ndog\n\n", "images/a.png": None, "labels/a.txt": "1 .5 .5 .2 .2"}
    where = folder({**files, "labels/b.txt": ""}, top="studio")
    with pytest.raises(ValueError, match="labels/b.txt: missing file"):
        data.yolo(where, "all")
    with pytest.raises(ValueError, match=r"classes.txt: expected a name per line.*--classes"):
        data.yolo(folder({"classes.txt": "cat\n\ndog"}, top="studio"), "all")
    files = {"obj.names": "cat\ndog", "obj_x_data/a.png": None, "obj_x_data/a.txt": "1 .5 .5 .2 .2"}
    read = data.yolo(folder(files, top="cvat"), "x")  # no list of images
    assert read.examples[0].num_boxes == 1 and read.class_names == ("cat", "dog")
